"""Are the variances of a metric confirmed by anything but themselves?

A standard deviation sent as a variance, or the variance of a mean, makes chance look like harm. The
scatter between hours shows it (``study/readings/units.py``), but there is none in the first hours,
nor in the first ones after a change of the unit. A metric's variances are confirmed where

    its latest three rounds that count have variances of one size, and the journal has not doubted
    their unit within a day: the scatter between them has been seen
    or it is a fraction, and they are mean (1 - mean)
    or the arms of an hour scatter as they say.

Arms may differ for real, so their scatter confirms where more of them are close to their median
than would be if variances were ten times as large. Until a metric is confirmed, harm has to be as
clear with the variances that its readings would have in the other units.
"""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..study.history import History
from ..study.journal.quarantine_trace import Quarantined
from ..study.journal.trace import Remark
from ..study.lateness import recent
from ..study.quarantine import UNITS
from ..study.readings.units import DEVIATION, OF_MEAN, TOO_SMALL, is_fraction
from ..study.round_table import RoundTable

_NUM_ROUNDS = 3
# Arms of an hour by which its scatter can be judged, and users of an arm.
_FEWEST_ARMS, _FEWEST_USERS = 8, 30
# Sizes of variances that are the same unit.
_SAME_UNIT = 5.0
# No metric's standard deviation exceeds its mean by more.
_WIDEST = 30.0
# An arm is close to the median where its square is below this; the part of arms for which that
# holds where their variances are ten times what they claim, by a chi-square with one degree of
# freedom; and the normal quantile beyond which it is no longer chance.
_CLOSE, _PART_CLOSE, _SURE = 0.61, 0.195, 1.645
# Rounds for which a doubt holds: a unit is judged by so many, so it is certain by then, or nothing.
_DOUBT_ROUNDS = 24
# Doubts about units in which variances are too small.
_DOUBTS = (OF_MEAN, DEVIATION, TOO_SMALL)


def variance_factors(history: History) -> Tensor:
    """By how much the variances of each metric may be too small, ``(metrics,)``; 1 if confirmed."""
    excluded = history.status.excluded_rounds
    tables = [table for round_, table in recent(history) if round_ not in excluded]
    factors = torch.ones(len(history.metrics), dtype=torch.float64)
    doubted = _doubted(history)
    for m in range(len(history.metrics)):
        # Rounds that are set aside say nothing; those before them may still count.
        hours = (_cells(table, m) for table in reversed(tables) if table.arrivals.reported[m])
        cells = list(islice((hour for hour in hours if len(hour)), _NUM_ROUNDS))[::-1]
        if cells and not is_confirmed(cells, m in doubted):
            users, mean, var = np.concatenate(cells[-1:]).T
            deviation = np.median(users * var / np.maximum(mean**2, 1e-300))
            may_be_of_mean = deviation < _WIDEST**2
            # Of a mean: the variance of one user is that of the mean times the arm's users.
            factors[m] = np.median(users) if may_be_of_mean else max(1.0, float(np.median(var)))
    return factors


def _doubted(history: History) -> set[int]:
    """Metrics whose unit the journal has doubted lately, and nobody has accepted."""
    accepted = history.status.accepted_units
    since = (history.last_round or 0) - _DOUBT_ROUNDS
    doubts = set()
    for decision in reversed(history.decisions):
        if decision.round < since:
            break
        trace = decision.trace
        if isinstance(trace, Quarantined) and trace.is_unit:
            doubts.add((trace.metric, trace.code))
        elif decision.kind == UNITS and isinstance(trace, Remark):
            name, code = trace.facts.get("metric"), trace.facts.get("code")
            if name in history.metrics:
                doubts.add((history.metrics.index(name), str(code)))
    return {m for m, code in doubts - accepted if code in _DOUBTS}


def is_confirmed(cells: list[NDArray[np.float64]], is_doubted: bool) -> bool:
    """Whether more than the variances themselves speaks for them.

    Args:
        cells: users, means and variances of the arms, ``(arms, 3)``, of each of the latest rounds
            that report the metric, ascending.
        is_doubted: whether the journal doubts the metric's unit.
    """
    sizes = np.array([np.median(hour[:, 2]) for hour in cells])
    is_even = len(cells) == _NUM_ROUNDS and sizes.max() <= _SAME_UNIT * sizes.min()
    if is_even and not is_doubted:
        return True
    is_same = np.maximum(sizes / sizes[-1], sizes[-1] / sizes) <= _SAME_UNIT
    latest = [hour for hour, same in zip(cells, is_same) if same]
    users, mean, var = np.concatenate(latest).T
    if is_fraction(users, mean, var):
        return True
    squares = [_squares(hour) for hour in latest if len(hour) >= _FEWEST_ARMS]
    if not squares:
        return False
    square = np.concatenate(squares)
    num_close = float((square <= _CLOSE).sum())
    expected, spread = len(square) * _PART_CLOSE, _PART_CLOSE * (1 - _PART_CLOSE)
    return num_close > expected + _SURE * math.sqrt(len(square) * spread) + 0.5


def _cells(table: RoundTable, metric: int) -> NDArray[np.float64]:
    """Users, means and variances of the arms of a round that can be judged, ``(arms, 3)``."""
    columns = [table.counted(name)[:, metric] for name in ("count", "mean", "var")]
    cells = np.stack(columns, axis=1)
    return cells[(cells[:, 0] >= _FEWEST_USERS) & (cells[:, 2] > 0)]


def _squares(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared deviations from the median of the arms, over the variances they claim.

    Without the smallest: it is that of the median itself.
    """
    users, mean, var = cells.T
    squares: NDArray[np.float64] = (mean - np.median(mean)) ** 2 * users / var
    return np.sort(squares)[1:]
