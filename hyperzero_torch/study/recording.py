"""Messages of readings to the entries that record them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..problem.problem import Problem
from .history import History
from .journal import Entry, ReadingsReceived
from .journal.base import values_of
from .judgement import judge
from .readings import Readings
from .reception import new_rows
from .unplanned import Unknown, remarks_on, taken_rows


def entries_of(
    history: History, problem: Problem, message: Readings | None, unknown: Unknown
) -> tuple[list[Entry], int]:
    """What records one message, and the number of its rows that are new; see ``Tuner.tell``.

    Raises:
        ReadingsError: the message is refused.
    """
    taken, left_out = taken_rows(history, message, unknown)
    received = None if taken is None else new_rows(history, taken)
    entries: list[Entry] = [] if left_out is None else [*remarks_on(history, left_out)]
    if received is None:
        return entries, 0
    return [*entries, received, *judge(history, problem, received)], len(received.round)


def joined(parts: Sequence[ReadingsReceived]) -> ReadingsReceived:
    """Several messages without a row in common as one, in the order that the journal requires."""
    columns = {
        name: np.concatenate([np.array(values_of(part)[name]) for part in parts])
        for name in values_of(parts[0])
    }
    order = np.lexsort([columns[k] for k in ("revision", "metric", "candidate", "round")])
    return ReadingsReceived(**{name: tuple(v[order].tolist()) for name, v in columns.items()})
