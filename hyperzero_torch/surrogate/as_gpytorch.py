"""A posterior as a GPyTorch model, for stacks that have one; see ``Posterior.as_gpytorch``."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.means import ConstantMean
from gpytorch.priors import LogNormalPrior, NormalPrior
from linear_operator import to_linear_operator
from torch import Tensor

from .kernels import (
    CONSTANT_SPREAD,
    LENGTHSCALE_SPREAD,
    OUTPUTSCALE_SPREAD,
    Hyperparameters,
    default_hyperparameters,
)

# Variance of a row that says nothing of a metric: here it cannot be cut out, so it is drowned.
_NO_READING = 1e8


class SharedNoiseLikelihood(FixedNoiseGaussianLikelihood):  # type: ignore[misc]  # untyped
    """Known noise whose errors are shared between rows: a whole matrix for the training data."""

    def __init__(self, noise: Tensor, shared: Tensor | None) -> None:
        super().__init__(noise=noise)
        self.shared = shared

    def _shaped_noise_covar(self, base_shape: Any, *params: Any, **kwargs: Any) -> Any:
        own = super()._shaped_noise_covar(base_shape, *params, **kwargs)
        if self.shared is None or base_shape[-1] != self.shared.shape[-1]:
            return own
        return to_linear_operator(own.to_dense() + self.shared)


class ExactGP(gpytorch.models.ExactGP):  # type: ignore[misc]  # untyped
    """Constant mean and Matern 5/2 with one lengthscale per dimension, batched over metrics.

    With the priors that ours is fitted with, so that ``ExactMarginalLogLikelihood`` is the same.
    """

    def __init__(self, x: Tensor, y: Tensor, likelihood: SharedNoiseLikelihood) -> None:
        super().__init__(x, y, likelihood)
        medians = default_hyperparameters(1, x.shape[-1], x)
        batch = torch.Size([y.shape[0]])

        def number(value: float) -> Tensor:  # in the data's precision, not the global default
            return x.new_tensor(value)

        self.mean_module = ConstantMean(
            batch_shape=batch, constant_prior=NormalPrior(number(0.0), number(CONSTANT_SPREAD))
        )
        length, scale = medians.lengthscale[0, 0].log(), medians.outputscale[0].log()
        matern = MaternKernel(
            nu=2.5,
            ard_num_dims=x.shape[-1],
            batch_shape=batch,
            lengthscale_prior=LogNormalPrior(length, number(LENGTHSCALE_SPREAD)),
        )
        self.covar_module = ScaleKernel(
            matern,
            batch_shape=batch,
            outputscale_prior=LogNormalPrior(scale, number(OUTPUTSCALE_SPREAD)),
        )
        self.to(x)

    def forward(self, x: Tensor) -> Any:
        """Prior at ``x``."""
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def as_gpytorch(
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    shared: Tensor | None,
    hyperparameters: Hyperparameters,
) -> ExactGP:
    """In evaluation mode; ``x (n, dims)``, the others ``(metrics, n)`` and ``(metrics, n, n)``."""
    finite = torch.where(noise.isfinite(), noise, _NO_READING)
    inputs = x.expand(len(y), *x.shape)
    model = ExactGP(inputs, y, SharedNoiseLikelihood(finite, shared))
    model.covar_module.base_kernel.lengthscale = hyperparameters.lengthscale.unsqueeze(-2)
    model.covar_module.outputscale = hyperparameters.outputscale
    model.mean_module.constant.data.copy_(hyperparameters.constant)
    model.eval()
    return model
