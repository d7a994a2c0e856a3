"""Total-effect indices: the share of a function's variance that involves a parameter.

It is the share of the variance over the space that would be left if all parameters but one were
known. Computed for joint draws of a posterior, whose spread gives each index an interval.

    T_i = E (f(A) - f(A with parameter i of B))^2 / (2 var f)

with A and B independent points, each parameter evenly over its range (an option or a whole number
as likely as any other). Indices of a function that adds up its parameters sum to 1; interactions
count once for every parameter in them.

Source: Jansen (1999); Saltelli et al. (2010), Table 2 (f); per posterior draw as in Oakley and
O'Hagan (2004).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ..problem.space import Choice, SearchSpace


def points(space: SearchSpace, num: int) -> Tensor:
    """A, and A with each parameter of B in turn: ``(1 + params, num, dims)`` in the unit cube."""
    width = 2 * space.num_params
    if width <= SobolEngine.MAXDIM:
        engine = SobolEngine(width, scramble=True, seed=0)  # type: ignore[no-untyped-call]
        u = engine.draw(num, dtype=torch.float64)
    else:
        u = torch.rand(
            (num, width), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
    a, b = (_theta(space, half) for half in u.chunk(2, dim=-1))
    rows = [a]
    for i in range(space.num_params):
        mixed = a.clone()
        mixed[:, i] = b[:, i]
        rows.append(mixed)
    return space.to_unit(torch.stack(rows))


def _theta(space: SearchSpace, u: Tensor) -> Tensor:
    """Uniform numbers to theta, both ``(n, params)``; each option as likely as any other."""
    columns = [
        p.spread(column) if isinstance(p, Choice) else p.from_unit(column.unsqueeze(-1))
        for p, column in zip(space.parameters, u.unbind(-1))
    ]
    return torch.stack(columns, dim=-1)


def total_effects(values: Tensor, confidence: float) -> Tensor:
    """Mean, low and high over the draws (their middle ``confidence``): ``(3, functions, params)``.

    NaN where a draw is constant. ``values (1 + params, points, draws, functions)`` are those of the
    functions at ``points``.
    """
    here, moved = values[0], values[1:]
    # Over both halves together: where one parameter has all the effect, sampling errors cancel.
    var = torch.stack([torch.cat([here, other]).var(dim=0) for other in moved])
    half = (here.unsqueeze(0) - moved).square().mean(dim=1) / 2
    share = torch.where(var > 1e-24, half / var, torch.nan)  # (params, draws, functions)
    tail = (1 - confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=share.dtype)
    band = torch.nanquantile(share, quantiles, dim=1)
    return torch.cat([share.nanmean(dim=1).unsqueeze(0), band]).transpose(1, 2)
