"""One study in its journal: opened or started, folded, changed by appending entries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import ConfigError, JournalError, StudyMismatchError
from ..problem.problem import Problem
from . import interventions
from .compaction import CompactionSummary, compact
from .config import TunerConfig
from .evidence.pooling import Pooling
from .history import History
from .journal import (
    Compacted,
    Configured,
    Decision,
    Entry,
    Journal,
    MemoryJournal,
    StudyHeader,
)
from .journal.base import ConflictError
from .journal.state import pack, unpack
from .plan import Plan
from .readings import Readings

_T = TypeVar("_T")
_MAX_TRIES = 20


class Study:
    """A study, as far as it has been read: ``history`` is the fold over its entries.

    Args:
        journal: where it is kept.
        name: of the study in the journal; it is started where the journal does not hold it.
        problem: what it tunes.
        config: of a new study.
        seed: of a new study.
    Raises:
        StudyMismatchError: the journal's study was made for another problem.
        JournalError: the journal cannot be used.
    """

    seed: int
    history: History

    def __init__(
        self, journal: Journal, name: str, problem: Problem, config: TunerConfig, seed: int
    ) -> None:
        self.journal = journal
        self.name = name
        self.problem = problem
        if name not in journal.studies():
            header = StudyHeader(name, seed, problem.spec())
            first = Configured(config.model_dump(mode="json"))
            # Another process may have started it a moment ago: then continue with that one.
            with contextlib.suppress(ConflictError):
                journal.create(header, [first])
        self._open()

    def __repr__(self) -> str:
        return f"Study({self.name!r}, round={self.history.last_round}, journal={self.journal!r})"

    @property
    def config(self) -> TunerConfig:
        """The configuration in force."""
        return TunerConfig(**self.history.config)

    def sync(self) -> History:
        """Fold in what any process has written since; returns the history."""
        self.history.extend(self.journal.read(self.name, after=self.history.num_entries))
        return self.history

    def append(self, think: Callable[[History], tuple[Sequence[Entry], _T]]) -> _T:
        """Read what is new, think, append; think again where another process was faster.

        Args:
            think: from the history to the entries to append (none is fine) and an answer.
        Returns:
            The answer of the thought whose entries were written.
        Raises:
            ConflictError: other processes were faster too often.
        """
        for _ in range(_MAX_TRIES):
            entries, answer = think(self.sync())
            if not entries:
                return answer
            try:
                self.journal.append(self.name, entries, after=self.history.num_entries)
            except ConflictError:
                continue
            self.sync()
            return answer
        raise ConflictError(
            f"study {self.name!r} moved on {_MAX_TRIES} times while this process was thinking; "
            "too many writers share it"
        )

    def configure(self, config: TunerConfig) -> None:
        """Put another configuration in force from here on; journaled where it differs."""
        if config != self.config:
            entry = Configured(config.model_dump(mode="json"))
            self.append(lambda _: ([entry], None))

    def receive(self, messages: Sequence[Readings]) -> int:
        """Record readings, whole or not at all; see ``Tuner.tell``."""

        def record(history: History) -> tuple[Sequence[Entry], int]:
            received = history.new_rows(Readings.concat(messages)) if messages else None
            return ([], 0) if received is None else ([received], len(received.round))

        return self.append(record)

    def count_new(self, readings: Readings) -> int:
        """How many rows of a message ``tell`` would record; records nothing.

        Raises:
            ReadingsError: as ``tell`` would.
        """
        received = self.sync().new_rows(readings)
        return 0 if received is None else len(received.round)

    def plan(self, round: int) -> Plan:
        """The plan of a planned round, as a platform is asked to serve it."""
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

    def planned_for(self, trigger: str) -> Plan | None:
        """The plan that this trigger asked for, if any."""
        round_ = self.sync().triggers.get(trigger)
        return None if round_ is None else self.plan(round_)

    def set_aside(self, rounds: Sequence[int], reason: str) -> None:
        """Exclude rounds from the evidence, e.g. hours whose split was broken; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.set_aside(history, rounds, reason))

    def reinstate(self, rounds: Sequence[int], reason: str) -> None:
        """Let excluded rounds count again; journaled.

        Raises:
            RoundError: a round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.reinstate(history, rounds, reason))

    def roll_back(self, to_round: int, reason: str) -> None:
        """Continue as the study was when it planned ``to_round``; journaled, nothing is deleted.

        Readings of that round and of later ones no longer count, candidates added since are not
        served again, candidates that were stopped for harm stay stopped.

        Raises:
            RoundError: the round was never planned, or no reason is given.
        """
        self._decide(lambda history: interventions.roll_back(history, to_round, reason))

    def note(self, kind: str, reason: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write a remark into the journal; it changes nothing else.

        Args:
            kind: one word, e.g. ``"platform"``.
            reason: a sentence.
            facts: plain JSON values.
        Raises:
            ConfigError: the kind is one that changes something.
        """
        self._decide(lambda history: [interventions.remark(history, kind, reason, facts)])

    def compact(self, keep: int, dry_run: bool = False) -> CompactionSummary:
        """Delete readings older than the latest ``keep`` rounds; estimates stay as they are.

        Evidence of rounds that are older than one to two blocks (``TunerConfig.block_rounds``) is
        final, block by block. A block all of whose rounds are older than ``keep`` is written into
        the journal, with the numbers of the messages it came from, and its readings are deleted.
        These rounds cannot be corrected, excluded or reinstated afterwards, further readings of
        them are refused, and the study cannot be rolled back to them.

        Args:
            keep: rounds, counted from the last planned one.
            dry_run: only report what would be deleted.
        Raises:
            ConfigError: ``keep`` is no number of rounds.
        """

        def think(history: History) -> tuple[Sequence[Entry], CompactionSummary]:
            entries, summary = compact(history, Pooling.of(self.config), keep)
            return [] if dry_run else entries, summary

        return self.append(think)

    def save(self) -> dict[str, Any]:
        """The whole study as plain tensors, numbers and strings."""
        return pack(self.journal.header(self.name), self.journal.read(self.name))

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace this study by what ``save`` saved; see ``Tuner.load_state_dict``."""
        header, entries = unpack(state)
        self._check_problem(header)
        trial = History(self.problem.space.num_params, self.problem.metrics)
        try:
            trial.extend(entries)
        except JournalError as error:
            raise ConfigError(f"the state is damaged: {error}") from None
        TunerConfig(**trial.config)
        self.sync()
        if isinstance(self.journal, MemoryJournal):
            self.journal = MemoryJournal()
            self.journal.create(StudyHeader(self.name, header.seed, self.problem.spec()), entries)
        elif self.history.last_round is not None or header.seed != self.seed:
            raise StudyMismatchError(
                f"study {self.name!r} in {self.journal!r} has seed {self.seed} and planned rounds "
                f"up to {self.history.last_round}; load the state into a new study"
            )
        else:
            after = self.history.num_entries
            self.journal.append(self.name, [_moved(e, after) for e in entries], after=after)
        self._open()

    def _decide(self, decide: Callable[[History], Sequence[Decision]]) -> None:
        self.append(lambda history: (decide(history), None))

    def _open(self) -> None:
        header = self.journal.header(self.name)
        self._check_problem(header)
        self.seed = header.seed
        self.history = History(self.problem.space.num_params, self.problem.metrics)
        self.sync()

    def _check_problem(self, header: StudyHeader) -> None:
        spec = self.problem.spec()
        differ = [
            f"{key}: the study has {header.problem.get(key)}, the problem {spec.get(key)}"
            for key in {**spec, **header.problem}  # what only one of them has is a difference too
            if header.problem.get(key) != spec.get(key)
        ]
        if differ:
            raise StudyMismatchError(
                f"study {header.study!r} was made for another problem. " + "; ".join(differ)
            )


def _moved(entry: Entry, by: int) -> Entry:
    """An entry with the numbers of others that it names, where these move on."""
    if not isinstance(entry, Compacted):
        return entry
    return replace(entry, messages=tuple(number + by for number in entry.messages))
