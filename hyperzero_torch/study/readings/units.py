"""Variances and means in another unit than asked for: pure functions over the cells of one metric.

The variance that a platform sends is that of single users' values. What comes instead, by mistake,
is the variance of a mean (a squared standard error), a standard deviation, or the variance of a
sum; or a percentage where the variance is that of a fraction. Each says how the means must scatter,
and how the variances must depend on the number of users:

    sent                   true variance      scatter over that claimed    slope of log var on log n
    variance               var                1                             0
    variance of a mean     var n              n                            -1
    standard deviation     var^2              var                           0
    variance of a sum      var / n            1 / n                         1

The scatter is that of an arm between hours, relative to the mean of all arms of the hour: real
differences between arms and a daily rhythm are not in it. Within a single hour arms may differ for
real, so there a variance of a mean is named only where the variances follow 1 / n closely. Where a
metric is 0 or 1, its variance follows from its mean, and a single hour is enough.

Overdispersion exceeds the claims as well. It is named as another unit only where its size is that
which this unit predicts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Codes of the reasons, as journals store them. They never change.
OF_MEAN, DEVIATION, OF_SUM, PERCENT, TOO_SMALL = (
    "variance of a mean",
    "standard deviation",
    "variance of a sum",
    "percent",
    "too small",
)
_FEWEST_USERS = 30.0
# A scatter fits a unit within this factor.
_FITS = 2.5
# Claims that are too small by less are ordinary overdispersion, as ``stats/dispersion.py`` has it.
_TOO_SMALL = 10.0
# Below that a standard deviation cannot be distinguished from overdispersion.
_FAR_TOO_SMALL = 20.0
# Beyond that something is wrong, whatever it is; drift may scatter means by less.
_ABSURDLY_SMALL = 1e4
# Of heavy tails, the typical scatter is less than their variance.
_LEAST_FIT = 0.15
# Residuals and factor that name a standard deviation where all arms have the same traffic.
_MANY_RESIDUALS, _CLOSE_FIT = 60, 1.5
# Claims that are too large by less are ordinary heavy tails.
_TOO_LARGE = 0.1
# Degrees of freedom of a scatter, and between hours alone.
_FEWEST_RESIDUALS = 12
# The median of a chi-square with one degree of freedom.
_MEDIAN = 0.4549
# Variances of zeros and ones agree with their means within this fraction, nearly all of them.
_AGREES, _NEARLY_ALL, _FEWEST_CELLS = 0.03, 0.9, 4
# Alternating means of arms and hours.
_STEPS = 4
# A slope within this of that expected, and so many standard errors away from 0.
_SLOPE, _SURE = 0.25, 8.0


class Unit(NamedTuple):
    """The unit that variances most likely have, empty where they may be variances.

    ``sure``: nothing else explains it. ``factor`` by which the scatter exceeds the claims, 1 where
    no hour after the first has shown it.
    """

    code: str
    sure: bool = False
    factor: float = 1.0


class Sample(NamedTuple):
    """Cells of one metric, ``(cells,)``: ``slot`` numbers rounds, ``arm`` candidates."""

    slot: NDArray[Any]
    arm: NDArray[Any]
    users: NDArray[Any]
    mean: NDArray[Any]
    var: NDArray[Any]


class Scatter(NamedTuple):
    """Squared deviations of an arm's relative mean from its own mean over hours, and their claims.

    ``(residuals,)``: ``square`` over the claimed variance, with ``users`` and ``var`` of its cell.
    """

    square: NDArray[Any]
    users: NDArray[Any]
    var: NDArray[Any]

    def over(self, claim: NDArray[np.float64] | float) -> float:
        """The typical factor by which the scatter exceeds ``claim`` times the claimed variance."""
        return float(np.median(self.square / claim)) / _MEDIAN


def wrong_unit(sample: Sample) -> Unit:
    """The unit that the variances most likely have."""
    use = (sample.users >= _FEWEST_USERS) & (sample.var > 0)
    cells = Sample(*(field[use] for field in sample))
    if len(cells.users) < _FEWEST_CELLS:
        return Unit("")
    scatter = _between_hours(cells)
    factor = 1.0 if scatter is None else scatter.over(1.0)
    code = _of_fractions(cells, scatter)
    if code is not None:
        return Unit(code, code != "", factor)
    slope, error = _slope(cells)
    if scatter is None:
        follows = abs(slope + 1) <= _SLOPE and -slope > _SURE * error
        return Unit(OF_MEAN, True) if follows and _within_hours(cells) >= _TOO_SMALL else Unit("")
    # Without arms of different size the slope says nothing.
    clear = error < _SLOPE
    if factor >= _TOO_SMALL:
        if abs(slope + 1) < 0.5 if clear else _fits(scatter.over(scatter.users)):
            return Unit(OF_MEAN, True, factor)
        if factor >= _FAR_TOO_SMALL and not (clear and abs(slope) > 0.5):
            over = scatter.over(scatter.var)
            if _LEAST_FIT <= over <= _FITS:
                return Unit(DEVIATION, _is_even(scatter, over), factor)
        if factor >= _ABSURDLY_SMALL:
            return Unit(TOO_SMALL, False, factor)
    if factor <= _TOO_LARGE and _fits(scatter.over(1 / scatter.users)) and slope > 0.5 * clear:
        return Unit(OF_SUM, True, factor)
    return Unit("")


def is_percentage(sample: Sample) -> bool:
    """Whether means and variances are those of zeros and hundreds, throughout."""
    rate = sample.mean / 100
    inside = (sample.mean > 1) & (rate < 1) & (sample.users >= _FEWEST_USERS)
    return _agrees(sample, inside, 1e4 * rate * (1 - rate))


def is_fraction(
    users: NDArray[np.float64], mean: NDArray[np.float64], var: NDArray[np.float64]
) -> bool:
    """Whether variances are mean (1 - mean), as those of zeros and ones."""
    inside = (mean > 0) & (mean < 1)
    place = np.zeros(len(users), dtype=np.int64)
    return _agrees(Sample(place, place, users, mean, var), inside, mean * (1 - mean))


def _of_fractions(cells: Sample, scatter: Scatter | None) -> str | None:
    """The unit of variances of zeros and ones, whose variance is mean (1 - mean).

    None where they are not such variances, in any unit.
    """
    rate = cells.mean
    inside = (rate > 0) & (rate < 1)
    bernoulli = np.where(inside, rate * (1 - rate), np.nan)
    for code, expected in (
        ("", bernoulli),
        (OF_MEAN, bernoulli / cells.users),
        (OF_SUM, bernoulli * cells.users),
    ):
        if _agrees(cells, inside, expected):
            return code
    if scatter is not None and _agrees(cells, inside, np.sqrt(bernoulli)):
        is_deviation = scatter.over(1.0) < 0.7 and _fits(scatter.over(scatter.var))
        return DEVIATION if is_deviation else None
    percent = rate / 100
    beyond = (rate > 1) & (percent < 1)
    return PERCENT if _agrees(cells, beyond, percent * (1 - percent)) else None


def _agrees(cells: Sample, inside: NDArray[np.bool_], expected: NDArray[np.float64]) -> bool:
    if inside.sum() < max(_FEWEST_CELLS, _NEARLY_ALL * len(inside)):
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.abs(cells.var / expected - 1) <= _AGREES + 2 / cells.users
    return bool(near[inside].mean() >= _NEARLY_ALL)


def _is_even(scatter: Scatter, over: float) -> bool:
    """Whether the scatter is that of standard deviations whatever the number of users.

    Where differences between arms change by the hour, the factor grows with the number of users.
    """
    x = np.log(scatter.users) - np.log(scatter.users).mean()
    y = np.log(np.maximum(scatter.square / scatter.var, 1e-30))
    spread = float((x**2).sum())
    # The logarithm of a chi-square with one degree of freedom has a variance of pi^2 / 2.
    if spread > 0 and np.sqrt(np.pi**2 / 2 / spread) < _SLOPE:
        return abs(float((x * y).sum())) / spread < 0.5
    return len(x) >= _MANY_RESIDUALS and 1 / _CLOSE_FIT <= over <= _CLOSE_FIT


def _fits(factor: float) -> bool:
    return 1 / _FITS <= factor <= _FITS


def _slope(cells: Sample) -> tuple[float, float]:
    """Slope of log variance on log users within rounds, and its standard error; inf if unknown."""
    x, y = (_centred(np.log(v), cells.slot) for v in (cells.users, cells.var))
    freedom = len(x) - len(np.unique(cells.slot)) - 1
    spread = float((x**2).sum())
    if freedom < 3 or spread < 1e-3 * len(x):
        return 0.0, np.inf
    slope = float((x * y).sum()) / spread
    residual = float(((y - slope * x) ** 2).sum()) / freedom
    # Variances of users with two moments only scatter by more than the residuals show.
    return slope, float(np.sqrt((residual + 1e-4) / spread))


def _between_hours(cells: Sample) -> Scatter | None:
    """Scatter of arms between hours; None where too few arms were served in several hours."""
    hours = np.bincount(cells.arm)[cells.arm]
    cells = Sample(*(field[hours > 1] for field in cells))
    num_arms, num_rounds = len(np.unique(cells.arm)), len(np.unique(cells.slot))
    if len(cells.users) - num_arms - num_rounds + 1 < _FEWEST_RESIDUALS:
        return None
    share = cells.users / np.bincount(cells.arm, cells.users)[cells.arm]
    part = cells.users / np.bincount(cells.slot, cells.users)[cells.slot]
    # What the means of the arm and of the hour take away from a residual.
    left = np.maximum((1 - share) * (1 - part), 1e-9)
    residual, claim = _residuals(cells)
    return Scatter(residual**2 / (claim * left), cells.users, cells.var)


def _residuals(cells: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means without the arm's and the hour's part, and their claimed variances.

    The parts multiply, as a daily rhythm does, unless the hours' means are near zero: then they
    add. Alternating weighted means; which arms an hour has does not move its level.
    """
    level = _mean_by(cells.slot, cells.mean, cells.users)
    hour = np.bincount(cells.slot)[cells.slot]
    error = _mean_by(cells.slot, (cells.mean - level) ** 2, cells.users) / hour
    multiplies = bool((error <= 0.01 * level**2).mean() >= 2 / 3)
    arm = np.ones_like(level) if multiplies else np.zeros_like(level)
    if multiplies:
        use = error <= 0.01 * level**2
        weight = np.where(use, cells.users, 1e-9 * cells.users)
        level = np.where(level == 0, 1.0, level)
        for _ in range(_STEPS):
            arm = _mean_by(cells.arm, cells.mean / level, weight)
            safe = np.where(np.abs(arm) > 1e-3, arm, 1.0)
            level = _mean_by(cells.slot, cells.mean / safe, cells.users)
            level = np.where(level == 0, 1.0, level)
        return cells.mean / level - arm, cells.var / cells.users / level**2
    for _ in range(_STEPS):
        arm = _mean_by(cells.arm, cells.mean - level, cells.users)
        level = _mean_by(cells.slot, cells.mean - arm, cells.users)
    return cells.mean - level - arm, cells.var / cells.users


def _within_hours(cells: Sample) -> float:
    """Scatter of arms within their hour over the claims, real differences included."""
    level = _mean_by(cells.slot, cells.mean, cells.users)
    return float(np.median((cells.mean - level) ** 2 * cells.users / cells.var)) / _MEDIAN


def _mean_by(
    group: NDArray[np.int64], values: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weighted mean of each cell's group."""
    total = np.bincount(group, weight)
    mean: NDArray[np.float64] = np.bincount(group, weight * values) / np.where(total, total, 1.0)
    return mean[group]


def _centred(values: NDArray[np.float64], slot: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values without the mean of their round."""
    size = np.bincount(slot).clip(1)
    mean: NDArray[np.float64] = np.bincount(slot, values) / size
    return values - mean[slot]
