"""Deltas against one base, as deltas against another: the one of a candidate that becomes the base.

With d the deltas against the old base, b the new base, and s the sign of the old base's level:

    d'_i = (d_i - d_b) / |s + d_b|            (1 + d_i) / (1 + d_b) - 1 for a level above 0

To first order, with a = s + d_b and g_i = sign(a) (s + d_i) / a^2,

    error of d'_i  =  (error of d_i) / |a|  -  g_i (error of d_b)

so the error of the new base is shared by all, also by the old base, whose delta was 0 without
error. The second-order bias of the ratio, g_i var_b / a - sign(a) cov(d_i, d_b) / a^2, is
subtracted.

Before, errors were independent but for those of the controls, which all deltas of a round share:
the covariance C. The error of d_b is split into its part z from these controls and its own part e:

    loadings on z   C_ib / (sqrt(C_bb) |a|) - g_i sqrt(C_bb)
    loadings on e   -g_i sqrt(var_b - C_bb)
    the rest        (C_ij - C_ib C_jb / C_bb) / a^2

Source: the delta method; exact to second order in the mean and to first order in the covariance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError

# The new base's level must be so many standard errors from 0: nothing can be relative to 0.
_FROM_ZERO = 3.0


class Rebased(NamedTuple):
    """Deltas against the new base, ``mean`` and ``var (n, metrics)``.

    The new base's row has a mean and a variance of 0. ``loadings (n, 2, metrics)``: how far one
    standard deviation of the new base's error moves each, its part from the controls first.
    ``scale (metrics,)`` is |s + d_b|. NaN where there is no evidence, or the new base's level is
    not known to differ from 0.
    """

    mean: Tensor
    var: Tensor
    loadings: Tensor
    scale: Tensor


def rebase(mean: Tensor, var: Tensor, with_base: Tensor, base: int, sign: Tensor) -> Rebased:
    """Deltas against another base.

    Args:
        mean: ``(n, metrics)`` against the old base; its own row, if any, has mean and var 0.
        var: variances of ``mean``, the controls' error included.
        with_base: ``(n, metrics)``, covariance with the new base's delta that the controls cause.
        base: row of the new base.
        sign: ``(metrics,)`` of the old base's level, 1 or -1.
    Raises:
        ShapeError: shapes do not fit.
    """
    if not mean.shape == var.shape == with_base.shape or sign.shape != mean.shape[1:]:
        raise ShapeError(
            "rebase expects mean, var and with_base (n, metrics) and sign (metrics,), got "
            f"{tuple(mean.shape)}, {tuple(var.shape)}, {tuple(with_base.shape)} and "
            f"{tuple(sign.shape)}"
        )
    level = sign + mean[base]
    error = var[base].clamp_min(0).sqrt()
    level = torch.where(level.abs() > _FROM_ZERO * error, level, torch.nan)
    scale = level.abs()
    slope = level.sign() * (sign + mean) / level.square()  # g
    bias = slope * var[base] / level - level.sign() * with_base / level.square()
    moved = (mean - mean[base]) / scale - bias
    common = with_base[base].clamp_min(0)
    own = (var[base] - common).clamp_min(0)
    spread = var / scale.square() + slope.square() * var[base] - 2 * slope * with_base / scale
    root = common.sqrt()
    part = torch.where(root > 0, with_base / torch.where(root > 0, root, 1.0), 0.0)
    loadings = torch.stack([part / scale - slope * root, -slope * own.sqrt()], dim=1)
    # Whatever rounding leaves: its delta against itself is 0.
    is_base = (torch.arange(len(mean), device=mean.device) == base).unsqueeze(-1)
    moved = torch.where(is_base & scale.isfinite(), 0.0, moved)
    spread = torch.where(is_base & scale.isfinite(), 0.0, spread.clamp_min(0))
    loadings = torch.where((is_base & scale.isfinite()).unsqueeze(1), 0.0, loadings)
    return Rebased(moved, spread, loadings, scale)


def remaining(shared: Tensor, with_base: Tensor, common: Tensor, scale: Tensor) -> Tensor:
    """The covariance of rebased deltas beside that from the new base's error, ``(metrics, n, n)``.

    Args:
        shared: ``(metrics, n, n)``, covariance from the controls against the old base.
        with_base: ``(n, metrics)``, as in ``rebase``.
        common: ``(metrics,)``, the new base's own such variance, C_bb.
        scale: ``(metrics,)`` of ``rebase``.
    """
    along: Tensor = with_base.T / torch.where(common > 0, common, torch.inf).sqrt().unsqueeze(-1)
    rest: Tensor = shared - along.unsqueeze(-1) * along.unsqueeze(-2)
    rebased: Tensor = rest / scale.square()[:, None, None]
    return rebased


def factors(covariance: Tensor, most: int) -> Tensor:
    """Loadings whose products give a covariance, or nearly: its largest components.

    Args:
        covariance: ``(metrics, n, n)``, positive semi-definite but for rounding.
        most: number of components.
    Returns:
        ``(n, k, metrics)``, k at most ``most`` and n; NaN counts as 0.
    """
    values, vectors = torch.linalg.eigh(covariance.nan_to_num(0.0))
    kept = min(most, covariance.shape[-1])
    values, vectors = values[:, -kept:], vectors[:, :, -kept:]
    loadings: Tensor = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
    return loadings.permute(1, 2, 0)
