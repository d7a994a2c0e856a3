"""Fused Triton kernels for a CUDA card; the PyTorch code beside each call is their definition.

Callers ask ``usable`` first and run the PyTorch code where it is False: on the CPU, which has
compiled kernels of its own, for other dtypes, under autograd, ``torch.compile`` or ``vmap``, and
where Triton is not there or does not fit, which is logged once. Triton is imported only for tensors
on a card.
"""

from __future__ import annotations

from torch import Tensor

from ..operands import plain
from . import build

#: Up to so many paths the fused kernel is used; more are a matrix product.
MAX_PATHS = 8
#: Candidates up to which the inverse factor is held beside the factor for ``explained``.
MAX_ROWS = 4096


def usable(*tensors: Tensor) -> bool:
    """Whether the fused kernels can be used.

    Args:
        tensors: every floating tensor that a kernel reads or writes, or that these are made from.
    """
    device = tensors[0].device
    return device.type == "cuda" and plain(*tensors) and build.works(device)


def paths(
    x: Tensor, scale: Tensor, data: Tensor, update: Tensor, omega: Tensor, waves: Tensor
) -> Tensor:
    """Paths of all metrics at points, ``(metrics, points, paths)``; nothing else so large.

    ``x (points, dims)`` in the unit cube, ``scale (metrics, dims)`` = sqrt(5) / lengthscale, ``data
    (metrics, dims, n)`` so scaled, ``omega (dims, waves)`` for points so scaled; ``update (metrics,
    paths, n)`` and ``waves (metrics, paths, 2 waves)``: of the cosines, then of the sines.
    """
    from .covariances import paths as kernel

    return kernel(x, scale, data, update, omega, waves)


def explained(
    x: Tensor, scale: Tensor, data: Tensor, amplitude: Tensor, inverse: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """``k w`` and ``|L^-1 k|^2``, each ``(metrics, points)``; the covariances k are not stored.

    ``x``, ``scale`` and ``data`` as for ``paths``; ``amplitude (metrics, n)`` times the correlation
    is k; ``inverse (metrics, n, n)`` is the inverse factor's transpose, an upper triangle, and
    ``weights (metrics, n)`` is w.
    """
    from .covariances import explained as kernel

    return kernel(x, scale, data, amplitude, inverse, weights)


def stream(
    moments: tuple[Tensor, Tensor, Tensor],
    control: tuple[Tensor, Tensor, Tensor, Tensor],
    state: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Pool a round into ``state`` in place, see ``stats.evidence.stream``; it is contiguous."""
    from .moments import stream as kernel

    kernel(moments, control, state)
