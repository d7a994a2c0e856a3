"""Entries, and what a journal must do: keep them, in order, and let nobody overtake.

A journal has no opinion on what entries mean. Whoever appends states after which entry it believes
to write; if the study has moved on since, nothing is written and ``ConflictError`` says so. That
one rule makes several processes on one study safe: the loser reads what is new, thinks again, and
tries again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..errors import JournalError


class ConflictError(JournalError):
    """The study has moved on since it was read; nothing was written."""


@dataclass(frozen=True)
class StudyHeader:
    """What a study is, written once: its seed and ``Problem.spec()``."""

    study: str
    seed: int
    problem: Mapping[str, Any]


@dataclass(frozen=True)
class Configured:
    """The tuner's configuration from here on: ``TunerConfig`` as plain values."""

    config: Mapping[str, Any]


@dataclass(frozen=True)
class Born:
    """A candidate enters the bucket, in ``round``, from ``origin`` ("base", "initial", ...)."""

    candidate: int
    round: int
    origin: str
    theta: tuple[float, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """A round's plan: parallel tuples over arms, the control first; ``details`` say why.

    ``trigger`` identifies the message that asked for it, so that asking again can be recognised.
    """

    round: int
    candidates: tuple[int, ...]
    slots: tuple[int, ...]
    shares: tuple[float, ...]
    trigger: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """Readings that arrived together: parallel tuples over rows; ``metric`` is an index."""

    round: tuple[int, ...]
    candidate: tuple[int, ...]
    metric: tuple[int, ...]
    revision: tuple[int, ...]
    count: tuple[float, ...]
    mean: tuple[float, ...]
    var: tuple[float, ...]


@dataclass(frozen=True)
class Decided:
    """A decision that is not a plan, for the audit trail: what, why, and the facts behind it."""

    round: int
    kind: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


Entry: TypeAlias = Configured | Born | Planned | Received | Decided


@runtime_checkable
class Journal(Protocol):
    """Where studies are kept. Safe to share between processes, not between threads.

    Entries of a study are numbered 1, 2, 3, ... A call either does all that it says or nothing,
    also when the process is killed in the middle of it. ``testing.JournalContract`` is the suite
    that every implementation passes.
    """

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        ...

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries.

        Raises:
            ConflictError: a study of this name exists.
        """
        ...

    def header(self, study: str) -> StudyHeader:
        """The study's header.

        Raises:
            StudyNotFoundError: there is no such study; names those that are there.
        """
        ...

    def append(self, study: str, entries: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last.

        Args:
            study: its name.
            entries: at least one.
            after: number of the last entry that the caller has read.
        Raises:
            ConflictError: the study has moved on.
        """
        ...

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order.

        Raises:
            StudyNotFoundError: there is no such study.
            JournalCorruptError: what is stored cannot be an entry.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; the journal is not used again."""
        ...
