"""A Gaussian process over points and metrics: fitted in long form, read metric by metric.

A row of the long form is ``(x, number of the metric)``; a metric that a candidate was not observed
in has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from gpytorch.kernels import IndexKernel, MaternKernel, ProductKernel
from gpytorch.means import Mean
from gpytorch.models import ExactGP
from gpytorch.priors import LogNormalPrior, NormalPrior
from torch import Tensor, nn

from ...errors import ConfigError, FitError
from ...runtime.memory import require
from ..conditioned import Standardiser
from ..kernels import (
    CONSTANT_SPREAD,
    LENGTHSCALE_SPREAD,
    OUTPUTSCALE_MEDIAN,
    OUTPUTSCALE_SPREAD,
    default_hyperparameters,
)
from ..standardise import Prepared, prepare
from .checked import guarded
from .descriptor import name_of, probe_points
from .features import split_kernel
from .likelihood import maximise
from .model import ModelPrior, check_known_noise, check_prior
from .posterior import KernelPaths, KernelPosterior, MetricData, metric_data
from .prior import MetricPrior

# Matrices of the long form to reserve memory for, as in ``standardise``.
_COPIES = 8
# Prior standard deviation of the factors that correlate metrics, in units of their own factor.
_CORRELATION_SPREAD = 0.7


class TaskMean(Mean):  # type: ignore[misc]  # untyped
    """A constant for each metric."""

    def __init__(self, num_metrics: int) -> None:
        super().__init__()
        self.register_parameter("constants", nn.Parameter(torch.zeros(num_metrics).double()))
        spread = NormalPrior(_number(0.0), _number(CONSTANT_SPREAD))
        self.register_prior("constants_prior", spread, lambda m: m.constants)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, dims + 1)`` to ``(N,)``."""
        constants: Tensor = self.constants
        return constants[x[..., -1].long()]


class TaskKernel(IndexKernel):  # type: ignore[misc]  # untyped
    """Covariance of metrics, of either sign: ``B = F F' + diag(v)``, at first without correlations.

    The variances of ``B`` have the prior of the package's outputscale; factors beside the diagonal
    are normal a priori.
    """

    def __init__(self, num_metrics: int, column: int) -> None:
        super().__init__(num_tasks=num_metrics, rank=num_metrics, active_dims=[column])
        half = OUTPUTSCALE_MEDIAN / 2
        self.covar_factor.data = math.sqrt(half) * torch.eye(num_metrics, dtype=torch.float64)
        self.double()
        self.var = torch.full((num_metrics,), half, dtype=torch.float64)
        variance = LogNormalPrior(
            _number(math.log(OUTPUTSCALE_MEDIAN)), _number(OUTPUTSCALE_SPREAD)
        )
        self.register_prior("variance_prior", variance, _variances)
        factor = NormalPrior(_number(0.0), _number(_CORRELATION_SPREAD * math.sqrt(half)))
        self.register_prior("factor_prior", factor, _beside_the_diagonal)


def _variances(kernel: TaskKernel) -> Tensor:
    variances: Tensor = kernel.covar_factor.square().sum(-1) + kernel.var
    return variances


def _beside_the_diagonal(kernel: TaskKernel) -> Tensor:
    factor: Tensor = kernel.covar_factor
    return factor[~torch.eye(len(factor), dtype=torch.bool, device=factor.device)]


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def task_prior(num_metrics: int, dims: int) -> MetricPrior:
    """The package's own prior over points and metrics."""
    like = torch.empty(0, dtype=torch.float64)
    median = float(default_hyperparameters(1, dims, like).lengthscale[0, 0])
    matern = MaternKernel(
        nu=2.5,
        ard_num_dims=dims,
        active_dims=list(range(dims)),
        lengthscale_prior=LogNormalPrior(_number(math.log(median)), _number(LENGTHSCALE_SPREAD)),
    ).double()
    matern.lengthscale = median
    kernel = ProductKernel(matern, TaskKernel(num_metrics, dims))
    return MetricPrior(TaskMean(num_metrics), kernel)


def model_prior(factory: Callable[..., Any], data: MetricData) -> ModelPrior:
    """The prior of a BoTorch ``MultiTaskGP`` of the long form.

    Raises:
        ConfigError: it learns noise, or is no product of a kernel and a covariance of metrics.
    """
    y, noise = data.y.unsqueeze(-1), data.noise.diagonal().unsqueeze(-1)
    model = factory(data.x, y, train_Yvar=noise, task_feature=-1)
    text = name_of(factory)
    if not isinstance(model, ExactGP):
        raise ConfigError(f"{text} must make a BoTorch MultiTaskGP, it made {type(model).__name__}")
    check_known_noise(model, text)
    prior = ModelPrior(model)
    if split_kernel(prior.kernel) is None:
        raise ConfigError(
            f"{text} must make a MultiTaskGP whose covariance is a kernel of x times one of the "
            f"metrics, without an input transform; it made {type(model).__name__}"
        )
    return prior


