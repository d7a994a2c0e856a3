"""One metric's prior as GPyTorch modules state it: a mean and a kernel over the unit cube.

Both act on standardised outputs. Covariances are dense, in float64, differentiable in the points
and in the modules' parameters.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Self

import torch
from gpytorch.kernels import AdditiveKernel, Kernel, ProductKernel, ScaleKernel
from gpytorch.means import Mean
from torch import Tensor, nn

from ..kernels import default_hyperparameters


class MetricPrior(nn.Module):
    """A Gaussian process's mean and kernel; copied, in float64, in evaluation mode.

    In training mode a network's dropout or batch normalisation would make a covariance depend on
    the points that are evaluated with it.

    Args:
        mean: a GPyTorch mean.
        kernel: a GPyTorch kernel without batch dimensions.
    """

    def __init__(self, mean: Mean, kernel: Kernel) -> None:
        super().__init__()
        self.mean_module = copy.deepcopy(mean).double()
        self.kernel = copy.deepcopy(kernel).double()
        self.eval()

    def mean(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(N,)``."""
        value: Tensor = self.mean_module(x)
        return value

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariance of two sets of points, ``(N, n)``."""
        return _dense(self.kernel, a, b)

    def variance(self, x: Tensor) -> Tensor:
        """Prior variance of points, ``(N,)``."""
        value: Tensor = self.kernel(x, diag=True)
        return value

    def log_prior(self) -> Tensor:
        """Log density of the modules' own priors on their parameters."""
        total = torch.zeros((), dtype=torch.float64)
        for module in self.parts():
            for _, parent, density, closure, _ in module.named_priors():
                total = total.to(closure(parent)) + density.log_prob(closure(parent)).sum()
        return total

    @torch.enable_grad()
    def num_without_prior(self) -> int:
        """How many fitted numbers no prior restrains."""
        fitted = [parameter for parameter in self.parameters() if parameter.requires_grad]
        density = self.log_prior()
        if not density.requires_grad:
            return sum(parameter.numel() for parameter in fitted)
        slopes = torch.autograd.grad(density, fitted, allow_unused=True)
        return sum(p.numel() for p, slope in zip(fitted, slopes) if slope is None)

    def lengthscale(self, like: Tensor) -> Tensor:
        """See ``shortest_lengthscale``."""
        return shortest_lengthscale(self.kernel, like)

    def copied(self) -> Self:
        """An independent copy."""
        return copy.deepcopy(self).eval()

    def with_mean_of(self, fitted: Self) -> Self:
        """A copy that has the other's mean."""
        copied, values = self.copied(), dict(fitted.named_parameters())
        for name, parameter in copied.named_parameters():
            if "mean_module" in name.split("."):
                parameter.data.copy_(values[name].data)
        return copied

    def parts(self) -> list[Any]:
        """The GPyTorch modules that it consists of."""
        return [self.mean_module, self.kernel]


def _dense(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """Covariance of two sets of points, with sums and products of kernels taken on dense matrices.

    GPyTorch adds a linear kernel to another one together with a root of their sum, for which it
    factorises the other's matrix. Nothing here needs that root, and the matrix may be singular.
    """
    if type(kernel) is ScaleKernel and _selects_as_its_base(kernel):
        scale: Tensor = kernel.outputscale
        return _dense(kernel.base_kernel, a, b) * scale
    if type(kernel) in (AdditiveKernel, ProductKernel):
        if kernel.active_dims is not None:
            a, b = (points.index_select(-1, kernel.active_dims) for points in (a, b))
        parts = [_dense(part, a, b) for part in kernel.kernels]
        combine = torch.add if type(kernel) is AdditiveKernel else torch.mul
        return functools.reduce(combine, parts)
    value: Tensor = kernel(a, b).to_dense()
    return value


def _selects_as_its_base(kernel: ScaleKernel) -> bool:
    own, base = kernel.active_dims, kernel.base_kernel.active_dims
    return own is base or (own is not None and base is not None and torch.equal(own, base))


def shortest_lengthscale(kernel: Kernel | None, like: Tensor) -> Tensor:
    """The shortest lengthscale of a kernel's parts in each dimension of ``like``, ``(dims,)``.

    Dimensions without any have the default's.
    """
    dims = like.shape[1]
    shortest = like.new_full((dims,), torch.inf)
    for part, active in [] if kernel is None else _leaves(kernel, torch.arange(dims)):
        if part.has_lengthscale:
            scale = part.lengthscale.detach().to(like).reshape(-1)
            scale = scale.expand(len(active)) if len(scale) == 1 else scale
            if len(scale) == len(active):
                shortest[active] = shortest[active].minimum(scale)
    usual = default_hyperparameters(1, dims, like).lengthscale[0]
    return torch.where(shortest.isfinite() & (shortest > 0), shortest, usual)


def _leaves(kernel: Kernel, dims: Tensor, is_selected: bool = False) -> list[tuple[Kernel, Tensor]]:
    """Kernels without parts, each with the dimensions that reach it."""
    if kernel.active_dims is not None and not is_selected:
        if int(kernel.active_dims.max()) >= len(dims):  # an unusual wrapper selects differently
            return []
        dims = dims[kernel.active_dims.cpu()]
    if isinstance(kernel, ScaleKernel):  # it has the active dims of what it scales
        return _leaves(kernel.base_kernel, dims, is_selected=True)
    parts = [part for part in kernel.children() if isinstance(part, Kernel)]
    parts += [k for ml in kernel.children() if isinstance(ml, nn.ModuleList) for k in ml]
    if not parts:
        return [(kernel, dims)]
    return [leaf for part in parts for leaf in _leaves(part, dims)]
