"""Who would be recommended, if a little more were known: the points worth verifying.

A recommendation needs P(feasible) >= p. Where the guardrail binds, that keeps it away from the
boundary by a margin that shrinks as the evidence grows. So the best points of the whole space are
looked for under margins of several widths, as if the posterior's standard deviations were a
fraction of what they are today: the whole margin gives what would be recommended now, a narrower
one what could be after more traffic. Traffic to these rungs decides between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem
from .surrogate import Posterior

#: Fractions of today's standard deviations; one leader each.
MARGINS = (1.0, 0.6)
_NUM_DRAWS = 64
_NUM_SAMPLES = 1024
_CLOUDS = (0.1, 0.03, 0.01)


def leaders(
    posterior: Posterior,
    problem: Problem,
    known: Tensor,
    min_prob_feasible: float,
    generator: torch.Generator,
) -> Tensor:
    """The best point of the space under each margin, best in the mean of the objective.

    A margin under which no point is safe, or none better than the base, has no leader.

    Args:
        posterior: over the unit cube, in deltas.
        problem: on the posterior's device.
        known: ``(n, dims)`` points to look at beside random ones, e.g. the bucket.
        min_prob_feasible: what P(feasible) must reach under the margin.
        generator: on the posterior's device.
    Returns:
        ``(leaders, dims)``, servable, at most one per margin.
    """
    space = problem.space

    def normal(*shape: int) -> Tensor:
        return torch.randn(
            *shape, dtype=posterior.x.dtype, device=posterior.device, generator=generator
        )

    half = normal(_NUM_DRAWS // 2, 1, posterior.num_metrics)
    draws = torch.cat([half, -half])  # exact means where the objective is linear
    x = torch.cat([known, space.uniform(_NUM_SAMPLES, generator).to(known)])
    few = _NUM_SAMPLES // (len(_CLOUDS) * len(MARGINS))
    best, value = _best(posterior, problem, x, draws, min_prob_feasible)
    for width in _CLOUDS:
        centre = x[best]
        cloud = centre.unsqueeze(1) + width * normal(len(MARGINS), few, x.shape[1])
        x = torch.cat([centre, space.snap(cloud.clamp(0, 1)).reshape(-1, x.shape[1])])
        best, value = _best(posterior, problem, x, draws, min_prob_feasible)
    zero = torch.zeros(1, posterior.num_metrics, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        base = problem.evaluate(zero).utility.nan_to_num(nan=-torch.inf)
    return x[best][value > base]


def _best(
    posterior: Posterior, problem: Problem, x: Tensor, draws: Tensor, min_prob: float
) -> tuple[Tensor, Tensor]:
    """Under each margin the best safe row of ``x``, and its expected objective, -inf for none."""
    mean, var = posterior.marginal(x)
    rows, values = [], []
    with torch.no_grad():
        for margin in MARGINS:
            outcome = problem.evaluate(mean + margin * var.sqrt() * draws)
            prob = outcome.feasible.to(mean.dtype).mean(0)
            expected = outcome.utility.mean(0).nan_to_num(nan=-torch.inf)
            safe = torch.where(prob >= min_prob, expected, -torch.inf)
            # With nobody safe yet the search goes on around the safest.
            row = torch.where(safe.isfinite().any(), safe.argmax(), prob.argmax())
            rows.append(row)
            values.append(safe[row])
    return torch.stack(rows), torch.stack(values)
