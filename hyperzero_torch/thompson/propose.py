"""Algorithm 3: new candidates, each the feasible argmax of one draw over random points."""

from __future__ import annotations

from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..memory import in_tiles
from ..problem import Outcome, Problem
from ..surrogate import Paths, Posterior
from .ranks import of_all
from .refine import refine
from .winners import best_of, scaled_violation

# Elements of what is drawn and judged at once, (draws, points, metrics + 1): 128 MiB in float64.
_CHUNK_ELEMENTS = 2**24


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
    num_starts: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Proposals:
    """Algorithm 3, ``num_proposals`` times over the same random points.

    Points are worked on in chunks whose draws fit into 128 MiB, so memory does not grow with
    ``num_samples``; refinement holds ``(metrics, num_proposals, num_starts, n + features)`` a step.

    Args:
        posterior: over ``problem.space``'s unit cube, in deltas.
        problem: objective and constraints, on the posterior's device.
        num_samples: N, uniform random points of the space.
        num_proposals: draws, one proposal each.
        generator: on the posterior's device; the default generator where it is None.
        draws: ``"joint"`` draws coherent paths; ``"marginal"`` draws every point on its own, as
            the paper has it.
        num_starts: how many of each joint draw's best points are moved uphill; 0 for none.
        dtype: float32 looks for the best points in mixed mode, a few times faster.
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
    chunk = max(1, _CHUNK_ELEMENTS // (num_proposals * (problem.num_metrics + 1)))
    sizes = (min(chunk, num_samples - first) for first in range(0, num_samples, chunk))
    samples = (space.uniform(size, generator).to(posterior.x) for size in sizes)
    first = next(samples)  # before the paths: the order in which the generator is used
    paths = posterior.paths(num_proposals, generator) if draws == "joint" else None
    uphill = paths is not None and num_starts > 0
    found: list[Proposals] = []
    starts: list[Tensor] = []
    with torch.no_grad():
        for x in chain([first], samples):
            at = x.to(dtype)
            if paths is None:
                outcome = _marginal(posterior, problem, at, num_proposals, generator)
            else:
                outcome = _along(paths, problem, at)
            if uphill:
                starts.append(x[_best_few(outcome, min(num_starts, len(x)))])
                continue
            best = best_of(outcome)
            points = x[best.winner]
            found.append(
                Proposals(points, space.from_unit(points), best.score.double(), best.feasible)
            )
    if paths is None or not uphill:
        return _best_chunk(found)
    points = refine(paths, problem, _few_of(paths, problem, torch.cat(starts, dim=1), num_starts))
    with torch.no_grad():
        outcome = problem.evaluate(paths.each(points.unsqueeze(1)))
        best = best_of(outcome)
    return Proposals(points, space.from_unit(points), best.score, best.feasible)


def _best_chunk(found: list[Proposals]) -> Proposals:
    """Of each draw's best points by chunk the best: feasible ones first."""
    score, feasible = (torch.stack([getattr(f, n) for f in found]) for n in ("score", "feasible"))
    able = torch.where(feasible | ~feasible.any(0), score, -torch.inf)
    chunk, draw = able.argmax(0), torch.arange(score.shape[1], device=score.device)
    fields = (torch.stack(field)[chunk, draw] for field in zip(*found))
    return Proposals(*fields)


def _few_of(paths: Paths, problem: Problem, points: Tensor, num: int) -> Tensor:
    """The best few of each draw's ``points (P, S, dims)``, ``(P, num, dims)``."""
    if points.shape[1] <= num:
        return points
    with torch.no_grad():
        rows = _best_few(problem.evaluate(paths.each(points)), num)
    return points.gather(1, rows.unsqueeze(-1).expand(-1, -1, points.shape[-1]))


def _best_few(outcome: Outcome, num: int) -> Tensor:
    """The best points of each draw, ``(P, num)``: feasible ones first, then the least violating."""
    utility, slack = outcome
    shortfall = scaled_violation(slack)
    low, high = (
        utility.nan_to_num().amin(1, keepdim=True),
        utility.nan_to_num().amax(1, keepdim=True),
    )
    rank = (utility.nan_to_num(nan=-torch.inf) - low) / (high - low).clamp_min(1e-300)
    rank = torch.where(outcome.feasible, rank, -1 - shortfall)
    return rank.topk(num, dim=1).indices


def _along(paths: Paths, problem: Problem, x: Tensor) -> Outcome:
    """Utility ``(P, N)`` and slack ``(P, N, constraints)`` of every path, tile by tile."""

    width = 1 + problem.num_constraints

    def judge(part: Tensor) -> Tensor:
        utility, slack = problem.evaluate(paths(part))
        return torch.cat([utility.unsqueeze(-1), slack], dim=-1)

    def work(tile: int) -> Tensor:
        return of_all(torch.split(x, tile), judge, paths.num_paths, width)

    packed = in_tiles(work, paths.tile, x.device)
    return Outcome(packed[..., 0], packed[..., 1:])


def _marginal(
    posterior: Posterior, problem: Problem, x: Tensor, num: int, generator: torch.Generator | None
) -> Outcome:
    """Draws of every point on its own, as the paper has it."""
    mean, var = posterior.marginal(x)
    normal = torch.randn(
        num, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator
    )
    return problem.evaluate(mean + var.sqrt() * normal)
