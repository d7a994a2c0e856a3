"""Small families with a known share: sources and a target that are draws of the model itself."""

import math

import torch
from torch import Tensor

from hyperzero_torch.surrogate import Posterior, Surrogate
from hyperzero_torch.surrogate.kernels import matern52
from hyperzero_torch.transfer.alignment import Aligned

LENGTHSCALE = torch.tensor([[0.4]], dtype=torch.float64)
SPREAD = 0.02


def drawn(x: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Functions ``(domains, n)`` at ``x (n, dims)``, of share ``share (domains,)``, spread 1."""
    lengthscale = LENGTHSCALE.expand(1, x.shape[1])
    k = matern52(x, x, lengthscale)[0] + 1e-9 * torch.eye(len(x), dtype=x.dtype)
    root = torch.linalg.cholesky(k)
    normal = torch.randn(len(share) + 1, len(x), dtype=x.dtype, generator=generator)
    function = normal @ root.T
    own = (1 - share.square()).sqrt().unsqueeze(1)
    return share.unsqueeze(1) * function[0] + own * function[1:]


def family(
    share: float,
    num: int = 3,
    seed: int = 0,
    rows: int = 40,
    noise: float = 0.3,
    dims: int = 2,
    target_share: float | None = None,
) -> tuple[list[Aligned], Tensor, Tensor, Tensor, Tensor]:
    """Sources, and a target's ``x``, ``mean``, ``var`` and truth, one metric, in units of 0.02."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((num + 1) * rows, dims, dtype=torch.float64, generator=generator)
    shares = torch.full((num + 1,), share, dtype=torch.float64)
    if target_share is not None:
        shares[-1] = target_share
    truth = SPREAD * drawn(x, shares, generator)
    parts = x.split(rows)
    std = noise * SPREAD
    sources = []
    for i in range(num):
        mean = truth[i].split(rows)[i].unsqueeze(1)
        mean = mean + std * torch.randn(mean.shape, dtype=x.dtype, generator=generator)
        sources.append(aligned(f"source_{i}", parts[i], mean, std**2))
    own = truth[-1].split(rows)[-1].unsqueeze(1)
    mean = own + std * torch.randn(own.shape, dtype=x.dtype, generator=generator)
    return sources, parts[-1], mean, torch.full_like(mean, std**2), own


def aligned(name: str, x: Tensor, mean: Tensor, var: float) -> Aligned:
    """A source as ``align`` makes it."""
    return Aligned(
        name=name, x=x, mean=mean, var=torch.full_like(mean, var), meta={}, shared=None,
        base=None, rows=tuple(range(len(x))), num_outside=0, num_silent=0, missing=(), ignored=(),
    )  # fmt: skip


def cold(x: Tensor, mean: Tensor, var: Tensor) -> Posterior:
    """The target by itself."""
    return Surrogate().fit(x, mean, var)


def filling(dims: int = 2) -> Tensor:
    """Points all over the cube."""
    return torch.quasirandom.SobolEngine(dims, scramble=True, seed=0).draw(128, dtype=torch.float64)


def normal_log_density(value: Tensor, covariance: Tensor) -> float:
    """Of a vector with mean 0."""
    root = torch.linalg.cholesky(covariance)
    half = torch.linalg.solve_triangular(root, value.unsqueeze(-1), upper=False)
    size = len(value) * math.log(2 * math.pi)
    return float(-0.5 * half.square().sum() - root.diagonal().log().sum() - 0.5 * size)
