"""Evidence of any size reduced to what it says at a few common points.

With inducing points Z, L L' = k(Z, Z) and the function in units of its own spread,

    f(x) / a = k(x, Z) L'^-1 u + rest,        u ~ N(0, I)

rows of evidence become a precision and an information vector of ``u``: a likelihood
exp(-u' A u / 2 + b' u + c). What the inducing points cannot say of a row, 1 - k(x, Z) k(Z, Z)^-1
k(Z, x), counts as its own noise, so a row is never taken for surer than it is.

Source: Snelson and Ghahramani (2006), Sparse Gaussian processes using pseudo-inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...surrogate.kernels import matern52

# Variance of a domain's unknown offset, in units of its spread: controls differ between domains,
# and with them the level of every delta.
OFFSET_VAR = 4.0
_JITTER = 1e-8
# Variance of points that evidence is reduced to once more: nothing is known of them any better.
_BLUR = 1e-4
# Of a direction, against the prior's 1, below which it is not worth carrying along.
_LEAST_PRECISION = 1e-6


class Inducing(NamedTuple):
    """Common points ``z (m, dims)``, ``lengthscale (metrics, dims)``, ``root (metrics, m, m)``.

    ``root`` is the Cholesky factor of the correlation of ``z``.
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
    """``Reduced`` in the basis of its precision: ``basis (*batch, m, k)``, columns eigenvectors.

    ``precision (*batch, k)`` are the eigenvalues, ``information (*batch, k)`` in that basis.
    """

    basis: Tensor
    precision: Tensor
    information: Tensor


def most_informative(x: Tensor, noise: Tensor, lengthscale: Tensor, most: int) -> Tensor:
    """Rows that tell most about a function of unit spread, the best first; at most ``most``.

    Greedy: each next row has the largest variance left over its own noise. Rows that would add
    less than a thousandth of a nat are left out.

    Args:
        x: ``(n, dims)``.
        noise: ``(n,)`` variances in units of the function's, above 0; infinite where none.
        lengthscale: ``(metrics, dims)``; correlations are averaged over metrics.
        most: of the rows.
    Source: Krause, Singh and Guestrin (2008), Near-optimal sensor placements.
    """
    left = torch.ones_like(noise)
    known = x.new_empty(0, len(x))
    rows: list[int] = []
    for _ in range(min(most, len(x))):
        gain = left / noise
        gain[rows] = 0.0
        best = int(gain.argmax())
        if float(gain[best]) < 2e-3:
            break
        k = matern52(x[best : best + 1], x, lengthscale).mean(0)[0]
        column = (k - known[:, best] @ known) / (left[best] + noise[best]).sqrt()
        known = torch.cat([known, column.unsqueeze(0)])
        left = (left - column.square()).clamp_min(0.0)
        rows.append(best)
    return torch.tensor(rows, dtype=torch.long, device=x.device)


def choose(x: Tensor, lengthscale: Tensor, most: int) -> Inducing:
    """Inducing points among ``x (n, dims)``: those that explain most of what is left."""
    rows = most_informative(x, x.new_full((len(x),), 1e-3), lengthscale, most)
    z = x[rows]
    k = matern52(z, z, lengthscale)
    k.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    return Inducing(z, lengthscale, torch.linalg.cholesky(k))


def reduce(
    projected: Tensor, y: Tensor, noise: Tensor, shared: Tensor | None, offset_var: Tensor | float
) -> Reduced:
    """What rows of evidence say of ``u``.

    Args:
        projected: ``(*batch, n, m)`` from ``Inducing.project``.
        y: ``(*batch, n)`` in units of the function's spread.
        noise: ``(*batch, n)`` variances in that unit squared; infinite where nothing was observed.
        shared: ``(*batch, n, n)`` covariance between errors, zero diagonal, or None.
        offset_var: variance of an unknown offset common to all rows, ``(*batch,)`` or one number.
    """
    observed = noise.isfinite()
    rest = (1.0 - projected.square().sum(-1)).clamp_min(0.0)
    seen = observed.to(y)
    offset = torch.as_tensor(offset_var, dtype=y.dtype, device=y.device)[..., None, None]
    system = offset * seen.unsqueeze(-1) * seen.unsqueeze(-2)
    if shared is not None:
        system = system + shared
    own = torch.where(observed, noise + rest, 1.0)
    root = torch.linalg.cholesky(system + torch.diag_embed(own))
    columns = torch.cat([projected, y.nan_to_num().unsqueeze(-1)], dim=-1) * seen.unsqueeze(-1)
    half = torch.linalg.solve_triangular(root, columns, upper=False)
    left, right = half[..., :-1], half[..., -1:]
    volume = (root.diagonal(dim1=-2, dim2=-1).log() * seen).sum(-1)
    constant = -0.5 * right.square().sum((-2, -1)) - volume
    return Reduced(left.mT @ left, (left.mT @ right).squeeze(-1), constant)


def at_points(reduced: Reduced, projected: Tensor) -> Reduced:
    """Only what evidence says of the function at some points: of the rest it says nothing.

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
    told = torch.cholesky_solve(projected, after)
    kept = projected.mT @ (told - torch.cholesky_solve(projected, before))
    return Reduced((kept + kept.mT) / 2, (told.mT @ mean).squeeze(-1), constant)


def spectrum(reduced: Reduced) -> Spectrum:
    """The same in the basis of the precision, without directions of which nobody says anything."""
    eigen, basis = torch.linalg.eigh(reduced.precision)
    kept = max(1, int((eigen > _LEAST_PRECISION).sum(-1).max()))  # eigenvalues ascend
    information = (basis.mT @ reduced.information.unsqueeze(-1)).squeeze(-1)
    return Spectrum(basis[..., -kept:], eigen[..., -kept:].clamp_min(0.0), information[..., -kept:])
