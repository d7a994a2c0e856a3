"""One study in its journal: open or start it, read its history, and change it by new entries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ..problem.problem import Problem
from ..problem.written import stored
from . import acceptance, goals, integrity, interventions, saved
from .compaction import CompactionSummary, compact
from .config import TunerConfig
from .config.exposure import check_exposure
from .epochs import Epochs
from .evidence.pooling import Pooling
from .history import History, history_of
from .horizon import check_changed, check_horizon
from .integrity import Integrity
from .journal import Configured, Decision, Entry, Journal, StudyHeader
from .journal.base import ConflictError
from .plan import Plan
from .readings import Readings
from .reception import new_rows
from .recording import entries_of
from .switchboard import Switchboard
from .unplanned import LeftOut, Unknown, check_unknown, split, taken_rows

_T = TypeVar("_T")
_MAX_TRIES = 20


class Study(Switchboard, Epochs, Integrity):
    """One study in a journal. ``history`` is its state after the entries read so far.

    Args:
        journal: the journal that stores the study.
        name: of the study; it is started where the journal does not hold it.
        problem: the problem that it tunes.
        config, seed, first: of a new study; ``first`` are entries to start it with.
    Raises:
        StudyMismatchError: the journal's study was made for another problem.
        JournalError: the journal cannot be used.
    """

    seed: int
    history: History

    def __init__(
        self,
        journal: Journal,
        name: str,
        problem: Problem,
        config: TunerConfig,
        seed: int,
        first: Sequence[Entry] = (),
    ) -> None:
        self.journal = journal
        self.name = name
        self.problem = problem
        self._offered: Problem | None = None
        self._num_goals = 0
        if name not in journal.studies():
            check_exposure(problem, config.plausible_lift, config.harm_budget)
            check_horizon(config.horizon)
            configured = Configured(config.model_dump(mode="json"))
            # Where another process has just started it, continue with that study.
            with contextlib.suppress(ConflictError):
                journal.create(StudyHeader(name, seed, stored(problem)), [configured, *first])
        self._open()

    def __repr__(self) -> str:
        return f"Study({self.name!r}, round={self.history.last_round}, journal={self.journal!r})"

    @property
    def config(self) -> TunerConfig:
        """The configuration in force."""
        return TunerConfig(**self.history.config)

    def sync(self) -> History:
        """Read the entries that any process has appended since; returns the history.

        Raises:
            StudyMismatchError: another process has changed the goals to ones with a callable.
        """
        self.history.extend(self.journal.read(self.name, after=self.history.num_entries))
        if len(self.history.goals) > self._num_goals:
            self.problem = goals.followed(self.problem, self.history, self.name, self._offered)
            self._num_goals = len(self.history.goals)
        return self.history

    def append(self, compute: Callable[[History], tuple[Sequence[Entry], _T]]) -> _T:
        """Read new entries, compute more and append them; retry if another process was faster.

        Args:
            compute: from the history to the entries to append (possibly none) and a result.
        Returns:
            The result of the call of ``compute`` whose entries were written.
        Raises:
            ConflictError: another process appended first in every try.
        """
        for _ in range(_MAX_TRIES):
            entries, result = compute(self.sync())
            if not entries:
                return result
            entries = [*entries, *integrity.remarks(self.history, self._chain_begun_late)]
            try:
                self.journal.append(self.name, entries, after=self.history.num_entries)
            except ConflictError:
                continue
            self.sync()
            return result
        raise ConflictError(
            f"other processes appended to study {self.name!r} first in each of {_MAX_TRIES} tries; "
            "too many writers share it"
        )

    def change_goals(
        self,
        problem: Problem,
        reason: str,
        by: str,
        follow: Callable[[Decision, History], tuple[Sequence[Entry], _T]],
    ) -> _T | None:
        """Put other goals in force; ``Tuner.change_goals`` has the documentation.

        Args:
            problem: the new one.
            reason, by: why, and who.
            follow: from the change and the history before it to the entries to append (possibly
                none) and a result.
        Returns:
            The result; None where nothing differs.
        """

        def compute(history: History) -> tuple[Sequence[Entry], _T | None]:
            decision = goals.change(history, self.problem, problem, reason, by)
            return ([], None) if decision is None else follow(decision, history)

        self._offered = problem
        try:
            return self.append(compute)
        finally:
            self._offered = None

    def configure(self, config: TunerConfig) -> None:
        """Use another configuration from here on; journaled where it differs."""
        if config != self.config:
            check_exposure(self.problem, config.plausible_lift, config.harm_budget)
            check_changed(config, self.config, self.history)
            self.append(lambda _: ([Configured(config.model_dump(mode="json"))], None))

    def receive(self, messages: Sequence[Readings], unknown: Unknown = "refuse") -> int:
        """Record readings, whole or not at all; see ``Tuner.tell``."""
        check_unknown(unknown)
        message = Readings.concat(messages) if messages else None

        def record(history: History) -> tuple[Sequence[Entry], int]:
            return entries_of(history, self.problem, message, unknown)

        return self.append(record)

    def count_new(self, readings: Readings, unknown: Unknown = "refuse") -> int:
        """Number of rows of a message that ``receive`` would record; records nothing.

        Raises:
            ReadingsError: as ``receive`` raises it.
        """
        history = self.sync()
        taken, _ = taken_rows(history, readings, unknown)
        received = None if taken is None else new_rows(history, taken)
        return 0 if received is None else len(received.round)

    def left_out(self, readings: Readings) -> LeftOut | None:
        """The rows that ``receive(..., unknown="skip")`` leaves out; None where it takes all."""
        return split(self.sync(), readings)[1]

    def plan(self, round: int) -> Plan:
        """The plan of a planned round."""
        planned = self.history.plans[round]
        theta = self.history.theta[list(planned.candidates)]
        parameters = tuple(self.problem.space.to_parameters(theta))
        return Plan(
            *(round, planned.candidates, parameters, theta, planned.slots, planned.shares),
            notes=planned.trace.notes,
            experiment_share=planned.trace.experiment_share,
        )

    def planned_for(self, trigger: str) -> Plan | None:
        """The plan that was made for this trigger; None where there is none."""
        round_ = self.sync().triggers.get(trigger)
        return None if round_ is None else self.plan(round_)

    def set_aside(self, rounds: Sequence[int], reason: str) -> None:
        """Exclude rounds from the evidence, e.g. hours with a broken split; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.set_aside(history, rounds, reason))

    def reinstate(self, rounds: Sequence[int], reason: str) -> None:
        """Use the readings of excluded rounds again; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.reinstate(history, rounds, reason))

    def roll_back(self, to_round: int, reason: str, by: str | None = None) -> None:
        """Restore the study to its state when it planned ``to_round``; journaled.

        Nothing is deleted. That round and later ones are excluded from the evidence, candidates
        added since are not served again, and candidates stopped for harm stay stopped.

        Raises:
            RoundError: the round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.roll_back(history, to_round, reason, by))

    def accept_readings(
        self,
        reason: str,
        *,
        rounds: Collection[int] | None = None,
        candidates: Collection[int] | None = None,
        metrics: Collection[str] | None = None,
        by: str | None = None,
    ) -> int:
        """Let readings count that were set aside as absurd; journaled. Returns their number.

        Readings that were set aside for the unit of their metric bring it with them: later readings
        of the metric are not set aside for the same reason.

        Args:
            reason: why they are right, in a sentence.
            rounds, candidates, metrics: which of them; None for all.
            by: who says so; by default the login name.
        Raises:
            ReadingsError: none that is set aside is among them.
            RoundError: no reason is given.
        """

        def compute(history: History) -> tuple[Sequence[Entry], int]:
            decision = acceptance.accept(history, reason, rounds, candidates, metrics, by)
            return [decision], len(history.quarantined)

        before = self.append(compute)
        return before - len(self.history.quarantined)

    def readmit(self, candidates: Sequence[int], reason: str, by: str | None = None) -> None:
        """Let stopped candidates be served again; journaled.

        The test for harm starts anew for them: readings of rounds planned so far do not stop them
        again. The model still uses all their evidence, so they win traffic only where it lets them:
        set rounds aside whose readings were wrong. A rollback leaves them readmitted.

        Raises:
            RoundError: a candidate is not stopped, or no reason is given.
        """
        self._decide(lambda history: acceptance.readmit(history, candidates, reason, by))

    def note(self, kind: str, reason: str, facts: Mapping[str, Any] | None = None) -> None:
        """Add a remark to the journal; it changes nothing else.

        Args:
            kind: one word, e.g. ``"platform"``.
            reason: a sentence.
            facts: plain JSON values.
        Raises:
            ConfigError: the kind is one of a decision that changes the study.
        """
        self._decide(lambda history: [interventions.remark(history, kind, reason, facts)])

    def keep_users(self, round: int, users: Mapping[int, int]) -> None:
        """Record the users by candidate of a round without readings, to compare with its shares.

        Raises:
            RoundError: the round was never planned, or a candidate was not an arm of it.
        """
        self._decide(lambda history: interventions.keep_users(history, round, users))

    def compact(self, keep: int, dry_run: bool = False) -> CompactionSummary:
        """Delete readings older than the latest ``keep`` rounds; estimates stay as they are.

        Evidence of rounds that are older than one to two blocks (``TunerConfig.block_rounds``) is
        final, block by block. A block all of whose rounds are older than ``keep`` is written into
        the journal, with the numbers of the messages it came from, and its readings are deleted.
        These rounds cannot be corrected, excluded or reinstated afterwards, further readings of
        them are refused, and the study cannot be rolled back to them.

        Args:
            keep: number of rounds, counted back from the last planned one.
            dry_run: only report what would be deleted.
        Raises:
            ConfigError: ``keep`` is not a whole number >= 0.
        """

        def compute(history: History) -> tuple[Sequence[Entry], CompactionSummary]:
            entries, summary = compact(history, Pooling.of(self.config), keep)
            return [] if dry_run else entries, summary

        return self.append(compute)

    def load(
        self, state: Mapping[str, Any], check: Callable[[History], object] = lambda _: None
    ) -> None:
        """Replace this study by a saved one; see ``Tuner.load_state_dict``.

        Args:
            state: of ``save``.
            check: raises a ``JournalError`` where the saved history cannot be used.
        """
        self.sync()
        self.journal = saved.loaded(
            self.journal, self.name, self.problem, self.history, state, check
        )
        self._open()

    def _decide(self, decide: Callable[[History], Sequence[Decision]]) -> None:
        self.append(lambda history: (decide(history), None))

    def _open(self) -> None:
        header = self.journal.header(self.name)
        self._chain_begun_late = integrity.begun_late(self.journal, self.name)
        self.seed = header.seed
        self.history = history_of(header)
        self.history.extend(self.journal.read(self.name))
        self.problem = goals.opened(self.problem, header, self.history.goals)
        self._num_goals = len(self.history.goals)
