"""What would be believed after more traffic: the noise to come, and what it leaves unsure.

A delta that is believed with variance v, and is measured for some more rounds with variance s^2,
will be believed with variance left = v s^2 / (v + s^2); until then its mean will move, with
variance v - left. Neighbours' evidence to come is not counted, so nothing is promised too early.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..stats.normals import normals
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket

_MOST_ROUNDS = 1000
_NUM_DRAWS = 512


def noise_per_round(bucket: Bucket, arm_share: float, control_share: float) -> Tensor:
    """Variance of one round's delta of an arm with these shares, ``(metrics,)``.

    Infinite as long as no round has reported.
    """
    precision = bucket.round_precision / (1.0 / arm_share + 1.0 / control_share)
    return torch.where(precision > 0, bucket.dispersion / precision, torch.inf)


def left_over(var: Tensor, noise: Tensor, rounds: float) -> Tensor:
    """What is left of ``var (..., metrics)`` after so many rounds of ``noise (metrics,)``."""
    return var / (1.0 + rounds * var / noise)


def rounds_to_decide(
    problem: Problem, config: TunerConfig, mean: Tensor, var: Tensor, noise: Tensor
) -> int | None:
    """Rounds after which it will be clear whether a candidate is safe and better than the base.

    If its deltas stay believed as they are, and only their variances shrink. Clear is: P(feasible)
    is at least ``min_prob_feasible`` and the objective's interval lies above the base's; or one of
    them speaks as clearly against it.

    Args:
        problem: on the device of ``mean``.
        config: the levels of both.
        mean: ``(metrics,)`` believed deltas of the candidate.
        var: ``(metrics,)`` their variances.
        noise: ``(metrics,)`` variance of one round's delta.
    Returns:
        0 where it is clear today; None where a thousand rounds would not do. In steps of a fifth.
    """
    steps = sorted({0, *(round(1.2**k) for k in range(60) if 1.2**k < _MOST_ROUNDS), _MOST_ROUNDS})
    left = torch.stack([left_over(var, noise, rounds) for rounds in steps])
    normal = normals(_NUM_DRAWS, len(mean), seed=0).to(mean)
    with torch.no_grad():
        outcome = problem.evaluate(mean + left.sqrt().unsqueeze(1) * normal)  # (steps, draws)
        base = problem.evaluate(torch.zeros_like(mean).unsqueeze(0)).utility[0]
    prob = outcome.feasible.to(mean.dtype).mean(1)
    tail = (1 - config.confidence) / 2
    low, high = torch.quantile(outcome.utility, mean.new_tensor([tail, 1 - tail]), dim=1)
    safe = prob >= config.min_prob_feasible
    unsafe = prob < 1 - config.min_prob_feasible
    clear = (safe & (low > base)) | unsafe | (high < base)
    first = clear.nonzero().flatten().tolist()
    return steps[first[0]] if first else None
