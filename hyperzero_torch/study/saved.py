"""A study that was saved as plain tensors, numbers and strings, put into a journal again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ConfigError, JournalCorruptError, JournalError, StudyMismatchError
from ..problem.problem import Problem
from . import goals, saved_checks
from .config import TunerConfig
from .history import History, history_of
from .journal import Compacted, Entry, Journal, MemoryJournal, StudyHeader
from .journal.state import FOREIGN_ERRORS, pack, unpack

__all__ = ["loaded", "pack"]


def loaded(
    journal: Journal,
    study: str,
    problem: Problem,
    history: History,
    state: Mapping[str, Any],
    check: Callable[[History], object],
) -> Journal:
    """The journal with the saved study in the place of this one; see ``Study.load``.

    Raises:
        ConfigError: not a saved state, or a damaged one.
        StudyMismatchError: it has other goals, or this study has plans of its own.
    """
    header, entries = unpack(state)
    _tried(header, entries, problem, check)
    if isinstance(journal, MemoryJournal):
        other = MemoryJournal()
        other.create(StudyHeader(study, header.seed, header.problem), entries)
        return other
    seed = journal.header(study).seed
    if history.last_round is not None or header.seed != seed or history.goals:
        raise StudyMismatchError(
            f"study {study!r} in {journal!r} has seed {seed} and planned rounds up to "
            f"{history.last_round}; load the state into a new study"
        )
    after = history.num_entries
    journal.append(study, [_moved(e, after) for e in entries], after=after)
    return journal


def _tried(
    header: StudyHeader,
    entries: Sequence[Entry],
    problem: Problem,
    check: Callable[[History], object],
) -> None:
    """Refuse a state from which no study can go on."""
    try:
        trial = history_of(header)
        trial.extend(entries)
        goals.check_same(goals.latest(header, trial.goals), problem, header.study)
        goals.opened(problem, header, trial.goals)
        TunerConfig(**trial.config)
        saved_checks.check(header, trial)
        _check_own(trial, check)
    except StudyMismatchError:
        raise
    except JournalCorruptError as error:
        raise ConfigError(f"the state is damaged: {error}") from None
    except JournalError as error:
        raise ConfigError(f"the state cannot be used: {error}") from None
    except ConfigError:
        raise
    except FOREIGN_ERRORS as error:
        raise ConfigError(
            f"the state is damaged: {type(error).__name__}: {error!s:.300}; nothing was changed"
        ) from None


def _check_own(trial: History, check: Callable[[History], object]) -> None:
    """The caller's check; a state of another surrogate cannot be used by it."""
    try:
        check(trial)
    except StudyMismatchError as error:
        raise ConfigError(f"the state cannot be used: {error}") from None


def _moved(entry: Entry, by: int) -> Entry:
    """An entry whose references to other entries are shifted by so many numbers."""
    if not isinstance(entry, Compacted):
        return entry
    return replace(entry, messages=tuple(number + by for number in entry.messages))
