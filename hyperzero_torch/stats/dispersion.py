"""Overdispersion of deltas: how far their scatter exceeds their variances, estimated from rounds.

Real hours are noisier than independent users would be: users return, and there are bots and bursts.
A delta d of candidate c with formula variance v is modelled as

    d = m_c + sqrt(s phi_c v) t_nu

phi_c is the candidate's dispersion, shrunk towards its metric's; s and nu (scale and degrees of
freedom of a Student t) are the metric's, and describe the errors of the phi that were predicted
from earlier rounds. All estimates use *prediction errors*: a delta against the candidate's own
deltas of earlier rounds. True differences between candidates cancel, no delta is compared with a
mean that includes it, and under the true model errors are independent with the variance claimed.

A multiplier fits better than an additive variance: on the A/B tests of ``simulate.asos`` the log
likelihood of the next delta was best where at most a fifth of the variance was the same for all
intervals of a stream.

Source: Dawid (1984), prequential analysis; Lange, Little and Taylor (1989), Student t weights;
    Efron and Morris (1973), shrinkage; Brown, Durbin and Evans (1975), recursive residuals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .delta import Delta
from .groups import check_ids

# Deltas that each prior counts for: the formula is trusted until about so many deltas disagree.
PRIOR = 20.0
# Weight of a round relative to the next one: a memory of 20 rounds. Dispersions drift (more users
# return), and a burst should have no effect on the next day.
DECAY = 0.95
# Degrees of freedom of the weights in the running scales: 97 % efficient on Gaussian data, and no
# delta counts for more than 9.
ROBUST = 8.0
# How many deltas the metric's dispersion counts for against a candidate's own; the best predictor
# of the rounds so far is used. Each step down the list has to earn 1 nat, as in Akaike (1974).
STRENGTHS = (math.inf, 32.0, 8.0, 2.0)
# Degrees of freedom to choose from; a variance needs more than 2.
FREEDOMS = (1e6, 50.0, 20.0, 12.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5)
# Enough for the slowest of the grid: each step about halves the error.
_STEPS = 12
# E[w r^2] of a standard normal r, so that a dispersion of 1 is found where the formula holds.
_GAUSSIAN = (ROBUST + 1) * (
    1 - math.sqrt(math.pi * ROBUST / 2) * math.exp(ROBUST / 2) * math.erfc(math.sqrt(ROBUST / 2))
)


class Ahead(NamedTuple):
    """Each delta predicted from earlier rounds, and the dispersions after the last round.

    ``mean`` and ``var`` ``(arms, metrics)``: prediction and its variance, fractions, with the
    noise of both the mean and the delta, before ``Tails``; NaN where there was no earlier delta.
    ``formula`` is that variance at a dispersion of 1. ``scale (candidates, metrics)`` and
    ``common (metrics,)``: dispersion after the last round.
    """

    mean: Tensor
    var: Tensor
    formula: Tensor
    scale: Tensor
    common: Tensor


class Tails(NamedTuple):
    """Student t of standardised prediction errors: ``scale`` (a variance), ``freedom``.

    Both ``(metrics,)``; a Gaussian metric that is as predicted has 1 and a million.
    """

    scale: Tensor
    freedom: Tensor


class Dispersion(NamedTuple):
    """How to pool deltas so that the mean is robust and its variance honest.

    ``factor (arms, metrics)``, at least 0: each delta's variance is this times the formula's.
    ``weight (arms, metrics)``: the weights to pool by, the given ones times a Student t weight; a
    candidate's keep their sum. ``common (metrics,)``, at least 1: the factor of a typical
    candidate with many rounds. ``tails``: of the next delta.
    """

    factor: Tensor
    weight: Tensor
    common: Tensor
    tails: Tails


def follow(candidates: Tensor, rounds: Tensor, delta: Delta, num_candidates: int) -> Ahead:
    """Predict every delta from the rounds before it; follow means and dispersions through time.

    Loops over rounds, not over candidates; holds ``len(STRENGTHS)`` states of (candidates,
    metrics).

    Args:
        candidates: ``(arms,)``, indices in ``[0, num_candidates)``.
        rounds: ``(arms,)``, rounds numbered 0, 1, 2, ... in the order of time, in any row order.
        delta: ``(arms, metrics)``; NaN, or a variance that is not positive, is ignored.
        num_candidates: rows of ``scale``.
    """
    check_ids(candidates, num_candidates, "candidates")
    valid = delta.mean.isfinite() & delta.var.isfinite() & (delta.var > 0)
    value = torch.where(valid, delta.mean, 0.0)
    var = torch.where(valid, delta.var, 1.0)
    ahead = value.new_full((3, *value.shape), torch.nan)
    width = value.shape[1]
    pull = value.new_tensor([1 / s for s in STRENGTHS])[:, None, None]  # 0: the metric's alone
    state = value.new_zeros(4, len(STRENGTHS), num_candidates, width)
    weight, moment, count, scatter = state.unbind(0)
    num_errors, total = value.new_zeros(2, len(STRENGTHS), 1, width).unbind(0)
    score = -torch.arange(len(STRENGTHS), dtype=value.dtype, device=value.device)
    score = score[:, None].repeat(1, width)
    for rows in _by_round(rounds):
        who, k, v = candidates[rows], valid[rows], var[rows]
        common = (PRIOR + total) / (PRIOR + num_errors)
        scale = ((common + pull * scatter) / (1 + pull * count))[:, who]
        before = weight[:, who]
        has = k & (before > 0)
        mean = moment[:, who] / torch.where(has, before, 1.0)
        spread = v + 1 / torch.where(has, before, 1.0)  # of the delta and of the mean
        surprise = torch.where(has, (value[rows] - mean).square() / spread, 0.0)
        best = score.argmax(0).expand(1, *k.shape)
        usable = has[0]  # whether a candidate has earlier deltas is the same in every state
        for field, states in zip(ahead, (mean, scale * spread, spread)):
            field[rows] = torch.where(usable, states.gather(0, best)[0], torch.nan)
        density = (scale * spread).log() + (ROBUST + 1) * (surprise / scale / ROBUST).log1p()
        score = score - torch.where(has, density, 0.0).sum(1) / 2
        robust = student_weight(surprise / scale, ROBUST)
        precision = torch.where(k, robust / v, 0.0)
        weight = weight.index_add(1, who, precision)
        moment = moment.index_add(1, who, precision * value[rows])
        count = (DECAY * count).index_add(1, who, has.to(value.dtype))
        scatter = (DECAY * scatter).index_add(1, who, robust * surprise / _GAUSSIAN)
        num_errors = num_errors + has.sum(1, keepdim=True)
        robust = student_weight(surprise / common, ROBUST)
        total = total + (robust * surprise).sum(1, keepdim=True) / _GAUSSIAN
    common = (PRIOR + total) / (PRIOR + num_errors)
    scale = (common + pull * scatter) / (1 + pull * count)
    best = score.argmax(0)
    mean, var, formula = ahead.unbind(0)
    scale = scale.gather(0, best.expand(1, num_candidates, width))[0]
    return Ahead(mean, var, formula, scale, common[:, 0].gather(0, best[None])[0])


def tails(error2: Tensor, weight: Tensor) -> Tails:
    """The Student t under which standardised errors are most likely, by metric.

    ``PRIOR`` errors as a Gaussian would have them are added, so that few errors change little.

    Args:
        error2: ``(errors, metrics)``, squares of errors over the variance that was predicted;
            NaN is ignored.
        weight: ``(errors, metrics)`` or ``(errors, 1)``, e.g. ``DECAY ** age``; 0 is ignored.
    Source: Lange, Little and Taylor (1989): maximum likelihood by iterated weights, the degrees
        of freedom from a grid.
    """
    valid = error2.isfinite()
    weight = torch.where(valid, weight.to(error2.dtype), 0.0)
    levels = (torch.arange(int(PRIOR), dtype=error2.dtype, device=error2.device) + 0.5) / PRIOR
    normal = torch.special.ndtri(levels).square()[:, None].expand(-1, error2.shape[1])
    square = torch.cat([normal, torch.where(valid, error2, 0.0)]).unsqueeze(-1)
    weight = torch.cat([torch.ones_like(normal), weight]).unsqueeze(-1)
    nu = error2.new_tensor(FREEDOMS)
    size = weight.sum(0)
    scale = torch.ones_like(size)
    for _ in range(_STEPS):
        scale = (weight * student_weight(square / scale, nu) * square).sum(0) / size
    spread = (weight * (square / scale / nu).log1p()).sum(0)
    constant = error2.new_tensor([_log_constant(freedom) for freedom in FREEDOMS])
    likelihood = size * (constant - scale.log() / 2) - (nu + 1) / 2 * spread
    best = likelihood.argmax(-1)
    return Tails(scale.gather(-1, best[:, None])[:, 0], nu[best])


def fit(
    candidates: Tensor, rounds: Tensor, delta: Delta, weight: Tensor, num_candidates: int
) -> Dispersion:
    """Factors and weights for pooling deltas over rounds with ``evidence.summarise``.

    The pooled mean is the Student t estimate (an extreme round counts less). The pooled variance is
    such that mean +- 1.96 standard deviations covers 95 %, and is at least the formula's: less
    scatter than expected is attributed to chance. Where nothing was served twice, factors are 1. On
    Gaussian data with the variances claimed, factors stay near 1. Arms of a round count as
    independent although they share its control's error.

    Args:
        candidates: ``(arms,)``, indices in ``[0, num_candidates)``.
        rounds: ``(arms,)``, rounds numbered 0, 1, 2, ... in the order of time.
        delta: ``(arms, metrics)``, fractions; NaN is no evidence. A variance of 0 is kept, and not
            used to estimate the dispersion.
        weight: ``(arms,)`` or ``(arms, metrics)``, as in ``evidence.summarise``.
        num_candidates: the number of candidates.
    """
    if weight.ndim == delta.mean.ndim - 1:
        weight = weight.unsqueeze(-1)
    valid = delta.mean.isfinite() & delta.var.isfinite()
    weights = torch.where(valid, weight.to(delta.mean.dtype), 0.0)
    value, var = (torch.where(valid, field, 0.0) for field in delta)
    ahead = follow(candidates, rounds, delta, num_candidates)
    # By the dispersions after all rounds: predictions of the first rounds had no data.
    error2 = (delta.mean - ahead.mean).square() / (ahead.formula * ahead.scale[candidates])
    student = tails(error2, torch.ones_like(error2))
    scale = ahead.scale * student.scale

    zero = torch.zeros_like(scale)

    def total(rows: Tensor) -> Tensor:
        return zero.index_add(0, candidates, rows)

    def per(top: Tensor, bottom: Tensor) -> Tensor:
        return top / torch.where(bottom > 0, bottom, 1.0)

    robust = torch.ones_like(weights)
    noise = var * scale[candidates]
    for _ in range(_STEPS):
        pooled = weights * robust
        mean = per(total(pooled * value), total(pooled))
        surprise = torch.where(noise > 0, (value - mean[candidates]).square() / noise, 0.0)
        robust = student_weight(surprise, student.freedom)
    pooled = weights * robust
    pooled = pooled * per(total(weights), total(pooled))[candidates]
    independent = per(total(weights).square(), total(weights.square()))  # rounds, Kish (1965)
    honest = (scale * estimate_variance(student.freedom, independent)).clamp_min(1.0)
    # The variance of the estimate over the one that ``summarise`` computes from these weights.
    factor = honest * per(total(weights.square() * var), total(pooled.square() * var))
    factor = torch.where(total(weights.square() * var) > 0, factor, honest)
    unlimited = estimate_variance(student.freedom, zero.new_tensor(math.inf))
    common = ahead.common * student.scale * unlimited
    return Dispersion(factor[candidates], pooled, common.clamp_min(1.0), student)


def _log_constant(freedom: float) -> float:
    """Logarithm of the t's density at 0; in Python, since float32 would cancel at 1e6."""
    return (
        math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi * freedom) / 2
    )


