"""Whether a new candidate is worth its traffic: expected gain against risk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...stats.normals import antithetic_normals
from ...surrogate.protocol import FittedPosterior

#: P(gain > 0 and feasible) below which no transferred candidate is served.
LEAST_PROB = 0.25
_NUM_DRAWS = 512


class RiskScore(NamedTuple):
    """Of points ``(n,)``: the probability of success, how much is needed, and the expected gain.

    ``prob`` is P(gain > 0 and feasible), ``promise`` the expected gain less the expected loss, and
    ``accepted`` is ``prob >= needed``.
    """

    prob: Tensor
    needed: Tensor
    promise: Tensor
    accepted: Tensor


def risk_screen(
    posterior: FittedPosterior, problem: Problem, x: Tensor, generator: torch.Generator
) -> RiskScore:
    """Which candidates are worth their traffic under a posterior.

    A success gains G on average. A failure loses L: the gain that it lacks plus the guardrail that
    it breaks, in the utility's unit by the spreads of both over the points. Serving pays where
    p G > (1 - p) L, so a candidate is accepted where P(gain > 0 and feasible) >= L / (G + L), and
    never below ``LEAST_PROB``.

    Args:
        posterior: over the unit cube, in deltas.
        problem: with base levels, where terms see levels.
        x: ``(n, dims)``.
        generator: on the posterior's device.
    """
    mean, var = posterior.marginal(x)
    normal = antithetic_normals(_NUM_DRAWS, mean.shape[1], generator).to(mean).unsqueeze(1)
    with torch.no_grad():
        outcome = problem.evaluate(mean + var.sqrt() * normal)
        base = problem.evaluate(torch.zeros_like(mean[:1])).utility
    gain = (outcome.utility - base).nan_to_num(nan=-torch.inf)
    unit = gain[gain.isfinite()].std()
    success = (gain > 0) & outcome.feasible
    violation = torch.zeros_like(gain)
    if outcome.slack.shape[-1]:
        spread = outcome.slack.std((0, 1)).clamp_min(1e-300)
        violation = (-outcome.slack / spread).clamp_min(0).amax(-1) * unit
    loss = (-gain).clamp_min(0).minimum(1e3 * unit) + violation
    prob = success.to(gain).mean(0)
    expected_gain = torch.where(success, gain, 0.0).mean(0)
    expected_loss = torch.where(success, 0.0, loss).mean(0)
    gain_of_success = expected_gain / prob.clamp_min(1e-9)
    loss_of_failure = expected_loss / (1 - prob).clamp_min(1e-9)
    total = (gain_of_success + loss_of_failure).clamp_min(1e-300)
    needed = (loss_of_failure / total).clamp_min(LEAST_PROB)
    return RiskScore(prob, needed, expected_gain - expected_loss, prob >= needed)
