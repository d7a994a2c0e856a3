"""Fitting: standardise, then maximise the exact marginal likelihood with priors (MAP).

Each metric has a Gaussian process of its own. Outputs are standardised by their estimated signal
and noise, so results do not depend on the metric's unit.

With more than ``MOST_FITTED`` candidates the hyperparameters are those of a subset of so many, and
the posterior is that of all: the few hyperparameters are well determined long before, while the
time of a fit grows with the cube of the number (``bench.speed.subset`` has the loss).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FitError, ShapeError
from .kernels import Hyperparameters, default_hyperparameters, matern52
from .likelihood import MarginalLikelihood, as_hyperparameters, as_vectors
from .posterior import Posterior
from .standardise import Prepared, prepare, to_condition, to_fit

#: Hyperparameters are fitted to at most so many candidates.
MOST_FITTED = 2000
_MAX_ITERATIONS = 40
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
        data = self._prepared(x, mean, var, shared, to_condition)
        h = self.hyperparameters or default_hyperparameters(mean.shape[1], x.shape[1], data.x)
        return _posterior(data, h, succeeded=False)

    def fit(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None) -> Posterior:
        """The posterior given noisy observations with known variances.

        Args:
            x: ``(n, dims)`` in the unit cube.
            mean: ``(n, metrics)`` observed deltas; NaN where a metric was not observed.
            var: ``(n, metrics)`` variances of ``mean``, >= 0.
            shared: ``(metrics, n, n)`` covariance between the errors of different rows, e.g. from
                a common control; its diagonal is ignored, ``var`` is the whole variance.
        Returns:
            Posterior of all candidates, in float64 on the device of ``x``. Where the fit failed, or
            its leave-one-out predictions are much worse than those of the priors' medians, it has
            these medians (or the hyperparameters it started from) and ``fit_succeeded`` is False.
        Raises:
            ShapeError: shapes or devices do not fit.
            SizeError: the covariances would not fit into memory.
            FitError: infinite values, negative variances, or a metric without observations.
        """
        every = self._prepared(x, mean, var, shared, to_fit)
        data = _subset(every)
        fitted, succeeded = _maximise(data, self.hyperparameters)
        posterior = _posterior(data, fitted, succeeded)
        default = default_hyperparameters(data.y.shape[1], data.x.shape[1], data.x)
        with contextlib.suppress(FitError):  # a fit that cannot be compared is kept
            plain = _posterior(data, default, succeeded=False)
            if float((plain.leave_one_out() - posterior.leave_one_out()).sum()) > _MAX_LOSS:
                posterior = plain
        self.hyperparameters = posterior.hyperparameters
        if data is every:
            return posterior
        return _posterior(every, posterior.hyperparameters, posterior.fit_succeeded)

    def _prepared(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None,
        needed: Callable[[Tensor, Tensor | None], float],
    ) -> Prepared:
        """Evidence checked and standardised; ``needed`` says how many matrices there will be."""
        matrices = needed(mean, shared) if isinstance(mean, Tensor) and mean.ndim == 2 else 0
        prepared = prepare(x, mean, var, shared, self.prior_std, matrices=matrices)
        start = self.hyperparameters
        shape = (mean.shape[1], x.shape[1])
        if start is not None and start.lengthscale.shape != shape:
            raise ShapeError(
                f"hyperparameters to start from are for (metrics, dims) = "
                f"{tuple(start.lengthscale.shape)}, the data are {shape}"
            )
        return prepared


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


def similarity(x: Tensor, lengthscale: Tensor | None) -> Tensor:
    """Prior correlation of N points ``(N, dims)``, averaged over metrics, ``(N, N)``.

    Before a first fit (None) it is that of the priors' medians.
    """
    if lengthscale is None:
        lengthscale = default_hyperparameters(1, x.shape[1], x).lengthscale
    return matern52(x, x, lengthscale.to(x)).mean(0)


def _subset(data: Prepared) -> Prepared:
    """The candidates that hyperparameters are fitted to, at most ``MOST_FITTED`` of each metric.

    Where a metric is missing among those chosen for others, more that have it are chosen, and each
    metric is fitted to all chosen ones that have it. They are evenly spaced in their order, which
    is that of their age: the first is the base, where it is known, the last the newest.
    """
    if len(data.x) <= MOST_FITTED:
        return data
    observed = data.noise.isfinite()
    chosen = torch.zeros(len(data.x), dtype=torch.bool, device=data.x.device)
    for column in observed.T:
        lacking = MOST_FITTED - int((chosen & column).sum())
        rows = (column & ~chosen).nonzero().flatten()
        places = torch.linspace(
            0, len(rows) - 1, max(0, min(lacking, len(rows))), dtype=torch.float64
        )
        chosen[rows[places.round().long().to(rows.device)]] = True
    shared = None if data.shared is None else data.shared[:, chosen][:, :, chosen]
    x, y, noise = (field[chosen] for field in data[:3])
    return Prepared(x, y, noise, shared, data.standardiser)


def _posterior(data: Prepared, at: Hyperparameters, succeeded: bool) -> Posterior:
    x, y, noise, shared, standardiser = data
    return Posterior(x, y, noise, at, standardiser, shared, fit_succeeded=succeeded)


def _maximise(data: Prepared, start: Hyperparameters | None) -> tuple[Hyperparameters, bool]:
    """Fit each metric to the rows that have it; also whether all fits succeeded."""
    x, y, noise, shared, _ = data
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
