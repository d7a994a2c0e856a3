"""A quadratic trend as a GPyTorch kernel: a surface with unknown slopes and curvatures."""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.kernels import Kernel
from torch import Tensor


class QuadraticKernel(Kernel):  # type: ignore[misc]  # untyped
    """Quadratic functions of x about the centre of the unit cube.

        k(x, x') = (a + a^2) / 2,    a = u'u' / dims,    u = 2 x - 1

    It is 1 at the corners, 0 at the centre; scale it, and add another kernel for what is left.
    """

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        """Covariance ``(..., N, n)``, or its diagonal ``(..., N)``."""
        u, v = 2 * x1 - 1, 2 * x2 - 1
        along = (u * v).sum(-1) if diag else u @ v.mT
        along = along / x1.shape[-1]
        return 0.5 * (along + along.square())


def quadratic_features(x: Tensor) -> Tensor:
    """``(N, dims)`` to ``(N, dims + dims^2)``: inner products are ``QuadraticKernel``."""
    u = 2 * x - 1
    dims = x.shape[-1]
    products = (u.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)
    return torch.cat([u / (2 * dims) ** 0.5, products / (2**0.5 * dims)], dim=-1)
