"""Guarded: when sources may count at all, and the way back to a cold start.

Two gates stand between the sources and a plan. They are admitted once their bets on the target's
evidence have won (``weights``): whatever the sources are, and however often one looks, a family
that tells nothing is ever admitted with probability ``ALPHA`` at most. Once admitted, a metric goes
by the transferred model as long as it predicts left-out evidence no worse than the cold one does.
Where a gate is shut the plan is the cold one, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...surrogate import Posterior
from .target import Learned, left_out

#: Probability with which sources that tell nothing are ever admitted.
ALPHA = 0.05
# Nats by which the transferred model may predict a metric's left-out evidence worse: the cold one
# was fitted to the same evidence with a lengthscale for every parameter, so a little is no sign.
_TOLERANCE = 3.0
#: P(gain > 0 and feasible) below which no transferred candidate is served.
LEAST_PROB = 0.25
_NUM_DRAWS = 256


class Verdict(NamedTuple):
    """Whether sources are admitted, the log wealth ``needed`` for it, and a sentence."""

    admitted: bool
    needed: float
    reason: str


class HeldOut(NamedTuple):
    """Held-out log densities of the target's evidence, ``(metrics,)``: ``warm`` and ``cold``."""

    warm: Tensor
    cold: Tensor

    @property
    def better(self) -> Tensor:
        """Metrics in which the transferred model may stay, bool ``(metrics,)``."""
        return self.warm >= self.cold - _TOLERANCE

    @property
    def reason(self) -> str:
        """Why nothing is taken over, where that is so."""
        return (
            "the transferred model predicts left-out evidence worse than the cold one, by "
            f"{[round(v, 2) for v in (self.cold - self.warm).tolist()]} nats: the plan is the cold "
            "one"
        )

    def facts(self, metrics: Sequence[str]) -> dict[str, Any]:
        """Plain values, by metric."""
        pairs = zip(metrics, self.warm.tolist(), self.cold.tolist())
        return {name: {"transferred": round(w, 4), "cold": round(c, 4)} for name, w, c in pairs}


def admit(found: Learned, alpha: float = ALPHA) -> Verdict:
    """The first gate: have the sources won their bets?"""
    needed = -math.log(alpha)
    wealth = found.scores.wealth
    if not bool((found.share[:, -1] > 0).any()):
        reason = "no source alone predicts the target's evidence better than none does"
        return Verdict(False, needed, reason)
    if wealth < needed:
        reason = (
            f"bets on the sources have made {math.exp(min(wealth, 50)):.2g} of 1; they count once "
            f"it is {1 / alpha:g}"
        )
        return Verdict(False, needed, reason)
    reason = f"bets on the sources have made {math.exp(min(wealth, 50)):.3g} of 1"
    return Verdict(True, needed, reason)


def compare(warm: Posterior, cold: Posterior) -> HeldOut:
    """The second gate: who predicts the target's evidence better, each row from all others?"""
    return HeldOut(left_out(warm, len(cold.x)), left_out(cold, len(cold.x)))


class RiskScore(NamedTuple):
    """Of points ``(n,)``: P(gain > 0 and feasible), what is needed of it, promise, acceptance."""

    prob: Tensor
    needed: Tensor
    promise: Tensor
    accepted: Tensor


def worth_serving(
    posterior: Posterior, problem: Problem, x: Tensor, generator: torch.Generator
) -> RiskScore:
    """Does a transferred candidate deserve traffic under what is believed now?

    A success gains G on average, a failure loses L: the gain it lacks, and the guardrail it
    breaks, in the utility's unit by the spreads of both over the points. Serving pays where
    p G > (1 - p) L; so it is accepted where P(gain > 0 and feasible) >= L / (G + L), and never
    below ``LEAST_PROB``.

    Args:
        posterior: what is believed.
        problem: with base levels, where terms see levels.
        x: ``(n, dims)``.
        generator: on the posterior's device.
    """
    mean, var = posterior.marginal(x)
    normal = torch.randn(
        _NUM_DRAWS, 1, mean.shape[1], dtype=mean.dtype, device=mean.device, generator=generator
    )
    with torch.no_grad():
        outcome = problem.evaluate(mean + var.sqrt() * torch.cat([normal, -normal]))
        base = problem.evaluate(torch.zeros_like(mean[:1])).utility
    gain = (outcome.utility - base).nan_to_num(nan=-torch.inf)
    unit = gain[gain.isfinite()].std()
    success = (gain > 0) & outcome.feasible
    breach = torch.zeros_like(gain)
    if outcome.slack.shape[-1]:
        spread = outcome.slack.std((0, 1)).clamp_min(1e-300)
        breach = (-outcome.slack / spread).clamp_min(0).amax(-1) * unit
    lost = (-gain).clamp_min(0).minimum(1e3 * unit) + breach
    prob = success.to(gain).mean(0)
    won = torch.where(success, gain, 0.0).mean(0)
    harm = torch.where(success, 0.0, lost).mean(0)
    each_won = won / prob.clamp_min(1e-9)
    each_lost = harm / (1 - prob).clamp_min(1e-9)
    needed = (each_lost / (each_won + each_lost).clamp_min(1e-300)).clamp_min(LEAST_PROB)
    return RiskScore(prob, needed, won - harm, prob >= needed)
