"""Evidence checked and standardised: what every fit of this room starts from."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import FitError, ShapeError
from ..runtime.memory import require
from .conditioned import Standardiser
from .factors import MOST_AT_ONCE
from .kernels import OUTPUTSCALE_MEDIAN

_NOISE_FLOOR = 1e-6  # GPyTorch's own clamp for double precision
# Matrices (metrics, n, n) to reserve memory for. Metrics are fitted one by one, so several metrics
# need less: four at n = 2000 raised the peak by 3.5 of these (bench.speed.growth).
_COPIES = 12
# A system and its factor, and what the solvers take beside them.
_FACTORISED = 2.25
# Copies of errors that rows share, while they are standardised.
_SHARED_COPIES = 4


class Prepared(NamedTuple):
    """``x (n, dims)``, ``y`` and ``noise`` ``(n, metrics)``, standardised; ``shared`` likewise.

    Where a metric was not observed, ``y`` is 0 and ``noise`` infinite. ``shared`` has a zero
    diagonal.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    shared: Tensor | None
    standardiser: Standardiser


def to_condition(mean: Tensor, shared: Tensor | None) -> float:
    """Matrices ``(metrics, n, n)`` that conditioning on evidence needs memory for, at its peak.

    The system and its factor. With many candidates: all factors, and one metric's system and factor
    in turn. Measured on a CPU: 2.0 for 4 metrics, and 1.5 for 2 metrics and 5000 candidates.
    """
    num, metrics = mean.shape
    alone = num > MOST_AT_ONCE and metrics > 1
    needed = 1 + _FACTORISED / metrics if alone else _FACTORISED
    return needed + (0 if shared is None else _SHARED_COPIES)


def to_fit(mean: Tensor, shared: Tensor | None) -> float:
    """Matrices ``(metrics, n, n)`` that a fit needs memory for, at its peak.

    With many candidates those of conditioning on them, since hyperparameters are then fitted to a
    subset of them.
    """
    return _COPIES if len(mean) <= MOST_AT_ONCE else to_condition(mean, shared)


def prepare(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    shared: Tensor | None,
    prior_std: Tensor | None = None,
    standardiser: Standardiser | None = None,
    matrices: float = _COPIES,
) -> Prepared:
    """Evidence checked and standardised; see ``Surrogate.fit`` for arguments and errors.

    Args:
        prior_std: as in ``Surrogate``.
        standardiser: of an earlier fit, to be used again; made from the evidence where None.
        matrices: ``(metrics, n, n)`` that the fit needs memory for.
    """
    x, mean, var = _check(x, mean, var, shared)
    require(
        int(matrices * mean.shape[1] * len(x) ** 2 * x.element_size()),
        x.device,
        f"an exact fit of {mean.shape[1]} metrics to {len(x)} candidates",
        "fit fewer candidates, or let more of them retire",
    )
    observed = mean.isfinite()
    if standardiser is None:
        standardiser = _standardise(mean, var, observed, prior_std)
    y = torch.where(observed, (mean - standardiser.shift) / standardiser.scale, 0.0)
    noise = (var / standardiser.scale.square()).clamp_min(_NOISE_FLOOR)
    noise = torch.where(observed, noise, torch.inf)
    if shared is not None:
        shared = shared.to(x) / standardiser.scale.square()[:, None, None]
        both = observed.T.unsqueeze(-1) & observed.T.unsqueeze(-2)
        shared = torch.where(both, shared, 0.0)
        shared = shared - torch.diag_embed(shared.diagonal(dim1=-2, dim2=-1))
    return Prepared(x, y, noise, shared, standardiser)


def _standardise(
    mean: Tensor, var: Tensor, observed: Tensor, prior_std: Tensor | None = None
) -> Standardiser:
    """Shift and scale per metric from signal and noise together; linear in the metric's unit.

    The signal's variance is the random-effects estimate of DerSimonian and Laird (1986); the noise
    is that of the most precise candidates (harmonic mean). Rows without noise (the base, known
    exactly) are left out of both: their weight would be infinite, and the scale 0. Where the
    prior's standard deviation is given, the scale follows from it instead.
    """
    noisy = observed & (var > 0)
    observed = torch.where(noisy.any(0), noisy, observed)
    mean = torch.where(observed, mean, 0.0)
    count = observed.sum(0)
    centred = torch.where(observed, mean - mean.sum(0) / count, 0.0)
    size = centred.square().sum(0) / count + torch.where(observed, var, 0.0).sum(0) / count
    weight = observed / var.clamp_min(torch.where(size > 0, 1e-9 * size, 1.0))
    total = weight.sum(0)
    shift = (weight * mean).sum(0) / total
    scatter = (weight * (mean - shift).square()).sum(0)
    spread = total - weight.square().sum(0) / total
    signal = ((scatter - (count - 1)) / spread.clamp_min(1e-300)).clamp_min(0)
    signal = torch.where(count > 1, signal, 0.0)
    blended = observed / (var + signal).clamp_min(torch.where(size > 0, 1e-9 * size, 1.0))
    shift = (blended * mean).sum(0) / blended.sum(0)
    scale = torch.where(size > 0, (signal + count / total).sqrt(), 1.0)
    if prior_std is not None:
        given = prior_std.to(scale) / math.sqrt(OUTPUTSCALE_MEDIAN)
        scale = torch.where(given > 0, given, scale)
    return Standardiser(shift, scale)


def _check(
    x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    wrong = {n: type(v).__name__ for n, v in (("x", x), ("mean", mean), ("var", var))
             if not isinstance(v, Tensor)}  # fmt: skip
    if wrong:
        raise ShapeError(f"fit expects tensors x, mean and var, got {wrong}; torch.as_tensor them")
    if x.ndim != 2 or mean.ndim != 2 or mean.shape != var.shape or x.shape[0] != mean.shape[0]:
        raise ShapeError(
            "fit expects x (n, dims), mean and var (n, metrics), got "
            f"{tuple(x.shape)}, {tuple(mean.shape)} and {tuple(var.shape)}"
        )
    square = (mean.shape[1], len(mean), len(mean))
    if shared is not None and (tuple(shared.shape) != square or shared.device != x.device):
        raise ShapeError(
            f"shared must be (metrics, n, n) = {square} on {x.device}, got "
            f"{tuple(shared.shape)} on {shared.device}"
        )
    if len({x.device, mean.device, var.device}) > 1:
        raise ShapeError(
            f"fit expects one device, got x on {x.device}, mean on {mean.device}, "
            f"var on {var.device}"
        )
    x, mean, var = x.double(), mean.double(), var.double()
    observed = mean.isfinite() & var.isfinite()
    if x.shape[0] == 0 or not bool(observed.any(0).all()):
        raise FitError(
            "every metric needs at least one candidate with evidence; observed candidates per "
            f"metric: {observed.sum(0).tolist()}"
        )
    if not bool(x.isfinite().all()) or bool(mean.isinf().any()) or bool((var < 0).any()):
        raise FitError(
            "fit expects finite x, finite or NaN means and variances >= 0; got x in "
            f"[{float(x.min()):g}, {float(x.max()):g}], {int(mean.isinf().sum())} infinite means "
            f"and {int((var < 0).sum())} negative variances"
        )
    return x, torch.where(observed, mean, torch.nan), torch.where(observed, var, 1.0)
