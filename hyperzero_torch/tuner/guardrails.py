"""Nobody harmed: candidates whose own evidence surely breaks a guardrail are stopped at once.

The evidence is looked at every hour, so an ordinary test would stop harmless candidates sooner or
later. A confidence sequence is wrong at any look at all with probability alpha at most, per
candidate and guardrail. Only a candidate's own deltas count here, not what its neighbours suggest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..stats import sequential
from ..study.config import TunerConfig
from ..study.decisions import STOPPED
from ..study.evidence.bucket import Bucket
from ..study.history import CONTROL, History
from ..study.journal import Decision
from .model import ModelState

# The sequence is tightest for an arm that has had, on the whole, so much of one round's traffic,
# its control the same: what a promising arm has after some hours.
_TIGHTEST_AT = 0.5


class Slacks(NamedTuple):
    """Anytime-valid bounds of every candidate's slack, each ``(candidates, constraints)``.

    NaN where a candidate has no evidence of its own.
    """

    lower: Tensor
    upper: Tensor


def slacks(problem: Problem, bucket: Bucket, alpha: float) -> Slacks:
    """Bounds that hold at all looks together, each with probability 1 - alpha.

    A constraint may be any function of the metrics; its slack is taken as linear around the
    candidate's mean, and the metrics' errors as adding up fully (they may be correlated), which is
    exact for the usual guardrail on one metric and conservative otherwise.

    Args:
        problem: with its base levels, where constraints see levels.
        bucket: candidates and their own evidence.
        alpha: probability of ever being wrong, for each bound.
    """
    shape = (len(bucket.mean), problem.num_constraints)
    slack, spread = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    slack, spread = slack.to(bucket.mean), spread.to(bucket.mean)
    tight = torch.full_like(spread, torch.nan)
    rows = bucket.tested.nonzero().flatten()
    usual = 2 * bucket.dispersion / (_TIGHTEST_AT * bucket.round_precision)
    if len(rows) and shape[1] and bool(usual.isfinite().all()):
        problem = problem.to("cpu")
        at = bucket.mean[rows].clone().requires_grad_()
        with torch.enable_grad():
            value = problem.evaluate(at).slack
            for c in range(shape[1]):
                slope = _slope(value[:, c], at).abs()
                spread[rows, c] = (slope * bucket.var[rows].sqrt()).sum(-1)
                tight[rows, c] = (slope * usual.sqrt()).sum(-1).square()
        slack[rows] = value.detach()
    tight = torch.where(tight > 0, tight, torch.nan)
    return Slacks(
        sequential.lower(slack, spread.square(), alpha, tight),
        sequential.upper(slack, spread.square(), alpha, tight),
    )


def proven(known: ModelState, config: TunerConfig) -> Tensor | None:
    """Whose own evidence shows that every guardrail holds, bool ``(candidates,)``.

    At every look together, with probability 1 - ``harm_alpha``; None where nobody asks for it. The
    control is what all others are measured against, and needs no proof.
    """
    problem = known.problem
    if config.harm_alpha is None:
        return None
    shown = torch.zeros(len(known.bucket.mean), dtype=torch.bool)
    if not problem.sees_levels or problem.base_levels is not None:
        alpha = config.harm_alpha / max(1, problem.num_constraints)
        shown = (slacks(problem, known.bucket, alpha).lower >= 0).all(-1) & known.bucket.tested
    shown[CONTROL] = True
    return shown


def stops(known: ModelState, config: TunerConfig, history: History, round: int) -> list[Decision]:
    """Decisions to stop candidates, one for each, with the guardrail and the numbers behind it.

    Nobody is stopped while base levels are estimated from part of a day: what sees levels may be
    off by more than the deltas are.
    """
    problem, bucket, hours = known.problem, known.bucket, known.level_hours
    if config.harm_alpha is None or not problem.num_constraints:
        return []
    unknown_levels = problem.sees_levels and problem.base_levels is None
    if unknown_levels or (hours is not None and hours < config.rounds_per_day):
        return []
    upper = slacks(problem, bucket, config.harm_alpha / problem.num_constraints).upper
    found = []
    for candidate in (upper < 0).any(-1).nonzero().flatten().tolist():
        if candidate == CONTROL or candidate in history.status.stopped:
            continue
        worst = int(upper[candidate].nan_to_num(torch.inf).argmin())
        name, bound = problem.constraint_names[worst], float(upper[candidate, worst])
        reason = (
            f"candidate {candidate} surely breaks {name!r}: its slack lies below {bound:+.3%} with "
            f"{1 - config.harm_alpha:.3%} at every look so far; it is served no more"
        )
        details = {
            "candidates": [candidate],
            "constraint": name,
            "slack_upper": bound,
            "alpha": config.harm_alpha,
            "num_rounds": int(bucket.num_rounds[candidate]),
        }
        found.append(Decision(round, STOPPED, reason, details))
    return found


def _slope(value: Tensor, at: Tensor) -> Tensor:
    """Derivative of each row's value, ``at``'s shape; 0 where there is none."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found.detach().nan_to_num(0.0, 0.0, 0.0)
