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
from ..stats import sequential
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import CONTROL, History
from ..study.journal import Decision
from ..study.journal.trace import Stopped
from .context import RoundContext
from .model import ModelState

# The sequence is tightest at this multiple of one round's traffic for the arm, and the same for the
# control: what a promising arm has after some hours.
_TIGHTEST_AT = 0.5
# Rounds with evidence before a candidate can be certified as safe.
_FEWEST_ROUNDS = 2


class Slacks(NamedTuple):
    """Anytime-valid bounds of every candidate's slack, each ``(candidates, constraints)``.

    NaN where a candidate has no evidence of its own.
    """

    lower: Tensor
    upper: Tensor


def slacks(problem: Problem, bucket: Bucket, alpha: float) -> Slacks:
    """Bounds that hold at all looks together, each with probability 1 - alpha.

    A constraint may be any function of the metrics. Its slack is linearised around the candidate's
    mean, and the metrics' errors are added as if fully correlated. This is exact for the usual
    guardrail on one metric and conservative otherwise.

    Args:
        problem: with its base levels, where constraints see levels.
        bucket: candidates and their own evidence.
        alpha: probability that a bound is ever wrong.
    """
    shape = (len(bucket.mean), problem.num_constraints)
    slack, spread = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    slack, spread = slack.to(bucket.mean), spread.to(bucket.mean)
    tight = torch.full_like(spread, torch.nan)
    rows = bucket.tested.nonzero().flatten()
    typical_var = 2 * bucket.dispersion / (_TIGHTEST_AT * bucket.round_precision)
    if len(rows) and shape[1] and bool(typical_var.isfinite().all()):
        problem = problem.to("cpu")
        at = bucket.mean[rows].clone().requires_grad_()
        with torch.enable_grad():
            value = problem.evaluate(at).slack
            for c in range(shape[1]):
                slope = _slope(value[:, c], at).abs()
                spread[rows, c] = (slope * bucket.var[rows].sqrt()).sum(-1)
                tight[rows, c] = (slope * typical_var.sqrt()).sum(-1).square()
        slack[rows] = value.detach()
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
    safe = torch.zeros(len(state.bucket.mean), dtype=torch.bool)
    if not problem.sees_levels or problem.base_levels is not None:
        alpha = config.harm_alpha / max(1, problem.num_constraints)
        safe = (slacks(problem, state.bucket, alpha).lower >= 0).all(-1) & state.bucket.tested
        safe &= state.bucket.num_rounds >= _FEWEST_ROUNDS
    safe[CONTROL] = True
    return safe


def harm_stops(state: ModelState, context: RoundContext) -> list[Decision]:
    """Decisions to stop candidates, one for each, with the guardrail and the numbers behind it.

    None while base levels are estimated from part of a day: a constraint on levels may then be off
    by more than the deltas are.
    """
    problem, bucket, config = state.problem, state.bucket, context.config
    if config.harm_alpha is None or not problem.num_constraints:
        return []
    levels_unknown = problem.sees_levels and problem.base_levels is None
    part_of_a_day = state.level_hours is not None and state.level_hours < config.rounds_per_day
    if levels_unknown or part_of_a_day:
        return []
    alpha = config.harm_alpha / problem.num_constraints
    upper = slacks(problem, bucket, alpha).upper
    num_rounds = bucket.num_rounds.clone()
    for since, candidates in _readmitted(context.history).items():
        later = gather(_after(context.history, since), Pooling.of(config))
        upper[candidates] = slacks(problem, later, alpha).upper[candidates]
        num_rounds[candidates] = later.num_rounds[candidates]
    decisions = []
    for candidate in (upper < 0).any(-1).nonzero().flatten().tolist():
        if candidate == CONTROL or candidate in context.history.status.stopped:
            continue
        worst = int(upper[candidate].nan_to_num(torch.inf).argmin())
        name, bound = problem.constraint_names[worst], float(upper[candidate, worst])
        reason = (
            f"Stopped: candidate {candidate} breaks {name!r} by at least {-100 * bound:.3f} points "
            f"({100 * (1 - config.harm_alpha):.4g} % confidence, valid at every look); it is not "
            "served again"
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


def _readmitted(history: History) -> dict[int, list[int]]:
    """Candidates that were let back in, by the last round before that."""
    groups: dict[int, list[int]] = defaultdict(list)
    for candidate, since in history.status.readmitted.items():
        if candidate not in history.status.stopped:
            groups[since].append(candidate)
    return groups


def _after(history: History, round: int) -> History:
    """The same study with the readings of later rounds only.

    Of a block that was compacted as a whole, only one that began later is among them.
    """
    later = history.branch()
    later.tables = {r: table for r, table in history.tables.items() if r > round}
    later.compacted = [entry for entry in history.compacted if entry.rounds[0] > round]
    return later


def _slope(value: Tensor, at: Tensor) -> Tensor:
    """Derivative of each row's value, ``at``'s shape; 0 where there is none."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if gradient is None else gradient.detach().nan_to_num(0.0, 0.0, 0.0)
