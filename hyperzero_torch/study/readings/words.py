"""Sentences on readings that are set aside: what came, what was expected, what to do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import plausibility, units
from .guard_levels import LevelBound
from .units import Unit

_ACCEPT = (
    "Send them again with a higher revision, or accept them: hyperzero readings accept "
    "--metric {metric!r}"
)
_MOST_NAMED = 5
# Unix time in seconds or milliseconds, in the years 2001 to 2065.
_EPOCH = (1e9, 3e9)
# A level this many times that of the other hours is about a hundred times it, within a rhythm.
_ABOUT_A_HUNDRED = (30.0, 300.0)

_ABSURD = {
    plausibility.IMPOSSIBLE: (
        f"nothing can be computed with a count above {plausibility.MAX_COUNT:g}, a mean beyond "
        f"{plausibility.MAX_MEAN:g} or a variance above {plausibility.MAX_VAR:g}"
    ),
    plausibility.CROWD: (
        "their users are more than a thousand times what the shares of the round and the other "
        "arms let expect"
    ),
    plausibility.OUTLIER: (
        "their standard deviation is more than a hundred times that of the other arms and hours"
    ),
    plausibility.ROUND: "their level is more than fifty times that of the rounds before",
    plausibility.LEVEL: "their mean is more than fifty times that of the other arms and hours",
}

_UNITS = {
    units.OF_MEAN: (
        "var looks like the variance of a mean (a squared standard error), {factor}; expected is "
        "the variance of single users' values: multiply by the count"
    ),
    units.DEVIATION: (
        "var looks like a standard deviation, {factor}; expected is the variance: square it"
    ),
    units.OF_SUM: (
        "var looks like the variance of a sum, {factor}; expected is the variance of single "
        "users' values: divide by the count"
    ),
    units.PERCENT: (
        "mean looks like a percentage where var is that of a fraction; expected are both in one "
        "unit: divide the mean by 100"
    ),
    units.TOO_SMALL: (
        "var is far too small, {factor}; expected is the variance of single users' values. Users "
        "who are counted many times, or another unit, may explain it"
    ),
}


def absurd(
    metric: str,
    code: str,
    rounds: NDArray[np.int64],
    candidates: NDArray[np.int64],
    count: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> str:
    """Which readings are set aside, and why they cannot be right."""
    listed = [
        f"round {r} candidate {c} (count {n:g}, mean {m:g})"
        for r, c, n, m in zip(rounds[:_MOST_NAMED], candidates, count, mean)
    ]
    more = f" and {len(rounds) - _MOST_NAMED} more" if len(rounds) > _MOST_NAMED else ""
    return (
        f"Set aside: {len(rounds)} readings of {metric!r}, {', '.join(listed)}{more}: "
        f"{_ABSURD[code]}"
    )


def cause(
    code: str,
    count: NDArray[np.float64],
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    others_count: NDArray[np.float64],
    others_mean: NDArray[np.float64],
) -> str:
    """The most likely cause, and what to do."""
    text = ""
    users = others_count.sum()
    usual = float((others_count * others_mean).sum() / users) if users > 0 else 0.0
    if code == plausibility.OUTLIER:
        value = plausibility.single_value(float(count[0]), float(var[0]))
        text = f"; a single value of about {value:.2g} explains it"
        if any(_EPOCH[0] <= value / unit <= _EPOCH[1] for unit in (1, 1000)):
            text += ", which looks like a time (Unix) where another quantity belongs"
    elif code in (plausibility.ROUND, plausibility.LEVEL) and usual:
        ratio = float(np.median(mean)) / usual
        low, high = _ABOUT_A_HUNDRED
        text = f" ({ratio:.3g} times)"
        if low <= ratio <= high:
            text += "; a percentage where a fraction belongs looks like that"
    return (
        f"{text}. They count once they are accepted (hyperzero readings accept) or replaced by a "
        "higher revision"
    )


def unit(metric: str, wrong: Unit) -> str:
    """Which unit the variances of a metric most likely have."""
    by = f"{wrong.factor:.3g} times what it lets expect"
    factor = (
        "as it falls with the number of users"
        if wrong.factor == 1.0
        else f"as means scatter between hours by {by}"
    )
    what = _UNITS[wrong.code].format(factor=factor)
    if wrong.sure:
        return (
            f"Wrong unit of {metric!r}: {what}. Its readings are set aside. "
            f"{_ACCEPT.format(metric=metric)}"
        )
    return f"Unit of {metric!r}: {what}. Its readings still count, with the scatter that they show"


def percentages(metric: str) -> str:
    """A metric whose means and variances are those of zeros and hundreds."""
    return (
        f"Unit of {metric!r}: its readings look like percentages (zeros and hundreds). Deltas are "
        "the same as of fractions; bounds on its level must be percentages too"
    )


def far_level(metric: str, bound: LevelBound, level: float) -> str:
    """A control that breaks a guardrail by far."""
    sign = "<=" if bound.is_upper else ">="
    ratio = level / bound.bound
    likely = "a percentage where a fraction belongs" if ratio > 1 else "another unit"
    return (
        f"Wrong unit of {metric!r}: the control's level is {level:.4g}, far outside the guardrail "
        f"{bound.name!r} ({sign} {bound.bound:g}), {ratio:.3g} times its bound; most likely it is "
        f"{likely}. Its readings are set aside. {_ACCEPT.format(metric=metric)}"
    )


def far_inside(metric: str, bound: LevelBound, level: float) -> str:
    """A guardrail that is a hundred times away from the control."""
    return (
        f"Unit of {metric!r}: the control's level is {level:.4g}, about a hundred times away from "
        f"the bound of the guardrail {bound.name!r} ({bound.bound:g}), which can hardly break; if "
        "one of both is a percentage and the other a fraction, correct it"
    )
