"""Algorithm 3: new candidates, each the feasible argmax of one draw over random points."""

from __future__ import annotations

from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..problem.problem import Outcome, Problem
from ..runtime.memory import in_tiles
from ..surrogate import Paths, Posterior
from .distributed import of_all
from .refine import refine
from .winners import Best, best_of, scaled_violation

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
    found: list[_Found] = []
    starts: Tensor | None = None
    with torch.no_grad():
        for x in chain([first], samples):
            at = x.to(dtype)
            if paths is None:
                outcome = _marginal(posterior, problem, at, num_proposals, generator)
            else:
                outcome = _along(paths, problem, at)
            if paths is not None and uphill:
                few = x[_best_few(outcome, min(num_starts, len(x)))]
                few = few if starts is None else torch.cat([starts, few], dim=1)
                starts = _few_of(paths, problem, few, num_starts)
                continue
            best = best_of(outcome)
            found.append(_Found(x[best.winner], best, _at(outcome, best.winner)))
    if paths is None or starts is None:
        points, best = _best_chunk(found)
        score = best.score.double()
        return Proposals(points, space.from_unit(points), score, best.feasible)
    points = refine(paths, problem, starts)
    with torch.no_grad():
        outcome = problem.evaluate(paths.each(points.unsqueeze(1)))
        best = best_of(outcome)
    return Proposals(points, space.from_unit(points), best.score, best.feasible)


class _Found(NamedTuple):
    """The best of a chunk: ``points (P, dims)``, and what they are worth, an outcome ``(P,)``."""

    points: Tensor
    best: Best
    outcome: Outcome


def _best_chunk(found: list[_Found]) -> tuple[Tensor, Best]:
    """Of each draw's best points by chunk the best, ``(P, dims)``."""
    if len(found) == 1:
        return found[0].points, found[0].best
    fields = (torch.stack(field, dim=1) for field in zip(*(one.outcome for one in found)))
    best = best_of(Outcome(*fields))
    points = torch.stack([one.points for one in found], dim=1)
    return points[torch.arange(len(points), device=points.device), best.winner], best


def _at(outcome: Outcome, winner: Tensor) -> Outcome:
    """Each draw's outcome at one point."""
    draw = torch.arange(len(winner), device=winner.device)
    return Outcome(outcome.utility[draw, winner], outcome.slack[draw, winner])


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
        def work(tile: int) -> Tensor:
            tiles = [problem.evaluate(paths(few)) for few in torch.split(part, tile)]
            packed = [torch.cat([t.utility.unsqueeze(-1), t.slack], dim=-1) for t in tiles]
            return torch.cat(packed, dim=1)

        return in_tiles(work, len(part), part.device)

    packed = of_all(torch.split(x, paths.tile), judge, paths.num_paths, width)
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
