"""The next point of a study of values: what Optuna's and Ray's studies have in common.

There are no rounds and no control here: each trial has parameters, a value to be maximised, and
slacks that have to be >= 0, each with a variance that may be unknown. The next point is one draw
of Algorithm 3. Draws differ, so trials that run side by side need not know of each other.

Source: Kandasamy et al. (2018), Parallelised Bayesian optimisation via Thompson sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FitError, SpaceError
from ..problem.problem import Constraint, Problem
from ..problem.space import SearchSpace
from ..runtime.randomness import random
from ..surrogate import Surrogate
from ..thompson import propose
from .axes import Axis

# Fractions of the values' own variance that unknown noise is tried at.
_NOISE_SHARES = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 0.7)
_NOISE_FIRST = 3e-2
_NOISE_TURNS = 2  # of kernel and noise, each fitted given the other
_NOISE_ROWS = 256  # enough to tell how large it is
_MOST_SOBOL = 4096


class Tried(NamedTuple):
    """Finished trials: ``theta (n, params)``, ``value (n, 1 + slacks)`` and ``var`` likewise.

    The first column is maximised, the others are >= 0 where feasible. NaN values were not
    observed, NaN variances are not known.
    """

    theta: Tensor
    value: Tensor
    var: Tensor


class Search:
    """Asks for the next point; holds no state but its arguments.

    Args:
        axes: the parameters, each with at least two values.
        num_startup: finished trials before the surrogate speaks; until then Sobol points.
        num_samples: N of Algorithm 3.
        num_starts: of these, how many are moved uphill along the draw.
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
        """Another stack's parameters as a row of ours.

        Raises:
            SpaceError: a parameter is missing, or has a value that it cannot have.
        """
        missing = [axis.name for axis in self.axes if axis.name not in parameters]
        if missing:
            raise SpaceError(f"{missing} are missing in {dict(parameters)}")
        return [axis.theta(parameters[axis.name]) for axis in self.axes]

    def next(self, tried: Tried, seed: int, number: int) -> dict[str, Any]:
        """Parameters to try, a function of the arguments.

        Args:
            tried: finished trials, as wide as the axes.
            seed: of the study.
            number: of the trial within the study, from 0.
        """
        generator = random(seed, number, "search", torch.device("cpu"))
        tried = _finite(tried)
        if len(tried.theta) < max(1, self.num_startup):
            x = self._startup(seed, number, generator)
        else:
            try:
                x = self._propose(tried, generator)
            except FitError:  # values that no Gaussian process can be fitted to
                x = self.space.uniform(1, generator)[0]
        theta = self.space.from_unit(x).tolist()
        return {axis.name: axis.value(t) for axis, t in zip(self.axes, theta)}

    def _startup(self, seed: int, number: int, generator: torch.Generator) -> Tensor:
        if number >= _MOST_SOBOL:
            return self.space.uniform(1, generator)[0]
        scramble = random(seed, 0, "startup", torch.device("cpu")).initial_seed() % 2**31
        return self.space.sobol(number + 1, scramble)[number]

    def _propose(self, tried: Tried, generator: torch.Generator) -> Tensor:
        x = self.space.to_unit(tried.theta)
        var = with_noise(x, tried.value, tried.var)
        posterior = Surrogate().fit(x, tried.value, var)
        names = [f"slack_{k}" for k in range(1, tried.value.shape[1])]
        problem = Problem(
            space=self.space,
            base=self.space.to_parameters(tried.theta[:1])[0],
            metrics=["value", *names],
            objective="value",
            constraints=[Constraint(n, at_least=0.0, may_exclude_base=True) for n in names],
        )
        found = propose(
            posterior, problem, self.num_samples, 1, generator, num_starts=self.num_starts
        )
        return found.x[0]


def with_noise(x: Tensor, value: Tensor, var: Tensor) -> Tensor:
    """Variances, with one number per metric where nobody has given any.

    It is the level at which each value is predicted best from all others, under the kernel that is
    fitted given the level before.

    Args:
        x: ``(n, dims)`` in the unit cube.
        value: ``(n, metrics)``; NaN where not observed.
        var: ``(n, metrics)``; NaN where not known.
    Returns:
        ``(n, metrics)``, nowhere NaN.
    Source: Rasmussen and Williams (2006), section 5.4.2, leave-one-out cross-validation.
    """
    unknown = var.isnan()
    if not bool((unknown & value.isfinite()).any()):
        return torch.where(unknown, 1.0, var)
    if len(x) > _NOISE_ROWS:
        rows = torch.linspace(0, len(x) - 1, _NOISE_ROWS).round().long()
        seen_x, seen, given = x[rows], value[rows], var[rows]
    else:
        seen_x, seen, given = x, value, var
    known = seen.isfinite()
    count = known.sum(0).clamp_min(1)
    centre = torch.where(known, seen, 0.0).sum(0) / count
    spread = torch.where(known, seen - centre, 0.0).square().sum(0) / count
    noise = _NOISE_FIRST * spread
    surrogate = Surrogate()
    for _ in range(_NOISE_TURNS):
        surrogate.fit(seen_x, seen, torch.where(given.isnan(), noise, given))
        best = torch.full_like(spread, -torch.inf)
        for share in _NOISE_SHARES:
            level = share * spread
            posterior = surrogate.condition(seen_x, seen, torch.where(given.isnan(), level, given))
            density = posterior.left_out() - known.sum(0) * posterior.scale.log()
            noise = torch.where(density > best, level, noise)
            best = torch.maximum(best, density)
    return torch.where(unknown, noise, var)


def _finite(tried: Tried) -> Tried:
    """Infinite values become the largest or least that are finite; columns nobody has seen go.

    An infinite slack becomes as large as any other, on its own side of zero: what is infinitely
    infeasible is never taken for feasible. A trial without a value of its own goes too.
    """
    value = tried.value
    known = value.isfinite()
    high = torch.where(known, value, -torch.inf).amax(0, keepdim=True) if len(value) else value
    low = torch.where(known, value, torch.inf).amin(0, keepdim=True) if len(value) else value
    if len(value):
        largest = torch.where(known, value, 0.0).abs().amax(0)
        largest = torch.where(largest > 0, largest, 1.0)
        high[:, 1:], low[:, 1:] = largest[1:], -largest[1:]
    value = torch.where(value == torch.inf, high, torch.where(value == -torch.inf, low, value))
    value = torch.where(value.isfinite(), value, torch.nan)
    rows = value[:, 0].isfinite()
    seen = value[rows].isfinite().any(0)
    seen[0] = True
    return Tried(tried.theta[rows], value[rows][:, seen], tried.var[rows][:, seen])
