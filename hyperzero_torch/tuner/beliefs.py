"""What the posterior says about each candidate: objective, bounds, P(feasible), deltas."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Outcome, Problem
from ..stats.normals import antithetic_normals
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket
from ..study.history import CONTROL
from ..surrogate.protocol import FittedPosterior

_NUM_DRAWS = 2048


class Belief(NamedTuple):
    """Posterior of the candidates ``(C,)``; row 0 is the control, whose delta is exactly 0.

    ``mean``, ``lcb``, ``ucb`` of the objective, ``prob_feasible``, and ``prob_success``, the
    probability that all constraints hold and the objective is above the base's (where the base
    meets the constraints); NaN without evidence. ``delta_mean`` and ``delta_var`` are
    ``(C, metrics)``.
    """

    mean: Tensor
    lcb: Tensor
    ucb: Tensor
    prob_feasible: Tensor
    prob_success: Tensor
    delta_mean: Tensor
    delta_var: Tensor


def believe(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    posterior: FittedPosterior,
    generator: torch.Generator,
    candidates: Tensor | None = None,
) -> Belief:
    """Objective and feasibility of candidates, by draws of their deltas; on the CPU.

    Arbitrary objectives have no closed form, so their moments come from 2048 draws per candidate.
    All candidates share the same normals, so their differences are more exact than their levels.

    Args:
        problem: on the posterior's device.
        config: which evidence, and the level of the bounds.
        bucket: the candidates.
        posterior: over the unit cube.
        generator: on its device.
        candidates: ``(n,)`` the control first, then others; None for all.
    """
    rows = torch.arange(len(bucket.theta)) if candidates is None else candidates
    x = problem.space.to_unit(bucket.theta[rows]).to(posterior.x)
    if config.evidence == "pooled":
        mean, var = posterior.marginal(x)
    else:
        mean, var = own_evidence(problem, bucket, rows, posterior.x)
    mean[CONTROL], var[CONTROL] = 0.0, 0.0
    normal = antithetic_normals(2 * _NUM_DRAWS, mean.shape[1], generator).unsqueeze(1)
    tail = (1 - config.confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=mean.dtype, device=mean.device)
    columns: list[Tensor] = []
    with torch.no_grad():
        base = problem.evaluate(mean[CONTROL].unsqueeze(0))
        for tile in torch.split(torch.arange(len(mean)), 256):
            outcome = problem.evaluate(mean[tile] + var[tile].sqrt() * normal)
            bounds = torch.quantile(outcome.utility, quantiles, dim=0)
            events = (outcome.feasible, outcome.feasible & beats(outcome.utility, base))
            probs = [event.to(mean.dtype).mean(0) for event in events]
            columns.append(torch.stack([outcome.utility.mean(0), *bounds, *probs]))
    fields = (*torch.cat(columns, dim=1).cpu().unbind(0), mean.cpu(), var.cpu())
    return Belief(*(_spread(field, rows, len(bucket.theta)) for field in fields))


def beats(utility: Tensor, base: Outcome) -> Tensor:
    """Where a utility is above the base's; a base that breaks a constraint need not be exceeded."""
    return (utility > base.utility) | ~(base.feasible & base.utility.isfinite())


def own_evidence(
    problem: Problem, bucket: Bucket, rows: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and variances of candidates' own deltas, ``(n, metrics)``, as ``like`` is stored.

    0 for a metric that nothing depends on and that has no evidence: a NaN would not stay in it.
    """
    idle = ~problem.used_metrics
    mean, var = bucket.mean[rows].to(like), bucket.var[rows].to(like)
    mean[:, idle], var[:, idle] = mean[:, idle].nan_to_num(0.0), var[:, idle].nan_to_num(0.0)
    return mean, var


def _spread(values: Tensor, rows: Tensor, num: int) -> Tensor:
    """Values at ``rows`` of ``num`` rows; NaN in the others."""
    spread = values.new_full((num, *values.shape[1:]), torch.nan)
    spread[rows] = values
    return spread


def no_belief(problem: Problem, bucket: Bucket) -> Belief:
    """Before any evidence: the control has delta 0, all other values are NaN."""
    shape = (len(bucket.theta), problem.num_metrics)
    delta = torch.full(shape, torch.nan, dtype=torch.float64)
    delta[CONTROL] = 0.0
    unknown = torch.full(shape[:1], torch.nan, dtype=torch.float64)
    mean, prob = unknown.clone(), torch.zeros_like(unknown)
    if problem.levels_known:
        with torch.no_grad():
            outcome = problem.to("cpu").evaluate(delta[:1])
        mean[CONTROL] = outcome.utility[0]
        prob[CONTROL] = outcome.feasible.double()[0]
    never, var = torch.zeros_like(prob), torch.zeros_like(delta)
    return Belief(mean, mean.clone(), mean.clone(), prob, never, delta, var)
