"""Algorithm 3: new candidates, each the feasible maximiser of one draw over random points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..problem.problem import Outcome, Problem
from ..runtime.memory import in_tiles
from ..surrogate.protocol import DrawnPaths, FittedPosterior
from .distributed import gather_parts
from .refine import refine
from .winners import Best, best_of, scaled_violation

# Elements drawn and evaluated at once, (draws, points, metrics + 1): 128 MiB in float64.
_CHUNK_ELEMENTS = 2**24


class Proposals(NamedTuple):
    """New points ``x (P, dims)`` in the unit cube, snapped to the space.

    ``theta (P, params)`` the same in the user's units; ``score (P,)`` the drawn utility, or minus
    the scaled violation where ``feasible (P,)`` is False: no sampled point was feasible.
    """

    x: Tensor
    theta: Tensor
    score: Tensor
    feasible: Tensor


def propose(
    posterior: FittedPosterior,
    problem: Problem,
    num_samples: int,
    num_proposals: int,
    generator: torch.Generator | None = None,
    draws: Literal["joint", "marginal"] = "joint",
    num_starts: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Proposals:
    """Algorithm 3, ``num_proposals`` times over the same random points.

    Points are evaluated in chunks whose draws fit into 128 MiB, so memory does not grow with
    ``num_samples``; a step of refinement holds
    ``(metrics, num_proposals, num_starts, n + features)``.

    Args:
        posterior: over ``problem.space``'s unit cube, in deltas.
        problem: objective and constraints, on the posterior's device.
        num_samples: N, uniform random points of the space.
        num_proposals: draws, one proposal each.
        generator: on the posterior's device; the default generator where it is None.
        draws: ``"joint"`` draws coherent paths; ``"marginal"`` draws every point independently,
            as in the paper.
        num_starts: how many of each joint draw's best points are refined by gradient ascent.
        dtype: float32 evaluates the random points in mixed mode, a few times faster.
    Returns:
        Proposals, not yet compared with the candidates of any study.
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
    sizes = (min(chunk, num_samples - start) for start in range(0, num_samples, chunk))
    samples = (space.uniform(size, generator).to(posterior.x) for size in sizes)
    first = next(samples)  # before the paths: the order in which the generator is used
    chunks = chain([first], samples)
    paths = posterior.paths(num_proposals, generator) if draws == "joint" else None

    def evaluate(x: Tensor) -> Outcome:
        if paths is None:
            return _marginal(posterior, problem, x.to(dtype), num_proposals, generator)
        return _on_paths(paths, problem, x.to(dtype))

    if paths is None or num_starts < 1:
        points, best = best_points(chunks, evaluate)
    else:
        points = refine(paths, problem, _starts(chunks, evaluate, paths, problem, num_starts))
        with torch.no_grad():
            best = best_of(problem.evaluate(paths.each(points.unsqueeze(1))))
    return Proposals(points, space.from_unit(points), best.score.double(), best.feasible)


@torch.no_grad()
def best_points(
    chunks: Iterable[Tensor], evaluate: Callable[[Tensor], Outcome]
) -> tuple[Tensor, Best]:
    """Each draw's best point of all chunks, ``(P, dims)``; ``evaluate`` gives outcomes ``(P, N)``.

    The best of several chunks are compared once more: spreads of constraints are each chunk's own.
    """
    points: list[Tensor] = []
    outcomes: list[Outcome] = []
    for x in chunks:
        outcome = evaluate(x)
        best = best_of(outcome)
        points.append(x[best.winner])
        draw = torch.arange(len(best.winner), device=x.device)
        outcomes.append(Outcome(*(field[draw, best.winner] for field in outcome)))
    if len(points) == 1:
        return points[0], best
    best = best_of(Outcome(*(torch.stack(field, dim=1) for field in zip(*outcomes))))
    return torch.stack(points, dim=1)[draw, best.winner], best


@torch.no_grad()
def _starts(
    chunks: Iterable[Tensor],
    evaluate: Callable[[Tensor], Outcome],
    paths: DrawnPaths,
    problem: Problem,
    num: int,
) -> Tensor:
    """The best ``num`` points of each path, ``(P, num, dims)``."""
    starts: list[Tensor] = []
    for x in chunks:
        points = torch.cat([*starts, x[_best_rows(evaluate(x), min(num, len(x)))]], dim=1)
        if points.shape[1] > num:
            rows = _best_rows(problem.evaluate(paths.each(points)), num)
            points = points.gather(1, rows.unsqueeze(-1).expand(-1, -1, points.shape[-1]))
        starts = [points]
    return starts[0]


def _best_rows(outcome: Outcome, num: int) -> Tensor:
    """The best points of each draw, ``(P, num)``: feasible ones first, then the least violating."""
    utility = outcome.utility.nan_to_num()
    low, high = utility.amin(1, keepdim=True), utility.amax(1, keepdim=True)
    rank = (outcome.utility.nan_to_num(nan=-torch.inf) - low) / (high - low).clamp_min(1e-300)
    rank = torch.where(outcome.feasible, rank, -1 - scaled_violation(outcome.slack))
    return rank.topk(num, dim=1).indices


def _on_paths(paths: DrawnPaths, problem: Problem, x: Tensor) -> Outcome:
    """Utility ``(P, N)`` and slack ``(P, N, constraints)`` of every path, tile by tile."""

    def evaluate(part: Tensor) -> Tensor:
        def work(tile: int) -> Tensor:
            outcomes = [problem.evaluate(paths(rows)) for rows in torch.split(part, tile)]
            packed = [torch.cat([o.utility.unsqueeze(-1), o.slack], dim=-1) for o in outcomes]
            return torch.cat(packed, dim=1)

        return in_tiles(work, len(part), part.device)

    width = 1 + problem.num_constraints
    packed = gather_parts(torch.split(x, paths.tile), evaluate, paths.num_paths, width)
    return Outcome(packed[..., 0], packed[..., 1:])


def _marginal(
    posterior: FittedPosterior,
    problem: Problem,
    x: Tensor,
    num: int,
    generator: torch.Generator | None,
) -> Outcome:
    """Independent draws of every point, as in the paper."""
    mean, var = posterior.marginal(x)
    normal = torch.randn(
        num, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator
    )
    return problem.evaluate(mean + var.sqrt() * normal)
