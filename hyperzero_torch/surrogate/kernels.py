"""The Matern 5/2 kernel, its hyperparameters and priors, and its random Fourier features.

k(r) = (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r),      r = |(x - x') / lengthscale|
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime import native

_SMOOTHNESS = 2.5
# Standard deviations of the priors on log lengthscale, log outputscale and constant.
LENGTHSCALE_SPREAD = 0.6
OUTPUTSCALE_SPREAD = 0.7
CONSTANT_SPREAD = 1.0
#: Median of the prior on the outputscale, in standardised units.
OUTPUTSCALE_MEDIAN = 1.4


class Hyperparameters(NamedTuple):
    """Of each metric's kernel, on outputs standardised by the surrogate.

    ``lengthscale (metrics, dims)``, ``outputscale (metrics,)`` (variance), ``constant (metrics,)``.
    """

    lengthscale: Tensor
    outputscale: Tensor
    constant: Tensor


def default_hyperparameters(num_metrics: int, dims: int, like: Tensor) -> Hyperparameters:
    """The medians of the priors: the start of a first fit, and the fallback of a failed one."""
    # Distances in the unit cube grow with sqrt(dims), and so must the lengthscale (Hvarfner,
    # Hellsten and Nardi, 2024). Short, and an outputscale above the standardised variance of 1:
    # where the data are not informative, a long lengthscale and little signal would be
    # overconfident.
    lengthscale = like.new_full((num_metrics, dims), 0.35 * math.sqrt(dims))
    outputscale = like.new_full((num_metrics,), OUTPUTSCALE_MEDIAN)
    return Hyperparameters(lengthscale, outputscale, like.new_zeros(num_metrics))


def matern52(a: Tensor, b: Tensor, lengthscale: Tensor) -> Tensor:
    """Correlation between two sets of points, for every metric.

    Args:
        a: ``(..., N, dims)``, in the unit cube.
        b: ``(n, dims)``.
        lengthscale: ``(metrics, dims)``.
    Returns:
        ``(metrics, ..., N, n)``, in [0, 1].
    Source: Rasmussen and Williams (2006), Eq. 4.17.
    """
    square = _square(a, b, lengthscale)
    r = square.sqrt()
    return (1 + r + square / 3) * torch.exp(-r)


def on_card(*tensors: Tensor) -> bool:
    """Whether to use forms for a card: no gradient is wanted, and nothing is compiled."""
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    on_cpu = any(t.device.type == "cpu" for t in tensors)
    return not (on_cpu or wants_gradient or torch.compiler.is_compiling())


def matern52_in_place(x: Tensor, scale: Tensor, data: Tensor) -> Tensor:
    """``matern52`` where no gradient is wanted: few launches, and two arrays of the result's size.

    For a card; the CPU has a compiled kernel.

    Args:
        x: ``(N, dims)``, in the unit cube.
        scale: ``(metrics, dims)``, sqrt(5) / lengthscale.
        data: ``(metrics, dims, n)``, points times ``scale``.
    Returns:
        ``(metrics, N, n)``.
    """
    centre = data.mean(-1)
    a = torch.addcmul(-centre.unsqueeze(1), x, scale.unsqueeze(1))
    b = data - centre.unsqueeze(-1)
    square = torch.baddbmm(b.square().sum(1, keepdim=True), a, b, alpha=-2)
    square.add_(a.square().sum(-1, keepdim=True)).clamp_min_(1e-30)
    r = square.sqrt()
    square.div_(3).add_(r).add_(1)
    return square.mul_(r.neg_().exp_())


def gram(x: Tensor, lengthscale: Tensor) -> Tensor:
    """``matern52(x, x, lengthscale)``, ``(metrics, N, N)``; by the compiled kernel where usable."""
    if on_card(x, lengthscale):
        scale = math.sqrt(5) / lengthscale
        return matern52_in_place(x, scale, (x * scale.unsqueeze(1)).mT)
    if not native.usable(len(lengthscale) * len(x) ** 2, x, lengthscale):
        return matern52(x, x, lengthscale)
    k = x.new_empty(len(lengthscale), len(x), len(x))
    for scale, out in zip(math.sqrt(5) / lengthscale, k):
        native.covariance(x * scale, (x * scale).T, out)
    return k


def matern52_slopes(x: Tensor, lengthscale: Tensor, weight: Tensor) -> Tensor:
    """A weighted sum of correlations and its derivatives in the lengthscales; one metric.

    Args:
        x: ``(n, dims)``.
        lengthscale: ``(dims,)``.
        weight: ``(n, n)``, symmetric.
    Returns:
        ``(1 + dims,)``: the sum of ``weight * matern52(x, x)``, then its derivatives in each
        lengthscale's logarithm.
    """
    scaled = x * (math.sqrt(5) / lengthscale)
    if native.usable(weight.numel(), scaled, weight):
        return native.slopes(scaled, weight)
    square = _square(x, x, lengthscale.unsqueeze(0))[0]
    r = square.sqrt()
    falling = weight * torch.exp(-r)
    total = (falling * (1 + r + square / 3)).sum()
    # dk / dlog(l_d) = (1 + r) exp(-r) / 3 times the square's own part in dimension d, and the sum
    # of W_ij (a_i - a_j)^2 is 2 (sum_i a_i^2 W_i. - a' W a); no (n, n, dims) is needed.
    falling = falling.mul_(1 + r)
    scaled = scaled - scaled.mean(0)
    slopes = falling.sum(1) @ scaled.square() - (scaled * (falling @ scaled)).sum(0)
    return torch.cat([total.unsqueeze(0), slopes * (2 / 3)])


def _square(a: Tensor, b: Tensor, lengthscale: Tensor) -> Tensor:
    """Five times the squared distance in lengthscales; shapes as in ``matern52``."""
    shape = (lengthscale.shape[0],) + (1,) * (a.ndim - 1) + (lengthscale.shape[1],)
    scale = lengthscale.view(shape)
    a, b = a / scale, b / scale
    # The expanded square is fast, and inexact only where the kernel is flat; centring on b keeps
    # the terms that cancel small.
    centre = b.mean(-2, keepdim=True)
    a, b = a - centre, b - centre
    square = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
    return 5 * (square - 2 * a @ b.transpose(-1, -2)).clamp_min(1e-30)


def frequencies(num: int, dims: int, generator: torch.Generator | None) -> Tensor:
    """Draws from the spectral measure of ``matern52`` at lengthscale 1, ``(num, dims)``.

    The spectral density of a Matern kernel of smoothness nu is a multivariate Student t with
    2 nu degrees of freedom: a normal over the root of an independent chi-square / (2 nu).

    Source: Rasmussen and Williams (2006), Eq. 4.15; Rahimi and Recht (2007).
    """
    device = generator.device if generator is not None else torch.device("cpu")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, device=device, generator=generator)

    degrees = round(2 * _SMOOTHNESS)
    chi_square = normal(num, degrees).square().sum(-1, keepdim=True)
    return normal(num, dims) / (chi_square / degrees).sqrt()


def features(x: Tensor, omega: Tensor, lengthscale: Tensor) -> Tensor:
    """Random Fourier features whose inner products average to ``matern52``.

    Args:
        x: ``(..., N, dims)``.
        omega: ``(num, dims)`` from ``frequencies``.
        lengthscale: ``(metrics, dims)``.
    Returns:
        ``(metrics, ..., N, 2 * num)``; cosines, then sines.
    """
    shape = (lengthscale.shape[0],) + (1,) * (x.ndim - 1) + (lengthscale.shape[1],)
    phase = (x / lengthscale.view(shape)) @ omega.T
    return torch.cat([phase.cos(), phase.sin()], dim=-1) / math.sqrt(omega.shape[0])
