"""How late readings are in a study as a rule: one rule for all who ask whether some are missing.

How late is learned from the study's own rounds, and counted in plans: the delay within which 99 %
of its latest rounds reported. A round that is older and has not reported is overdue. Before enough
rounds have shown a delay, a default is taken as normal.

    of a metric          the first arm that reports it, in each round
    of any metric        the first reading of the round
    of single arms       the last arm after the first of its round; here the longest wait counts

All functions read the latest week of hours. They compute no statistics of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .history import History
from .round_table import RoundTable

# Rounds that are looked at: a week of hours.
_WINDOW = 168
# The delay that is taken as normal before so many rounds have shown one.
_DEFAULT_DELAY, _MIN_ROUNDS = 4, 5
_QUANTILE = 0.99


class Lateness(NamedTuple):
    """Delays that are normal, in plans.

    ``metrics (metrics,)`` of a round's first reading of each, ``any`` of its first of any metric,
    and ``after_first (metrics,)`` of its last arm after that.
    """

    metrics: NDArray[np.int64]
    any: int
    after_first: NDArray[np.int64]

    def arms_are_overdue(self, table: RoundTable, num_later: int) -> NDArray[np.bool_]:
        """Metrics of a round that arms would have reported by now, ``(metrics,)``.

        Args:
            table: of the round.
            num_later: its age, see ``age``.
        """
        first = table.arrivals.first
        return (first >= 0) & (num_later >= first + self.after_first)


def recent(history: History) -> list[tuple[int, RoundTable]]:
    """The latest rounds that keep their readings, ascending."""
    # No more than a compaction leaves, so that it changes nothing.
    window = min(_WINDOW, history.config.get("block_rounds") or _WINDOW)
    return [(r, history.tables[r]) for r in sorted(history.tables)[-window:]]


def age(history: History, table: RoundTable, is_running: bool = False) -> int:
    """How many plans have followed a round's; its readings were due from the first on.

    Args:
        history: the study's facts.
        table: of the round.
        is_running: whether the round of the last plan is still under way; False when the next plan
            is made.
    """
    return len(history.plans) - 1 - table.index - int(is_running)


def lateness(history: History) -> Lateness:
    """The delays within which nearly all of the study's rounds reported."""
    width = len(history.metrics)
    arrivals = [table.arrivals for _, table in recent(history)]
    first = np.array([a.first for a in arrivals], dtype=np.int64).reshape(-1, width)
    last = np.array([a.last for a in arrivals], dtype=np.int64).reshape(-1, width)
    has = first >= 0
    together = np.where(has, first, np.iinfo(np.int64).max).min(axis=1)[has.any(axis=1)]
    any_ = _normal(together, _DEFAULT_DELAY)
    metrics = np.array(
        [_normal(first[has[:, m], m], any_, _DEFAULT_DELAY) for m in range(width)], dtype=np.int64
    )
    after_first = np.where(has, last - first, 0).max(axis=0, initial=0)
    if len(together) < 2 * _MIN_ROUNDS:
        after_first = np.maximum(after_first, _DEFAULT_DELAY)
    return Lateness(metrics, any_, after_first)


def _normal(delays: NDArray[np.int64] | Sequence[int], *least: int) -> int:
    """The delay that nearly all kept; where there are few, the largest of them and of ``least``."""
    if len(delays) >= _MIN_ROUNDS:
        return int(np.quantile(delays, _QUANTILE, method="higher"))
    return max([*map(int, delays), *least])
