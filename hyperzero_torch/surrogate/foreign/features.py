"""Features of a GPyTorch kernel: prior draws as functions that are differentiable in x.

    f(x) = phi(x) w,    w standard normal,    phi(x) phi(x')' = k(x, x')

Where a spectral density exists (RBF, Matern, spectral mixture and constant kernels; scaled, added,
or multiplied with each other) phi are random Fourier features; linear and quadratic trends, which
may be added, have features of their own. Any other kernel is drawn exactly and jointly at the data
and at ``NUM_POINTS`` points of a Sobol sequence, and interpolated between them: phi(x) = L^-1 k(U,
x), scaled to the exact prior variance at each x. That is exact at the points, and costs a
factorisation of n + ``NUM_POINTS`` rows per metric.

Source: Rahimi and Recht (2007); Wilson et al. (2020), Efficiently sampling functions from GP
posteriors, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from gpytorch.kernels import (
    AdditiveKernel,
    ConstantKernel,
    IndexKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    ProductKernel,
    RBFKernel,
    ScaleKernel,
    SpectralMixtureKernel,
)
from torch import Tensor

from ...errors import FitError
from ..factors import cholesky
from .descriptor import sobol_points
from .prior import MetricPrior
from .trend import QuadraticKernel, quadratic_features

#: Points of exact joint draws beside the data, for kernels without a spectral density.
NUM_POINTS = 768
_MOST_FREQUENCIES, _LEAST_FREQUENCIES = 512, 128

#: ``(N, dims)`` to ``(N, features)``.
Features: TypeAlias = Callable[[Tensor], Tensor]


class _Term(NamedTuple):
    """``variance`` times a stationary kernel with frequencies ``omega (num, dims)``.

    Or times the linear kernel ``x w w' x'`` with weights ``linear (dims,)``, or times a quadratic
    trend in the dimensions ``quadratic (k,)``.
    """

    variance: Tensor
    omega: Tensor | None = None
    linear: Tensor | None = None
    quadratic: Tensor | None = None


def features(prior: MetricPrior, x: Tensor, generator: torch.Generator | None) -> Features:
    """Features of a prior's kernel.

    Args:
        prior: one metric's.
        x: ``(n, dims)`` the data.
        generator: of the frequencies; on the device of ``x``.
    """
    kernel = getattr(prior, "kernel", None)
    over_tasks = None if kernel is None else _over_tasks(kernel, x, generator)
    if over_tasks is not None:
        return over_tasks
    terms = None if kernel is None else _terms(kernel, x, _num_frequencies(kernel), generator)
    return _interpolated(prior, x) if terms is None else _fourier(terms)


def split_kernel(kernel: Kernel | None) -> tuple[Kernel, Kernel] | None:
    """The parts of a product of a kernel over points and one over metrics; None for any other."""
    parts = list(kernel.kernels) if isinstance(kernel, ProductKernel) else []
    over_tasks = [part for part in parts if isinstance(part, IndexKernel)]
    if len(parts) != 2 or len(over_tasks) != 1:
        return None
    (tasks,) = over_tasks
    return (parts[0] if parts[1] is tasks else parts[1]), tasks


def _over_tasks(kernel: Kernel, x: Tensor, generator: torch.Generator | None) -> Features | None:
    """Of a product with a covariance of metrics, whose number is the last column; None for others.

    phi(x, i) = phi(x) (x) L_i with B = L L': independent draws of the kernel over x, mixed.
    """
    split = split_kernel(kernel)
    if split is None:
        return None
    over_points, tasks = split
    num_tasks = tasks.raw_var.shape[-1]
    points = x.new_zeros(num_tasks, x.shape[1])
    points[:, -1] = torch.arange(num_tasks)
    root = cholesky(tasks(points, points).to_dense().detach().clone())
    terms = _terms(over_points, x, _num_frequencies(over_points), generator)
    if terms is None:
        raise FitError(
            f"a kernel over points and metrics needs a spectral density, {type(over_points)} has "
            "none; take RBF or Matern kernels, scaled, added or multiplied"
        )
    phi = _fourier(terms)

    def evaluate(at: Tensor) -> Tensor:
        by_point, by_task = phi(at), root[at[..., -1].long()]
        return (by_point.unsqueeze(-1) * by_task.unsqueeze(-2)).flatten(-2)

    return evaluate


def has_spectral_density(kernel: Kernel, dims: int) -> bool:
    """Whether draws of a kernel are made of random Fourier features."""
    at = torch.zeros(1, dims, dtype=torch.float64)
    return _terms(kernel, at, 1, torch.Generator().manual_seed(0)) is not None


def _fourier(terms: list[_Term]) -> Features:
    def evaluate(x: Tensor) -> Tensor:
        columns = []
        for term in terms:
            if term.omega is not None:
                phase = x @ term.omega.T
                size = (term.variance / len(term.omega)).sqrt()
                columns.append(size * torch.cat([phase.cos(), phase.sin()], dim=-1))
            elif term.linear is not None:
                columns.append(term.variance.sqrt() * x * term.linear)
            elif term.quadratic is not None:
                columns.append(term.variance.sqrt() * quadratic_features(x[..., term.quadratic]))
            else:
                columns.append(term.variance.sqrt() * torch.ones_like(x[..., :1]))
        return torch.cat(columns, dim=-1)

    return evaluate


@torch.no_grad()
def _interpolated(prior: MetricPrior, x: Tensor) -> Features:
    points = torch.cat([x, sobol_points(NUM_POINTS, x)])
    factor = cholesky(prior.cross(points, points))

    def evaluate(at: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(factor, prior.cross(points, at), upper=False).T
        explained = half.square().sum(-1, keepdim=True)
        # Between the points an interpolation lacks variance; the exact one is known.
        variance = prior.variance(at).unsqueeze(-1)
        scale = variance.clamp_min(0) / explained.clamp_min(1e-12 * variance.clamp_min(1e-300))
        scaled: Tensor = half * scale.clamp_min(1e-12).sqrt()
        return scaled

    return evaluate


def _num_frequencies(kernel: Kernel) -> int:
    kinds = RBFKernel | MaternKernel | SpectralMixtureKernel
    parts = sum(isinstance(part, kinds) for part in kernel.modules())
    return max(_LEAST_FREQUENCIES, min(_MOST_FREQUENCIES, 2 * _MOST_FREQUENCIES // max(1, parts)))


def _terms(
    kernel: Kernel, like: Tensor, num: int, generator: torch.Generator | None
) -> list[_Term] | None:
    """Terms whose sum is the kernel; None where it has none. By exact type: a subclass may differ.

    Frequencies and weights are over the dimensions of ``like``, the kernel's input.
    """
    dims = like.shape[1]
    active = torch.arange(dims, device=like.device)
    if kernel.active_dims is not None:
        active = active[kernel.active_dims.to(like.device)]
    inner = _terms_within(kernel, like[:, active], num, generator)
    if inner is None:
        return None

    def spread(rows: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        whole = rows.new_zeros(*rows.shape[:-1], dims)
        whole[..., active] = rows
        return whole

    return [
        t._replace(
            omega=spread(t.omega),
            linear=spread(t.linear),
            quadratic=None if t.quadratic is None else active[t.quadratic],
        )
        for t in inner
    ]


def _terms_within(
    kernel: Kernel, like: Tensor, num: int, generator: torch.Generator | None
) -> list[_Term] | None:
    """Terms over the kernel's own dimensions."""
    if kernel.batch_shape:
        return None
    unit = like.new_ones(())
    kind = type(kernel)
    if kind is RBFKernel:
        omega = _normal(num, like.shape[1], like, generator)
        return [_Term(unit, omega / kernel.lengthscale.detach())]
    if kind is MaternKernel:
        omega = _student(num, like.shape[1], round(2 * kernel.nu), like, generator)
        return [_Term(unit, omega / kernel.lengthscale.detach())]
    if kind is SpectralMixtureKernel:
        variance = kernel.mixture_weights.detach().sum() ** like.shape[1]
        return [_Term(variance, _mixture(kernel, like, num, generator))]
    if kind is LinearKernel:
        weights = kernel.variance.detach().sqrt().reshape(-1)
        return [_Term(unit, linear=weights.expand(like.shape[1]))]
    if kind is QuadraticKernel:
        return [_Term(unit, quadratic=torch.arange(like.shape[1], device=like.device))]
    if kind is ConstantKernel:
        return [_Term(kernel.constant.detach().reshape(()))]
    if kind is ScaleKernel:
        # It has the active dims of what it scales, which does not select again.
        parts = _terms_within(kernel.base_kernel, like, num, generator)
        by = kernel.outputscale.detach()
        return None if parts is None else [t._replace(variance=t.variance * by) for t in parts]
    if kind is AdditiveKernel or kind is ProductKernel:
        listed = [_terms(part, like, num, generator) for part in kernel.kernels]
        factors = [part for part in listed if part is not None]
        if len(factors) < len(listed):
            return None
        if kind is AdditiveKernel:
            return [term for part in factors for term in part]
        return _product(factors)
    return None


