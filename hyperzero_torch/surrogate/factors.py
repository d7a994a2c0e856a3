"""Cholesky factors of covariances, and what follows from one without its matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import FitError

#: With more candidates than these, matrices of several metrics are made one after the other, since
#: memory is what then limits a fit.
MOST_AT_ONCE = 4096


def leave_one_out_log_density(cholesky: Tensor, weights: Tensor, observed: Tensor) -> Tensor:
    """Log density of each row predicted from all others, without its constant -log(2 pi) / 2.

    Args:
        cholesky: ``(..., n, n)``, lower factor of the covariance with noise.
        weights: ``(..., n)``, the inverse covariance times the residual.
        observed: ``(..., n)``, 1 where there is a row to predict, else 0.
    Returns:
        ``(..., n)``, 0 where nothing was observed; comparable between fits of the same data.
    Source: Rasmussen and Williams (2006), Eqs. 5.10 to 5.12.
    """
    if cholesky.ndim == 3 and cholesky.shape[-1] > MOST_AT_ONCE:
        systems = zip(cholesky, weights, observed)
        return torch.stack([leave_one_out_log_density(*system) for system in systems])
    precision = torch.cholesky_inverse(cholesky).diagonal(dim1=-2, dim2=-1)
    return 0.5 * (precision.log() - weights.square() / precision) * observed


def cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor, with the least jitter that makes one possible; overwrites ``matrix``.

    Jitter is a fraction of each row's own variance, so one very noisy row does not affect others.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    exact = diagonal.clone()
    for jitter in (0.0, 1e-10, 1e-8, 1e-6):
        diagonal.copy_(exact + jitter * exact)
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(matrix)
        # A value that is not finite anywhere in a row has reached its diagonal.
        finite = factor.diagonal(dim1=-2, dim2=-1).isfinite().all()
        if bool(finite & ~info.any()):
            return factor
    raise FitError(
        "the covariance of the evidence is not positive definite even with jitter 1e-6; "
        "look for NaN or for a variance of 0 among candidates at the same point"
    )
