"""Kernels of users, as factories of the dimensions: the race takes them by their references.

Initial values are fixed or drawn from a fixed seed, since a study is planned again from them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.kernels import Kernel, PeriodicKernel, RBFKernel, ScaleKernel, SpectralMixtureKernel
from gpytorch.priors import LogNormalPrior
from torch import Tensor


def periodic(dims: int) -> Kernel:
    """Periods near twice the width of the space, so that a metric need not repeat within it."""
    kernel = PeriodicKernel(
        ard_num_dims=dims,
        period_length_prior=LogNormalPrior(math.log(2.0), 0.3),
        lengthscale_prior=LogNormalPrior(0.0, 0.7),
    )
    kernel.period_length = torch.full((1, dims), 2.0)
    return ScaleKernel(kernel, outputscale_prior=LogNormalPrior(0.0, 0.7))


def spectral(dims: int) -> Kernel:
    """Four Gaussians of frequencies, from slow to one cycle over the space, without priors."""
    kernel = SpectralMixtureKernel(num_mixtures=4, ard_num_dims=dims)
    means = torch.linspace(0.0, 1.0, 4).clamp_min(0.02)
    kernel.mixture_means = means[:, None, None].expand(4, 1, dims)
    kernel.mixture_scales = torch.full((4, 1, dims), 0.3)
    kernel.mixture_weights = torch.full((4,), 0.25)
    return kernel


class Features(Kernel):
    """A squared exponential over two features that a network makes of a point."""

    has_lengthscale = False

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        hidden = torch.nn.Linear(dims, 16), torch.nn.Tanh()
        self.network = torch.nn.Sequential(*hidden, torch.nn.Linear(16, 2))
        self.base_kernel = RBFKernel(
            ard_num_dims=2, lengthscale_prior=LogNormalPrior(math.log(0.5), 0.6)
        )

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Any:
        return self.base_kernel(self.network(x1), self.network(x2), diag=diag, **params)


def deep(dims: int) -> Kernel:
    """A kernel over features that are learnt with it."""
    return ScaleKernel(Features(dims), outputscale_prior=LogNormalPrior(0.0, 0.7))
