"""What is known of a launched candidate, by the readings since its launch began.

Each guardrail, and the objective against the base, is a test: a slack that is 0 or more where it
holds, with a confidence sequence whose narrowest place is fixed before the launch.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..stats import sequential
from ..study.evidence.bucket import gather
from ..study.evidence.pooling import Pooling
from ..study.journal.launch_trace import LaunchTest
from ..study.launch_state import Launch
from .context import RoundContext
from .guardrails import after_round, slope_of
from .model import ModelState

#: Rounds beyond which nothing is predicted.
MOST_ROUNDS = 5000


class Measured(NamedTuple):
    """The estimates of a launched candidate, from readings since its launch began.

    ``slack``, ``spread`` and ``per_round (tests,)``: each guardrail's slack and at the end the gain
    of the objective, its standard error, and the variance that one round of the present stage would
    give; NaN without evidence. ``mean`` and ``var (metrics,)`` are the deltas.
    """

    slack: Tensor
    spread: Tensor
    per_round: Tensor
    mean: Tensor
    var: Tensor


def measure(state: ModelState, context: RoundContext, launch: Launch) -> Measured:
    """The estimates of the launched candidate, from readings since its launch began."""
    later = after_round(context.history, launch.started)
    bucket = gather(later, Pooling.of(context.config))
    candidate = launch.candidate
    # The scatter between rounds is known better from the whole study than from a few rounds.
    excess = (state.bucket.dispersion / bucket.dispersion).nan_to_num(1.0).clamp_min(1.0)
    mean, var = bucket.mean[candidate], bucket.var[candidate] * excess
    has = bucket.weight[candidate] > 0
    # Over all users, as in a launch; before it an experiment may have been for a part of them.
    whole = state.bucket.round_precision / context.config.experiment_share
    precision = torch.where(bucket.round_precision > 0, bucket.round_precision, whole)
    of_round = state.bucket.dispersion / precision * _arms_variance(launch.share())
    return _measured(state.problem, mean, var, has, of_round)


def _measured(
    problem: Problem, mean: Tensor, var: Tensor, has: Tensor, per_round: Tensor
) -> Measured:
    depends = torch.cat([problem.guarded_metrics, problem.used_metrics.unsqueeze(0)])
    at = mean.nan_to_num(0.0).unsqueeze(0).requires_grad_()
    with torch.enable_grad():
        values = slacks_at(problem, at[0])
        slopes = [slope_of(value, at)[0].abs() for value in values]
    spread = torch.stack([(slope * var.nan_to_num(0.0).sqrt()).sum() for slope in slopes])
    usual = per_round.nan_to_num(0.0, posinf=0.0).sqrt()
    of_round = torch.stack([(slope * usual).sum().square() for slope in slopes])
    judged = torch.stack([bool(has[metrics].all()) * torch.ones(()) for metrics in depends]) > 0
    slack = torch.where(judged, values.detach(), torch.nan)
    return Measured(slack, torch.where(judged, spread, torch.nan), of_round, mean, var)


def slacks_at(problem: Problem, delta: Tensor) -> Tensor:
    """The guardrails' slacks and the objective's gain over the base, ``(tests,)``.

    The gain is relative, unless the base's objective is 0.

    Args:
        problem: with its base levels, where terms see levels; those not known give NaN.
        delta: ``(metrics,)``, NaN taken for 0.
    """
    problem = problem.to("cpu")
    if not problem.levels_known and problem.base_levels is None:
        problem = problem.with_base_levels(torch.full_like(delta, torch.nan))
    at = delta.nan_to_num(0.0).unsqueeze(0)
    outcome, base = problem.evaluate(at), problem.evaluate(torch.zeros_like(at)).utility.detach()
    unit = torch.where(base.abs() > 1e-9, base.abs(), 1.0)
    return torch.cat([outcome.slack[0], (outcome.utility - base) / unit])


def _arms_variance(share: float) -> float:
    """The variance of a delta between two arms, in that of a mean over a whole round's traffic."""
    return 1 / share + 1 / (1 - share) if share < 1 else torch.inf


def tightest(alpha: float, margin: float) -> float:
    """The variance at which a sequence is as wide as the margin, and tightest."""
    progress = torch.ones((), dtype=torch.float64)
    return (margin / float(sequential.critical_value(progress, alpha, sides=1))) ** 2


def tests_of(
    problem: Problem, measured: Measured, alpha: float, margin: float
) -> tuple[LaunchTest, ...]:
    """Those with evidence, each with its bounds at this stage."""
    tight, var = tightest(alpha, margin), measured.spread.square()
    lower = sequential.lower(measured.slack, var, alpha, tight)
    upper = sequential.upper(measured.slack, var, alpha, tight)
    names = (*problem.constraint_names, problem.objective_name)
    rows = zip(names, measured.slack.tolist(), lower.tolist(), upper.tolist())
    return tuple(
        LaunchTest(
            name=name,
            slack=slack,
            lower=low,
            upper=high,
            alpha=alpha,
            is_objective=i == problem.num_constraints,
        )
        for i, (name, slack, low, high) in enumerate(rows)
        if isfinite(slack) and isfinite(low)
    )


def guards_of(problem: Problem, tests: tuple[LaunchTest, ...]) -> list[LaunchTest]:
    """The tests of guardrails; that of the objective where the study has none."""
    is_objective = problem.num_constraints == 0
    return [test for test in tests if test.is_objective == is_objective]


def safe(problem: Problem, tests: tuple[LaunchTest, ...], margin: float) -> bool:
    """Whether no guardrail can be broken by more than the margin.

    Where there is no guardrail, the objective is one: it must not lose more than the margin.
    """
    guards = guards_of(problem, tests)
    return len(guards) == max(1, problem.num_constraints) and all(
        test.lower >= -margin for test in guards
    )


def rounds_needed(
    slack: Tensor, information: Tensor, per_round: Tensor, alpha: float, margin: float
) -> int | None:
    """Rounds until all lower bounds reach ``-margin``; None where ``MOST_ROUNDS`` do not suffice.

    Args:
        slack: ``(tests,)``, assumed to stay as they are.
        information: inverse variances so far.
        per_round: variance of a round's estimate.
        alpha: of each bound.
        margin: by which a guardrail may be broken.
    """
    rounds = torch.arange(1, MOST_ROUNDS + 1, dtype=torch.float64).unsqueeze(-1)
    gained = torch.where(per_round > 0, per_round.reciprocal(), 0.0)
    var = (information + rounds * gained).reciprocal()
    radius = sequential.radius(var, alpha, tightest(alpha, margin), sides=1)
    reached = (slack - radius >= -margin).all(-1)
    first = reached.nonzero().flatten()[:1].tolist()
    return int(first[0]) + 1 if first else None


def next_share(launch: Launch) -> float:
    """The candidate's share once the present stage is left; 1 after the last."""
    return 1.0 if launch.is_last_stage else launch.share(launch.stage + 1)
