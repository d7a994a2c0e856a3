"""A prior mean that users know: deltas that a simulator or another study predicts.

    delta(theta) = m(theta) + f(theta),    f from any surrogate

The surrogate is fitted to the evidence minus m, so the model falls back to m where there is no
evidence. Trends whose coefficients are not known are parts of the surrogate's kernel (``linear+
matern``, ``quadratic+matern``) and compose with it.

m is taken relative to the base, whose delta is 0: (1 + m(theta)) / (1 + m(base)) - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, FitError
from ...problem.problem import Problem
from ..protocol import FittedPosterior
from .descriptor import digest, name_of, of_text, sobol_points

_NUM_PROBES = 16
# Of the unit interval: steps of numeric slopes.
_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class PriorMean:
    """A function of theta that predicts deltas, and what identifies it.

    ``function`` maps ``(N, params)`` in the user's units to ``(N, metrics)`` fractions.
    """

    function: Callable[[Tensor], Any]
    text: str
    digest: str

    @classmethod
    def of(cls, value: Any, metrics: tuple[str, ...], text: str | None = None) -> PriorMean:
        """From a callable of theta, or a mapping from metrics to such; metrics left out have 0.

        Raises:
            ConfigError: it is neither, or names a metric that the problem does not have.
        """
        if isinstance(value, PriorMean):
            return value
        if isinstance(value, Mapping):
            unknown = sorted(set(map(str, value)) - set(metrics))
            if unknown:
                raise ConfigError(
                    "a prior mean by metric maps names to functions of theta (N, params); "
                    f"unknown metrics {unknown}, the problem's are {list(metrics)}"
                )
            for name, part in value.items():
                if not callable(part):
                    raise ConfigError(
                        f"the prior mean of {name} must be a function of theta (N, params), got "
                        f"{part!r:.60}"
                    )
            parts = [(name, value[name]) for name in metrics if name in value]
            names = ", ".join(f"{name}: {name_of(part)}" for name, part in parts)
            identity = of_text("|".join(f"{name}={_identity(part)}" for name, part in parts))
            return cls(_by_metric(dict(parts), metrics), text or f"{{{names}}}", identity)
        if not callable(value):
            raise ConfigError(
                "prior_mean must be a function of theta (N, params) that returns deltas "
                "(N, metrics), a mapping from metrics to such functions, 'module:function' or "
                f"'journal-url#study'; got {type(value).__name__}"
            )
        return cls(value, text or name_of(value), of_text(_identity(value)))


def _identity(function: Any) -> str:
    """A text that differs where values can differ, as far as that can be seen."""
    if isinstance(function, torch.nn.Module):
        return f"{name_of(function)}|{digest(function)}"
    described = getattr(function, "descriptor", None)
    return described if isinstance(described, str) and described else name_of(function)


def _as_tensor(value: Any, what: str, theta: Tensor) -> Tensor:
    """What a function of theta returned, as a tensor like theta."""
    try:
        tensor = torch.as_tensor(value)
        if not tensor.is_complex():
            return tensor.to(theta)
    except Exception:  # whatever another's value can be
        pass
    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
    raise FitError(
        f"{what} must return real numbers, a tensor or an array, for theta "
        f"{tuple(theta.shape)}; got {kind}"
    )


def _by_metric(
    parts: Mapping[str, Callable[[Tensor], Any]], metrics: tuple[str, ...]
) -> Callable[[Tensor], Tensor]:
    def evaluate(theta: Tensor) -> Tensor:
        columns = []
        for name in metrics:
            column = theta.new_zeros(len(theta))
            if name in parts:
                value = _as_tensor(parts[name](theta), f"the prior mean of {name}", theta)
                if value.shape != (len(theta),):
                    raise FitError(
                        f"the prior mean of {name} must be ({len(theta)},) for theta "
                        f"{tuple(theta.shape)}, got {tuple(value.shape)}"
                    )
                column = value
            columns.append(column)
        return torch.stack(columns, dim=-1)

    return evaluate


class UnitMean:
    """A prior mean over a problem's unit cube, relative to its base.

    Args:
        mean: of theta.
        problem: whose space and base count.
    """

    def __init__(self, mean: PriorMean, problem: Problem) -> None:
        self.mean, self._space, self._num = mean, problem.space, problem.num_metrics
        base = self._deltas(problem.base_theta.unsqueeze(0))
        if not bool((base > -1).all()):
            raise FitError(
                f"the prior mean {mean.text} at the base is {base[0].tolist()}; deltas are "
                "fractions above -1"
            )
        self._base = base
        self._has_slopes = self._is_differentiable(problem.base_theta.unsqueeze(0))

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(N, metrics)``, differentiable in ``x``.

        Slopes of a function without any of its own are central differences.
        """
        if x.requires_grad and torch.is_grad_enabled() and not self._has_slopes:
            value: Tensor = _Numeric.apply(x, self._value)  # type: ignore[no-untyped-call]
            return value
        return self._value(x)

    def _is_differentiable(self, theta: Tensor) -> bool:
        """Whether automatic differentiation reaches theta through the function."""
        try:
            with torch.enable_grad():
                value = self.mean.function(theta.clone().requires_grad_())
            return isinstance(value, Tensor) and value.requires_grad
        except Exception:  # another's code: NumPy, for one, refuses such tensors
            return False

    def _value(self, x: Tensor) -> Tensor:
        deltas = self._deltas(self._space.from_unit(x))
        return (1 + deltas) / (1 + self._base.to(deltas)) - 1

    def _deltas(self, theta: Tensor) -> Tensor:
        text = self.mean.text
        try:
            # A copy: a function that works in place must not move the candidates.
            value = self.mean.function(theta.clone())
        except FitError:
            raise
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise FitError(
                f"the prior mean {text} raised {type(error).__name__}: {first:.200}; it is called "
                f"with theta (N, {theta.shape[1]}) in float64"
            ) from error
        value = _as_tensor(value, f"the prior mean {text}", theta)
        if value.shape != (len(theta), self._num):
            raise FitError(
                f"the prior mean {text} must be (N, metrics) = {(len(theta), self._num)}, got "
                f"{tuple(value.shape)}"
            )
        if not bool(value.isfinite().all()):
            raise FitError(f"the prior mean {text} is not finite everywhere")
        return value


