"""ask / tell / recommend: Algorithm 2 around a journal.

    plan = tuner.ask()                 the plan to serve in the next round
    tuner.tell(hz.Readings(...))       record readings; they may be late, partial or revised
    best = tuner.recommend()           the candidate to promote

All state of a tuner is in its journal. It can be killed at any time and started again on the same
journal, and several tuners can share one. Interventions (rounds set aside, a rollback, a
compaction, a note) are methods of ``tuner.study``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import FitError, ProblemError, StudyMismatchError
from ..problem.problem import Problem
from ..runtime.login import login_name
from ..study import broken_hours, lacking
from ..study import launch as launches
from ..study.config import TunerConfig
from ..study.history import History
from ..study.journal import Decision, Entry, Journal, open_journal
from ..study.overview import as_html
from ..study.plan import Plan
from ..study.readings import Readings
from ..study.study import Study
from ..study.unplanned import Unknown
from ..transfer import journaled
from ..transfer.alignment import align
from ..transfer.source import Source
from . import announcements, arguments, surrogates
from .explain import explain
from .explanation import Explanation
from .fit_cache import FitCache
from .goals import goals_before, stored_problem
from .operations import Operations
from .recommend import Criterion, Recommendation, recommend
from .round import plan_round


class Tuner(Operations):
    """Tunes one study, which is started where the journal does not hold it.

    Args:
        problem: the parameters, metrics, objective and constraints.
        config: where None, the study's own, or the default for a new study. One that differs from
            the study's is journaled and in force from here on.
        journal: a URL such as ``"sqlite:///study.db"``, a ``Journal``, or None for memory.
        study: its name in the journal.
        seed: of all random numbers; where None, the study's own, or 0 for a new one.
        device: where draws and the Gaussian process are computed, e.g. ``"cuda"``. A small fit
            and a small refinement of proposals run on the CPU whatever it is.
        sources: other domains to learn from, as ``hz.transfer.Source`` or as
            ``"journal-url#study"``. The journal stores them, so a study continues with them. New
            ones can be added at any time; one of the same name with other evidence replaces it.
        surrogate: the model; where None, the study's own by name, or the package's own. A GPyTorch
            kernel, a ``(mean, kernel)`` pair, a factory, an object with ``fit``, or a name; see
            ``surrogate/foreign/choose.py``. The journal identifies it.
        prior_mean: the deltas that are expected before there is evidence: a function of theta
            ``(N, params)`` that returns ``(N, metrics)``, e.g. a simulator; a mapping from metrics
            to functions that return ``(N,)``; ``"module:function"``; or another study,
            ``"journal-url#study"``, up to a round with ``@round``. The model is fitted to what it
            leaves. It belongs to the surrogate: a study goes on with the same.
    Raises:
        StudyMismatchError: the journal's study was made for another problem, seed or surrogate.
        ConfigError: a source or a surrogate that does not fit the problem, or both together; or a
            device that is not there.
        ProblemError: an objective or constraint that does not work on the device.
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
        surrogate: Any = None,
        prior_mean: Any = None,
    ) -> None:
        seed, study = arguments.as_seed(seed), arguments.as_study_name(study)
        self.device = arguments.as_device(device)
        arguments.check_problem(problem, self.device)
        opened = journaled.opened(sources)
        for source in opened:  # refuse sources that do not fit before a study is started
            align(source, problem)
        self._cache = FitCache.empty()
        chosen = surrogates.chosen_surrogate(surrogate, prior_mean, problem)
        surrogates.check_sources(chosen, opened)
        first = surrogates.first_entries(chosen)
        new = (problem, config or TunerConfig(), seed or 0, first)
        self.study = Study(open_journal(journal), study, *new)
        given = surrogate if prior_mean is None else chosen
        self._surrogate = surrogates.agreed(self.history, given, chosen, self.problem)
        surrogates.check_sources(self._surrogate, opened)
        if seed is not None and seed != self.seed:
            raise StudyMismatchError(
                f"study {study!r} has seed {self.seed}, got seed={seed}; leave seed out to "
                "continue the study, or name another study"
            )
        if config is not None:
            self.study.configure(config)
        surrogates.warn_of_unused(self._surrogate, self.config)
        journaled.learn_from(self.study, opened)

    @classmethod
    def resume(
        cls,
        journal: Journal | str,
        study: str = "default",
        *,
        problem: Problem | None = None,
        config: TunerConfig | None = None,
        device: torch.device | str = "cpu",
        sources: Sequence[Source | str] = (),
        surrogate: Any = None,
        prior_mean: Any = None,
        change_goals: str | None = None,
        by: str | None = None,
    ) -> Tuner:
        """Continue a study that must exist; ``sources`` are added to those it has.

        Args:
            problem: the study's. It may be left out where its objective and guardrails are all
                strings: then the journal has it, with the goals in force.
            surrogate: the one that the study was started with; not needed for a name of ours.
            prior_mean: the one that the study was started with.
            change_goals: the reason why ``problem`` has other goals than the study; they are put in
                force as ``tuner.change_goals`` does it. Without a reason, other goals are refused.
            by: who changes them.
        Raises:
            StudyNotFoundError: the journal holds no such study; the message lists those it holds.
            StudyMismatchError: the study was made for another problem; the message names what
                differs. Or it was started with another surrogate.
            ProblemError: ``problem`` was left out, and a callable was used.
        """
        opened = open_journal(journal, create=False)
        header = opened.header(study)
        if problem is None and change_goals is not None:
            raise ProblemError("change_goals is the reason for another problem: give problem=")
        problem = stored_problem(opened, header) if problem is None else problem
        if change_goals is None:
            return cls(problem, config, opened, study, None, device, sources, surrogate, prior_mean)
        for source in journaled.opened(sources):  # refused before anything is written
            align(source, problem)
        before = goals_before(opened, header, problem)
        tuner = cls(before, None, opened, study, None, device, (), surrogate, prior_mean)
        tuner.change_goals(problem, reason=change_goals, by=by)
        return cls(problem, config, opened, study, None, device, sources, surrogate, prior_mean)

    def __repr__(self) -> str:
        return (
            f"Tuner(study={self.study.name!r}, round={self.history.last_round}, "
            f"candidates={self.history.num_candidates}, in_flight={self.history.num_in_flight}, "
            f"journal={self.journal!r})"
        )

    def _repr_html_(self) -> str:
        return as_html(self.study, self.verdict().sentence)

    @property
    def problem(self) -> Problem:
        """The problem, with the goals in force; options of a Choice have the study's indices."""
        return self.study.problem

    @property
    def seed(self) -> int:
        """The study's seed."""
        return self.study.seed

    @property
    def journal(self) -> Journal:
        """The journal that stores the study."""
        return self.study.journal

    @property
    def history(self) -> History:
        """The state of the study after the entries read so far."""
        return self.study.history

    @property
    def config(self) -> TunerConfig:
        """The configuration in force."""
        return self.study.config

    @property
    def stopped(self) -> tuple[int, ...]:
        """Ids of candidates that are not served: harmful, withdrawn, or outside the bounds."""
        return tuple(sorted(self.study.sync().status.stopped))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions and remarks, each with ``round``, ``kind`` and ``reason``; oldest first."""
        return tuple(self.study.sync().decisions)

    def ask(
        self, round: int | None = None, *, trigger: str | None = None, by: str | None = None
    ) -> Plan:
        """The plan for a round; a round that is planned already keeps its plan.

        Args:
            round: a planned round, or any later than the last; by default the next one.
            trigger: identifies the message that asks; ``study.planned_for`` finds the plan by it.
            by: who proposes the plan, by default the login name; see ``study.approve``.
        Raises:
            RoundError: a skipped round in the past, or not a round number.
            LaunchError: a candidate was promoted, and the study goes on as another one.
        Warns:
            TunerWarning: the plan was not made in the usual way; the message says why and how.
        """
        wanted, trigger = arguments.as_round(round), arguments.as_trigger(trigger)
        who = by or login_name()

        def plan(history: History) -> tuple[Sequence[Entry], int]:
            target = arguments.round_to_plan(history, wanted)
            if target in history.plans:
                return [], target
            launches.check_is_open(history)
            rest = (self.config, history, target, self.seed, trigger, who)
            entries = self._with_model(lambda state: plan_round(state, *rest))
            return [*entries, *lacking.remarks(history, target)], target

        num_decisions = len(self.study.sync().decisions)
        if arguments.round_to_plan(self.history, wanted) not in self.history.plans:
            broken_hours.exclude(self.study)
        planned = self.study.append(plan)
        announcements.of_plan(self.history.decisions[num_decisions:], planned)
        return self.study.plan(planned)

    def tell(self, readings: Readings | Sequence[Readings], *, unknown: Unknown = "refuse") -> int:
        """Record readings, whole or not at all.

        Readings may be late, out of order, revised, and in several messages. Rows that were
        received before change nothing; values count as the same within 1e-9 relative. Absurd
        rows are recorded and set aside: they do not count until ``study.accept_readings``, or a
        higher revision of them.

        Args:
            readings: one message, or several that are recorded together or not at all.
            unknown: ``"refuse"`` a message with rows of rounds that were never planned, or
                ``"skip"`` these rows: the journal names their rounds, and all others are taken, as
                ``hyperzero step`` and ``hyperzero run`` do. ``study.left_out`` tells which.
        Returns:
            The number of new rows.
        Raises:
            ReadingsError: a round, arm or metric is unknown, or a revision contradicts itself.
            LaunchError: a candidate was promoted, and the study goes on as another one.
        Warns:
            TunerWarning: readings or whole rounds do not count, or have another unit, it seems.
        """
        num_decisions = len(self.study.sync().decisions)
        launches.check_is_open(self.history)
        num_new = self.study.receive(arguments.as_messages(readings), unknown)
        if num_new:
            broken_hours.exclude(self.study)
        announcements.of_readings(self.history.decisions[num_decisions:])
        return num_new

    def recommend(self, criterion: Criterion = "lcb", only_proven: bool = False) -> Recommendation:
        """The best candidate with evidence that is likely enough to be feasible; else the control.

        Args:
            criterion: rank by the objective's posterior ``"mean"``, or by the lower or upper bound
                of its interval.
            only_proven: only candidates proven safe by their own evidence, e.g. before a launch.
        Raises:
            ConfigError: an unknown criterion, or ``only_proven`` where ``harm_alpha`` is None.
            RoundError: no round was planned yet, so there is no candidate.
        """
        state, belief = self.belief()
        plan = self._last_plan()
        stopped = self.history.status.stopped
        return recommend(state, self.config, belief, criterion, plan.shares, stopped, only_proven)

    def explain(self, round: int | None = None) -> Explanation:
        """Why each arm of a round got its traffic: the model at that time, and its readings.

        Args:
            round: a planned round; by default the last.
        Raises:
            RoundError: it was never planned.
        """
        self.study.sync()
        wanted = self._last_plan().round if round is None else round
        entries = self.journal.read(self.study.name)
        facts = (self.problem, entries, wanted, self.seed, self.device, self._surrogate)
        try:
            return explain(*facts)
        except FitError as error:
            if self._surrogate is None:
                raise
            return explain(*facts, str(error))

    def state_dict(self) -> dict[str, Any]:
        """The whole study as plain tensors, numbers and strings; loads with weights_only=True."""
        return self.study.save()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the study by one that ``state_dict`` saved.

        A study in memory is replaced. A persistent one is append-only, and accepts a state only
        before its first plan.

        Raises:
            ConfigError: not a saved state, or a damaged one.
            StudyMismatchError: it is of another problem, or this study has plans of its own.
        """

        def check(history: History) -> None:
            journaled.check(history)
            surrogates.agreed(history, self._surrogate, self._surrogate, self.problem)

        self.study.load(state, check)
        self._surrogate = surrogates.agreed(
            self.history, self._surrogate, self._surrogate, self.problem
        )
        self._cache.clear()

    def _reopened(self, problem: Problem, name: str) -> Tuner:
        return Tuner(problem, None, self.journal, name, None, self.device, (), self._surrogate)
