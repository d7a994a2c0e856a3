"""Readings that are missing, late or revised.

The journal keeps no clock times, so delays are counted in rounds, from the order of its entries. A
message about round 6 that stands after the plan of round 9 arrived three rounds late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...study.history import History
from ...study.journal import Entry, Planned, ReadingsReceived
from .tables import Table, blocks, table

if TYPE_CHECKING:
    from ...tuner.tuner import Tuner

#: Only the latest entries are read: delays change over a study, and journals grow long.
MOST_ENTRIES = 3000
MOST_LATE = 48  # rounds late; what is later is counted together


class Delays(NamedTuple):
    """Numbers of readings by the rounds that they were late: first reports, and revisions."""

    first: Counter[int]
    revised: Counter[int]


def delays_of(tuner: Tuner) -> Delays:
    """Delays over the latest entries of a study that has been read."""
    num = tuner.history.num_entries
    return count(tuner.journal.read(tuner.study.name, after=max(0, num - MOST_ENTRIES)))


def count(entries: Sequence[Entry]) -> Delays:
    """Delays over entries in order; messages before the first plan among them do not count."""
    delays = Delays(Counter(), Counter())
    now: int | None = None
    for entry in entries:
        if isinstance(entry, Planned):
            now = entry.round if now is None else max(now, entry.round)
        elif isinstance(entry, ReadingsReceived) and now is not None:
            for round_, revision in zip(entry.round, entry.revision):
                (delays.revised if revision > 0 else delays.first)[now - round_] += 1
    return delays


def arms(history: History) -> Table:
    """By round, the arms that were planned, those without readings, those that were revised."""
    excluded = history.status.excluded_rounds
    rounds = blocks(sorted(history.tables))
    groups = [[history.tables[r] for r in block] for block in rounds]
    return table(
        ("round", "round", "whole", [block[0] for block in rounds]),
        ("arms", "arms", "whole", [sum(len(t.candidates) for t in g) for g in groups]),
        ("waiting", "waiting", "whole", [sum(t.num_waiting for t in g) for g in groups]),
        (
            "revised",
            "revised later",
            "whole",
            [sum(int((t.revision > 0).any(axis=1).sum()) for t in g) for g in groups],
        ),
        ("control", "controls reported", "whole", [sum(t.has_control for t in g) for g in groups]),
        ("excluded", "rounds excluded", "whole", [sum(r in excluded for r in b) for b in rounds]),
    )


def arrivals(delays: Delays) -> Table:
    """First reports and revisions by delay, and the share that had arrived by then.

    The last row counts all that is later as well.
    """
    last = min(max([*delays.first, *delays.revised], default=0), MOST_LATE - 1)
    first, revised = (
        [
            counts[k] + (k == last) * sum(n for r, n in counts.items() if r > last)
            for k in range(last + 1)
        ]
        for counts in delays
    )
    total = sum(first)
    return table(
        ("late", "rounds late", "whole", range(last + 1)),
        ("first", "readings", "whole", first),
        (
            "by_then",
            "arrived by then",
            "prob",
            [sum(first[: k + 1]) / total if total else None for k in range(last + 1)],
        ),
        ("revised", "revisions", "whole", revised),
    )
