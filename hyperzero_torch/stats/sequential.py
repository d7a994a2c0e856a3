"""Confidence sequences: intervals of a pooled estimate that are valid at every look.

At each look there is an estimate with its variance; its information is V = 1 / variance. The
ordinary interval, estimate +- 1.96 standard errors, is wrong at one look in twenty, so acting on
the first alarm of hourly looks is wrong far more often. A *confidence sequence* is wrong at any
look at all with probability alpha at most. Robbins' normal mixtures, with S = V (estimate - truth),
which is a Brownian motion in information time:

    two-sided   M = sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho)))
    one-sided   M = 2 sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho))) Phi(S / sqrt(V + rho))

start at 1 and do not rise in expectation, so M >= 1 / alpha happens at any look with probability
alpha at most (Ville). The interval holds the truths that M does not exclude; 1 / M is a p-value at
every look. rho > 0, fixed for the whole stream, sets the information at which the interval is
tightest:

    rho = V_tightest / (-W(-alpha^2 / e) - 1)      W the lower branch of Lambert's function

and twice alpha in its place for one side: at alpha of 0.1 or less that is within 0.002 % of the
tightest one-sided width there is.

Assumptions. Each look's increment is independent of the earlier data, given its information, as for
hourly deltas pooled with inverse variances as weights. Traffic may depend on earlier estimates, as
in bandits; a round's weight must not depend on that round's own delta.
With other weights the clock is not 1 / variance but the sum of w^2 variance: see
``critical_value``. Variances are estimated and deltas are nearly normal, so alpha holds
asymptotically: begin once each round's arms have enough users for a normal approximation.
``tightest_at`` is fixed before the first look. Each interval has an alpha of its own: for n
candidates x metrics at once, pass alpha / n.

Intervals of earlier looks are *not* intersected, though theory allows it: evidence here may be
revised (late events, corrected readings, discounted rounds), and an intersection would keep
retracted evidence, or be empty. The interval is a function of the current evidence.

Elementwise: an infinite variance gives an infinite radius and a p-value of 1, a variance of 0 a
radius of 0. A NaN in the estimate, the variance or ``tightest_at`` gives NaN: every comparison with
it is false, so it retires or promotes nothing.

Source: Robbins (1970), Ann. Math. Stat. 41; Howard, Ramdas, McAuliffe and Sekhon (2021), Ann. Stat.
    49, two- and one-sided normal mixtures; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024),
    Ann. Stat. 52, for estimated variances.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError

Alternative = Literal["two-sided", "greater", "less"]

# Of Newton's method, which approaches its root from above here: stopped early, it gives an interval
# that is too wide, never too narrow. Enough for 12 digits at every alpha and information.
_STEPS = 4


class Interval(NamedTuple):
    """Bounds in the unit of the estimate, ``lower <= upper``, or both NaN."""

    lower: Tensor
    upper: Tensor


def radius(
    var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor, sides: int = 2
) -> Tensor:
    """Half width of the confidence sequence; with ``sides=1``, the distance of the one bound.

    Args:
        var: any shape, of the pooled estimate as it stands at this look.
        alpha: probability of ever being wrong, in (0, 0.5); a number or broadcastable.
        tightest_at: the variance, in the same unit squared, at which the sequence is tightest:
            that expected when the decision is planned. A number or broadcastable, above 0.
        sides: 2, or 1 for a lower or an upper bound alone.
    Returns:
        The broadcast shape, in the unit of the estimate.
    Raises:
        ConfigError: a number out of range.
        ShapeError: shapes, dtypes or devices do not fit.
    Source: the inverse in S of the mixtures above; one-sided by Newton's method from
        S = sqrt((V + rho) 2 log(1/2 + sqrt((V + rho) / rho) / (2 alpha))), which is never too low.
    """
    var, alpha, tightest_at = _as_tensors(var, alpha=alpha, tightest_at=tightest_at)
    result = var.sqrt() * _critical(tightest_at.log() - var.log(), alpha, sides)
    return torch.where(var == 0, 0.0, result)


def critical_value(progress: Tensor, alpha: float | Tensor, sides: int = 2) -> Tensor:
    """The radius in standard errors: it replaces 1.96.

    For weights that are not the inverses of the variances: the pooled estimate's error is a
    Brownian motion whose clock is sum w^2 var (``EvidenceState.spread``), and ``progress`` is that
    clock over its value where the sequence is to be tightest.

    Args:
        progress: any shape, 0 or more and finite; information over that at ``tightest_at``.
        alpha: as in ``radius``.
        sides: 2 or 1.
    Returns:
        The broadcast shape; infinite at a progress of 0.
    Raises:
        ConfigError, ShapeError: as ``radius``.
    """
    progress, alpha = _as_tensors(progress, alpha=alpha)
    return _critical(progress.log(), alpha, sides)


def interval(
    mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor
) -> Interval:
    """The two-sided confidence sequence at this look; arguments as in ``radius``."""
    half = radius(var, alpha, tightest_at)
    mean = _checked(mean, half)
    return Interval(mean - half, mean + half)


def lower(mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor) -> Tensor:
    """One-sided lower bound of the truth, with all of alpha on this side; see ``radius``."""
    half = radius(var, alpha, tightest_at, sides=1)
    return _checked(mean, half) - half


def upper(mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor) -> Tensor:
    """One-sided upper bound of the truth, with all of alpha on this side; see ``radius``."""
    half = radius(var, alpha, tightest_at, sides=1)
    return _checked(mean, half) + half


def log_e_value(
    mean: Tensor,
    var: Tensor,
    null: float | Tensor,
    tightest_at: float | Tensor,
    alternative: Alternative = "two-sided",
    alpha: float | Tensor = 0.05,
) -> Tensor:
    """The logarithm of M: evidence against the null. M can be averaged over dependent streams.

    Args:
        mean: any shape, the pooled estimate.
        var: broadcastable, its variance.
        null: the null hypothesis, in the unit of ``mean``: with ``"greater"`` that the truth
            is at most ``null``, with ``"less"`` that it is at least ``null``.
        tightest_at: as in ``radius``.
        alternative: the alternative hypothesis.
        alpha: at which ``tightest_at`` means what it does in ``radius``.
    Returns:
        The broadcast shape; -inf or inf at a variance of 0, NaN where an input is.
    Raises:
        ConfigError, ShapeError: as ``radius``.
    """
    sides = _sides(alternative)
    var, alpha, tightest_at = _as_tensors(var, alpha=alpha, tightest_at=tightest_at)
    off = _checked(mean, var) - null
    off = -off if alternative == "less" else off
    log_ratio = tightest_at.log() - var.log() + tightest_over_rho(alpha, sides).log()
    # S / sqrt(V + rho)
    score = off / var.sqrt() / (1 + (-log_ratio).exp()).sqrt()
    shrink = torch.logaddexp(torch.zeros_like(log_ratio), log_ratio) / 2
    if sides == 2:
        result, beyond = score.square() / 2 - shrink, off != 0
    else:
        result, beyond = _tilt(score) + math.log(2) - shrink, off > 0
    exact = torch.where(beyond, torch.inf, -torch.inf)
    return torch.where((var == 0) & ~off.isnan(), exact, result)


def p_value(
    mean: Tensor,
    var: Tensor,
    null: float | Tensor,
    tightest_at: float | Tensor,
    alternative: Alternative = "two-sided",
    alpha: float | Tensor = 0.05,
) -> Tensor:
    """min(1, 1 / M): under the null it is ever at or below a with probability a at most, any a.

    At ``alpha`` it agrees with the intervals: it is below alpha exactly where ``interval``
    (``lower`` for ``"greater"``, ``upper`` for ``"less"``) excludes the null. Arguments and errors
    as in ``log_e_value``; in [0, 1], NaN where an input is.
    """
    return (-log_e_value(mean, var, null, tightest_at, alternative, alpha)).exp().clamp_max(1.0)


def _critical(log_progress: Tensor, alpha: Tensor, sides: int) -> Tensor:
    """S / sqrt(V), by the logarithm of V / V_tightest: no ratio overflows."""
    if sides not in (1, 2):
        raise ConfigError(f"a confidence sequence has 1 or 2 sides, got {sides!r}")
    log_ratio = log_progress + tightest_over_rho(alpha, sides).log()  # of V / rho
    log_growth = torch.logaddexp(torch.zeros_like(log_ratio), log_ratio)  # of (V + rho) / rho
    stretch = (1 + (-log_ratio).exp()).sqrt()  # sqrt((V + rho) / V)
    if sides == 2:
        return stretch * (log_growth - 2 * alpha.log()).sqrt()
    level = log_growth / 2 - (2 * alpha).log()
    # Phi(x) >= 1 - exp(-x^2 / 2) / 2 makes this start at least the root of
    # log Phi(x) + x^2 / 2 = level. The left is increasing and convex (its second derivative is the
    # variance of a truncated normal), so Newton's method stays at or above the root.
    score = (2 * torch.logaddexp(level, torch.full_like(level, -math.log(2)))).sqrt()
    for _ in range(_STEPS):
        slope = score + (-score.square() / 2).exp() / (
            math.sqrt(2 * math.pi) * torch.special.ndtr(score)
        )
        tilt = torch.special.log_ndtr(score) + score.square() / 2
        score = score - (tilt - level) / slope
    return stretch * score


def tightest_over_rho(alpha: Tensor, sides: int) -> Tensor:
    """V_tightest / rho: the h > 0 with h - log(1 + h) = u, u = 2 log(1 / alpha).

    That is -W(-alpha^2 / e) - 1 for the lower branch of Lambert's function. Newton's method from
    the upper bound u + sqrt(2 u) of Chatzigeorgiou (2013), IEEE Comm. Letters 17.
    """
    u = -2 * (alpha if sides == 2 else 2 * alpha).log()
    horizon = u + (2 * u).sqrt()
    for _ in range(_STEPS):
        horizon = horizon - (horizon - horizon.log1p() - u) * (1 + horizon) / horizon
    return horizon


def _tilt(x: Tensor) -> Tensor:
    """log Phi(x) + x^2 / 2, without cancellation below 0."""
    low = (torch.special.erfcx(-x.clamp_max(0.0) / math.sqrt(2)) / 2).log()
    return torch.where(x < 0, low, torch.special.log_ndtr(x) + x.square() / 2)


def _sides(alternative: str) -> int:
    if alternative not in ("two-sided", "greater", "less"):
        raise ConfigError(
            f"alternative must be 'two-sided', 'greater' or 'less', got {alternative!r}"
        )
    return 2 if alternative == "two-sided" else 1


def _as_tensors(var: Tensor, **numbers: float | Tensor) -> tuple[Tensor, ...]:
    """``var`` and numbers as tensors of its dtype on its device, made there without a copy."""
    if not var.is_floating_point():
        raise ShapeError(f"a variance or progress must be floating, got {var.dtype}")
    tensors = [var]
    for name, number in numbers.items():
        if isinstance(number, Tensor):
            tensors.append(_checked(number, var))
            continue
        most = 0.5 if name == "alpha" else math.inf
        if not 0 < number < most:
            raise ConfigError(f"{name} must lie above 0 and below {most:g}, got {number!r}")
        tensors.append(var.new_full((), number))
    return tuple(tensors)


def _checked(value: Tensor, var: Tensor) -> Tensor:
    """``value``, checked against ``var``: shapes broadcast, dtype and device are the same."""
    try:
        # Views only. torch.broadcast_shapes would import SymPy, a second at a process's first call.
        torch.broadcast_tensors(value, var)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ShapeError(
            f"shapes must broadcast, got {tuple(value.shape)} beside {tuple(var.shape)}"
        ) from None
    if value.dtype != var.dtype or value.device != var.device:
        raise ShapeError(
            f"one dtype and device are expected, got {value.dtype} on {value.device} beside "
            f"{var.dtype} on {var.device}"
        )
    return value
