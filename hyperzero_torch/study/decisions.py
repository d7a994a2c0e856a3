"""What decisions have changed of a study: who may compete, and which evidence counts how much.

Nothing is ever deleted. A decision is one more entry of the journal, which names the rounds and
candidates that it concerns, so that folding it needs no thought and another decision can lift it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .journal import Decision

#: Kinds of ``Decision`` that change what a study goes by; all others are remarks.
RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK = (
    "retired",
    "stopped",
    "set aside",
    "reinstated",
    "drift",
    "rolled back",
)
#: On other domains: one more source, an expert's word on them, and (a remark) what became of it.
SOURCE, OVERRULED, TRANSFER = "source", "overruled", "transfer"
CHANGES = frozenset({RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK, SOURCE, OVERRULED})


@dataclass(frozen=True)
class Discount:
    """Since round ``noticed``, deltas of one ``metric`` of rounds before ``before`` count less.

    Their variances are divided by ``factor``, in (0, 1].
    """

    noticed: int
    before: int
    metric: int
    factor: float


@dataclass
class StudyStatus:
    """The fold over decisions.

    ``retired`` candidates compete no longer until they are served again; ``stopped`` ones never
    will. ``excluded_rounds`` maps rounds whose readings do not count to the reason. ``version``
    counts the decisions that changed what evidence there is.
    """

    retired: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    excluded_rounds: dict[int, str] = field(default_factory=dict)
    discounts: tuple[Discount, ...] = ()
    version: int = 0

    def copy(self) -> StudyStatus:
        """One that can be changed without changing this."""
        return StudyStatus(
            set(self.retired),
            set(self.stopped),
            dict(self.excluded_rounds),
            self.discounts,
            self.version,
        )

    def fold(self, entry: Decision, born: int, planned: Callable[[int], bool]) -> None:
        """Take a decision over.

        Args:
            entry: the decision; remarks change nothing.
            born: how many candidates there are.
            planned: whether a round was planned.
        Raises:
            ValueError: it names candidates or rounds that are not there, or makes no sense.
        """
        details = entry.details
        if entry.kind in (RETIRED, STOPPED, ROLLED_BACK):
            candidates = _ids(details.get("candidates", ()), "candidates", lambda c: c < born)
            (self.retired if entry.kind == RETIRED else self.stopped).update(candidates)
        if entry.kind in (ASIDE, REINSTATED, ROLLED_BACK):
            rounds = _ids(details.get("rounds", ()), "rounds", planned)
            if entry.kind == REINSTATED:
                for round_ in rounds:
                    self.excluded_rounds.pop(round_, None)
            else:
                self.excluded_rounds.update(dict.fromkeys(rounds, entry.reason))
        if entry.kind == ROLLED_BACK:
            self.retired.clear()
            to = details.get("to_round")
            self.discounts = tuple(d for d in self.discounts if to is None or d.noticed <= to)
        if entry.kind == DRIFT:
            self.discounts += _discounts(entry)
        self.version += entry.kind in (ASIDE, REINSTATED, DRIFT, ROLLED_BACK, SOURCE, OVERRULED)


def _ids(listed: Any, name: str, known: Callable[[int], bool]) -> Sequence[int]:
    whole = isinstance(listed, list | tuple) and all(type(c) is int and c >= 0 for c in listed)
    if not whole or not all(known(c) for c in listed):
        raise ValueError(f"details name {name} that are not there: {listed!r:.60}")
    return list(listed)


def _discounts(entry: Decision) -> tuple[Discount, ...]:
    details = entry.details
    metrics, before, factor = (details.get(name) for name in ("metrics", "before", "factor"))
    columns = _ids(metrics, "metrics", lambda m: True)
    if type(before) is not int or not isinstance(factor, float) or not 0 < factor <= 1:
        raise ValueError(f"a discount of {factor!r:.20} before round {before!r:.20} is none")
    return tuple(Discount(entry.round, before, metric, factor) for metric in columns)
