"""One study in its journal: opened or started, folded, and written to without overtaking anyone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import ConfigError, JournalCorruptError, StudyMismatchError
from ..problem.problem import Problem
from .config import TunerConfig
from .history import History
from .journal import (
    Compacted,
    Configured,
    Entry,
    Journal,
    MemoryJournal,
    StudyHeader,
)
from .journal.base import ConflictError
from .journal.state import pack, unpack

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
            # Another process may have started it a moment ago: then go on with theirs.
            with contextlib.suppress(ConflictError):
                journal.create(header, [first])
        self._open()

    def sync(self) -> History:
        """Fold in what has been written since, by whomever; returns the history."""
        self.history.extend(self.journal.read(self.name, after=self.history.num_entries))
        return self.history

    def append(self, think: Callable[[History], tuple[list[Entry], _T]]) -> _T:
        """Read what is new, think, append; think again where another process was faster.

        Args:
            think: from the history to the entries to append (none is fine) and an answer.
        Returns:
            The answer of the thought whose entries were written.
        Raises:
            ConflictError: others were faster too often.
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

    def save(self) -> dict[str, Any]:
        """The whole study as plain tensors, numbers and strings."""
        return pack(self.journal.header(self.name), self.journal.read(self.name))

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``save`` saved; see ``Tuner.load_state_dict``."""
        header, entries = unpack(state)
        self._check_problem(header)
        trial = History(self.problem.space.num_params, self.problem.metrics)
        try:
            trial.extend(entries)
        except JournalCorruptError as error:
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
