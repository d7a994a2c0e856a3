"""The entries of a journal, and the interface of a journal that stores them in order.

A journal does not interpret entries. A writer states the number of the last entry that it has read.
If there are newer entries, nothing is written and ``ConflictError`` is raised. This makes several
processes on one study safe: the one that came later reads the new entries and tries again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import isfinite
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ...errors import JournalError
from .arrays import evidence_flaw
from .record import DecisionTrace, Record
from .trace import PlanTrace, TransferChanged, decision_trace


class ConflictError(JournalError):
    """Another process has appended to the study since it was read; nothing was written."""


@dataclass(frozen=True)
class StudyHeader:
    """The fixed facts of a study, written once: its seed and ``Problem.spec()``."""

    study: str
    seed: int
    problem: Mapping[str, Any]


@dataclass(frozen=True)
class Configured:
    """The configuration from this entry on: ``TunerConfig`` as plain values."""

    config: Mapping[str, Any]


@dataclass(frozen=True)
class CandidateAdded:
    """A candidate is added to the bucket in ``round``; ``origin`` is "base", "initial", ...."""

    candidate: int
    round: int
    origin: str
    theta: tuple[float, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """A round's plan: parallel tuples over arms, ascending, the control first.

    ``trigger`` identifies the message that asked for the plan, so that a repeated message finds it.
    ``details`` is the stored form of ``trace``.
    """

    round: int
    candidates: tuple[int, ...]
    slots: tuple[int, ...]
    shares: tuple[float, ...]
    trigger: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def trace(self) -> PlanTrace:
        """The reasons for the plan; ``TraceError`` where ``details`` cannot be read."""
        trace: PlanTrace = PlanTrace.read(self.details)
        return trace


@dataclass(frozen=True)
class ReadingsReceived:
    """Readings that arrived together: parallel tuples over rows; ``metric`` is an index.

    Rows ascend by (round, candidate, metric, revision); no such key occurs twice.
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
    """A decision other than a plan, or a remark: its kind, its reason, and the facts behind it.

    ``details`` is the stored form of ``trace``, the facts.
    """

    round: int
    kind: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, round: int, reason: str, trace: DecisionTrace | TransferChanged) -> Decision:
        """A decision from its facts, which determine its kind."""
        return cls(round, trace.kind, reason, trace.stored())

    @cached_property
    def trace(self) -> Record:
        """The facts; ``TraceError`` where ``details`` cannot be read."""
        return decision_trace(self.kind, self.details)


@dataclass(frozen=True)
class Compacted:
    """The evidence of rounds whose readings are deleted.

    ``rounds`` ascend. ``messages`` are the numbers of the entries with these readings, ``rows`` is
    the number of readings. ``evidence`` holds packed arrays, see ``arrays.py``. From this entry on
    a journal may delete the readings of these rounds; ``without`` gives the rest of a message.
    """

    rounds: tuple[int, ...]
    messages: tuple[int, ...]
    rows: int
    evidence: Mapping[str, Any]


Entry: TypeAlias = Configured | CandidateAdded | Planned | ReadingsReceived | Decision | Compacted

#: Entry types by the names that journals and states store. These names never change.
ENTRY_KINDS: Mapping[str, type[Entry]] = {
    "configured": Configured,
    "born": CandidateAdded,
    "planned": Planned,
    "received": ReadingsReceived,
    "decided": Decision,
    "compacted": Compacted,
}
#: Fields whose values are stored as 8-byte floats.
FLOATS = ("theta", "shares", "count", "mean", "var")
_STORED_NAMES = {kind: name for name, kind in ENTRY_KINDS.items()}


def values_of(entry: Entry) -> dict[str, Any]:
    """The values of an entry, by field name."""
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
    """Why stored values are not a valid entry; None where they are.

    Types, finite numbers and equal lengths are checked here. ``History`` checks that entries do not
    contradict each other.
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
        kinds = (int,) if name in ints else (int, float)
        # Millions of values are right; they are looked at one by one only where one is not.
        if {*map(type, several)}.issubset(kinds) and all(map(isfinite, several)):
            continue
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

    Entries of a study are numbered 1, 2, 3, ... A call takes effect completely or not at all, also
    when the process is killed during it. Entries never change, except that a journal may delete
    readings of the rounds of a ``Compacted`` entry. Every implementation passes
    ``testing.JournalContract``.
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
            StudyNotFoundError: there is no such study; the message lists the existing ones.
        """
        ...

    def append(self, study: str, entries: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last.

        Args:
            study: its name.
            entries: at least one.
            after: number of the last entry that the caller has read.
        Raises:
            ConflictError: there are newer entries.
        """
        ...

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order.

        Raises:
            StudyNotFoundError: there is no such study.
            JournalCorruptError: stored values are not a valid entry.
        """
        ...

    def close(self) -> None:
        """Release files and connections; the journal is not used again."""
        ...
