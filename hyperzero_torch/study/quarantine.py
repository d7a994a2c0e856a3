"""Readings that are not believed.

They stay in the journal and in the tables of their rounds. The evidence is computed as if they had
not arrived, until a person accepts them or a later revision replaces them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .journal.quarantine_trace import Quarantined, ReadingsAccepted
from .round_table import RoundTable

#: Kind of remarks on the unit of a metric whose readings still count.
UNITS = "units"


class Cell(NamedTuple):
    """One reading: a round, a candidate and the number of a metric."""

    round: int
    candidate: int
    metric: int


class Doubt(NamedTuple):
    """Why a reading is not believed; ``is_unit`` where the unit of its metric is doubted."""

    code: str
    reason: str
    is_unit: bool


def fold(
    quarantined: dict[Cell, Doubt],
    tables: Mapping[int, RoundTable],
    num_metrics: int,
    trace: Quarantined | ReadingsAccepted,
    reason: str,
) -> None:
    """Apply a decision about readings to the tables and to the readings that are set aside.

    Raises:
        ValueError: it names readings that do not exist.
    """
    if isinstance(trace, Quarantined):
        metrics: Sequence[int] = [trace.metric] * len(trace.rounds)
    else:
        metrics = trace.metrics
    if {len(trace.candidates), len(metrics)} != {len(trace.rounds)}:
        raise ValueError("its columns have different lengths")
    cells = list(map(Cell, trace.rounds, trace.candidates, metrics))
    by_round: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for cell in cells:
        table = tables.get(cell.round)
        if table is None or cell.candidate not in table.row or not 0 <= cell.metric < num_metrics:
            raise ValueError(f"it names a reading of an arm that was not planned: {tuple(cell)}")
        by_round[cell.round].append((cell.candidate, cell.metric))
    for round_, of_round in by_round.items():
        tables[round_].judge(of_round, isinstance(trace, Quarantined))
    if isinstance(trace, Quarantined):
        quarantined.update(dict.fromkeys(cells, Doubt(trace.code, reason, trace.is_unit)))
    else:
        for cell in cells:
            quarantined.pop(cell, None)
