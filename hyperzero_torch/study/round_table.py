"""The readings of one round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Arrivals(NamedTuple):
    """What has arrived of a round: ``any`` at all, and fields ``(metrics,)``.

    ``first`` and ``last`` are the least and the greatest delay of an arm, -1 where none reported.
    ``reported``: by any arm; ``by_all``: by every arm. ``is_empty``: an arm has rows of no users,
    and users in another metric, so nothing more is awaited. ``users`` of all arms that count.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    reported: NDArray[np.bool_]
    by_all: NDArray[np.bool_]
    is_empty: NDArray[np.bool_]
    users: NDArray[np.float64]
    any: bool


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
        self._arrivals: Arrivals | None = None

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
        self._arrivals = None

    def judge(self, cells: Sequence[tuple[int, int]], is_set_aside: bool) -> None:
        """Set cells ``(candidate, metric)`` aside, or accept them."""
        at = ([self.row[c] for c, _ in cells], [m for _, m in cells])
        self.set_aside[at] = is_set_aside
        self.num_judgements += 1
        self._arrivals = None

    def counted(self, name: str) -> NDArray[np.float64]:
        """``count``, ``mean`` or ``var`` of the readings that count, NaN elsewhere."""
        values: NDArray[np.float64] = getattr(self, name)
        return np.where(self.set_aside, np.nan, values) if self.set_aside.any() else values

    @property
    def reported(self) -> NDArray[np.bool_]:
        """Arms and metrics with a reading of at least one user, ``(arms, metrics)``."""
        return self.count > 0

    @property
    def arrivals(self) -> Arrivals:
        """What has arrived so far; computed once after each message or judgement."""
        if self._arrivals is None:
            reported, delay = self.reported, self.delay
            least = np.where(delay >= 0, delay, np.iinfo(np.int64).max).min(axis=0)
            has = (delay >= 0).any(axis=0)
            self._arrivals = Arrivals(
                first=np.where(has, least, -1),
                last=delay.max(axis=0),
                reported=np.any(reported, axis=0),
                by_all=np.all(reported, axis=0),
                is_empty=((self.count == 0) & reported.any(axis=1, keepdims=True)).any(axis=0),
                users=np.nansum(self.counted("count"), axis=0),
                any=bool(reported.any()),
            )
        return self._arrivals

    @property
    def has_control(self) -> bool:
        """Whether any metric of the control has arrived and counts."""
        return bool(((self.revision[0] >= 0) & ~self.set_aside[0]).any())
