"""Kernels with names, each with priors like the default's; the default itself in GPyTorch terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from gpytorch.kernels import (
    AdditiveKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    RBFKernel,
    ScaleKernel,
)
from gpytorch.means import ConstantMean, Mean
from gpytorch.priors import LogNormalPrior, NormalPrior
from torch import Tensor

from ..kernels import (
    CONSTANT_SPREAD,
    LENGTHSCALE_SPREAD,
    OUTPUTSCALE_MEDIAN,
    OUTPUTSCALE_SPREAD,
    default_hyperparameters,
)
from .trend import QuadraticKernel


def default_mean() -> Mean:
    """The mean of a kernel that comes without any: a constant, standard normal a priori."""
    return ConstantMean(constant_prior=NormalPrior(_number(0.0), _number(CONSTANT_SPREAD))).double()


def default_kernel(dims: int) -> Kernel:
    """The kernel that the package's default model has, which is recognised and used as such."""
    return _scaled(MaternKernel(nu=2.5, ard_num_dims=dims, lengthscale_prior=_prior(dims)), dims)


def rbf(dims: int) -> Kernel:
    """Squared exponential: very smooth deltas."""
    return _scaled(RBFKernel(ard_num_dims=dims, lengthscale_prior=_prior(dims)), dims)


def additive(dims: int) -> Kernel:
    """A sum over dimensions of Matern 5/2: parameters that do not interact."""
    parts = []
    for dim in range(dims):
        matern = MaternKernel(nu=2.5, active_dims=[dim], lengthscale_prior=_prior(1))
        parts.append(_scaled(matern, 1, OUTPUTSCALE_MEDIAN / dims))
    return AdditiveKernel(*parts)


def linear_matern(dims: int) -> Kernel:
    """A linear trend plus Matern 5/2."""
    each = math.log(OUTPUTSCALE_MEDIAN / dims)
    linear = LinearKernel(
        ard_num_dims=dims, variance_prior=LogNormalPrior(_number(each), _number(OUTPUTSCALE_SPREAD))
    ).double()
    linear.variance = OUTPUTSCALE_MEDIAN / dims
    return AdditiveKernel(linear, default_kernel(dims))


def quadratic_matern(dims: int) -> Kernel:
    """A quadratic trend plus Matern 5/2."""
    prior = LogNormalPrior(_number(math.log(OUTPUTSCALE_MEDIAN)), _number(OUTPUTSCALE_SPREAD))
    trend = ScaleKernel(QuadraticKernel(), outputscale_prior=prior).double()
    trend.outputscale = OUTPUTSCALE_MEDIAN
    return AdditiveKernel(trend, default_kernel(dims))


#: Kernels by name, as functions of the number of dimensions.
KERNELS: Mapping[str, Callable[[int], Kernel]] = {
    "matern": default_kernel,
    "rbf": rbf,
    "additive": additive,
    "linear+matern": linear_matern,
    "quadratic+matern": quadratic_matern,
}


def _scaled(kernel: Kernel, dims: int, median: float = OUTPUTSCALE_MEDIAN) -> Kernel:
    """With an outputscale; at the medians of the priors, where fits start."""
    prior = LogNormalPrior(_number(math.log(median)), _number(OUTPUTSCALE_SPREAD))
    scaled = ScaleKernel(kernel, outputscale_prior=prior).double()
    scaled.outputscale = median
    kernel.lengthscale = _median(dims)
    return scaled


def _prior(dims: int) -> LogNormalPrior:
    return LogNormalPrior(_number(math.log(_median(dims))), _number(LENGTHSCALE_SPREAD))


def _median(dims: int) -> float:
    return float(default_hyperparameters(1, dims, _number(0.0)).lengthscale[0, 0])


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
