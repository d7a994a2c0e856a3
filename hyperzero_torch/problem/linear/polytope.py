"""Half-spaces in a box: whether they have a point in common, their extent, their whole numbers.

Small dense problems in numpy, float64: ``matrix @ theta <= bound`` with ``low <= theta <= high``.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

# In the unit cube of a tightened box: the width of a single point, and a violation that is
# rounding.
_FLAT = 1e-11
_PIVOT = 1e-11
_MAX_PIVOTS = 20_000
_MAX_NODES = 500


class Box(NamedTuple):
    """``low`` and ``high``, each ``(k,)``; ``whole (k,)`` says which take whole numbers only."""

    low: Array
    high: Array
    whole: NDArray[np.bool_]

    @property
    def span(self) -> Array:
        """``(k,)``."""
        return self.high - self.low


class Extent(NamedTuple):
    """Where a polytope is and how far it reaches, in the unit cube of its box.

    ``points (p, k)`` on its faces, whose mean lies in its relative interior; ``directions (q, k)``
    chords that span it; ``normals (k - q, k)``, orthonormal, across which it has no extent.
    """

    points: Array
    directions: Array
    normals: Array


def tighten(matrix: Array, bound: Array, box: Box) -> Box | None:
    """The smallest box around the polytope by interval arithmetic; None where that is empty.

    Row by row: a bound on a single parameter is exact at any scale.
    """
    low, high = box.low.copy(), box.high.copy()
    for _ in range(20):
        before = low.copy(), high.copy()
        least = np.where(matrix > 0, matrix * low, matrix * high)
        for row, terms, most in zip(matrix, least, bound):
            for i in np.flatnonzero(row):
                limit = (most - (terms.sum() - terms[i])) / row[i]
                if row[i] > 0:
                    high[i] = min(high[i], np.floor(limit + 1e-9) if box.whole[i] else limit)
                else:
                    low[i] = max(low[i], np.ceil(limit - 1e-9) if box.whole[i] else limit)
        crossed = low > high
        if (low - high)[crossed].max(initial=-1.0) > 0:
            slop = 1e-12 * (np.abs(box.low) + np.abs(box.high))
            if (low > high + slop).any():
                return None
            low[crossed] = high[crossed] = 0.5 * (low + high)[crossed]
        if np.array_equal(before[0], low) and np.array_equal(before[1], high):
            break
    return Box(low, high, box.whole)


class Programme:
    """Linear programmes over ``{z in [0, 1]^k: matrix @ z <= bound}``, by the simplex method.

    ``violation`` is the least by which some row must be violated, 0 where the set is not empty;
    ``conflict`` are the rows that cannot hold together.
    """

    def __init__(self, matrix: Array, bound: Array) -> None:
        rows, k = matrix.shape
        unit = np.abs(matrix).max(1, initial=0.0)
        unit[unit == 0] = 1.0
        matrix, bound = matrix / unit[:, None], bound / unit
        # One more unknown: by how much the violation of every row stays below ``worst``. It is 0 at
        # the origin, so the origin is a feasible corner to start from.
        worst = float(max(0.0, -bound.min(initial=0.0)))
        body = np.zeros((rows + k + 1, k + 1))
        body[:rows, :k], body[:rows, k] = matrix, 1.0
        body[rows:, :] = np.eye(k + 1)
        right = np.concatenate([bound + worst, np.ones(k), [worst]])
        self.k: int = k
        self.table = np.hstack([body, np.eye(len(body)), right[:, None]])
        self.basis = np.arange(k + 1, k + 1 + len(body))
        cost = np.zeros(self.table.shape[1] - 1)
        cost[k] = 1.0
        self.allowed = np.ones(len(cost), dtype=bool)
        reduced = self._climb(cost)
        self.violation = worst - float(self._corner()[k])
        self.conflict = [r for r in range(rows) if -reduced[k + 1 + r] > 1e-9]
        # To stay at the least violation, columns with a price may not enter again.
        self.allowed = reduced > -1e-9

    def maximise(self, direction: Array) -> Array:
        """A corner ``(k,)`` where ``direction @ z`` is greatest."""
        cost = np.zeros(self.table.shape[1] - 1)
        cost[: self.k] = direction
        self._climb(cost)
        return np.clip(self._corner()[: self.k], 0.0, 1.0)

    def _corner(self) -> Array:
        values = np.zeros(self.table.shape[1] - 1)
        values[self.basis] = self.table[:, -1]
        return values

    def _climb(self, cost: Array) -> Array:
        """Pivot until no column improves the objective; returns the reduced costs."""
        table = self.table
        for pivots in range(_MAX_PIVOTS):
            reduced: Array = cost - cost[self.basis] @ table[:, :-1]
            improving = np.flatnonzero((reduced > _PIVOT) & self.allowed)
            if not len(improving):
                break
            # The steepest column first; the first one (Bland's rule) once this may cycle.
            steep = pivots < 20 * len(table)
            column = improving[reduced[improving].argmax()] if steep else improving[0]
            ratio = np.full(len(table), np.inf)
            up = table[:, column] > _PIVOT
            ratio[up] = table[up, -1].clip(min=0.0) / table[up, column]
            tied = np.flatnonzero(ratio <= ratio.min() * (1 + 1e-12))
            if not np.isfinite(ratio.min()):
                break  # rounding: a bounded set has no unbounded ray
            row = tied[self.basis[tied].argmin()]
            table[row] /= table[row, column]
            other = np.arange(len(table)) != row
            table[other] -= np.outer(table[other, column], table[row])
            self.basis[row] = column
        return reduced


def extent(programme: Programme) -> Extent:
    """How far a polytope reaches, by two programmes for each dimension.

    Every direction is orthogonal to earlier chords, so that thin ones are found too; directions
    without extent are the normals.
    """
    k = programme.k
    random = np.random.default_rng(0)
    points = [programme.maximise(np.zeros(k))]
    chords: list[Array] = []
    normals: list[Array] = []
    axes: list[Array] = []
    while len(axes) < k:
        w = _across(random.standard_normal(k), axes)
        first, last = programme.maximise(-w), programme.maximise(w)
        if w @ (last - first) <= _FLAT:
            normals.append(w)
            axes.append(w)
            continue
        chords.append(last - first)
        points += [first, last]
        axes.append(_across(last - first, axes))
    return Extent(
        np.stack(points), np.array(chords).reshape(-1, k), np.array(normals).reshape(-1, k)
    )


def _across(vector: Array, axes: list[Array]) -> Array:
    """The part of a vector orthogonal to all axes, scaled to length 1."""
    for _ in range(2):  # twice is enough for rounding
        for q in axes:
            vector = vector - (vector @ q) * q
    unit: Array = vector / np.linalg.norm(vector)
    return unit


def cube(matrix: Array, bound: Array, box: Box) -> tuple[Array, Array]:
    """The rows over the unit cube of the box: ``theta = low + z * span``."""
    return matrix * box.span, bound - matrix @ box.low


def whole_point(matrix: Array, bound: Array, box: Box) -> tuple[Box | None, bool]:
    """A box whose whole numbers are pinned such that the polytope meets it, by branch and bound.

    Returns the box or None, and whether None is proven, since the search is limited in nodes.
    """
    stack = [box]
    for _ in range(_MAX_NODES):
        if not stack:
            return None, True
        tight = tighten(matrix, bound, stack.pop())
        if tight is None:
            continue
        programme = Programme(*cube(matrix, bound, tight))
        if programme.violation > _FLAT:
            continue
        theta = tight.low + programme.maximise(np.zeros(len(box.low))) * tight.span
        near = np.round(theta)
        pinned = Box(
            np.where(box.whole, near, tight.low), np.where(box.whole, near, tight.high), box.whole
        )
        narrow = tighten(matrix, bound, pinned)
        if narrow is not None and Programme(*cube(matrix, bound, narrow)).violation <= _FLAT:
            return narrow, True
        distance = np.where(box.whole & (tight.span > 0), np.abs(theta - near), -1.0)
        i = int(distance.argmax())
        if distance[i] < 0:
            continue  # every whole number is pinned already
        cut = np.floor(theta[i]) if theta[i] < tight.high[i] else tight.high[i] - 1
        below, above = tight.high.copy(), tight.low.copy()
        below[i], above[i] = cut, cut + 1
        stack += [Box(tight.low, below, box.whole), Box(above, tight.high, box.whole)]
    return None, not stack
