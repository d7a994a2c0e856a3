"""What may be said of a pooled estimate at every look, however often one looks.

At each look there is an estimate with its variance; its information is V = 1 / variance. The
ordinary interval, estimate +- 1.96 standard errors, is wrong at one look in twenty: who looks every
hour and acts on the first alarm is wrong far more often. A *confidence sequence* is wrong at any
look at all with probability alpha at most. Robbins' normal mixtures, with S = V (estimate - truth),
a Brownian motion in information time where the truth is the truth:

    two-sided   M = sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho)))
    one-sided   M = 2 sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho))) Phi(S / sqrt(V + rho))

start at 1 and never rise on average, so M >= 1 / alpha ever happens with probability alpha at most
(Ville). The truths that M does not exclude are the interval; 1 / M is a p-value at every look.
rho > 0, one number for the whole stream, says at which information the interval is tightest:

    rho = V_tightest / (-W(-alpha^2 / e) - 1)      W the lower branch of Lambert's function

and twice alpha in its place for one side: at alpha of 0.1 or less that is within 0.002 % of the
tightest one-sided width there is.

What is assumed. What a look adds is independent of what was known before, given how much it adds,
as it is for hourly deltas pooled with the inverses of their variances as weights; traffic may
follow the estimates so far (bandits do), a round's weight must not follow that round's own delta.
With other weights the clock is not 1 / variance but the sum of w^2 variance: see
``critical_value``. Variances are estimated and deltas are nearly normal, so alpha holds
asymptotically: begin once each round's arms have enough users for a standard error to mean
something. ``tightest_at`` is fixed before the first look. Each interval has an alpha of its own:
for n candidates x metrics at once, pass alpha / n.

Intervals of earlier looks are *not* intersected, though theory allows it: evidence here may be
revised (late events, corrected readings, discounted rounds), and an intersection would hold on to
what has been taken back, or be empty. The interval is a function of the evidence as it stands.

At every place: an infinite variance says nothing (infinite radius, p-value 1), a variance of 0 all
(radius 0), and NaN, in the estimate, the variance or ``tightest_at``, makes no statement: every
comparison with the NaN that comes back is false, so nothing is retired or promoted by it.

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

# Of Newton's method, which comes down to its root from above here: an iterate stopped early is
# wider than it need be, never too narrow. Enough for 12 digits at every alpha and information.
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
    var, alpha, tightest_at = _given(var, alpha=alpha, tightest_at=tightest_at)
    found = var.sqrt() * _critical(tightest_at.log() - var.log(), alpha, sides)
    return torch.where(var == 0, 0.0, found)


def critical_value(progress: Tensor, alpha: float | Tensor, sides: int = 2) -> Tensor:
    """The radius in standard errors: what stands in the place of 1.96.

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
    progress, alpha = _given(progress, alpha=alpha)
    return _critical(progress.log(), alpha, sides)


def interval(
    mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor
) -> Interval:
    """The two-sided confidence sequence at this look; arguments as in ``radius``."""
    half = radius(var, alpha, tightest_at)
    mean = _alike(mean, half)
    return Interval(mean - half, mean + half)


def lower(mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor) -> Tensor:
    """What the truth is surely above, with all of alpha on this side; as in ``radius``."""
    half = radius(var, alpha, tightest_at, sides=1)
    return _alike(mean, half) - half


def upper(mean: Tensor, var: Tensor, alpha: float | Tensor, tightest_at: float | Tensor) -> Tensor:
    """What the truth is surely below, with all of alpha on this side; as in ``radius``."""
    half = radius(var, alpha, tightest_at, sides=1)
    return _alike(mean, half) + half