def student_weight(square: Tensor, freedom: Tensor | float) -> Tensor:
    """Weight of an error in a Student t's estimate: mean 1 under the t, small for an outlier.

    Args:
        square: any shape, the squares of the errors over the t's scale.
        freedom: degrees of freedom, broadcastable.
    Source: Lange, Little and Taylor (1989).
    """
    return (freedom + 1) / (freedom + square)


def estimate_variance(freedom: Tensor, rounds: Tensor) -> Tensor:
    """Variance of the t estimate from so many rounds, times rounds, in squared scales.

    (nu + 3) / (nu + 1) for many rounds: the inverse Fisher information. The estimate from one round
    or two has the t itself: the Gaussian with its 95 % interval has the variance
    (nu + 1) / (nu - 1.5), to 5 % from nu = 2.5 on. Between them the excess falls as
    1 / (rounds - 1), which simulations confirm to 5 %.

    Args:
        freedom: degrees of freedom, above 1.5.
        rounds: broadcastable, 1 or more; infinity gives the limit.
    """
    many = (freedom + 3) / (freedom + 1)
    few = (freedom + 1) / (freedom - 1.5)
    return many + (few - many) / (rounds - 1).clamp_min(1.0)


def _by_round(rounds: Tensor) -> tuple[Tensor, ...]:
    """Row numbers of each round, in the order of time."""
    order = torch.argsort(rounds, stable=True)
    sizes = torch.unique_consecutive(rounds[order], return_counts=True)[1]
    parts: tuple[Tensor, ...] = order.split(sizes.tolist())  # type: ignore[no-untyped-call]
    return parts
