"""Fitting: standardise, then maximise the exact marginal likelihood with priors (MAP).

Each metric has a Gaussian process of its own. Outputs are standardised by their estimated signal
and noise, so results do not depend on the metric's unit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FitError, ShapeError
from ..runtime.memory import require
from .conditioned import Standardiser
from .kernels import OUTPUTSCALE_MEDIAN, Hyperparameters, default_hyperparameters, matern52
from .likelihood import MarginalLikelihood, as_hyperparameters, as_vectors
from .posterior import Posterior

_NOISE_FLOOR = 1e-6  # GPyTorch's own clamp for double precision
_MAX_ITERATIONS = 40
# Matrices (metrics, n, n) to reserve memory for. Metrics are fitted one by one, so several metrics
# need less: four at n = 2000 raised the peak by 3.5 of these (bench.speed.growth).
_COPIES = 12
# Nats by which a fit's leave-one-out density may be worse than that of the priors' medians. A small
# difference means nothing, since the fit maximises another criterion; odds of twenty to one do.
_MAX_LOSS = 3.0


class Surrogate(nn.Module):
    """Fits one exact Gaussian process per metric; calling ``fit`` again starts from the last.

    A module whose buffers are the hyperparameters; there are none before the first fit. It loads a
    ``state_dict`` of any size.

    Args:
        start: hyperparameters to start from, e.g. the last round's ``posterior.hyperparameters``.
        prior_std: ``(metrics,)`` the prior's standard deviation in the metric's unit, at the
            median of its own prior; NaN where it follows from the evidence. None for all metrics.
    """

    lengthscale: Tensor | None
    outputscale: Tensor | None
    constant: Tensor | None

    def __init__(
        self, start: Hyperparameters | None = None, prior_std: Tensor | None = None
    ) -> None:
        super().__init__()
        self.prior_std = prior_std
        for name in Hyperparameters._fields:
            self.register_buffer(name, None)
        self.hyperparameters = start
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        """What the next fit starts from; None before the first."""
        if self.lengthscale is None or self.outputscale is None or self.constant is None:
            return None
        return Hyperparameters(self.lengthscale, self.outputscale, self.constant)

    @hyperparameters.setter
    def hyperparameters(self, value: Hyperparameters | None) -> None:
        for name in Hyperparameters._fields:
            setattr(self, name, None if value is None else getattr(value, name))

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> Posterior:
        """The posterior given evidence, with the present hyperparameters and without a fit.

        Before a first fit they are the priors' medians. Arguments and errors as in ``fit``.
        """
        data = self._prepared(x, mean, var, shared)
        h = self.hyperparameters or default_hyperparameters(mean.shape[1], x.shape[1], data.x)
        return Posterior(*data[:3], h, data.standardiser, data.shared, fit_succeeded=False)

    def fit(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None) -> Posterior:
        """The posterior given noisy observations with known variances.

        Args:
            x: ``(n, dims)`` in the unit cube.
            mean: ``(n, metrics)`` observed deltas; NaN where a metric was not observed.
            var: ``(n, metrics)`` variances of ``mean``, >= 0.
            shared: ``(metrics, n, n)`` covariance between the errors of different rows, e.g. from
                a common control; its diagonal is ignored, ``var`` is the whole variance.
        Returns:
            Posterior, in float64 on the device of ``x``. Where the fit failed, or its leave-one-out
            predictions are much worse than those of the priors' medians, it has these medians (or
            the hyperparameters it started from) and ``fit_succeeded`` is False.
        Raises:
            ShapeError: shapes or devices do not fit.
            SizeError: the covariances would not fit into memory.
            FitError: infinite values, negative variances, or a metric without observations.
        """
        x, y, noise, shared, standardiser = self._prepared(x, mean, var, shared)
        fitted, succeeded = _maximise(x, y, noise, shared, self.hyperparameters)
        posterior = Posterior(x, y, noise, fitted, standardiser, shared, fit_succeeded=succeeded)
        default = default_hyperparameters(y.shape[1], x.shape[1], x)
        with contextlib.suppress(FitError):  # a fit that cannot be compared is kept
            plain = Posterior(x, y, noise, default, standardiser, shared, fit_succeeded=False)
            if float((plain.leave_one_out() - posterior.leave_one_out()).sum()) > _MAX_LOSS:
                posterior = plain
        self.hyperparameters = posterior.hyperparameters
        return posterior

    def _prepared(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None) -> _Prepared:
        """Evidence checked and standardised."""
        x, mean, var = _check(x, mean, var, shared)
        require(
            _COPIES * mean.shape[1] * len(x) ** 2 * x.element_size(),
            x.device,
            f"an exact fit of {mean.shape[1]} metrics to {len(x)} candidates",
            "fit fewer candidates, or let more of them retire",
        )
        observed = mean.isfinite()
        standardiser = _standardise(mean, var, observed, self.prior_std)
        y = torch.where(observed, (mean - standardiser.shift) / standardiser.scale, 0.0)
        noise = (var / standardiser.scale.square()).clamp_min(_NOISE_FLOOR)
        noise = torch.where(observed, noise, torch.inf)
        if shared is not None:
            shared = shared.to(x) / standardiser.scale.square()[:, None, None]
            both = observed.T.unsqueeze(-1) & observed.T.unsqueeze(-2)
            shared = torch.where(both, shared, 0.0)
            shared = shared - torch.diag_embed(shared.diagonal(dim1=-2, dim2=-1))
        start = self.hyperparameters
        shape = (mean.shape[1], x.shape[1])
        if start is not None and start.lengthscale.shape != shape:
            raise ShapeError(
                f"hyperparameters to start from are for (metrics, dims) = "
                f"{tuple(start.lengthscale.shape)}, the data are {shape}"
            )
        return _Prepared(x, y, noise, shared, standardiser)


def _make_room(surrogate: Surrogate, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Give the buffers the sizes of those that will be loaded: all of them, or none."""
    present = [name for name in Hyperparameters._fields if state.get(prefix + name) is not None]
    if present and len(present) < len(Hyperparameters._fields):
        raise ConfigError(
            f"not the state of a surrogate: of {list(Hyperparameters._fields)} it holds only "
            f"{present}; pass the result of surrogate.state_dict()"
        )
    for name in Hyperparameters._fields:
        loaded, own = state.get(prefix + name), getattr(surrogate, name)
        if loaded is None:  # saved before the first fit
            setattr(surrogate, name, None)
        elif own is None or own.shape != loaded.shape:
            setattr(surrogate, name, torch.empty_like(loaded))


