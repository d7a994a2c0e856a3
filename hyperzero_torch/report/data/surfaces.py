"""Estimates of the objective and the guardrails anywhere in the space.

Deltas are drawn from their normal marginals with the same base samples at every point, so a surface
is as smooth as the posterior is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...problem.slack_units import slack_units
from ...problem.space import Choice, Float, Int
from ...stats.normals import sobol_normals
from ...surrogate.protocol import FittedPosterior
from .facts import Facts

GRID = 41
_NUM_DRAWS = 256
_TILE = 512  # points whose draws are held at once


class Estimates(NamedTuple):
    """Mean, low and high of ``gain (3, n)`` and ``slack (3, n, constraints)``.

    Slacks are fractions of the control's value where that is known, see ``problem.slack_units``.

    ``holds (n, constraints)`` is the probability of each guardrail, ``prob_feasible (n,)`` of all.
    """

    gain: Tensor
    slack: Tensor
    holds: Tensor
    prob_feasible: Tensor

    def at(self, rows: slice) -> Estimates:
        """The estimates at some of the points."""
        gain, slack = self.gain[:, rows], self.slack[:, rows]
        return Estimates(gain, slack, self.holds[rows], self.prob_feasible[rows])


class Slice(NamedTuple):
    """One parameter varied through a centre: ``theta (n, params)`` and the estimates there."""

    param: int
    theta: Tensor
    estimates: Estimates


def from_deltas(facts: Facts, mean: Tensor, var: Tensor) -> Estimates:
    """Gain and slack of normal deltas, mean and variance ``(n, metrics)`` each; on the CPU."""
    problem = facts.problem.to(mean.device)
    # Quasi-random: a few hundred give probabilities as thousands of independent draws would.
    normal = sobol_normals(2 * _NUM_DRAWS, mean.shape[1], seed=0).to(mean).unsqueeze(1)
    tail = (1 - facts.config.confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=mean.dtype, device=mean.device)
    # nan_to_num: a slack without such a unit stays in its own.
    units = slack_units(problem).nan_to_num(1.0).to(mean)
    parts: list[Estimates] = []
    with torch.no_grad():
        for start in range(0, len(mean), _TILE):
            rows = slice(start, start + _TILE)
            utility, slack = problem.evaluate(mean[rows] + var[rows].sqrt() * normal)
            holds = (slack >= 0).to(mean.dtype)
            bands = _band(facts.gain(utility), quantiles), _band(slack / units, quantiles)
            parts.append(Estimates(*bands, holds.mean(0), holds.prod(-1).mean(0)))
    return Estimates(*(torch.cat(f, dim=d).cpu() for f, d in zip(zip(*parts), (1, 1, 0, 0))))


def _band(values: Tensor, quantiles: Tensor) -> Tensor:
    """Mean, low and high over the draws: ``(draws, ...)`` to ``(3, ...)``."""
    mean = values.mean(0)[None]
    if not values.numel():  # no constraints: torch refuses quantiles of nothing
        return mean.repeat(3, *(1,) * (values.ndim - 1))
    return torch.cat([mean, torch.quantile(values, quantiles, dim=0)])


def at_theta(facts: Facts, posterior: FittedPosterior, theta: Tensor) -> Estimates:
    """The posterior's estimates at ``(n, params)``."""
    x = facts.problem.space.to_unit(theta).to(posterior.x)
    return from_deltas(facts, *posterior.marginal(x))


def is_plane(facts: Facts) -> bool:
    """Whether the space is two continuous parameters, so that one map shows all of it."""
    parameters = facts.problem.space.parameters
    return len(parameters) == 2 and all(isinstance(p, Float) for p in parameters)


def plane(facts: Facts) -> Tensor:
    """A grid over two continuous parameters, ``(41 * 41, 2)``; the second varies fastest."""
    axis = torch.linspace(0, 1, GRID, dtype=torch.float64)
    return facts.problem.space.from_unit(torch.cartesian_prod(axis, axis))


def slices(facts: Facts, posterior: FittedPosterior, centre: Tensor) -> list[Slice]:
    """One slice per parameter through the centre ``(params,)``."""
    thetas: list[Tensor] = []
    for i, parameter in enumerate(facts.problem.space.parameters):
        axis = _axis(parameter)
        theta = centre.repeat(len(axis), 1)
        theta[:, i] = axis
        thetas.append(theta)
    estimates = at_theta(facts, posterior, torch.cat(thetas))  # all in one evaluation
    ends = torch.tensor([len(t) for t in thetas]).cumsum(0).tolist()
    return [
        Slice(i, theta, estimates.at(slice(end - len(theta), end)))
        for i, (theta, end) in enumerate(zip(thetas, ends))
    ]


def _axis(parameter: Float | Int | Choice) -> Tensor:
    """Values of one parameter, as theta holds them."""
    if isinstance(parameter, Choice):
        return torch.arange(parameter.width, dtype=torch.float64)
    if isinstance(parameter, Int):
        return parameter.from_unit(parameter.levels(GRID).unsqueeze(-1))
    return parameter.from_unit(torch.linspace(0, 1, GRID, dtype=torch.float64).unsqueeze(-1))