def check_prior_mean(mean: PriorMean, problem: Problem) -> None:
    """Evaluate a prior mean at points of a problem's space.

    Raises:
        ConfigError: it raises, or returns another shape or what is not finite.
    """
    like = torch.empty(0, problem.space.num_dims, dtype=torch.float64)
    try:
        at_unit = UnitMean(mean, problem)
        x = problem.space.snap(sobol_points(_NUM_PROBES, like))
        first, again = at_unit(x), at_unit(x)
    except FitError as error:
        raise ConfigError(str(error)) from error
    if not torch.equal(first, again):
        raise ConfigError(
            f"the prior mean {mean.text} changes from call to call; a study must resume exactly"
        )


class _Numeric(torch.autograd.Function):
    """A function with slopes by differences, each point on its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x.detach())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        columns = []
        for dim in range(x.shape[1]):
            step = torch.zeros_like(x)
            step[:, dim] = _STEP
            above, below = (x + step).clamp(0, 1), (x - step).clamp(0, 1)
            width = (above - below)[:, dim].clamp_min(_STEP)
            change = (ctx.function(above) - ctx.function(below)) / width.unsqueeze(-1)
            columns.append((change * slope).sum(-1))
        return torch.stack(columns, dim=-1), None


class ShiftedPosterior:
    """A prior mean plus the posterior of what it leaves."""

    def __init__(self, mean: UnitMean, inner: FittedPosterior) -> None:
        self.mean, self.inner_posterior = mean, inner
        self.fit_succeeded = inner.fit_succeeded
        self.lengthscale = inner.lengthscale
        closed = getattr(getattr(inner, "inner", inner), "left_out", None)
        if callable(closed):  # a shift of the data and of the mean changes no density
            self.left_out = closed

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(N, dims)`` to ``(N, metrics)``."""
        mean, var = self.inner_posterior.marginal(x)
        return mean + self.mean(x), var

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance: ``(N, dims)`` to ``(metrics, N, N)``."""
        return self.inner_posterior.covariance(x)

    def paths(self, num_paths: int, generator: torch.Generator) -> ShiftedPaths:
        """Joint draws."""
        return ShiftedPaths(self.mean, self.inner_posterior.paths(num_paths, generator))

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> ShiftedPosterior:
        """The same prior given other evidence."""
        inner = self.inner_posterior.condition(x, mean - self.mean(x), var, shared)
        return ShiftedPosterior(self.mean, inner)


class ShiftedPaths:
    """Functions drawn from a ``ShiftedPosterior``."""

    def __init__(self, mean: UnitMean, inner: Any) -> None:
        self._mean, self._inner = mean, inner

    @property
    def tile(self) -> int:
        """Points to evaluate at once."""
        return int(self._inner.tile)

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(paths, N, metrics)``."""
        values: Tensor = self._inner(x)
        return values + self._mean(x)

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        values: Tensor = self._inner.each(x)
        return values + self._mean(x.flatten(0, 1)).reshape(values.shape)