class _Prepared(NamedTuple):
    """``x (n, dims)``, ``y`` and ``noise`` ``(n, metrics)``, standardised; ``shared`` likewise."""

    x: Tensor
    y: Tensor
    noise: Tensor
    shared: Tensor | None
    standardiser: Standardiser


def similarity(x: Tensor, hyperparameters: Hyperparameters | None) -> Tensor:
    """Prior correlation of N points ``(N, dims)``, averaged over metrics, ``(N, N)``.

    Before a first fit (None) it is that of the priors' medians.
    """
    if hyperparameters is None:
        hyperparameters = default_hyperparameters(1, x.shape[1], x)
    return matern52(x, x, hyperparameters.lengthscale.to(x)).mean(0)


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


def _maximise(
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    shared: Tensor | None,
    start: Hyperparameters | None,
) -> tuple[Hyperparameters, bool]:
    """Fit each metric to the rows that have it; also whether all fits succeeded."""
    default = default_hyperparameters(y.shape[1], x.shape[1], x)
    starts = [as_vectors(s) for s in (start, default) if s is not None]
    fitted, all_succeeded = [], True
    for m in range(y.shape[1]):
        rows = noise[:, m].isfinite()
        every = bool(rows.all())
        system = None if shared is None else shared[m] if every else shared[m][rows][:, rows]
        medians = starts[-1][m]
        objective = MarginalLikelihood(x[rows], y[rows, m], noise[rows, m], system, medians)
        vector, succeeded = objective.maximise([s[m] for s in starts], _MAX_ITERATIONS)
        fitted.append(vector)
        all_succeeded = all_succeeded and succeeded
    return as_hyperparameters(fitted, x), all_succeeded


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
