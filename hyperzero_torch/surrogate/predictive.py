"""How well a fitted model predicts evidence that it has not seen: log densities, in nats.

    left out    log p(y_i | y_-i)      each row from all others, under the fit's hyperparameters
    ahead       log p(y_new | y)       the joint density of new rows

Errors that rows share are part of both: given the errors of the other rows, a row's own error is

    e_i | e_-i ~ N(a' e_-i, N_ii - a' N_-i,i),    a = N_-i,-i^-1 N_-i,i

with the noise covariance N. So y_i is normal with mean mu_i + a' (y_-i - mu_-i) and variance
(1, -a') C (1, -a')' + N_ii - a' N_-i,i, where mu and C are the posterior of all rows given y_-i.
For a posterior that is not Gaussian these are the densities of the Gaussian with its moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import FitError
from .factors import cholesky
from .protocol import FittedPosterior

_LOG_TWO_PI = math.log(2 * math.pi)


def left_out(
    posterior: FittedPosterior,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    shared: Tensor | None,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Log density of rows of the evidence, each predicted from all others.

    In the unit of ``mean``: differences between models do not depend on it. A row is left out as a
    whole. Posteriors that have a closed form (``left_out()``) are asked for it; any other is
    conditioned on all rows but one, once for each.

    Args:
        posterior: fitted to this evidence.
        x: ``(n, dims)``.
        mean: ``(n, metrics)``; NaN where a metric was not observed.
        var: ``(n, metrics)``; rows with 0 are known by definition, and not predicted.
        shared: ``(metrics, n, n)`` or None.
        rows: to predict; all by default.
    Returns:
        ``(rows, metrics)``; NaN where there is nothing to predict, or nothing to predict it from.
    """
    rows = range(len(x)) if rows is None else rows
    is_predicted = (mean.isfinite() & (var > 0))[list(rows)]
    closed = getattr(getattr(posterior, "inner", posterior), "left_out", None)
    if callable(closed):
        density: Tensor = closed()[list(rows)]
    else:
        parts = [_left_out(posterior, x, mean, var, shared, row) for row in rows]
        density = torch.stack(parts) if parts else mean[:0]
    return torch.where(is_predicted, density, torch.nan)


def ahead(posterior: FittedPosterior, x: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Joint log density of new rows for each metric, ``(metrics,)``, NaN for those without.

    Args:
        posterior: of other evidence.
        x: ``(n, dims)`` the new rows.
        mean: ``(n, metrics)``, NaN where not observed.
        noise: ``(metrics, n, n)`` the covariance of their errors.
    """
    predicted, _ = posterior.marginal(x)
    joint = posterior.covariance(x) + noise
    total = mean.new_full((mean.shape[1],), torch.nan)
    for m, seen in enumerate(mean.isfinite().T):
        if not bool(seen.any()):
            continue
        residual = (mean - predicted)[seen, m]
        factor = cholesky(joint[m][seen][:, seen].clone())
        white = torch.linalg.solve_triangular(factor, residual.unsqueeze(-1), upper=False)
        log_volume = factor.diagonal().log().sum() + 0.5 * len(residual) * _LOG_TWO_PI
        total[m] = -0.5 * white.square().sum() - log_volume
    return total


def _left_out(
    posterior: FittedPosterior,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    shared: Tensor | None,
    row: int,
) -> Tensor:
    others = torch.tensor([i for i in range(len(x)) if i != row], dtype=torch.long)
    rest = None if shared is None else shared[:, others][:, :, others]
    density = mean.new_full((mean.shape[1],), torch.nan)
    try:
        given = posterior.condition(x[others], mean[others], var[others], rest)
    except FitError:  # a metric that no other row has
        return density
    order = torch.cat([torch.tensor([row]), others])
    at = x[order]
    predicted, variance = given.marginal(at)
    joint = None if shared is None else given.covariance(at)
    for m in range(mean.shape[1]):
        if not bool(mean[row, m].isfinite()):
            continue
        centre, spread = predicted[0, m], variance[0, m] + var[row, m]
        noisy = (mean[others, m].isfinite() & (var[others, m] > 0)).nonzero().flatten()
        if shared is not None and joint is not None and len(noisy):
            at_noisy = others[noisy]
            noise = shared[m][at_noisy][:, at_noisy].clone()
            noise.diagonal().copy_(var[at_noisy, m])
            along = shared[m][at_noisy, row]
            a = torch.cholesky_solve(along.unsqueeze(-1), cholesky(noise))[:, 0]
            few = torch.cat([noisy.new_zeros(1), 1 + noisy])
            weights = torch.cat([a.new_ones(1), -a])
            centre = centre + a @ (mean[at_noisy, m] - predicted[1 + noisy, m])
            spread = weights @ joint[m][few][:, few] @ weights + var[row, m] - a @ along
        gap = mean[row, m] - centre
        density[m] = -0.5 * (gap.square() / spread + spread.log() + _LOG_TWO_PI)
    return density
