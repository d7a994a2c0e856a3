"""Evidence of any size reduced to a likelihood of a function at a few inducing points.

With inducing points Z, L L' = k(Z, Z) and the function in units of its own spread,

    f(x) / a = k(x, Z) L'^-1 u + rest,        u ~ N(0, I)

rows of evidence become a precision and an information vector of ``u``: a likelihood
exp(-u' A u / 2 + b' u + c). The variance of a row that the inducing points do not explain,
1 - k(x, Z) k(Z, Z)^-1 k(Z, x), is added to its noise, so no row is overconfident.

Source: Snelson and Ghahramani (2006), Sparse Gaussian processes using pseudo-inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...surrogate.kernels import matern52

# Prior variance of a domain's offset, in units of its spread squared: controls differ between
# domains, which shifts every delta.
OFFSET_VAR = 4.0
_JITTER = 1e-8
# Noise variance of the points that evidence is projected to in ``at_points``; it keeps their
# covariance well conditioned.
_BLUR = 1e-4
# Directions with less precision than this, against the prior's 1, are dropped.
_LEAST_PRECISION = 1e-6


class Inducing(NamedTuple):
    """Points ``z (m, dims)``, ``lengthscale (metrics, dims)``, ``root (metrics, m, m)``.

    ``root`` is the Cholesky factor of the correlation matrix of ``z``.
    """

    z: Tensor
    lengthscale: Tensor
    root: Tensor

    def project(self, x: Tensor) -> Tensor:
        """``k(x, Z) L'^-1`` of points ``(n, dims)``, ``(metrics, n, m)``."""
        k = matern52(x, self.z, self.lengthscale)
        half: Tensor = torch.linalg.solve_triangular(self.root, k.mT, upper=False)
        return half.mT


class Reduced(NamedTuple):
    """Evidence on ``u``: ``precision (*batch, m, m)``, ``information (*batch, m)``, ``constant``.

    The log likelihood of ``u`` is ``constant - u' precision u / 2 + information' u``.
    """

    precision: Tensor
    information: Tensor
    constant: Tensor


class Spectrum(NamedTuple):
    """``Reduced`` in the eigenbasis of its precision: the columns of ``basis (*batch, m, k)``.

    ``precision (*batch, k)`` holds the eigenvalues, ``information (*batch, k)`` is in that basis.
    """

    basis: Tensor
    precision: Tensor
    information: Tensor


def most_informative(x: Tensor, noise: Tensor, lengthscale: Tensor, most: int) -> Tensor:
    """The most informative rows about a function of unit spread, best first; at most ``most``.

    Greedy: each next row has the largest ratio of remaining variance to noise. Rows that would add
    less than a thousandth of a nat are left out.

    Args:
        x: ``(n, dims)``.
        noise: ``(n,)`` variances in units of the function's, above 0; infinite without evidence.
        lengthscale: ``(metrics, dims)``; correlations are averaged over metrics.
        most: largest number of rows.
    Source: Krause, Singh and Guestrin (2008), Near-optimal sensor placements.
    """
    remaining = torch.ones_like(noise)
    columns = x.new_empty(0, len(x))  # of the Cholesky factor of the chosen rows' covariance
    rows: list[int] = []
    for _ in range(min(most, len(x))):
        gain = remaining / noise
        gain[rows] = 0.0
        best = int(gain.argmax())
        if float(gain[best]) < 2e-3:
            break
        k = matern52(x[best : best + 1], x, lengthscale).mean(0)[0]
        column = (k - columns[:, best] @ columns) / (remaining[best] + noise[best]).sqrt()
        columns = torch.cat([columns, column.unsqueeze(0)])
        remaining = (remaining - column.square()).clamp_min(0.0)
        rows.append(best)
    return torch.tensor(rows, dtype=torch.long, device=x.device)


def choose(x: Tensor, lengthscale: Tensor, most: int) -> Inducing:
    """Inducing points among ``x (n, dims)``: greedily, those that explain most variance."""
    rows = most_informative(x, x.new_full((len(x),), 1e-3), lengthscale, most)
    z = x[rows]
    k = matern52(z, z, lengthscale)
    k.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    return Inducing(z, lengthscale, torch.linalg.cholesky(k))


def reduce(
    projected: Tensor, y: Tensor, noise: Tensor, shared: Tensor | None, offset_var: Tensor | float
) -> Reduced:
    """The likelihood of ``u`` given rows of evidence.

    Args:
        projected: ``(*batch, n, m)`` from ``Inducing.project``.
        y: ``(*batch, n)`` in units of the function's spread.
        noise: ``(*batch, n)`` variances in that unit squared; infinite where not observed.
        shared: ``(*batch, n, n)`` covariance between errors, zero diagonal, or None.
        offset_var: variance of an unknown offset common to all rows, ``(*batch,)`` or one number.
    """
    observed = noise.isfinite()
    unexplained = (1.0 - projected.square().sum(-1)).clamp_min(0.0)
    mask = observed.to(y)
    offset = torch.as_tensor(offset_var, dtype=y.dtype, device=y.device)[..., None, None]
    system = offset * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    if shared is not None:
        system = system + shared
    diagonal = torch.where(observed, noise + unexplained, 1.0)
    root = torch.linalg.cholesky(system + torch.diag_embed(diagonal))
    columns = torch.cat([projected, y.nan_to_num().unsqueeze(-1)], dim=-1) * mask.unsqueeze(-1)
    half = torch.linalg.solve_triangular(root, columns, upper=False)
    left, right = half[..., :-1], half[..., -1:]
    volume = (root.diagonal(dim1=-2, dim2=-1).log() * mask).sum(-1)
    constant = -0.5 * right.square().sum((-2, -1)) - volume
    return Reduced(left.mT @ left, (left.mT @ right).squeeze(-1), constant)


def at_points(reduced: Reduced, projected: Tensor) -> Reduced:
    """The evidence about the function at some points alone; elsewhere it carries no information.

    Args:
        reduced: without leading axes.
        projected: ``(points, m)`` from ``Inducing.project``.
    """
    precision, information, constant = reduced
    unit = torch.eye(len(precision), dtype=precision.dtype, device=precision.device)
    root = torch.linalg.cholesky(unit + precision)
    spread = torch.linalg.solve_triangular(root, projected.mT, upper=False)
    mean = projected @ torch.cholesky_solve(information.unsqueeze(-1), root)
    blur = _BLUR * torch.eye(len(projected), dtype=precision.dtype, device=precision.device)
    after = torch.linalg.cholesky(spread.mT @ spread + blur)
    before = torch.linalg.cholesky(projected @ projected.mT + blur)
    solved = torch.cholesky_solve(projected, after)
    gained = projected.mT @ (solved - torch.cholesky_solve(projected, before))
    return Reduced((gained + gained.mT) / 2, (solved.mT @ mean).squeeze(-1), constant)


def spectrum(reduced: Reduced) -> Spectrum:
    """The same in the eigenbasis of the precision, without directions that carry no information."""
    eigen, basis = torch.linalg.eigh(reduced.precision)
    kept = max(1, int((eigen > _LEAST_PRECISION).sum(-1).max()))  # eigenvalues ascend
    information = (basis.mT @ reduced.information.unsqueeze(-1)).squeeze(-1)
    return Spectrum(basis[..., -kept:], eigen[..., -kept:].clamp_min(0.0), information[..., -kept:])
