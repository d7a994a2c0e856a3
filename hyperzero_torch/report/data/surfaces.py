"""What the posterior says of the objective and the guardrails, anywhere in the space.

Deltas are drawn from the posterior's marginals, the same normals at every point, so that a
surface is as smooth as the posterior is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...problem.space import Choice, Float, Int
from ...stats.normals import normals
from .facts import Facts

GRID = 41
_NUM_DRAWS = 256
_TILE = 512  # points whose draws are held at once


class Believed(NamedTuple):
    """Expectation and interval: ``gain (3, n)``, ``slack (3, n, constraints)``; mean, low, high.

    ``holds (n, constraints)`` is the probability of each guardrail, ``prob_feasible (n,)`` of all.
    """

    gain: Tensor
    slack: Tensor
    holds: Tensor
    prob_feasible: Tensor


class Slice(NamedTuple):
    """One parameter varied through a centre: ``theta (n, params)`` and what is believed there."""

    param: int
    theta: Tensor
    believed: Believed


def believe_deltas(facts: Facts, mean: Tensor, var: Tensor) -> Believed:
    """Gain and slack of deltas known as normals, ``(n, metrics)`` each; on the CPU."""
    problem = facts.problem.to(mean.device)
    # Quasi-random: a few hundred give probabilities as thousands of independent draws would.
    normal = normals(2 * _NUM_DRAWS, mean.shape[1], seed=0).to(mean).unsqueeze(1)
    tail = (1 - facts.config.confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=mean.dtype, device=mean.device)
    parts: list[Believed] = []
    with torch.no_grad():
        for start in range(0, len(mean), _TILE):
            rows = slice(start, start + _TILE)
            utility, slack = problem.evaluate(mean[rows] + var[rows].sqrt() * normal)
            gain = facts.gain(utility)
            holds = (slack >= 0).to(mean.dtype)
            bands = _band(gain, quantiles), _band(slack, quantiles)
            parts.append(Believed(*bands, holds.mean(0), holds.prod(-1).mean(0)))
    gains, slacks, held, feasible = zip(*parts)
    return Believed(
        torch.cat(gains, dim=1).cpu(),
        torch.cat(slacks, dim=1).cpu(),
        torch.cat(held).cpu(),
        torch.cat(feasible).cpu(),
    )


def _band(values: Tensor, quantiles: Tensor) -> Tensor:
    """Mean, low and high over the draws: ``(draws, ...)`` to ``(3, ...)``."""
    mean = values.mean(0)[None]
    if not values.numel():  # no constraints: torch refuses quantiles of nothing
        return mean.repeat(3, *(1,) * (values.ndim - 1))
    return torch.cat([mean, torch.quantile(values, quantiles, dim=0)])


def believe_at(facts: Facts, theta: Tensor) -> Believed:
    """What the posterior, which must be there, says of ``(n, params)``."""
    posterior = facts.posterior
    assert posterior is not None  # the caller's branch
    x = facts.problem.space.to_unit(theta).to(posterior.x)
    return believe_deltas(facts, *posterior.marginal(x))


def is_plane(facts: Facts) -> bool:
    """Whether the space is two continuous parameters, so that one map shows all of it."""
    parameters = facts.problem.space.parameters
    return len(parameters) == 2 and all(isinstance(p, Float) for p in parameters)


def plane(facts: Facts) -> Tensor:
    """A grid over two continuous parameters, ``(41 * 41, 2)``; the second varies fastest."""
    axis = torch.linspace(0, 1, GRID, dtype=torch.float64)
    return facts.problem.space.from_unit(torch.cartesian_prod(axis, axis))


def slices(facts: Facts, centre: Tensor) -> list[Slice]:
    """One slice per parameter through the centre ``(params,)``; all in one go."""
    space = facts.problem.space
    thetas: list[Tensor] = []
    for i, parameter in enumerate(space.parameters):
        axis = _axis(parameter)
        theta = centre.repeat(len(axis), 1)
        theta[:, i] = axis
        thetas.append(theta)
    gain, slack, holds, feasible = believe_at(facts, torch.cat(thetas))
    sizes = [len(t) for t in thetas]
    columns = zip(
        torch.split(gain, sizes, 1),
        torch.split(slack, sizes, 1),
        torch.split(holds, sizes),
        torch.split(feasible, sizes),
    )
    return [Slice(i, t, Believed(*parts)) for i, (t, parts) in enumerate(zip(thetas, columns))]


def _axis(parameter: Float | Int | Choice) -> Tensor:
    """Values of one parameter, as theta holds them."""
    if isinstance(parameter, Choice):
        return torch.arange(parameter.width, dtype=torch.float64)
    if isinstance(parameter, Int):
        return parameter.from_unit(parameter.levels(GRID).unsqueeze(-1))
    return parameter.from_unit(torch.linspace(0, 1, GRID, dtype=torch.float64).unsqueeze(-1))
