"""How late readings come: rounds from being served to being recorded, from the journal's order.

The journal keeps no clock times. A message that stands behind the plan of round 9 and speaks of
round 6 came in the third round after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...study.journal import Entry, Planned, ReadingsReceived

if TYPE_CHECKING:
    from ...tuner.tuner import Tuner

#: The last so many entries are read: a study's way to be late changes, and journals grow long.
MOST_ENTRIES = 3000


class Lateness(NamedTuple):
    """Rows of readings by the rounds that they came late: the first of each kind, and revisions."""

    first: Counter[int]
    revised: Counter[int]


def lateness(tuner: Tuner) -> Lateness:
    """Of the latest entries of a study that has been read."""
    known = tuner.history.num_entries
    return count(tuner.journal.read(tuner.study.name, after=max(0, known - MOST_ENTRIES)))


def count(entries: Sequence[Entry]) -> Lateness:
    """Of these entries, in order; messages before the first plan among them tell nothing."""
    found = Lateness(Counter(), Counter())
    now: int | None = None
    for entry in entries:
        if isinstance(entry, Planned):
            now = entry.round if now is None else max(now, entry.round)
        elif isinstance(entry, ReadingsReceived) and now is not None:
            for round_, revision in zip(entry.round, entry.revision):
                (found.revised if revision > 0 else found.first)[now - round_] += 1
    return found
