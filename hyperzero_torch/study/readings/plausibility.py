"""Readings that cannot be right: pure functions over the cells of one metric.

A cell is one arm in one round: users, sample mean and sample variance. Three kinds are absurd.

    impossible   a count, a mean or a variance with which nothing can be computed
    crowd        a thousand times the users that the shares of the round predict
    outlier      a standard deviation a hundred times that of the other cells, which a single value
                 of about sqrt(var * count) explains
    level        a mean fifty times that of the other cells, far beyond any noise

Cells are compared with a pool of other cells, of the same round and of recent ones. Heavy tails
must not look absurd. So cells are taken in ascending order and each is compared with the pool of
those below it: any number of absurd cells, up to half of all, cannot hide one another. The limits
are far beyond what a mean of values with two moments does by chance: by the principle of a single
big jump, P(deviation of k standard errors) is about k^-a count^(1 - a / 2) for a tail of index a.
A pool that rests on few values (``_informed``) judges nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Codes of the reasons, as journals store them. They never change.
IMPOSSIBLE, CROWD, OUTLIER, LEVEL, ROUND = "impossible", "crowd", "outlier", "level", "round"

# More users of one arm in one round than there are. Squares of such means and of their ratios must
# stay finite.
MAX_COUNT, MAX_MEAN, MAX_VAR = 1e11, 1e60, 1e120
# How often the users that the shares predict, and at least so many predicted.
_CROWD, _CROWD_FLOOR = 1000.0, 100.0
# How often the variance of the pool.
_OUTLIER = 1e4
# How often the mean of the pool, and how many of its standard errors.
_LEVEL, _STANDARD_ERRORS = 50.0, 100.0
# A level is never taken as less than this fraction of the users' standard deviation: means near
# zero (profit) differ by any factor.
_LEAST_LEVEL = 0.003
# Values that the pool has to rest on; below so many the limits rise.
_FEWEST_VALUES, _ENOUGH_VALUES = 8.0, 40.0
# The rounds before, next to it in the daily rhythm, that a whole round is compared with.
_NEIGHBOURS = 3


class Cells(NamedTuple):
    """Cells of one metric, each field ``(cells,)``: ``round`` and ``share`` of the arm's plan.

    Every cell has a count above 0. ``is_new`` marks those to judge; the others were believed.
    """

    round: NDArray[Any]
    share: NDArray[Any]
    users: NDArray[Any]
    mean: NDArray[Any]
    var: NDArray[Any]
    is_new: NDArray[Any]

    def where(self, mask: NDArray[np.bool_]) -> Cells:
        """The cells of the mask."""
        return Cells(*(field[mask] for field in self))


def judge(cells: Cells) -> NDArray[np.object_]:
    """The reason why each new cell is absurd, ``(cells,)``; empty where it is not."""
    verdict = np.full(len(cells.users), "", dtype=object)
    believed = ~impossible(cells.users, cells.mean, cells.var)
    verdict[~believed & cells.is_new] = IMPOSSIBLE
    for code, test in ((CROWD, crowds), (ROUND, rounds), (OUTLIER, outliers), (LEVEL, levels)):
        left = np.flatnonzero(believed)
        if not cells.is_new[left].any():
            break
        bad = left[test(cells.where(believed))]
        bad = bad[cells.is_new[bad]]
        verdict[bad] = code
        believed[bad] = False
    return verdict


def impossible(
    count: NDArray[np.float64], mean: NDArray[np.float64], var: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Values with which nothing can be computed."""
    return (count > MAX_COUNT) | (np.abs(mean) > MAX_MEAN) | (var > MAX_VAR)


def crowds(cells: Cells) -> NDArray[np.bool_]:
    """A thousand times the users that the share predicts, from the round's arms and from history.

    Parts of an hour may be reported alone, and traffic may grow a thousandfold when a study opens
    to all: a cell is compared with the larger of both predictions.
    """
    traffic = cells.users / np.maximum(cells.share, 1e-12)
    rounds_, slot = np.unique(cells.round, return_inverse=True)
    usual = np.full(len(rounds_), 0.0)
    size = np.bincount(slot)
    for i in np.unique(slot[cells.is_new]):
        here = traffic[slot == i]
        # Of two arms the smaller; of one nothing.
        usual[i] = np.median(here) if size[i] > 2 else here.min() if size[i] == 2 else 0.0
    earlier = traffic[~cells.is_new]
    if len(earlier):
        usual = np.maximum(usual, np.median(earlier))
    expected = np.maximum(cells.share * usual[slot], _CROWD_FLOOR)
    bad: NDArray[np.bool_] = (usual[slot] > 0) & (cells.users > _CROWD * expected) & cells.is_new
    return bad


