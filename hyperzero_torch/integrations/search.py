"""The next point to evaluate: shared by the Optuna sampler and the Ray searcher.

There are no rounds and no control here: each trial has parameters, a value to maximise and slacks
that must be >= 0, each with a variance that may be unknown. The next point is one draw of
Algorithm 3. Because draws are random, parallel trials need not know of each other.

Source: Kandasamy et al. (2018), Parallelised Bayesian optimisation via Thompson sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FitError
from ..problem.problem import Constraint, Problem
from ..problem.space import SearchSpace
from ..runtime.randomness import random
from ..surrogate import Surrogate
from ..thompson import propose
from .axes import Axis

# Unknown noise variances are tried at these fractions of the values' variance.
_NOISE_SHARES = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 0.7)
_NOISE_FIRST = 3e-2
_NOISE_TURNS = 2  # kernel and noise are fitted in turn, each given the other
_NOISE_ROWS = 256  # at most so many trials are used to estimate the noise
_MAX_SOBOL = 4096


class Trials(NamedTuple):
    """Finished trials: ``theta (n, params)``, ``value`` and ``var (n, 1 + slacks)``.

    The first column is maximised, the others are >= 0 where feasible. A NaN value was not observed,
    a NaN variance is unknown.
    """

    theta: Tensor
    value: Tensor
    var: Tensor

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]],
        num_params: int,
        num_slacks: int,
    ) -> Trials:
        """From (theta, values, variances) of each trial; there may be none."""
        columns = list(zip(*rows)) or [(), (), ()]
        widths = (num_params, 1 + num_slacks, 1 + num_slacks)
        tensors = (
            torch.tensor(column, dtype=torch.float64).reshape(len(rows), width)
            for column, width in zip(columns, widths)
        )
        return cls(*tensors)


class Search:
    """Proposes the next point; has no state besides its arguments, which are the samplers'.

    Each of ``axes`` has at least two values.
    """

    def __init__(
        self, axes: Sequence[Axis], num_startup: int, num_samples: int, num_starts: int
    ) -> None:
        self.axes = tuple(axes)
        self.space = SearchSpace([axis.parameter for axis in axes])
        self.num_startup = num_startup
        self.num_samples = num_samples
        self.num_starts = num_starts

    def theta(self, parameters: Mapping[str, Any]) -> list[float]:
        """The other package's parameters as a row of theta; an invalid one is a ``SpaceError``."""
        return [axis.theta(parameters[axis.name]) for axis in self.axes]

    def next(self, trials: Trials, seed: int, number: int) -> dict[str, Any]:
        """Parameters to try next, a function of the arguments; ``number`` counts trials from 0."""
        generator = random(seed, number, "search", torch.device("cpu"))
        trials = _finite(trials)
        if len(trials.theta) < max(1, self.num_startup):
            x = self._startup(seed, number, generator)
        else:
            try:
                x = self._propose(trials, generator)
            except FitError:  # no Gaussian process can be fitted to these values
                x = self.space.uniform(1, generator)[0]
        theta = self.space.from_unit(x).tolist()
        return {axis.name: axis.value(t) for axis, t in zip(self.axes, theta)}

    def _startup(self, seed: int, number: int, generator: torch.Generator) -> Tensor:
        if number >= _MAX_SOBOL:
            return self.space.uniform(1, generator)[0]
        scramble = random(seed, 0, "startup", torch.device("cpu")).initial_seed() % 2**31
        return self.space.sobol(number + 1, scramble)[number]

    def _propose(self, trials: Trials, generator: torch.Generator) -> Tensor:
        x = self.space.to_unit(trials.theta)
        var = with_noise(x, trials.value, trials.var)
        posterior = Surrogate().fit(x, trials.value, var)
        names = [f"slack_{k}" for k in range(1, trials.value.shape[1])]
        problem = Problem(
            space=self.space,
            base=self.space.to_parameters(trials.theta[:1])[0],
            metrics=["value", *names],
            objective="value",
            constraints=[Constraint(n, at_least=0.0, may_exclude_base=True) for n in names],
        )
        proposals = propose(
            posterior, problem, self.num_samples, 1, generator, num_starts=self.num_starts
        )
        return proposals.x[0]


def with_noise(x: Tensor, value: Tensor, var: Tensor) -> Tensor:
    """Variances, with one estimate per metric where they are unknown.

    The estimate maximises the leave-one-out predictive density, under the kernel that was fitted
    with the previous estimate.

    Args:
        x: ``(n, dims)`` in the unit cube.
        value: ``(n, metrics)``; NaN where not observed.
        var: ``(n, metrics)``; NaN where unknown.
    Returns:
        ``(n, metrics)`` without NaN.
    Source: Rasmussen and Williams (2006), section 5.4.2, leave-one-out cross-validation.
    """
    unknown = var.isnan()
    if not bool((unknown & value.isfinite()).any()):
        return torch.where(unknown, 1.0, var)
    given = var
    if len(x) > _NOISE_ROWS:
        rows = torch.linspace(0, len(x) - 1, _NOISE_ROWS).round().long()
        x, value, given = x[rows], value[rows], var[rows]
    observed = value.isfinite()
    count = observed.sum(0).clamp_min(1)
    centre = torch.where(observed, value, 0.0).sum(0) / count
    spread = torch.where(observed, value - centre, 0.0).square().sum(0) / count
    noise = _NOISE_FIRST * spread
    surrogate = Surrogate()
    for _ in range(_NOISE_TURNS):
        surrogate.fit(x, value, torch.where(given.isnan(), noise, given))
        best = torch.full_like(spread, -torch.inf)
        for share in _NOISE_SHARES:
            level = share * spread
            posterior = surrogate.condition(x, value, torch.where(given.isnan(), level, given))
            density = posterior.leave_one_out() - observed.sum(0) * posterior.scale.log()
            noise = torch.where(density > best, level, noise)
            best = torch.maximum(best, density)
    return torch.where(unknown, noise, var)


def _finite(trials: Trials) -> Trials:
    """Replace infinite values by finite ones; drop metrics and trials without any value.

    An infinite value becomes the largest or least finite one. An infinite slack becomes as large as
    the largest finite slack, with its own sign, so that infinitely infeasible never turns feasible.
    """
    value = trials.value
    if not len(value):
        return Trials(trials.theta, value[:, :1], trials.var[:, :1])
    finite = value.isfinite()
    high = torch.where(finite, value, -torch.inf).amax(0, keepdim=True)
    low = torch.where(finite, value, torch.inf).amin(0, keepdim=True)
    largest = torch.where(finite, value, 0.0).abs().amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    high[:, 1:], low[:, 1:] = largest[1:], -largest[1:]
    value = torch.where(value == torch.inf, high, torch.where(value == -torch.inf, low, value))
    value = torch.where(value.isfinite(), value, torch.nan)
    rows = value[:, 0].isfinite()
    columns = value[rows].isfinite().any(0)
    columns[0] = True
    return Trials(trials.theta[rows], value[rows][:, columns], trials.var[rows][:, columns])
