"""Entries, and what a journal must do: keep them, in order, and let nobody overtake.

A journal has no opinion on what entries mean. Whoever appends states after which entry it believes
to write; if the study has moved on since, nothing is written and ``ConflictError`` says so. That
one rule makes several processes on one study safe: the loser reads what is new, thinks again, and
tries again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import isfinite
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ...errors import JournalError
from .compacted import evidence_flaw
from .trace import DecisionTrace, PlanTrace, Record, TransferChanged, decision_trace


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
class CandidateAdded:
    """A candidate enters the bucket, in ``round``, from ``origin`` ("base", "initial", ...)."""

    candidate: int
    round: int
    origin: str
    theta: tuple[float, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """A round's plan: parallel tuples over arms, ascending, the control first.

    ``trigger`` identifies the message that asked for it, so that asking again can be recognised.
    ``details`` is the stored form of ``trace``, which says why the plan is what it is.
    """

    round: int
    candidates: tuple[int, ...]
    slots: tuple[int, ...]
    shares: tuple[float, ...]
    trigger: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def trace(self) -> PlanTrace:
        """Why the plan is what it is; a ``TraceError`` where ``details`` cannot be read."""
        trace: PlanTrace = PlanTrace.read(self.details)
        return trace


@dataclass(frozen=True)
class ReadingsReceived:
    """Readings that arrived together: parallel tuples over rows; ``metric`` is an index.

    Rows ascend by (round, candidate, metric, revision), and no such key stands twice.
    """

    round: tuple[int, ...]
    candidate: tuple[int, ...]
    metric: tuple[int, ...]
    revision: tuple[int, ...]
    count: tuple[float, ...]
    mean: tuple[float, ...]
    var: tuple[float, ...]


@dataclass(frozen=True)
class Decision:
    """A decision that is not a plan, for the audit trail: what, why, and the facts behind it.

    ``details`` is the stored form of ``trace``, the facts.
    """

    round: int
    kind: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, round: int, reason: str, trace: DecisionTrace | TransferChanged) -> Decision:
        """A decision from its facts, which name its kind."""
        return cls(round, trace.kind, reason, trace.stored())

    @cached_property
    def trace(self) -> Record:
        """The facts, by kind; a ``TraceError`` where ``details`` cannot be read."""
        return decision_trace(self.kind, self.details)


@dataclass(frozen=True)
class Compacted:
    """Readings that nothing needs any more, and the evidence that stands for them.

    ``rounds`` ascend; ``messages`` are the numbers of the entries that brought the ``rows``
    readings; ``evidence`` holds packed arrays, see ``evidence.py``. A journal may forget readings
    of these rounds from this entry on: ``without`` says what is left of their messages.
    """

    rounds: tuple[int, ...]
    messages: tuple[int, ...]
    rows: int
    evidence: Mapping[str, Any]


Entry: TypeAlias = Configured | CandidateAdded | Planned | ReadingsReceived | Decision | Compacted

#: Entries under the names that journals and states store. These names never change.
ENTRY_KINDS: Mapping[str, type[Entry]] = {
    "configured": Configured,
    "born": CandidateAdded,
    "planned": Planned,
    "received": ReadingsReceived,
    "decided": Decision,
    "compacted": Compacted,
}
_STORED_NAMES = {kind: name for name, kind in ENTRY_KINDS.items()}


def values_of(entry: Entry) -> dict[str, Any]:
    """What an entry consists of, by the names of its fields."""
    return {field.name: getattr(entry, field.name) for field in fields(entry)}


def kind_of(entry: Entry) -> str:
    """The name under which journals and states store this type of entry."""
    return _STORED_NAMES[type(entry)]


def without(received: ReadingsReceived, rounds: Collection[int]) -> ReadingsReceived:
    """A message without its readings of these rounds."""
    left = [i for i, round_ in enumerate(received.round) if round_ not in rounds]
    return ReadingsReceived(
        **{name: tuple(v[i] for i in left) for name, v in values_of(received).items()}
    )


def flaw(entry: Entry) -> str | None:
    """Why these values, read from somewhere, are no entry; None where they are one.

    It looks at types, finite numbers and parallel lengths; what contradicts other entries is the
    fold's business.
    """
    match entry:
        case Configured():
            return _first_flaw(entry, mappings=("config",))
        case CandidateAdded():
            names = ("candidate", "round")
            return _first_flaw(
                entry, names, floats=("theta",), texts=("origin",), mappings=("parameters",)
            )
        case Planned():
            if entry.trigger is not None and not isinstance(entry.trigger, str):
                return f"trigger is {entry.trigger!r}"
            parallel = ("candidates", "slots", "shares")
            return _first_flaw(
                entry, ("round", *parallel[:2]), parallel[2:], (), ("details",), parallel
            )
        case ReadingsReceived():
            whole, real = ("round", "candidate", "metric", "revision"), ("count", "mean", "var")
            return _first_flaw(entry, whole, real, parallel=whole + real)
        case Decision():
            return _first_flaw(entry, ("round",), texts=("kind", "reason"), mappings=("details",))
        case Compacted():
            if not isinstance(entry.rounds, tuple) or not isinstance(entry.messages, tuple):
                return f"rounds are {entry.rounds!r:.40}, messages {entry.messages!r:.40}"
            reason = _first_flaw(entry, ("rounds", "messages", "rows"))
            return reason or evidence_flaw(entry.evidence)


def _first_flaw(
    entry: Entry,
    ints: Sequence[str] = (),
    floats: Sequence[str] = (),
    texts: Sequence[str] = (),
    mappings: Sequence[str] = (),
    parallel: Sequence[str] = (),
) -> str | None:
    values = values_of(entry)
    for name in (*parallel, *(n for n in floats if n not in parallel)):
        if not isinstance(values[name], tuple):
            return f"{name} is {values[name]!r:.40}, expected several values"
    for name in (*ints, *floats):
        several = values[name] if isinstance(values[name], tuple) else (values[name],)
        kinds = int if name in ints else (int, float)
        for value in several:
            if isinstance(value, bool) or not isinstance(value, kinds) or not isfinite(value):
                return f"{name} holds {value!r:.40}, expected a number"
    for name in texts:
        if not isinstance(values[name], str):
            return f"{name} is {values[name]!r:.40}, expected text"
    for name in mappings:
        if not isinstance(values[name], Mapping):
            return f"{name} is {values[name]!r:.40}, expected a mapping"
    lengths = {name: len(values[name]) for name in parallel}
    return f"columns differ in length: {lengths}" if len(set(lengths.values())) > 1 else None


@runtime_checkable
class Journal(Protocol):
    """Where studies are kept. Safe to share between processes, not between threads.

    Entries of a study are numbered 1, 2, 3, ... A call either does all that it says or nothing,
    also when the process is killed in the middle of it. Nothing is ever changed, but for readings
    that a ``Compacted`` entry says are needed no more: a journal may forget them.
    ``testing.JournalContract`` is the suite that every implementation passes.
    """

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        ...

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries, at least one.

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
