"""Algorithm 3: new candidates, each the feasible argmax of one draw over random points."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..problem import Outcome, Problem
from ..surrogate import Posterior
from .select import best_of


class Proposals(NamedTuple):
    """New points ``x (P, dims)``, servable, in the unit cube.

    ``theta (P, params)`` the same in the user's units; ``score (P,)`` the drawn utility, or minus
    the scaled violation where ``feasible (P,)`` is False: no sampled point was feasible.
    """

    x: Tensor
    theta: Tensor
    score: Tensor
    feasible: Tensor


def propose(
    posterior: Posterior,
    problem: Problem,
    num_samples: int,
    num_proposals: int,
    generator: torch.Generator | None = None,
    draws: Literal["joint", "marginal"] = "joint",
) -> Proposals:
    """Algorithm 3, ``num_proposals`` times over the same random points.

    Joint draws are evaluated in tiles of points: about 64 MiB of temporaries beside one utility
    and one slack per constraint for every draw and point. Marginal draws hold
    ``(num_proposals, num_samples, metrics)``.

    Args:
        posterior: over ``problem.space``'s unit cube, in deltas.
        problem: objective and constraints, on the posterior's device.
        num_samples: N, uniform random points of the space.
        num_proposals: draws, one proposal each.
        generator: on the posterior's device; the default generator where it is None.
        draws: ``"joint"`` draws coherent paths; ``"marginal"`` draws every point on its own, as
            the paper has it.
    Returns:
        Proposals, not yet compared with any bucket.
    Raises:
        ShapeError: counts below one, or a posterior of another width.
    Source: HYPERZERO (KDD'25), Algorithm 3.
    """
    if num_samples < 1 or num_proposals < 1:
        raise ShapeError(
            "propose needs at least one sample and one proposal, got "
            f"num_samples={num_samples}, num_proposals={num_proposals}"
        )
    space = problem.space
    if posterior.num_metrics != problem.num_metrics or posterior.x.shape[1] != space.num_dims:
        raise ShapeError(
            f"the posterior is over {posterior.x.shape[1]} dims and {posterior.num_metrics} "
            f"metrics, the problem over {space.num_dims} dims and {problem.num_metrics} metrics"
        )
    x = space.uniform(num_samples, generator).to(posterior.x)
    with torch.no_grad():
        outcome = _draw(posterior, problem, x, num_proposals, generator, draws)
        best = best_of(outcome)
    points = x[best.winner]
    return Proposals(points, space.from_unit(points), best.score, best.feasible)


def _draw(
    posterior: Posterior,
    problem: Problem,
    x: Tensor,
    num: int,
    generator: torch.Generator | None,
    draws: str,
) -> Outcome:
    """Utility ``(num, N)`` and slack ``(num, N, constraints)`` of the draws, tile by tile."""
    if draws == "joint":
        paths = posterior.paths(num, generator)
        tiles = [problem.evaluate(paths(part)) for part in torch.split(x, paths.tile)]
    else:
        mean, var = posterior.marginal(x)
        normal = torch.randn(
            num, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator
        )
        tiles = [problem.evaluate(mean + var.sqrt() * normal)]
    return Outcome(
        torch.cat([t.utility for t in tiles], dim=1), torch.cat([t.slack for t in tiles], dim=1)
    )
