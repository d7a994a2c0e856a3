"""ask / tell / recommend: Algorithm 2 around a journal.

    plan = tuner.ask()                 what to serve next hour
    tuner.tell(hz.Readings(...))       what has arrived, late, in pieces, revised
    best = tuner.recommend()           what to promote

A tuner holds nothing that the journal does not: it can be killed anywhere and started again on the
same journal, and several may share one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    ConfigError,
    ReadingsError,
    RoundError,
    StudyMismatchError,
    TunerWarning,
)
from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study.compaction import CompactionSummary, compact
from ..study.config import TunerConfig
from ..study.decisions import RETIRED, STOPPED, TRANSFER
from ..study.evidence.bucket import Bucket
from ..study.history import History
from ..study.interventions import reinstate, remark, roll_back, set_aside
from ..study.journal import Configured, Entry, Journal, Planned, open_journal
from ..study.plan import Plan
from ..study.readings import Readings
from ..study.study import Study
from ..surrogate import Posterior
from ..transfer import journaled
from ..transfer.alignment import align
from ..transfer.overrides import ExpertOverride
from ..transfer.source import Source
from .explain import Explanation, explain
from .model import FitCache, ModelState, learn, pooling
from .recommend import (
    Belief,
    Criterion,
    Recommendation,
    believe,
    no_belief,
    recommend,
)
from .round import decide


class Tuner:
    """Tunes one study; opens it where the journal holds it, starts it where it does not.

    Args:
        problem: what is tuned.
        config: how; where None, the study's own configuration, or the default for a new one. A
            configuration that differs from the study's is journaled and holds from here on.
        journal: a URL such as ``"sqlite:///study.db"``, a ``Journal``, or None for memory.
        study: its name in the journal.
        seed: of all randomness; where None, the study's own, or 0 for a new one.
        device: where draws and the Gaussian process are computed.
        sources: other domains to learn from, as ``hz.transfer.Source`` or as
            ``"journal-url#study"``. They become part of the journal: a study goes on with them
            without their being named again. New ones may be added at any time; one that is given
            again under its name with other evidence replaces the earlier.
    Raises:
        StudyMismatchError: the journal's study was made for another problem or seed.
        ConfigError: a source that does not fit the problem.
        JournalError: the journal, or a source's, cannot be used.
    """

    def __init__(
        self,
        problem: Problem,
        config: TunerConfig | None = None,
        journal: Journal | str | None = None,
        study: str = "default",
        seed: int | None = None,
        device: torch.device | str = "cpu",
        sources: Sequence[Source | str] = (),
    ) -> None:
        if seed is not None and not _is_whole(seed, below=2**63):
            raise ConfigError(f"a seed is a whole number >= 0, got {seed!r}")
        if not isinstance(study, str) or not study:
            raise ConfigError(f"a study is named by a text that is not empty, got {study!r}")
        self.problem = problem
        self.device = _device(device)
        found = journaled.opened(sources)
        for source in found:  # before a study is begun that could not be gone on with
            align(source, problem)
        self._learnt = FitCache.nothing()
        self._study = Study(
            open_journal(journal), study, problem, config or TunerConfig(), int(seed or 0)
        )
        if seed is not None and seed != self.seed:
            raise StudyMismatchError(
                f"study {study!r} has seed {self.seed}, got seed={seed}; leave seed out to go on "
                "with the study, or name another study"
            )
        if config is not None and config != self.config:
            entry = Configured(config.model_dump(mode="json"))
            self._study.append(lambda history: ([entry], None))
        self._learn_from(found)

    @classmethod
    def resume(
        cls,
        journal: Journal | str,
        study: str = "default",
        *,
        problem: Problem,
        config: TunerConfig | None = None,
        device: torch.device | str = "cpu",
        sources: Sequence[Source | str] = (),
    ) -> Tuner:
        """Go on with a study that must exist; ``sources`` are further ones.

        Raises:
            StudyNotFoundError: the journal holds no such study; names those it holds.
            StudyMismatchError: the study was made for another problem.
        """
        opened = open_journal(journal, create=False)
        opened.header(study)
        return cls(problem, config, opened, study, None, device, sources)

    def __repr__(self) -> str:
        return (
            f"Tuner(study={self.study!r}, round={self.history.last_round}, "
            f"candidates={self.history.num_candidates}, in_flight={self.history.num_in_flight}, "
            f"journal={self.journal!r})"
        )

    @property
    def study(self) -> str:
        """The study's name in the journal."""
        return self._study.name

    @property
    def seed(self) -> int:
        """The study's seed."""
        return self._study.seed

    @property
    def journal(self) -> Journal:
        """Where the study is kept."""
        return self._study.journal

    @property
    def history(self) -> History:
        """The study's facts, as far as they have been read."""
        return self._study.history

    def sync(self) -> History:
        """Read what others have written since; returns the history."""
        return self._study.sync()

    @property
    def config(self) -> TunerConfig:
        """The configuration in force."""
        return TunerConfig(**self.history.config)

    def ask(self, round: int | None = None, *, trigger: str | None = None) -> Plan:
        """The plan for a round; a round that is planned already keeps its plan.

        Args:
            round: a planned round, or any later than the last; by default the next one.
            trigger: identifies the message that asks, so that ``planned_for`` can find the plan.
        Raises:
            RoundError: a round that was skipped and lies in the past, or no round number.
        Warns:
            TunerWarning: the plan could not be made in the usual way; it says what was done.
        """
        if round is not None and not _is_whole(round, below=2**53):
            raise RoundError(f"a round is a whole number >= 0, got {round!r}")
        if trigger is not None and not isinstance(trigger, str):
            raise RoundError(f"a trigger is the text that names a message, got {trigger!r}")
        wanted = None if round is None else int(round)

        def plan_it(history: History) -> tuple[list[Entry], int]:
            last = history.last_round
            target = wanted if wanted is not None else (0 if last is None else last + 1)
            if target in history.plans:
                return [], target
            if last is not None and target < last:
                raise RoundError(
                    f"round {target} was never planned and lies before the last planned round "
                    f"{last}; ask for a later one, or for none to take the next"
                )
            known = self._learn()
            return decide(known, self.config, history, target, self.seed, trigger), target

        said = len(self._study.sync().decisions)
        plan = self._plan(self._study.append(plan_it))
        for note in self.history.decisions[said:]:
            if note.round == plan.round and note.kind not in (RETIRED, STOPPED, TRANSFER):
                warnings.warn(f"round {note.round}: {note.reason}", TunerWarning, stacklevel=2)
        return plan

    def tell(self, readings: Readings | Sequence[Readings]) -> int:
        """Record readings, whole or not at all.

        Late, out of order, in several messages, revised: all are welcome. What is known already
        changes nothing.

        Args:
            readings: one message, or several that are taken together.
        Returns:
            How many rows were news.
        Raises:
            ReadingsError: a round, arm or metric is unknown, or a revision contradicts itself.
        """
        messages: Any = readings if isinstance(readings, list | tuple) else [readings]
        for message in messages:
            if not isinstance(message, Readings):
                raise ReadingsError(
                    f"tell expects hz.Readings or a list of them, got {type(message).__name__}; "
                    "make one with hz.Readings(...) or hz.Readings.from_frame(frame)"
                )

        def record(history: History) -> tuple[list[Entry], int]:
            news = Readings.concat(messages) if messages else None
            received = None if news is None else history.new_rows(news)
            return ([], 0) if received is None else ([received], len(received.round))

        return self._study.append(record)

    def check(self, readings: Readings) -> int:
        """How many rows of a message would be news to ``tell``; records nothing.

        Raises:
            ReadingsError: as ``tell`` would.
        """
        news = self._study.sync().new_rows(readings)
        return 0 if news is None else len(news.round)

    def set_aside(self, rounds: Sequence[int], reason: str) -> None:
        """Keep rounds out of the evidence, e.g. hours whose split was broken; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._study.append(lambda history: ([*set_aside(history, rounds, reason)], None))

    def reinstate(self, rounds: Sequence[int], reason: str) -> None:
        """Let rounds that were set aside count again; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._study.append(lambda history: ([*reinstate(history, rounds, reason)], None))

    def roll_back(self, to_round: int, reason: str) -> None:
        """Go on as the study was when it planned ``to_round``, by one more entry of the journal.

        Readings of that round and of later ones count no longer, candidates born since are not
        served again, candidates that were stopped for harm stay stopped.

        Raises:
            RoundError: the round was never planned, or no reason is given.
        """
        self._study.append(lambda history: ([*roll_back(history, to_round, reason)], None))

    def compact(self, keep: int, dry_run: bool = False) -> CompactionSummary:
        """Let go of readings older than the latest ``keep`` rounds; estimates stay as they are.

        Evidence of rounds that are older than one to two blocks (``TunerConfig.block_rounds``) is
        pooled for good, block by block. A block all of whose rounds are older than ``keep`` is
        written into the journal, with the numbers of the messages it came from, and its readings
        are deleted. They cannot be corrected, set aside or reinstated afterwards, readings of them
        are refused even where they are the same again, and the study cannot be rolled back to
        them.

        Args:
            keep: rounds, counted from the last planned one.
            dry_run: only say what would go.
        Raises:
            ConfigError: ``keep`` is no number of rounds.
        """

        def think(history: History) -> tuple[list[Entry], CompactionSummary]:
            entries, told = compact(history, pooling(self.config), keep)
            return [] if dry_run else [*entries], told

        return self._study.append(think)

    def note(self, kind: str, reason: str, details: Mapping[str, Any] | None = None) -> None:
        """Write a remark into the journal; it changes nothing but the audit trail.

        Args:
            kind: one word, e.g. ``"platform"``.
            reason: a sentence.
            details: plain JSON values.
        Raises:
            ConfigError: a kind that is no remark.
        """
        self._study.append(lambda history: ([remark(history, kind, reason, details)], None))

    def learn_from(self, sources: Sequence[Source | str]) -> None:
        """Further domains to learn from, or newer evidence of known ones; see ``sources`` above.

        Raises:
            ConfigError: a source that does not fit the problem; then none is taken.
            JournalError: the journal, or a source's, cannot be used.
        """
        self._learn_from(journaled.opened(sources))

    def _learn_from(self, found: Sequence[Source]) -> None:
        if found:
            url = getattr(self.journal, "url", None)
            place = "" if url is None else url.render_as_string(hide_password=True)
            own = f"{place}#{self.study}" if place else ""
            self._study.append(
                lambda history: ([*journaled.entries(self.problem, history, found, own)], None)
            )

    def overrule(self, overrule: ExpertOverride) -> None:
        """An expert's word on the sources, journaled; it holds until the next.

        Raises:
            ConfigError: it speaks of a source or a parameter that is not there.
        """

        def say(history: History) -> tuple[list[Entry], None]:
            names = [source.name for source in journaled.recorded(history)]
            return [journaled.overruling(history, overrule, names, self.problem.space.names)], None

        self._study.append(say)

    def recommend(self, criterion: Criterion = "lcb", only_proven: bool = False) -> Recommendation:
        """The best candidate with evidence whose P(feasible) suffices; else the control.

        Args:
            criterion: rank by the objective's posterior ``"mean"``, or by the lower or upper bound
                of its interval.
            only_proven: only who is shown to be safe by its own evidence at every look, e.g. before
                a launch.
        Raises:
            ConfigError: an unknown criterion, or a proof is asked for where ``harm_alpha`` is None.
            RoundError: no round was planned yet, so there is no candidate.
        """
        known, belief = self.belief()
        plan = self._last_plan()
        stopped = self.history.status.stopped
        return recommend(known, self.config, belief, criterion, plan.shares, stopped, only_proven)

    def explain(self, round: int | None = None) -> Explanation:
        """Why each arm of a round got its traffic: beliefs then, and the readings behind them.

        Args:
            round: a planned round; by default the last.
        Raises:
            RoundError: it was never planned.
        """
        self._study.sync()
        wanted = self._last_plan().round if round is None else round
        entries = self.journal.read(self.study)
        return explain(self.problem, entries, wanted, self.seed, self.device)

    def belief(self) -> tuple[ModelState, Belief]:
        """What is known, and what follows for every candidate; what reports are made of."""
        self._study.sync()
        self._last_plan()
        known = self._learn()
        if known.posterior is None:
            return known, no_belief(known.problem, known.bucket)
        generator = random(self.seed, self.history.num_messages, "believe", self.device)
        problem = known.problem.to(self.device)
        return known, believe(
            problem, self.config, known.bucket, known.posterior, generator, known.view
        )

    def posterior(
        self, theta: Tensor | Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of the deltas at any theta.

        Args:
            theta: ``(..., params)`` in the user's units, or one or several parameter mappings.
        Returns:
            mean and var, each ``(..., metrics)``, fractions, on the CPU.
        Raises:
            SpaceError, ShapeError: a theta that cannot be.
            RoundError: there is no evidence yet.
        """
        space = self.problem.space
        if isinstance(theta, Mapping):
            theta = space.theta(theta)
        elif not isinstance(theta, Tensor):
            theta = torch.stack([space.theta(row) for row in theta])
        x = space.to_unit(space.check(theta.double().cpu()))
        mean, var = self.surrogate().marginal(x.to(self.device))
        return mean.cpu(), var.cpu()

    def surrogate(self) -> Posterior:
        """The posterior over the unit cube that the next plan would be made with.

        Raises:
            RoundError: there is no evidence yet.
        """
        self._study.sync()
        known = self._learn()
        if known.posterior is None:
            raise RoundError(f"there is no posterior yet: {known.why_not}")
        return known.posterior

    def bucket(self) -> Bucket:
        """All candidates with their evidence."""
        self._study.sync()
        return self._learn().bucket

    def planned_for(self, trigger: str) -> Plan | None:
        """The plan that this trigger asked for, if any."""
        self._study.sync()
        round_ = self.history.triggers.get(trigger)
        return None if round_ is None else self._plan(round_)

    def state_dict(self) -> dict[str, Any]:
        """The whole study as plain tensors, numbers and strings; loads with weights_only=True."""
        return self._study.save()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a study that ``state_dict`` saved.

        A study in memory is replaced. A persistent one is append-only, and takes a state only as
        long as nothing was planned in it.

        Raises:
            ConfigError: not a state of ours.
            StudyMismatchError: made for another problem, or this study has a history of its own.
        """
        self._study.load(state)
        self._learnt.forget()

    def _last_plan(self) -> Planned:
        plan = self.history.last_plan
        if plan is None:
            raise RoundError("no round was planned yet; call ask() first")
        return plan

    def _learn(self) -> ModelState:
        return learn(self.problem, self.config, self.history, self.device, self._learnt)

    def _plan(self, round: int) -> Plan:
        planned = self.history.plans[round]
        theta = self.history.theta[list(planned.candidates)]
        return Plan(
            round=round,
            candidate_ids=planned.candidates,
            parameters=tuple(self.problem.space.to_parameters(theta)),
            theta=theta,
            slots=planned.slots,
            shares=planned.shares,
        )


def _is_whole(value: Any, below: int) -> bool:
    """A number as NumPy's are too, for what comes from loops over arrays; True is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return 0 <= int(value) < below


def _device(device: torch.device | str) -> torch.device:
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used here: {error}") from None
    return wanted
