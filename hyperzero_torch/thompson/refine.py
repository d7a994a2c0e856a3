"""Proposals moved uphill: gradient ascent along each drawn path, through the user's own objective.

Random points fill a space of many dimensions too thinly for their best to be near the optimum. A
path is a differentiable function, so the best few of them are starts of an augmented Lagrangian
ascent. What comes back is the best point seen on the way by the same order as everywhere else
(feasible first, then utility), so refinement never makes a proposal worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem import Outcome, Problem
from ..space import Float
from ..surrogate import Paths
from .select import best_of

_STEPS = 40
_STEP_SIZE = 0.05  # of the unit cube, per step of Adam at the start; it falls to a tenth
_MULTIPLIER_EVERY = 8
_PENALTY = 10.0  # per squared standardised slack, against a standardised utility


def refine(paths: Paths, problem: Problem, starts: Tensor) -> Tensor:
    """The best point that ascent from each start finds, servable.

    Whole numbers and categories keep the start's values. A term without a gradient (or with an
    infinite one) moves nothing.

    Args:
        paths: P functions.
        problem: objective and constraints, on the paths' device.
        starts: ``(P, S, dims)`` in the unit cube: path p starts from its own S points.
    Returns:
        ``(P, dims)``, for each path the best point of all its starts' ways.
    Source: Wilson et al. (2018), Maximizing acquisition functions for Bayesian optimization;
        Nocedal and Wright (2006), section 17.3 (augmented Lagrangian).
    """
    space = problem.space
    moves = torch.tensor(
        [
            isinstance(p, Float)
            for p, width in zip(space.parameters, space.widths)
            for _ in range(width)
        ],
        device=starts.device,
    )
    with torch.no_grad():
        first = problem.evaluate(paths.each(starts))
    unit = _spread(first.utility)
    slack_unit = (
        torch.stack([_spread(s) for s in first.slack.unbind(-1)]) if first.slack.shape[-1] else None
    )
    seen_x, seen = [starts], [first]
    x = starts.clone()
    multiplier = torch.zeros_like(first.slack)
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(_STEPS):
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            outcome = problem.evaluate(paths.each(point))
            value = outcome.utility / unit
            if slack_unit is not None:
                short = (multiplier - _PENALTY * outcome.slack / slack_unit).clamp_min(0)
                value = value - short.square().sum(-1) / (2 * _PENALTY)
            if not value.requires_grad:
                break
            (gradient,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
        if gradient is None:
            break
        gradient = torch.where(moves, gradient.nan_to_num(0.0, 0.0, 0.0), 0.0)
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient.square()
        size = _STEP_SIZE * 0.1 ** (step / (_STEPS - 1))
        direction = (m / (1 - 0.8 ** (step + 1))) / ((v / (1 - 0.95 ** (step + 1))).sqrt() + 1e-12)
        x = space.snap((x + size * direction).clamp(0, 1))
        if slack_unit is not None and (step + 1) % _MULTIPLIER_EVERY == 0:
            multiplier = (multiplier - _PENALTY * outcome.slack.detach() / slack_unit).clamp_min(0)
            multiplier = multiplier.nan_to_num(0.0, 0.0, 0.0)
        with torch.no_grad():
            seen.append(problem.evaluate(paths.each(x)))
        seen_x.append(x)
    ways = torch.cat(seen_x, dim=1)
    every = Outcome(torch.cat([o.utility for o in seen], 1), torch.cat([o.slack for o in seen], 1))
    winner = best_of(every).winner
    return ways[torch.arange(len(ways), device=ways.device), winner]


def _spread(values: Tensor) -> Tensor:
    known = torch.where(values.isfinite(), values, 0.0)
    spread = known.std(correction=0)
    return torch.where(spread > 0, spread, torch.ones_like(spread))
