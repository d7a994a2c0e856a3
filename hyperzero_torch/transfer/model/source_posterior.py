"""What a source shows by itself: exact Gaussian processes of its own evidence alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...surrogate import Posterior, Surrogate, default_hyperparameters
from ..alignment import Aligned
from .inducing import most_informative

#: Rows of a source that a kernel is fitted to, and that its evidence is reduced from.
FITTED_ROWS, KEPT_ROWS = 96, 384
_LEAST_ROWS = 4
_NOISE_FLOOR = 1e-6


class SourcePosterior(NamedTuple):
    """A posterior over the target's unit cube, of those metrics that the source has."""

    posterior: Posterior
    metrics: tuple[str, ...]


def fit_source(aligned: Aligned, problem: Problem) -> SourcePosterior:
    """The source's own posterior, from its evidence and the errors that its settings share.

    One setting is enough: the posterior then has the prior's medians and a large variance.

    Args:
        aligned: with evidence on at least one metric.
    Raises:
        FitError: no Gaussian process can be fitted.
    """
    observed = ~aligned.mean.isnan()
    columns = observed.any(0).nonzero().flatten().tolist()
    mean = aligned.mean[:, columns]
    var = torch.where(observed, aligned.var, 1.0)[:, columns]
    shared = None if aligned.shared is None else aligned.shared[columns]
    posterior = Surrogate().fit(aligned.x, mean, var, shared)
    return SourcePosterior(posterior, tuple(problem.metrics[m] for m in columns))


class MetricFit(NamedTuple):
    """One metric of one source: its most informative rows, standardised, and a kernel's fit.

    ``x (n, dims)``; ``y`` and ``noise (n,)`` in units of ``scale``; ``lengthscale (dims,)``;
    ``skill``, the nats per row by which the fit predicts left-out rows better than a constant.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    scale: float
    lengthscale: Tensor
    skill: float

    @property
    def fitted(self) -> tuple[Tensor, Tensor, Tensor]:
        """``x``, ``y`` and ``noise`` of the rows that the kernel was fitted to."""
        return self.x[:FITTED_ROWS], self.y[:FITTED_ROWS], self.noise[:FITTED_ROWS]


def fit_metric(source: Aligned, metric: int) -> MetricFit | None:
    """A source's own fit of one metric; None where it has too little evidence.

    Settings that differ by no more than their noise do not count: they show that no effect was
    seen, not that there is none.
    """
    mean, var = source.mean[:, metric], source.var[:, metric]
    rows = (mean.isfinite() & var.isfinite()).nonzero().flatten()
    if len(rows) < _LEAST_ROWS:
        return None
    x, mean, var = source.x[rows], mean[rows], var[rows]
    default = default_hyperparameters(1, x.shape[1], x)
    signal = mean.var().clamp_min(1e-300)
    noise = var.clamp_min(1e-6 * signal) / signal
    order = most_informative(x, noise, default.lengthscale, KEPT_ROWS)
    if len(order) < _LEAST_ROWS:
        return None
    x, mean, var = x[order], mean[order], var[order]
    few = slice(0, FITTED_ROWS)
    posterior = Surrogate().fit(x[few], mean[few].unsqueeze(1), var[few].unsqueeze(1))
    shift, scale = (float(value) for value in posterior.standardiser)
    y, noise = (mean - shift) / scale, (var / scale**2).clamp_min(_NOISE_FLOOR)
    constant = _constant_log_density(y[few], noise[few])
    skill = max(0.0, (float(posterior.leave_one_out()) - constant) / len(y[few]))
    return MetricFit(x, y, noise, scale, posterior.hyperparameters.lengthscale[0], skill)


def _constant_log_density(y: Tensor, noise: Tensor) -> float:
    """Leave-one-out log density of rows around a constant, with the best spread of a grid."""
    spreads = torch.logspace(-2, 1, 13, dtype=y.dtype, device=y.device)
    total = noise + spreads.unsqueeze(-1)
    weight = 1 / total
    rest = weight.sum(-1, keepdim=True) - weight
    centre = ((weight * y).sum(-1, keepdim=True) - weight * y) / rest
    spread = total + 1 / rest
    density = -0.5 * ((y - centre).square() / spread + (2 * torch.pi * spread).log())
    return float(density.sum(-1).max())