def outliers(cells: Cells) -> NDArray[np.bool_]:
    """Variances that a value of another kind explains: 1e4 times that of the pool below."""
    freedom = np.maximum(cells.users - 1, 0.0)  # a single user has no variance
    order = np.argsort(np.where(freedom > 0, cells.var, 0.0), kind="stable")
    count, mean, var, freedom = (
        field[order] for field in (cells.users, cells.mean, cells.var, freedom)
    )
    below = _below(freedom * var) / np.maximum(_below(freedom), 1.0)
    # The lowest variances of two or three users each are near 0, whatever the truth is.
    informed = np.minimum(_informed(count, mean, var), _below(freedom) / 2)
    limit = _OUTLIER * np.maximum(1.0, _ENOUGH_VALUES / np.maximum(informed, 1.0)) ** 2
    bad = (below > 0) & (var >= limit * below) & (informed >= _FEWEST_VALUES)
    return _from_first(bad & _past_half(cells, order), order)


def rounds(cells: Cells) -> NDArray[np.bool_]:
    """Rounds whose level is fifty times that of the rounds before.

    By the lower half of its arms: a single absurd arm does not make a round absurd.
    """
    numbers, slot = np.unique(cells.round, return_inverse=True)
    bad = np.zeros(len(numbers), dtype=bool)
    users, total, square = (
        np.bincount(slot, weights)
        for weights in (
            cells.users,
            cells.users * cells.mean,
            cells.users * (cells.var + cells.mean**2),
        )
    )
    is_new = np.bincount(slot, cells.is_new) > 0
    for i in np.flatnonzero(is_new).tolist():
        good = np.flatnonzero(~bad[:i])[-_NEIGHBOURS:]
        if not len(good):
            continue
        n, s, q = users[good].sum(), total[good].sum(), square[good].sum()
        level, deviation = s / n, np.sqrt(max(q / n - (s / n) ** 2, 0.0))
        scatter = np.abs(total[good] / users[good] - level).max()
        floor = max(abs(level), scatter, _LEAST_LEVEL * deviation)
        here = np.flatnonzero(slot == i)
        half = here[np.argsort(np.abs(cells.mean[here]), kind="stable")][: (len(here) + 1) // 2]
        mean = (cells.users * cells.mean)[half].sum() / cells.users[half].sum()
        far = abs(mean - level) * np.sqrt(cells.users[half].sum())
        informed = s * s / q if q > 0 else 0.0
        bad[i] = (
            informed >= _ENOUGH_VALUES
            and abs(mean) >= _LEVEL * floor
            and far >= _STANDARD_ERRORS * deviation
        )
    of_bad_round: NDArray[np.bool_] = bad[slot] & cells.is_new
    return of_bad_round


def levels(cells: Cells) -> NDArray[np.bool_]:
    """Means fifty times that of the pool below, and a hundred of its standard errors away."""
    order = np.argsort(np.abs(cells.mean), kind="stable")
    count, mean, var = cells.users[order], cells.mean[order], cells.var[order]
    users = np.maximum(_below(count), 1.0)
    level = _below(count * mean) / users
    # About zero, in which the scatter between arms and hours is.
    square = np.maximum(_below(count * (var + mean**2)) / users - level**2, 0.0)
    old = cells.mean[~cells.is_new]
    reference = old if len(old) >= 5 else cells.mean
    scatter = 1.4826 * float(np.median(np.abs(reference - np.median(reference))))
    floor = np.maximum(np.maximum(np.abs(level), scatter), _LEAST_LEVEL * np.sqrt(square))
    informed = _informed(count, mean, var)
    stretch = np.maximum(1.0, _ENOUGH_VALUES / np.maximum(informed, 1.0))
    far = np.abs(mean - level) * np.sqrt(count) >= _STANDARD_ERRORS * stretch * np.sqrt(square)
    bad = far & (np.abs(mean) >= _LEVEL * stretch * floor) & (floor > 0)
    return _from_first(bad & (informed >= _FEWEST_VALUES) & _past_half(cells, order), order)


def single_value(count: float, var: float) -> float:
    """The value of one user that alone gives the others' zeros this variance."""
    return float(np.sqrt(var) * np.sqrt(count))


def _below(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the values before each."""
    return np.cumsum(values) - values


def _informed(
    count: NDArray[np.float64], mean: NDArray[np.float64], var: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The number of values that the pool below each cell rests on.

    The effective number (sum of values)^2 / (sum of squares): of a rare event it is the number of
    events. Where values have both signs it says nothing, and each cell with a scatter counts once.
    """
    sums, squares = _below(count * mean), _below(count * (var + mean**2))
    effective = sums**2 / np.where(squares > 0, squares, 1.0)
    return np.maximum(effective, _below((var > 0).astype(np.float64)))


def _past_half(cells: Cells, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Places in the order with half of the believed cells below, or half of all without any."""
    among = ~cells.is_new[order]
    if not among.any():
        among = cells.users[order] > 1
    past: NDArray[np.bool_] = _below(among.astype(np.float64)) >= among.sum() / 2
    return past


def _from_first(bad: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The first bad cell in the order and all above it."""
    mask = np.zeros(len(order), dtype=bool)
    if bad.any():
        mask[order[int(np.argmax(bad)) :]] = True
    return mask
