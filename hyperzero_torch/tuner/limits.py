"""Limits on the traffic of candidates that are untested, risky, or surely worse than the base.

Before there is evidence nobody knows whom a candidate harms. What bounds the harm is how many users
see it. The limits hold in every plan, whatever the draws prefer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..stats.normals import sobol_normals
from ..study.config import TunerConfig
from ..surrogate import similarity
from .context import RoundContext
from .model import Fitted, ModelState, prior_std

_NUM_DRAWS = 512
_NUM_POINTS = 256
# A candidate is surely worse than the base where the objective is below the base's with this
# probability. It wins hardly any draw, and is measured with a newcomer's traffic where it does.
_SURE = 0.975


class Group(NamedTuple):
    """Arms that get at most ``total`` of the traffic together; ``arms (A,)`` is a mask."""

    arms: Tensor
    total: float


class Prospect(NamedTuple):
    """What is expected of points, each ``(N,)``, on the CPU.

    ``prob_feasible`` is the probability that every guardrail holds, ``violation`` the expected
    largest violation as a fraction, and ``prob_worse`` the probability that the objective is below
    the base's.
    """

    prob_feasible: Tensor
    violation: Tensor
    prob_worse: Tensor


class Limits(NamedTuple):
    """Upper limits of a round's arms: ``each (A,)`` share, and of groups of arms.

    ``prospect`` is what is expected of the arms; None where neither a posterior nor plausible lifts
    say anything. ``most`` is the upper limit of shares times expected violations.
    """

    each: Tensor
    groups: tuple[Group, ...] = ()
    prospect: Prospect | None = None
    most: float | None = None


def limits(
    state: ModelState,
    context: RoundContext,
    arms: Tensor,
    slots: Tensor,
    capped: Mapping[int, float],
) -> Limits:
    """The limits of a round's arms.

    Arms that are more likely to break a guardrail than not get ``max_risky_total`` times their part
    of the slots: a slot of theirs counts a tenth, by default. Their violations are the largest, and
    what they teach is seldom recommended. Where no arm is likely to be feasible they still get
    ``max_risky_total``, so that a study goes on.

    Args:
        state: the evidence, and the posterior where there is one.
        context: the round that is planned.
        arms: ``(A,)`` candidate ids, without the control.
        slots: ``(A,)`` of these arms.
        capped: limits of single candidates for other reasons, by id.
    """
    config = context.config
    each = torch.tensor([capped.get(c, 1.0) for c in arms.tolist()], dtype=torch.float64)
    if not len(arms) or not _limits_anything(config):
        return Limits(each)
    is_untested = untested(state, arms)
    outlook = _outlook(state, context, arms)
    is_risky = torch.zeros_like(is_untested)
    if outlook is not None:
        is_risky = outlook.prob_feasible < 0.5
        is_worse = outlook.prob_worse > _SURE
        each[is_worse] = each[is_worse].clamp_max(config.newcomer_slots / config.num_draws)
    limited = is_untested | is_risky
    each[limited] = each[limited].clamp_max(config.max_untested_share)
    risky_total = config.max_risky_total
    if risky_total < 1:
        risky_total *= float(slots[is_risky].sum()) / max(1, int(slots.sum()))
    groups = (Group(is_untested, config.max_untested_total), Group(is_risky, risky_total))
    most = None
    if isinstance(state, Fitted) and state.problem.num_constraints and config.max_risk < 1:
        anywhere = state.problem.space.sobol(_NUM_POINTS, seed=0)
        most = config.max_risk * float(prospect(state, anywhere).violation.mean())
    return Limits(each, groups, outlook, most)


def untested(state: ModelState, arms: Tensor) -> Tensor:
    """Arms without own evidence on the metric of every guardrail, bool ``(A,)``.

    Where there is no guardrail, on every metric of the objective.
    """
    problem, bucket = state.problem, state.bucket
    metrics = problem.guarded_metrics.any(0) if problem.num_constraints else problem.used_metrics
    has = bucket.has_evidence(metrics)
    in_bucket = arms < len(has)  # others were added in this round
    tested = torch.zeros(len(arms), dtype=torch.bool)
    tested[in_bucket] = has[arms[in_bucket]]
    return ~tested


def prospect(state: Fitted, x: Tensor) -> Prospect:
    """What the posterior expects of points ``x (N, dims)`` of the unit cube."""
    mean, var = state.posterior.marginal(x.to(state.posterior.x))
    return _expect(state.fitted_problem, mean, var)


def prior_prospect(problem: Problem, std: Tensor, x: Tensor) -> Prospect:
    """What plausible lifts let one expect before there is evidence; see ``prospect``.

    The base's deltas are exactly 0, so the standard deviations of deltas are small near it, as the
    surrogate's prior has it.

    Args:
        problem: whose base it is.
        std: ``(metrics,)`` of the prior, 0 for metrics that nothing is known of.
        x: ``(N, dims)`` in the unit cube.
    """
    base_x = problem.space.to_unit(problem.base_theta).unsqueeze(0)
    correlation = similarity(torch.cat([base_x, x]), None)[0, 1:]
    var = (1 - correlation.square()).clamp_min(0).unsqueeze(-1) * std.square()
    return _expect(problem, torch.zeros_like(var), var)


def _outlook(state: ModelState, context: RoundContext, arms: Tensor) -> Prospect | None:
    x = state.problem.space.to_unit(context.history.theta[arms])
    if isinstance(state, Fitted):
        return prospect(state, x)
    problem = state.problem
    std = prior_std(problem, context.config)
    guarded = problem.guarded_metrics.any(0)
    if std is None or bool(std[guarded].isnan().any()) or not problem.levels_known:
        return None
    expected = prior_prospect(problem, std.nan_to_num(0.0), x)
    # The objective may depend on metrics without a plausible lift: nothing is surely worse.
    return expected._replace(prob_worse=torch.zeros_like(expected.prob_worse))


@torch.no_grad()
def _expect(problem: Problem, mean: Tensor, var: Tensor) -> Prospect:
    normal = sobol_normals(_NUM_DRAWS, mean.shape[1], seed=0).to(mean).unsqueeze(1)
    outcome = problem.evaluate(mean + var.sqrt() * normal)  # (draws, N)
    base = problem.evaluate(torch.zeros_like(mean[:1])).utility
    violation = torch.zeros_like(outcome.utility)
    if problem.num_constraints:
        violation = (-outcome.slack).amax(-1).clamp_min(0).nan_to_num(0.0, 0.0, 0.0)
    fields = (outcome.feasible, violation, outcome.utility < base)
    # One copy to the host instead of three.
    return Prospect(*torch.stack([field.double().mean(0) for field in fields]).cpu().unbind(0))


def _limits_anything(config: TunerConfig) -> bool:
    shares = (config.max_untested_share, config.max_untested_total, config.max_risky_total)
    return min(*shares, config.max_risk) < 1 or config.harm_budget is not None
