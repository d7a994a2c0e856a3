"""Rows of rounds that have no plan to compare them with: left out and named, or refused.

A cron job that missed an hour exports rows of a round that was never planned. Those rows have no
shares and no control of their own, so they are no evidence. They must not hold up the rows of the
rounds beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..errors import ConfigError
from .history import History
from .interventions import remark
from .journal import Decision
from .journal.trace import Remark
from .lacking import named_rounds, rounds_of
from .readings import Readings

#: What to do with rows of rounds that were never planned.
Unknown: TypeAlias = Literal["refuse", "skip"]
#: Kind of the remark on rows that were not taken.
REFUSED = "refused"


@dataclass(frozen=True)
class LeftOut:
    """Rows of a message that are not taken: rounds never planned, and compacted rounds.

    Args:
        never_planned: rows by round.
        compacted: rows by round; the evidence of these rounds is final.
        last_round: the last planned round.
    """

    never_planned: Mapping[int, int]
    compacted: Mapping[int, int]
    last_round: int

    @property
    def num_rows(self) -> int:
        """Number of rows that are not taken."""
        return sum(self.never_planned.values()) + sum(self.compacted.values())

    @property
    def rounds(self) -> tuple[int, ...]:
        """All rounds concerned, ascending."""
        return tuple(sorted({*self.never_planned, *self.compacted}))

    def __str__(self) -> str:
        parts = []
        if self.never_planned:
            rounds = named_rounds(self.never_planned)
            verb = "it was" if len(self.never_planned) == 1 else "they were"
            parts.append(f"unknown {rounds}: {verb} never planned, the last is {self.last_round}")
        if self.compacted:
            verb = "was" if len(self.compacted) == 1 else "were"
            parts.append(
                f"{named_rounds(self.compacted)} {verb} compacted into evidence, which is final"
            )
        return f"{self.num_rows} rows were left out: {'; '.join(parts)}"


def split(history: History, readings: Readings) -> tuple[Readings | None, LeftOut | None]:
    """A message without the rows of rounds that cannot take readings, and what was left out.

    Before the first plan nothing is left out: then every row is a mistake, and is refused.
    """
    last = history.next_round - 1  # that of an earlier study, whose hours may still arrive
    if last < 0:
        return readings, None
    rounds, counts = np.unique(readings.round, return_counts=True)
    rows = dict(zip(rounds.tolist(), counts.tolist()))
    never = {r: n for r, n in rows.items() if r not in history.plans}
    compacted = {r: n for r, n in rows.items() if r in history.plans and r not in history.tables}
    if not never and not compacted:
        return readings, None
    taken = ~np.isin(readings.round, [*never, *compacted])
    return (readings.only(taken) if taken.any() else None), LeftOut(never, compacted, last)


def remarks_on(history: History, left_out: LeftOut) -> list[Decision]:
    """The journal's remark on rows that were left out; none where it names these rounds already."""
    named: set[int] = set()
    for decision in history.decisions:
        if decision.kind == REFUSED and isinstance(decision.trace, Remark):
            named.update(rounds_of(decision.trace.facts))
    if named.issuperset(left_out.rounds):
        return []
    facts = {"rounds": list(left_out.rounds), "rows": left_out.num_rows}
    return [remark(history, REFUSED, str(left_out), facts)]


def check_unknown(unknown: object) -> None:
    """Refuse an option that is neither "refuse" nor "skip"."""
    if unknown not in get_args(Unknown):
        raise ConfigError(f"unknown must be 'refuse' or 'skip', got {unknown!r}")


def taken_rows(
    history: History, message: Readings | None, unknown: Unknown
) -> tuple[Readings | None, LeftOut | None]:
    """The rows of a message that are taken, and those that are left out; see ``Unknown``."""
    if message is None or unknown == "refuse":
        return message, None
    return split(history, message)
