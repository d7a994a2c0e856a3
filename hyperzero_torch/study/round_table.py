"""The readings of one round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RoundTable:
    """The readings of one round: a row per planned arm, a column per metric.

    ``count``, ``mean``, ``var`` are NaN and ``revision`` is -1 where nothing has arrived.
    ``num_waiting`` counts arms without any reading. ``messages`` are the numbers of the entries
    that brought readings. ``set_aside`` is true for readings that are not believed until a person
    accepts them: ``counted`` leaves them out. ``num_judgements`` counts the changes of it.
    ``index`` numbers the study's plans 0, 1, 2, ...; ``delay`` is how many plans were made after
    this one before the first reading with users, -1 where there is none.
    """

    def __init__(self, candidates: Sequence[int], num_metrics: int, index: int = 0) -> None:
        shape = (len(candidates), num_metrics)
        self.candidates = np.array(candidates, dtype=np.int64)
        self.row = {c: i for i, c in enumerate(candidates)}
        self.count = np.full(shape, np.nan)
        self.mean = np.full(shape, np.nan)
        self.var = np.full(shape, np.nan)
        self.revision = np.full(shape, -1, dtype=np.int64)
        self.set_aside = np.zeros(shape, dtype=bool)
        self.num_judgements = 0
        self.index = index
        self.delay = np.full(shape, -1, dtype=np.int64)
        self.num_waiting = len(candidates)
        self.messages: list[int] = []

    def take(
        self, message: int, metric: NDArray[np.int64], columns: Mapping[str, Any], delay: int = 0
    ) -> None:
        """Store values; a newer revision replaces an older one.

        Args:
            message: number of the entry with the readings.
            metric: column of each value.
            columns: ``candidate``, ``count``, ``mean``, ``var`` and ``revision`` of each.
            delay: how many plans have been made after this one.
        """
        at = (np.array([self.row[c] for c in columns["candidate"].tolist()], dtype=int), metric)
        for name in ("count", "mean", "var", "revision"):
            getattr(self, name)[at] = columns[name]
        self.set_aside[at] = False  # a new revision is judged anew
        self.delay[(self.delay < 0) & (self.count > 0)] = delay
        self.num_waiting = int((self.revision < 0).all(axis=1).sum())
        self.messages.append(message)

    def judge(self, cells: Sequence[tuple[int, int]], is_set_aside: bool) -> None:
        """Set cells ``(candidate, metric)`` aside, or accept them."""
        at = ([self.row[c] for c, _ in cells], [m for _, m in cells])
        self.set_aside[at] = is_set_aside
        self.num_judgements += 1

    def counted(self, name: str) -> NDArray[np.float64]:
        """``count``, ``mean`` or ``var`` of the readings that count, NaN elsewhere."""
        values: NDArray[np.float64] = getattr(self, name)
        return np.where(self.set_aside, np.nan, values) if self.set_aside.any() else values

    @property
    def reported(self) -> NDArray[np.bool_]:
        """Arms and metrics with a reading of at least one user, ``(arms, metrics)``."""
        return self.count > 0

    @property
    def has_control(self) -> bool:
        """Whether any metric of the control has arrived and counts."""
        return bool(((self.revision[0] >= 0) & ~self.set_aside[0]).any())
