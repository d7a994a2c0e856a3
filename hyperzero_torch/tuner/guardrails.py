"""Guardrails: candidates whose own evidence shows that they break one are stopped at once.

The evidence is checked every hour, so an ordinary test would sooner or later stop a harmless
candidate. A confidence sequence is wrong at any check at all with probability alpha at most, per
candidate and guardrail. Only a candidate's own deltas count here, not those of its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..problem.slack_units import slack_units, violation_in_words
from ..stats import sequential
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import CONTROL, History
from ..study.journal import Decision
from ..study.journal.trace import Stopped
from .confirmation import variance_factors
from .context import RoundContext
from .model import ModelState

# The sequence is tightest at this multiple of one round's traffic for the arm, and the same for the
# control: what a promising arm has after some hours.
_TIGHTEST_AT = 0.5
# Rounds with evidence before a candidate can be certified as safe.
_FEWEST_ROUNDS = 2


class Slacks(NamedTuple):
    """Anytime-valid bounds of every candidate's slack, each ``(candidates, constraints)``.

    NaN where a candidate has no evidence of its own on a metric that the constraint depends on.
    """

    lower: Tensor
    upper: Tensor


def slacks(problem: Problem, bucket: Bucket, alpha: float) -> Slacks:
    """Bounds that hold at all looks together, each with probability 1 - alpha.

    A constraint may be any function of the metrics. Its slack is linearised around the candidate's
    mean, and the metrics' errors are added as if fully correlated. This is exact for the usual
    guardrail on one metric and conservative otherwise. A constraint is judged where there is
    evidence on every metric that it depends on, whatever the other metrics report.

    Args:
        problem: with its base levels, where constraints see levels; a constraint whose levels are
            not known is not judged.
        bucket: candidates and their own evidence.
        alpha: probability that a bound is ever wrong.
    """
    shape = (len(bucket.mean), problem.num_constraints)
    slack, spread = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    slack, spread = slack.to(bucket.mean), spread.to(bucket.mean)
    tight = torch.full_like(spread, torch.nan)
    typical_var = 2 * bucket.dispersion / (_TIGHTEST_AT * bucket.round_precision)
    judged = torch.zeros(shape, dtype=torch.bool)
    for c, metrics in enumerate(problem.guarded_metrics):
        if bool(typical_var[metrics].isfinite().all()):
            judged[:, c] = bucket.has_evidence(metrics)
    rows = judged.any(-1).nonzero().flatten()
    if len(rows):
        problem = problem.to("cpu")
        if not problem.levels_known and problem.base_levels is None:
            problem = problem.with_base_levels(torch.full_like(typical_var, torch.nan))
        # 0 for a metric without evidence: no constraint that is judged depends on it.
        at = bucket.mean[rows].nan_to_num(0.0).requires_grad_()
        var = bucket.var[rows].nan_to_num(0.0)
        typical_var = typical_var.nan_to_num(0.0, posinf=0.0)
        with torch.enable_grad():
            value = problem.evaluate(at).slack
            for c in range(shape[1]):
                slope = slope_of(value[:, c], at).abs()
                spread[rows, c] = (slope * var.sqrt()).sum(-1)
                tight[rows, c] = (slope * typical_var.sqrt()).sum(-1).square()
        slack[rows] = value.detach()
    slack = torch.where(judged, slack, torch.nan)
    tight = torch.where(tight > 0, tight, torch.nan)
    return Slacks(
        sequential.lower(slack, spread.square(), alpha, tight),
        sequential.upper(slack, spread.square(), alpha, tight),
    )


def certified_safe(state: ModelState, config: TunerConfig) -> Tensor | None:
    """Candidates whose own evidence shows that every guardrail holds, bool ``(candidates,)``.

    At all looks together, with probability 1 - ``harm_alpha``; None where ``harm_alpha`` is None.
    Evidence of a single round proves nothing: no scatter between rounds has confirmed its variances
    yet, which may have another unit.
    The control is what all others are measured against, and is safe by definition.
    """
    problem = state.problem
    if config.harm_alpha is None:
        return None
    alpha = config.harm_alpha / max(1, problem.num_constraints)
    safe = (slacks(problem, state.bucket, alpha).lower >= 0).all(-1)
    safe &= state.bucket.has_evidence(problem.used_metrics)
    safe &= state.bucket.num_rounds >= _FEWEST_ROUNDS
    safe[CONTROL] = True
    return safe


def harm_stops(state: ModelState, context: RoundContext) -> list[Decision]:
    """Decisions to stop candidates, one for each, with the guardrail and the numbers behind it.

    A constraint on levels stops no candidate while base levels are estimated from part of a day: it
    may then be off by more than the deltas are.
    """
    problem, bucket, config = state.problem, state.bucket, context.config
    if config.harm_alpha is None or not problem.num_constraints:
        return []
    alpha = config.harm_alpha / problem.num_constraints
    upper = slacks(problem, _cautious(bucket, context.history), alpha).upper
    num_rounds = bucket.num_rounds.clone()
    for since, candidates in _readmitted(context.history).items():
        later = gather(after_round(context.history, since), Pooling.of(config))
        later = _cautious(later, context.history)
        upper[candidates] = slacks(problem, later, alpha).upper[candidates]
        num_rounds[candidates] = later.num_rounds[candidates]
    upper = torch.where(levels_settled(state, config), upper, torch.nan)
    decisions = []
    units = slack_units(problem).tolist()
    for candidate in (upper < 0).any(-1).nonzero().flatten().tolist():
        if candidate == CONTROL or candidate in context.history.status.stopped:
            continue
        worst = int(upper[candidate].nan_to_num(torch.inf).argmin())
        name, bound = problem.constraint_names[worst], float(upper[candidate, worst])
        reason = (
            f"Stopped: candidate {candidate} breaks {name!r} by at least "
            f"{violation_in_words(bound, units[worst])} ({100 * (1 - config.harm_alpha):.4g} % "
            "confidence, valid at every look); it is not served again"
        )
        trace = Stopped(
            candidates=(candidate,),
            constraint=name,
            slack_upper=bound,
            alpha=config.harm_alpha,
            num_rounds=int(num_rounds[candidate]),
        )
        decisions.append(Decision.of(context.round, reason, trace))
    return decisions


def _cautious(bucket: Bucket, history: History) -> Bucket:
    """The same evidence, as uncertain as it would be if variances came in another unit."""
    factors = variance_factors(history)
    if bool((factors == 1).all()):
        return bucket
    return bucket._replace(var=bucket.var * factors, dispersion=bucket.dispersion * factors)


def _readmitted(history: History) -> dict[int, list[int]]:
    """Candidates that were let back in, by the last round before that."""
    groups: dict[int, list[int]] = defaultdict(list)
    for candidate, since in history.status.readmitted.items():
        if candidate not in history.status.stopped:
            groups[since].append(candidate)
    return groups


def after_round(history: History, round: int) -> History:
    """The same study with the readings of later rounds only.

    Of a block that was compacted as a whole, only one that began later is among them.
    """
    later = history.branch()
    later.carried = None
    later.tables = {r: table for r, table in history.tables.items() if r > round}
    later.compacted = [entry for entry in history.compacted if entry.rounds[0] > round]
    return later


def levels_settled(state: ModelState, config: TunerConfig) -> Tensor:
    """Constraints whose base levels are known, or rest on a whole day, bool ``(constraints,)``."""
    depends = state.problem.level_metrics[1:]
    if state.level_hours is None:  # known to the platform, or of no concern
        return torch.ones(len(depends), dtype=torch.bool)
    hours = state.bucket.hours_by_metric
    if hours is None:
        hours = torch.full(depends.shape[1:], state.level_hours)
    return ~(depends & (hours < config.rounds_per_day)).any(-1)


def slope_of(value: Tensor, at: Tensor) -> Tensor:
    """Derivative of each row's value, ``at``'s shape; 0 where there is none."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if gradient is None else gradient.detach().nan_to_num(0.0, 0.0, 0.0)
