"""Proposals moved uphill: gradient ascent along each drawn path, through the user's own objective.

Random points fill a space of many dimensions too thinly for their best to be near the optimum. A
path is a differentiable function, so the best few of them are starts of an augmented Lagrangian
ascent. What comes back is the best point seen on the way by the same order as everywhere else
(feasible first, then utility), so refinement never makes a proposal worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem.problem import Outcome, Problem
from ..problem.space import Float
from ..surrogate import Paths
from .winners import best_of

_STEPS = 40
_STEP_SIZE = 0.05  # of the unit cube, per step of Adam at the start; it falls to a tenth
_DECAY = (0.8, 0.95)  # of Adam's two averages: short, the ascent is
_MULTIPLIERS_EVERY = 8
_PENALTY = 10.0  # per squared standardised slack, against a standardised utility
# Coordinates are rounded to this part of the cube: finer than any user's need, coarser than what
# another unit of a metric or another machine changes in the last bits.
_GRID = 2.0**-20


def refine(paths: Paths, problem: Problem, starts: Tensor) -> Tensor:
    """The best point that ascent from each start finds, servable.

    Whole numbers and categories keep the start's values. A term without a gradient moves nothing,
    nor does one whose gradient is not finite.

    Args:
        paths: P functions.
        problem: objective and constraints, on the paths' device.
        starts: ``(P, S, dims)`` in the unit cube: path p starts from its own S points.
    Returns:
        ``(P, dims)``, for each path the best point of all its starts' ways.
    Source: Wilson et al. (2018), Maximizing acquisition functions for Bayesian optimization;
        Nocedal and Wright (2006), section 17.3 (augmented Lagrangian).
    """
    moves = _moves(problem, starts.device)
    seen_x = [starts]
    with torch.no_grad():
        seen = [problem.evaluate(paths.each(starts))]
    utility_unit = _spread(seen[0].utility, dim=None)
    slack_unit = _spread(seen[0].slack, dim=(0, 1))
    multiplier = torch.zeros_like(seen[0].slack)
    first, second = torch.zeros_like(starts), torch.zeros_like(starts)
    x = starts
    for step in range(_STEPS):
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            outcome = problem.evaluate(paths.each(point))
            short = (multiplier - _PENALTY * outcome.slack / slack_unit).clamp_min(0)
            value = outcome.utility / utility_unit - short.square().sum(-1) / (2 * _PENALTY)
        if not value.requires_grad:
            break
        (gradient,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
        if gradient is None:
            break
        gradient = torch.where(moves & gradient.isfinite(), gradient, 0.0)
        first = _DECAY[0] * first + (1 - _DECAY[0]) * gradient
        second = _DECAY[1] * second + (1 - _DECAY[1]) * gradient.square()
        speed = (second / (1 - _DECAY[1] ** (step + 1))).sqrt() + 1e-12
        direction = first / (1 - _DECAY[0] ** (step + 1)) / speed
        size = _STEP_SIZE * 0.1 ** (step / (_STEPS - 1))
        x = _servable(problem, x + size * direction)
        if (step + 1) % _MULTIPLIERS_EVERY == 0:
            multiplier = short.detach().nan_to_num(0.0, 0.0, 0.0)
        with torch.no_grad():
            seen.append(problem.evaluate(paths.each(x)))
        seen_x.append(x)
    ways = torch.cat(seen_x, dim=1)
    best = best_of(
        Outcome(torch.cat([o.utility for o in seen], 1), torch.cat([o.slack for o in seen], 1))
    )
    return ways[torch.arange(len(ways), device=ways.device), best.winner]


def _moves(problem: Problem, device: torch.device) -> Tensor:
    """Which dims a gradient may move, ``(dims,)``."""
    space = problem.space
    kinds = zip(space.parameters, space.widths)
    return torch.tensor([isinstance(p, Float) for p, width in kinds for _ in range(width)]).to(
        device
    )


def _servable(problem: Problem, x: Tensor) -> Tensor:
    return problem.space.snap((x / _GRID).round() * _GRID)


def _spread(values: Tensor, dim: tuple[int, int] | None) -> Tensor:
    """Standard deviation, 1 where there is none."""
    if not values.shape[-1]:  # no constraints
        return torch.ones_like(values[0, 0])
    known = torch.where(values.isfinite(), values, 0.0)
    spread = known.std(dim=dim, correction=0)
    return torch.where(spread > 0, spread, torch.ones_like(spread))
