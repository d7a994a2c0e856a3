"""Refinement of proposals: gradient ascent on each drawn path, through the user's own objective.

In many dimensions random points are too sparse for the best of them to be near the optimum. A path
is a differentiable function, so its best few points are starts of an augmented Lagrangian ascent.
The result is the best point visited, in the same order as everywhere else (feasible first, then
utility), so refinement never makes a proposal worse.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from ..problem.problem import Outcome, Problem
from ..problem.space import Float
from ..surrogate.paths import Paths
from ..surrogate.protocol import DrawnPaths
from .winners import best_of, finite_std

_STEPS = 40
_STEP_SIZE = 0.05  # of the unit cube, per step of Adam at the start; it falls to a tenth
_DECAY = (0.8, 0.95)  # of Adam's two averages: short, because the ascent is
_MULTIPLIERS_EVERY = 8
_PENALTY = 10.0  # per squared standardised slack, against a standardised utility
# Coordinates are rounded to this part of the cube: finer than any user's need, coarser than what
# another unit of a metric or another machine changes in the last bits.
_GRID = 2.0**-20
# Terms of the sums in one step, which takes one core of a CPU about 2 ms.
_MOST_WORK_ON_CPU = 2**18


def refine(paths: DrawnPaths, problem: Problem, starts: Tensor) -> Tensor:
    """The best point visited by ascent from each start, snapped to the space.

    Int and Choice parameters keep the start's values. Terms without a gradient, or with one that
    is not finite, move nothing.

    Args:
        paths: P functions.
        problem: objective and constraints, on the paths' device.
        starts: ``(P, S, dims)`` in the unit cube: path p starts from its own S points.
    Returns:
        ``(P, dims)``, for each path the best point visited from all its starts.
    Source: Wilson et al. (2018), Maximizing acquisition functions for Bayesian optimization;
        Nocedal and Wright (2006), section 17.3 (augmented Lagrangian).
    """
    if starts.device.type != "cpu" and _belongs_on_cpu(paths, problem, starts.shape[1]):
        points = refine(paths.on_cpu(), problem.to("cpu"), starts.cpu())
        return points.to(starts.device)
    kinds = zip(problem.space.parameters, problem.space.widths)
    movable = [isinstance(p, Float) for p, width in kinds for _ in range(width)]
    movable_dims = torch.tensor(movable, device=starts.device)
    first, second = torch.zeros_like(starts), torch.zeros_like(starts)
    x, visited, outcomes = starts, [], []
    for step in range(_STEPS + 1):
        point = x.detach().requires_grad_()
        with torch.set_grad_enabled(step < _STEPS):  # the last point needs no gradient
            outcome = problem.evaluate(paths.each(point))
        visited.append(x)
        outcomes.append(Outcome(outcome.utility.detach(), outcome.slack.detach()))
        if step == 0:
            utility_unit = _unit(outcomes[0].utility, dim=None)
            slack_unit = _unit(outcomes[0].slack, dim=(0, 1))
            multiplier = torch.zeros_like(outcomes[0].slack)
        if step == _STEPS:
            break
        with torch.enable_grad():
            shifted = (multiplier - _PENALTY * outcome.slack / slack_unit).clamp_min(0)
            value = outcome.utility / utility_unit - shifted.square().sum(-1) / (2 * _PENALTY)
            total = value.sum()
        if not value.requires_grad:
            break
        (gradient,) = torch.autograd.grad(total, point, allow_unused=True)
        if gradient is None:
            break
        gradient = torch.where(movable_dims & gradient.isfinite(), gradient, 0.0)
        first = _DECAY[0] * first + (1 - _DECAY[0]) * gradient
        second = _DECAY[1] * second + (1 - _DECAY[1]) * gradient.square()
        scale = (second / (1 - _DECAY[1] ** (step + 1))).sqrt() + 1e-12
        direction = first / (1 - _DECAY[0] ** (step + 1)) / scale
        size = _STEP_SIZE * 0.1 ** (step / (_STEPS - 1))
        x = ((x + size * direction) / _GRID).round() * _GRID
        x = problem.space.snap(x)
        if (step + 1) % _MULTIPLIERS_EVERY == 0:
            multiplier = shifted.detach().nan_to_num(0.0, 0.0, 0.0)
    points = torch.cat(visited, dim=1)
    best = best_of(Outcome(*(torch.cat(field, dim=1) for field in zip(*outcomes))))
    return points[torch.arange(len(points), device=points.device), best.winner]


def _belongs_on_cpu(paths: DrawnPaths, problem: Problem, num_starts: int) -> TypeGuard[Paths]:
    """Whether the ascent is too little work for a card.

    Each of its steps starts about 200 kernels, which takes a card some 2 ms at any size. Callables
    stay where the user's network is.
    """
    written = all(term.expression is not None for term in problem.terms)
    return written and isinstance(paths, Paths) and paths.work(num_starts) <= _MOST_WORK_ON_CPU


def _unit(values: Tensor, dim: tuple[int, int] | None) -> Tensor:
    """Standard deviation, 1 where it is 0."""
    if not values.shape[-1]:  # no constraints
        return torch.ones_like(values[0, 0])
    spread = finite_std(values, dim)
    return torch.where(spread > 0, spread, torch.ones_like(spread))
