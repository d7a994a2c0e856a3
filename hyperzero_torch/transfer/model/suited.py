"""Settings that would be promoted today if they were served: shared and specific part together.

With other domains' help a posterior may be sure of places that nobody has tested yet. What would
be recommended there is worth a little traffic, because only who has evidence of his own can be
promoted, and because it is safe by what is believed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...surrogate import Posterior

_NUM_SAMPLES, _NUM_DRAWS, _NUM_CLOUD = 1024, 64, 128
_CLOUDS = (0.1, 0.03, 0.01)


def suited(
    posterior: Posterior, problem: Problem, levels: tuple[float, ...], generator: torch.Generator
) -> Tensor:
    """For every level of P(feasible) the point of the greatest expected utility that reaches it.

    Args:
        posterior: over the unit cube, in deltas.
        problem: on the posterior's device, with base levels where terms see levels.
        levels: of P(feasible), in [0, 1].
        generator: on the posterior's device.
    Returns:
        ``(points, dims)``, servable; none for a level that nothing better than the base reaches.
    """
    space = problem.space
    shape = (_NUM_DRAWS, 1, posterior.num_metrics)
    normal = torch.randn(shape, dtype=torch.float64, device=posterior.device, generator=generator)
    normal = torch.cat([normal, -normal])
    with torch.no_grad():
        zero = torch.zeros(1, posterior.num_metrics, dtype=torch.float64, device=posterior.device)
        floor = problem.evaluate(zero).utility[0]
        found: list[Tensor] = []
        for level in levels:
            x = space.uniform(_NUM_SAMPLES, generator).to(posterior.x)
            best, value = _best(posterior, problem, x, level, normal)
            for width in _CLOUDS:
                step = torch.randn(
                    _NUM_CLOUD, x.shape[1], dtype=x.dtype, device=x.device, generator=generator
                )
                cloud = space.snap((best + width * step).clamp(0, 1))
                best, value = _best(
                    posterior, problem, torch.cat([best[None], cloud]), level, normal
                )
            if bool(value > floor):
                found.append(best)
    return torch.stack(found) if found else x[:0]


def _best(
    posterior: Posterior, problem: Problem, x: Tensor, level: float, normal: Tensor
) -> tuple[Tensor, Tensor]:
    mean, var = posterior.marginal(x)
    outcome = problem.evaluate(mean + var.sqrt() * normal)
    prob = outcome.feasible.to(mean).mean(0)
    utility = outcome.utility.mean(0).nan_to_num(nan=-torch.inf)
    # Where nothing reaches the level the way leads to what is likeliest to.
    rank = torch.where(prob >= level, utility, -torch.inf)
    if not bool((prob >= level).any()):
        best = prob.argmax()
        return x[best], utility.new_tensor(-torch.inf)
    best = rank.argmax()
    return x[best], utility[best]