def check_factory(factory: Callable[..., Any], dims: int) -> None:
    """Call a factory with a few points of two metrics.

    Raises:
        ConfigError: it fails, or makes no such model.
    """
    text, points = name_of(factory), probe_points(dims)
    x = torch.cat([_with_task(points, 0), _with_task(points, 1)])
    y = torch.linspace(-1.5, 1.5, len(x), dtype=torch.float64)
    data = MetricData(x, y, 0.1 * torch.eye(len(x), dtype=torch.float64))
    try:
        guarded(text, "the factory", lambda: check_prior(model_prior(factory, data), x, text))
    except FitError as error:
        raise ConfigError(
            f"{error}; it is called with x (N, {dims + 1}), whose last column is the metric's "
            "number, y (N, 1), train_Yvar (N, 1) and task_feature"
        ) from error


def fit_tasks(
    factory: Callable[..., Any] | None,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    shared: Tensor | None,
    prior_std: Tensor | None,
) -> TasksPosterior:
    """See ``MultiTask``."""
    prepared = prepare(x, mean, var, shared, prior_std)
    long = _long(prepared)
    data = metric_data(long, 0)
    if factory is None:
        prior: MetricPrior = task_prior(mean.shape[1], x.shape[1]).to(x.device)
    else:
        prior = model_prior(factory, data)
    fitted, succeeded = maximise(prior, *data, data.x[:, -1])
    inner = KernelPosterior([fitted], long, fit_succeeded=succeeded)
    return TasksPosterior(inner, prepared.standardiser)


def _long(prepared: Prepared) -> Prepared:
    """The long form: metric after metric, standardised."""
    x, y, noise, shared, _ = prepared
    num = y.numel()
    require(
        _COPIES * num**2 * x.element_size(),
        x.device,
        f"an exact fit of {y.shape[1]} metrics together to {len(x)} candidates",
        "fit fewer candidates, or take a surrogate that fits each metric on its own",
    )
    common = None
    if shared is not None:
        common = torch.block_diag(*shared).unsqueeze(0)  # type: ignore[no-untyped-call]
    unit = Standardiser(y.new_zeros(1), y.new_ones(1))
    points = torch.cat([_with_task(x, m) for m in range(y.shape[1])])
    return Prepared(points, y.T.reshape(-1, 1), noise.T.reshape(-1, 1), common, unit)


def _with_task(x: Tensor, task: int) -> Tensor:
    return torch.cat([x, torch.full_like(x[..., :1], task)], dim=-1)


class TasksPosterior:
    """A posterior over points and metrics, read metric by metric.

    Args:
        inner: of the long form.
        standardiser: back to the metrics' units.
    """

    def __init__(self, inner: KernelPosterior, standardiser: Standardiser) -> None:
        self.inner_posterior, self.standardiser = inner, standardiser
        self.fit_succeeded = inner.fit_succeeded
        self._num, dims = len(standardiser.scale), inner.x.shape[1] - 1
        self.lengthscale = inner.lengthscale[:, :dims].expand(self._num, dims)

    @property
    def correlation(self) -> Tensor:
        """Prior correlation of the metrics' deltas, ``(metrics, metrics)``."""
        return _correlation(self.inner_posterior.priors[0], self._tasks(self._origin()))

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> TasksPosterior:
        """The same prior given other evidence."""
        prepared = prepare(x, mean, var, shared, standardiser=self.standardiser)
        inner = self.inner_posterior
        again = KernelPosterior(inner.priors, _long(prepared), fit_succeeded=inner.fit_succeeded)
        return TasksPosterior(again, self.standardiser)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(N, dims)`` to ``(N, metrics)``."""
        mean, var = self.inner_posterior.marginal(self._tasks(x))
        shift, scale = self.standardiser
        shape = (len(x), self._num)
        return shift + scale * mean.reshape(shape), scale.square() * var.reshape(shape)

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance within each metric: ``(N, dims)`` to ``(metrics, N, N)``."""
        parts = [self.inner_posterior.covariance(_with_task(x, m))[0] for m in range(self._num)]
        return self.standardiser.scale.square()[:, None, None] * torch.stack(parts)

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> TasksPaths:
        """Joint draws; the metrics of a draw are correlated as the model says."""
        return TasksPaths(self, self.inner_posterior.paths(num_paths, generator))

    def _tasks(self, x: Tensor) -> Tensor:
        """Every point with every metric: ``(..., N, dims)`` to ``(..., N x metrics, dims + 1)``."""
        pairs = torch.stack([_with_task(x, m) for m in range(self._num)], dim=-2)
        return pairs.flatten(-3, -2)

    def _origin(self) -> Tensor:
        return self.inner_posterior.x.new_zeros(1, self.inner_posterior.x.shape[1] - 1)


@torch.no_grad()
def _correlation(prior: MetricPrior, tasks: Tensor) -> Tensor:
    covariance = prior.cross(tasks, tasks)
    scale = covariance.diagonal().sqrt()
    return covariance / (scale.unsqueeze(-1) * scale)


class TasksPaths:
    """Functions drawn from a ``TasksPosterior``."""

    def __init__(self, posterior: TasksPosterior, inner: KernelPaths) -> None:
        self._posterior, self._inner = posterior, inner

    @property
    def tile(self) -> int:
        """Points to evaluate at once."""
        return max(1, self._inner.tile // len(self._posterior.standardiser.scale))

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(paths, N, metrics)``."""
        return self._raw(self._inner(self._posterior._tasks(x)), len(x))

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        return self._raw(self._inner.each(self._posterior._tasks(x)), x.shape[1])

    def _raw(self, values: Tensor, num: int) -> Tensor:
        shift, scale = self._posterior.standardiser
        return shift + scale * values.reshape(len(values), num, len(scale))
