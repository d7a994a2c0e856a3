"""How much the objective and each guardrail depend on each parameter.

Total-effect indices: the share of a function's variance over the space that would be left if all
parameters but one were known. They are computed for joint draws of the posterior, whose spread
gives each index an interval.

    T_i = E (f(A) - f(A with parameter i of B))^2 / (2 var f)

with A and B independent points, each parameter evenly over its range (an option or a whole number
as likely as any other). Indices of a function that adds up its parameters sum to 1; interactions
count once for every parameter in them.

Source: Jansen (1999); Saltelli et al. (2010), Table 2 (f).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ...problem.space import Choice
from ...runtime.randomness import random
from ...surrogate import Posterior
from .facts import Facts

_NUM_POINTS = 512
_NUM_PATHS = 48
_TILE = 2048  # points at which all paths are held at once


class Sensitivity(NamedTuple):
    """Of the objective, then of each guardrail: ``share (3, functions, params)``.

    Mean, low and high over the draws (their middle ``confidence``), NaN where a draw is constant.
    ``lengthscale (metrics, params)`` is in fractions of the parameter's range.
    """

    share: Tensor
    lengthscale: Tensor


def sensitivity(facts: Facts, posterior: Posterior) -> Sensitivity:
    """Total effects over joint draws of the posterior; on the CPU."""
    # (1 + params, points, paths, functions)
    functions = _at_draws(facts, posterior, _points(facts))
    here, moved = functions[0], functions[1:]
    # Over both halves together: where one parameter has all the effect, sampling errors cancel.
    var = torch.stack([torch.cat([here, other]).var(dim=0) for other in moved])
    half = (here.unsqueeze(0) - moved).square().mean(dim=1) / 2
    share = torch.where(var > 1e-24, half / var, torch.nan)  # (params, paths, functions)
    tail = (1 - facts.config.confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=share.dtype)
    band = torch.nanquantile(share, quantiles, dim=1)
    bands = torch.cat([share.nanmean(dim=1).unsqueeze(0), band]).transpose(1, 2)
    lengthscale = posterior.hyperparameters.lengthscale.cpu()
    parts = torch.split(lengthscale, list(facts.problem.space.widths), dim=-1)
    return Sensitivity(bands, torch.stack([p.amin(-1) for p in parts], dim=-1))


def _points(facts: Facts) -> Tensor:
    """A, and A with each parameter of B in turn: ``(1 + params, points, dims)``."""
    space = facts.problem.space
    shape = (_NUM_POINTS, 2 * space.num_params)
    if shape[1] <= SobolEngine.MAXDIM:
        engine = SobolEngine(shape[1], scramble=True, seed=0)  # type: ignore[no-untyped-call]
        u = engine.draw(_NUM_POINTS, dtype=torch.float64)
    else:
        u = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = (_theta(facts, half) for half in u.chunk(2, dim=-1))
    rows = [a]
    for i in range(space.num_params):
        mixed = a.clone()
        mixed[:, i] = b[:, i]
        rows.append(mixed)
    return space.to_unit(torch.stack(rows))


def _theta(facts: Facts, u: Tensor) -> Tensor:
    """Uniform numbers to theta, both ``(n, params)``; each option as likely as any other."""
    columns = [
        (column * p.width).floor().clamp_max(p.width - 1)
        if isinstance(p, Choice)
        else p.from_unit(column.unsqueeze(-1))
        for p, column in zip(facts.problem.space.parameters, u.unbind(-1))
    ]
    return torch.stack(columns, dim=-1)


def _at_draws(facts: Facts, posterior: Posterior, x: Tensor) -> Tensor:
    """Objective and slacks of joint draws: ``(..., dims)`` to ``(..., paths, functions)``."""
    generator = random(0, facts.history.num_messages, "sensitivity", posterior.device)
    paths = posterior.paths(_NUM_PATHS, generator)
    problem = facts.problem.to(posterior.device)
    parts = []
    with torch.no_grad():
        for tile in torch.split(x.reshape(-1, x.shape[-1]), _TILE):
            delta = paths(tile.to(posterior.x))  # (paths, points, metrics)
            outcome = problem.evaluate(delta)
            functions = torch.cat([outcome.utility.unsqueeze(-1), outcome.slack], dim=-1)
            parts.append(functions.transpose(0, 1).cpu())
    return torch.cat(parts).reshape(*x.shape[:-1], _NUM_PATHS, -1)
