"""What people do to a study beyond asking and telling: other domains, goals, launches, promotions.

``Tuner`` inherits these methods. Exclusions, rollbacks, switches and notes need no model and are
methods of ``tuner.study``.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from ..errors import FitError
from ..problem.problem import Problem
from ..problem.written import stored
from ..study import launch as launches
from ..study import promotion
from ..study.health import Card, cards
from ..study.history import History
from ..study.journal import Entry, StudyHeader
from ..study.journal.base import ConflictError
from ..study.launch import LaunchTerms
from ..transfer import journaled
from ..transfer.overrides import ExpertOverride
from ..transfer.source import Source
from . import announcements, arguments, launching
from .comparison import compare
from .context import RoundContext
from .estimates import Estimates
from .fit_cache import evidence_of
from .gains import DEFAULT, Comparison
from .goals import GoalsEffect, change_goals
from .horizon import Resolution, resolution
from .launching import LaunchReport
from .recommend import Criterion, Recommendation
from .surrogates import check_dims, check_sources, contenders
from .verdict import NOT_STARTED, Verdict, at_horizon, verdict_on


class Operations(Estimates):
    """Operations on a study that rest on its model."""

    @abstractmethod
    def recommend(self, criterion: Criterion = "lcb", only_proven: bool = False) -> Recommendation:
        """The candidate to launch."""

    @abstractmethod
    def _reopened(self, problem: Problem, name: str) -> Self:
        """Another study of the same journal, on the same device."""

    def verdict(self, health: Sequence[Card] | None = None, now: datetime | None = None) -> Verdict:
        """The verdict on the study in one sentence, with the reason and the next step.

        Args:
            health: its cards, where they are made already.
            now: the time, for a horizon that is a date.
        """
        history, config = self.study.sync(), self.study.config
        if history.last_round is None:
            return NOT_STARTED
        made = cards(history, config) if health is None else health
        verdict = verdict_on(history, config, made, self.recommend(), self.study.problem)
        return at_horizon(verdict, config.horizon, now)

    def resolution(self, now: datetime | None = None) -> Resolution:
        """What the study can still resolve until its horizon, at the present traffic.

        Nothing is fitted.

        Args:
            now: the time, for a horizon that is a date.
        """
        history, config = self.study.sync(), self.study.config
        return resolution(history, config, evidence_of(history, config, self._cache), now)

    def learn_from(self, sources: Sequence[Source | str]) -> None:
        """Add domains to learn from, or newer evidence of earlier ones; see ``sources`` above.

        Raises:
            ConfigError: a source does not fit the problem; then none is added.
            JournalError: the journal, or a source's, cannot be used.
        """
        opened = journaled.opened(sources)
        check_sources(self._surrogate, opened)
        journaled.learn_from(self.study, opened)

    def overrule(self, override: ExpertOverride) -> None:
        """An expert's rules for the sources; journaled, in force until the next ones.

        Raises:
            ConfigError: they name a source or a parameter that does not exist.
        """
        journaled.override_sources(self.study, override)

    def change_goals(
        self, problem: Problem, *, reason: str, by: str | None = None, dry_run: bool = False
    ) -> GoalsEffect:
        """Put other goals in force while the study runs; journaled.

        The objective, guardrails, bounds, options, constraints on theta and base levels may differ.
        Parameters, the base and metrics may not. Evidence is kept by metric, so the next plan and
        recommendation follow at once. Candidates outside the bounds are not served any more; their
        evidence still counts. Candidates that were stopped for a guardrail that is gone or has
        changed are judged anew on their own evidence, under the new guardrails, and so are all
        others. Goals are not rolled back with a study.

        Args:
            problem: the new one.
            reason: why, in a sentence.
            by: who; by default the user of this process.
            dry_run: only report what would follow.
        Returns:
            What differs and what follows: ``changed`` is False where nothing differs.
        Raises:
            StudyMismatchError: the parameters, their scales, the base or the metrics differ.
            ProblemError: a goal newly rests on a metric of which there are no readings.
            ConfigError: a source of the study does not fit the new bounds, or its surrogate is for
                a unit cube of other dimensions.
            RoundError: no reason is given.
        """
        check_dims(self._surrogate, problem)
        arguments.check_problem(problem, self.device)

        def change(broken: str | None) -> GoalsEffect:
            rest = (dry_run, self.device, self._cache, self._surrogate, broken)
            return change_goals(self.study, problem, reason, by, *rest)

        try:
            effect = change(None)
        except FitError as error:
            if self._surrogate is None:
                raise
            effect = change(str(error))
        if not effect.changed:
            message = "the goals are those of the study; nothing was changed or journaled"
            announcements.of_nothing(message)
        return effect

    def launch(
        self,
        candidate: int | None = None,
        *,
        unproven: bool = False,
        who: str = "",
        reason: str = "",
        dry_run: bool = False,
        **terms: Any,
    ) -> LaunchReport:
        """Launch a candidate in stages of all users, with a holdback for the base; journaled.

        From the next plan on exploration rests. Each stage lasts until its guardrails are certain
        enough; where one breaks, the launch goes back by itself, and all users get the control.

        Args:
            candidate: by default the recommended one.
            unproven: launch it although its own readings do not prove it safe.
            who: the person who launches it.
            reason: why, in a sentence.
            dry_run: check everything and return what would happen; nothing is written.
            terms: ``stages``, ``holdback``, ``keep_holdback``, ``tolerance``, ``alpha`` and
                ``least_rounds``; see ``study.launch.LaunchTerms``.
        Raises:
            LaunchError: another launch is under way, or the candidate cannot be launched.
            ConfigError: terms that are not valid.
            RoundError: no round was planned yet.
        """
        bound = LaunchTerms(**terms)
        best = self.recommend(only_proven=not unproven and self.study.config.harm_alpha is not None)
        number = launching.chosen(candidate, best.candidate_id, best.reason)

        def compute(history: History) -> tuple[Sequence[Entry], LaunchReport]:
            rest = (self._context(), number, bound, unproven, who, reason)
            decision, report = self._with_model(lambda state: launching.begin(state, *rest))
            return [] if dry_run else [decision], report

        return self.study.append(compute)

    def launch_status(self) -> LaunchReport | None:
        """The latest launch as it stands, with the present verdict; None where there was none."""
        self.study.sync()
        return self._with_model(lambda state: launching.look(state, self._context()))

    def abort_launch(self, reason: str, *, who: str = "") -> None:
        """End the launch that is under way; from the next plan on the study explores as before.

        Raises:
            LaunchError: no launch is under way, or there is no reason.
        """
        self.study.append(lambda history: ([launches.abort(history, who, reason)], None))

    def promote(
        self,
        candidate: int | None = None,
        *,
        name: str | None = None,
        unlaunched: bool = False,
        who: str = "",
        reason: str = "",
    ) -> Self:
        """Make a launched candidate the base of a study that goes on with the evidence so far.

        The next study, ``<name>.2``, stands in the same journal. There the candidate is 0, the
        control, and the base before has the candidate's number; all others keep theirs. Deltas and
        guardrails are relative to the new base. This study ends: it plans no more rounds and
        takes no more readings.

        Args:
            candidate: by default the one whose launch is complete.
            name: of the next study.
            unlaunched: promote it although no launch of it is complete.
            who: the person who promotes it.
            reason: why, in a sentence.
        Returns:
            The tuner of the next study.
        Raises:
            LaunchError: a launch is under way, or the candidate cannot be promoted.
        """
        existing = self.study.journal.studies()

        def compute(history: History) -> tuple[Sequence[Entry], None]:
            arguments = (candidate, name, unlaunched, existing, who, reason)
            return [
                promotion.promote(history, self.study.problem, self.study.name, *arguments)
            ], None

        self.study.append(compute)
        return self.successor()

    def successor(self) -> Self:
        """The study that goes on with a promoted candidate as base.

        Raises:
            LaunchError: no candidate of this study was promoted.
        """
        history = self.study.sync()
        entries = promotion.successor_entries(history, self.study.name)
        problem = promotion.promoted_problem(self.study.problem, history)
        name = launches.successor_name(history)
        if name not in self.study.journal.studies():
            header = StudyHeader(name, self.study.seed, stored(problem))
            # Where another process has just made it, that is the same study.
            with contextlib.suppress(ConflictError):
                self.study.journal.create(header, entries)
        return self._reopened(problem, name)

    def compare_surrogates(
        self, surrogates: Sequence[Any] | Mapping[str, Any] | None = None, *, rounds: int = 24
    ) -> Comparison:
        """How well surrogates predict this study's own evidence, and which to take.

        Candidates are left out one by one, and rounds are predicted from those before them.
        Nothing is written. The default and the study's own are always among them.

        Args:
            surrogates: what ``hz.Tuner(problem, surrogate=...)`` takes, or a mapping from names to
                such; by default the built-in names that are fitted within seconds.
            rounds: that are predicted at most; the models are fitted anew before each.
        Raises:
            RoundError: fewer than two candidates have evidence.
            ConfigError: a surrogate that cannot be used, or not a number of rounds.
        """
        self.study.sync()
        dims = self.study.problem.space.num_dims
        named = contenders(surrogates, self._surrogate, dims)
        facts = (self.study.problem, self.study.config, self.study.history)
        own = DEFAULT if self._surrogate is None else self._surrogate.descriptor.text
        return compare(*facts, named, self.device, own, rounds)

    def _context(self) -> RoundContext:
        """The next round of the study as it stands."""
        study, history = self.study, self.study.history.branch()
        return RoundContext(study.config, history, history.next_round, study.seed)