def log_e_value(
    mean: Tensor,
    var: Tensor,
    null: float | Tensor,
    tightest_at: float | Tensor,
    alternative: Alternative = "two-sided",
    alpha: float | Tensor = 0.05,
) -> Tensor:
    """The logarithm of M: the evidence against the null, which averages over dependent streams.

    Args:
        mean: any shape, the pooled estimate.
        var: broadcastable, its variance.
        null: the truth that is doubted, in the unit of ``mean``: with ``"greater"`` that the truth
            is at most ``null``, with ``"less"`` that it is at least ``null``.
        tightest_at: as in ``radius``.
        alternative: what would be believed instead.
        alpha: at which ``tightest_at`` means what it does in ``radius``.
    Returns:
        The broadcast shape; -inf or inf at a variance of 0, NaN where there is no statement.
    Raises:
        ConfigError, ShapeError: as ``radius``.
    """
    sides = _sides(alternative)
    var, alpha, tightest_at = _given(var, alpha=alpha, tightest_at=tightest_at)
    off = _alike(mean, var) - null
    off = -off if alternative == "less" else off
    log_ratio = tightest_at.log() - var.log() + _horizon(alpha, sides).log()
    # S / sqrt(V + rho)
    score = off / var.sqrt() / (1 + (-log_ratio).exp()).sqrt()
    shrink = torch.logaddexp(torch.zeros_like(log_ratio), log_ratio) / 2
    if sides == 2:
        found, beyond = score.square() / 2 - shrink, off != 0
    else:
        found, beyond = _tilt(score) + math.log(2) - shrink, off > 0
    known = torch.where(beyond, torch.inf, -torch.inf)
    return torch.where((var == 0) & ~off.isnan(), known, found)


def p_value(
    mean: Tensor,
    var: Tensor,
    null: float | Tensor,
    tightest_at: float | Tensor,
    alternative: Alternative = "two-sided",
    alpha: float | Tensor = 0.05,
) -> Tensor:
    """min(1, 1 / M): under the null it is ever at or below a with probability a at most, any a.

    At ``alpha`` itself it says what the intervals say: it is below alpha just where ``interval``
    (``lower`` for ``"greater"``, ``upper`` for ``"less"``) leaves the null out. Arguments and
    errors as in ``log_e_value``; in [0, 1], NaN where there is no statement.
    """
    return (-log_e_value(mean, var, null, tightest_at, alternative, alpha)).exp().clamp_max(1.0)


def _critical(log_progress: Tensor, alpha: Tensor, sides: int) -> Tensor:
    """S / sqrt(V), by the logarithm of V / V_tightest: no ratio overflows."""
    if sides not in (1, 2):
        raise ConfigError(f"a confidence sequence has 1 or 2 sides, got {sides!r}")
    log_ratio = log_progress + _horizon(alpha, sides).log()  # of V / rho
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


def _horizon(alpha: Tensor, sides: int) -> Tensor:
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


def _given(var: Tensor, **numbers: float | Tensor) -> tuple[Tensor, ...]:
    """Numbers beside ``var`` as tensors of its kind, filled where it lies: nothing is copied."""
    if not var.is_floating_point():
        raise ShapeError(f"a variance or progress must be floating, got {var.dtype}")
    found = [var]
    for name, number in numbers.items():
        if isinstance(number, Tensor):
            found.append(_alike(number, var))
            continue
        most = 0.5 if name == "alpha" else math.inf
        if not 0 < number < most:
            raise ConfigError(f"{name} must lie above 0 and below {most:g}, got {number!r}")
        found.append(var.new_full((), number))
    return tuple(found)


def _alike(given: Tensor, var: Tensor) -> Tensor:
    """``given``, if it goes with ``var``."""
    try:
        torch.broadcast_shapes(given.shape, var.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ShapeError(
            f"shapes must broadcast, got {tuple(given.shape)} beside {tuple(var.shape)}"
        ) from None
    if given.dtype != var.dtype or given.device != var.device:
        raise ShapeError(
            f"one dtype and device are expected, got {given.dtype} on {given.device} beside "
            f"{var.dtype} on {var.device}"
        )
    return given