def _product(factors: list[list[_Term]]) -> list[_Term] | None:
    """A product of stationary kernels: frequencies of independent draws add up."""
    lone = [part[0] for part in factors if len(part) == 1]
    single = [term for term in lone if term.linear is None and term.quadratic is None]
    if len(single) < len(factors):
        return None
    variance = torch.stack([term.variance.reshape(()) for term in single]).prod()
    omegas = [term.omega for term in single if term.omega is not None]
    return [_Term(variance, torch.stack(omegas).sum(0) if omegas else None)]


def _mixture(
    kernel: SpectralMixtureKernel, like: Tensor, num: int, generator: torch.Generator | None
) -> Tensor:
    """Frequencies of a spectral mixture, ``(num, dims)``.

    GPyTorch's is a product over dimensions of mixtures with the same weights. So each dimension
    draws its component, and a frequency that is normal about that component's mean or its negative.

    Source: Wilson and Adams (2013), Gaussian process kernels for pattern discovery, Eq. 12.
    """
    dims = like.shape[1]
    means, scales = (
        field.detach().squeeze(-2) for field in (kernel.mixture_means, kernel.mixture_scales)
    )
    weights = kernel.mixture_weights.detach()
    drawn = torch.multinomial(weights, num * dims, replacement=True, generator=generator)
    at = (drawn.reshape(num, dims), torch.arange(dims, device=like.device))
    sign = _normal(num, dims, like, generator).sign()
    frequency: Tensor = sign * means[at] + _normal(num, dims, like, generator) * scales[at]
    return 2 * math.pi * frequency


def _normal(num: int, dims: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(num, dims, dtype=like.dtype, device=like.device, generator=generator)


def _student(
    num: int, dims: int, degrees: int, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """The spectral measure of a Matern kernel: a multivariate Student t with 2 nu degrees."""
    chi_square = _normal(num, degrees, like, generator).square().sum(-1, keepdim=True)
    omega = _normal(num, dims, like, generator)
    return omega * math.sqrt(degrees) / chi_square.sqrt()
