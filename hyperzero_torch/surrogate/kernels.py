"""The Matern 5/2 kernel, and its spectral measure for random Fourier features.

k(r) = (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r),      r = |(x - x') / lengthscale|
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMOOTHNESS = 2.5


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
    shape = (lengthscale.shape[0],) + (1,) * (a.ndim - 1) + (lengthscale.shape[1],)
    scale = lengthscale.view(shape)
    a, b = a / scale, b / scale
    # Squared distances by the expanded square are fast, and inexact only where the kernel is flat;
    # centring on b keeps what cancels small.
    centre = b.mean(-2, keepdim=True)
    a, b = a - centre, b - centre
    square = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
    square = (square - 2 * a @ b.transpose(-1, -2)).clamp_min(1e-30)
    r = (5 * square).sqrt()
    return (1 + r + r.square() / 3) * torch.exp(-r)


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
