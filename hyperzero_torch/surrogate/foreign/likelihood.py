"""One metric's exact marginal likelihood under a GPyTorch prior, and its maximum.

    loss = (y - m)' a / 2 + log|K + N| / 2 + n log(2 pi) / 2 - log prior,    a = (K + N)^-1 (y - m)
    d loss / dK = ((K + N)^-1 - a a') / 2,    d loss / dm = -a

The noise N is known, errors shared between rows included. GPyTorch evaluates the kernel and carries
the closed-form slopes back to its parameters, so the criterion is that of its
``ExactMarginalLogLikelihood`` without an approximation.

Source: Rasmussen and Williams (2006), Eqs. 5.8 and 5.9.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import FitError
from ..factors import cholesky, leave_one_out_log_density
from .prior import MetricPrior

_MAX_ITERATIONS = 60
_GRADIENT_TOLERANCE = 1e-2
_CHANGE_TOLERANCE = 1e-3
#: Starts beside the model's own, where the descent from it fails or diverges.
NUM_RESTARTS = 3
# Standard deviation of a restart's steps, in the parameters' unconstrained coordinates.
_RESTART_SPREAD = 0.5
# Nats of leave-one-out density that a fit may lose against the model's own start; see ``fit``.
_MAX_LOSS = 3.0
# In squares of a metric's standardised unit: a fit with less prior variance claims to know the
# metric everywhere. Without priors the likelihood is largest there where noise hides the signal.
_LEAST_VARIANCE = 1e-3


class System(NamedTuple):
    """The factor of K + N and the solved residual, ``(n, n)`` and ``(n,)``."""

    factor: Tensor
    weights: Tensor


def solve(prior: MetricPrior, x: Tensor, y: Tensor, noise: Tensor) -> System:
    """Condition a prior on data with noise covariance ``(n, n)``.

    Raises:
        FitError: a value is not finite, or the covariance is not positive definite.
    """
    with torch.no_grad():
        factor = cholesky(prior.cross(x, x) + noise)
        weights = torch.cholesky_solve((y - prior.mean(x)).unsqueeze(-1), factor)[:, 0]
    if not bool(weights.isfinite().all()):
        raise FitError("the model's mean is not finite at the candidates")
    return System(factor, weights)


def loss(prior: MetricPrior, x: Tensor, y: Tensor, noise: Tensor, slopes: bool = False) -> float:
    """Negative log of marginal likelihood times priors, in nats.

    With ``slopes`` the gradients of the prior's parameters are set.

    Raises:
        FitError: as ``solve``.
    """
    with torch.set_grad_enabled(slopes):
        covariance, mean, density = prior.cross(x, x), prior.mean(x), prior.log_prior()
    with torch.no_grad():
        factor = cholesky(covariance + noise)
        residual = y - mean
        weights = torch.cholesky_solve(residual.unsqueeze(-1), factor)[:, 0]
        value = float(0.5 * residual @ weights + factor.diagonal().log().sum() - density)
        value += 0.5 * len(y) * math.log(2 * math.pi)
        slope = 0.5 * (torch.cholesky_inverse(factor) - torch.outer(weights, weights))
    if slopes:
        pairs = [(covariance, slope), (mean, -weights), (density, -torch.ones_like(density))]
        pairs = [(tensor, by) for tensor, by in pairs if tensor.requires_grad]
        if pairs:
            torch.autograd.backward([tensor for tensor, _ in pairs], [by for _, by in pairs])
    return value


def maximise(
    prior: MetricPrior, x: Tensor, y: Tensor, noise: Tensor, metric: Tensor | None = None
) -> tuple[MetricPrior, bool]:
    """The prior with the parameters that maximise the marginal likelihood, and whether they do.

    L-BFGS from the model's own parameters; where that diverges, from others around them. A fit that
    predicts left-out candidates much worse than the model's own start is not used: with few
    candidates a maximum of the likelihood can be overconfident. Of a fit that leaves a metric no
    variance the mean alone is used.

    Args:
        prior: the start.
        x: ``(n, dims)``.
        y: ``(n,)``.
        noise: ``(n, n)``.
        metric: ``(n,)`` the number of each row's metric; None where all have the same.
    Raises:
        FitError: every descent failed or diverged.
    """
    reasons = []
    for restart in range(NUM_RESTARTS + 1):
        try:
            fitted = _descended(prior, restart, x, y, noise)
            system = solve(fitted, x, y, noise)
        except (FitError, ValueError, RuntimeError) as error:
            reasons.append(str(error))
            continue
        if _is_sure(fitted, x, metric):
            return prior.with_mean_of(fitted), False
        return _unless_worse(prior, fitted, system, x, y, noise)
    raise FitError(
        f"the fit diverged from each of {NUM_RESTARTS + 1} starts ({reasons[0]:.200}); give the "
        "kernel priors, or other initial values"
    )


@torch.no_grad()
def _is_sure(fitted: MetricPrior, x: Tensor, metric: Tensor | None) -> bool:
    """Whether some metric has next to no variance at any row."""
    variance = fitted.variance(x)
    groups = [variance]
    if metric is not None:
        groups = [variance[metric == number] for number in set(metric.tolist())]
    return any(float(group.max()) < _LEAST_VARIANCE for group in groups)


def _unless_worse(
    prior: MetricPrior, fitted: MetricPrior, system: System, x: Tensor, y: Tensor, noise: Tensor
) -> tuple[MetricPrior, bool]:
    try:
        start = solve(prior, x, y, noise)
    except FitError:  # nothing to compare with
        return fitted, True
    ones = torch.ones_like(y)
    lost = leave_one_out_log_density(*start, ones) - leave_one_out_log_density(*system, ones)
    return (prior, False) if float(lost.sum()) > _MAX_LOSS else (fitted, True)


class _Coordinate:
    """One parameter as an unconstrained tensor ``at``.

    GPyTorch transforms most parameters itself. Bounds without a transform, as BoTorch's kernels
    have them, are for optimisers with bounds: they are logarithmic or logistic here.
    """

    def __init__(self, parameter: Tensor, constraint: Any) -> None:
        self.parameter = parameter
        self.low = self.width = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
        self.kind = "free"
        if constraint is not None and not constraint.enforced:
            low, high = (b.to(parameter) for b in (constraint.lower_bound, constraint.upper_bound))
            if bool(low.isfinite().all()):
                self.low, self.kind = low, "above"
                if bool(high.isfinite().all()):
                    self.width, self.kind = high - low, "between"
        value = parameter.detach().clone()
        if self.kind == "above":
            value = (value - self.low).clamp_min(1e-6).log()
        elif self.kind == "between":
            value = ((value - self.low) / self.width).clamp(1e-6, 1 - 1e-6).logit()
        self.at = value

    def apply(self) -> None:
        """Set the parameter."""
        with torch.no_grad():
            if self.kind == "above":
                self.parameter.copy_(self.low + self.at.exp())
            elif self.kind == "between":
                self.parameter.copy_(self.low + self.width * self.at.sigmoid())
            else:
                self.parameter.copy_(self.at)

    def take_gradient(self) -> None:
        """The parameter's gradient, in this coordinate."""
        slope = self.parameter.grad
        if slope is None:
            slope = torch.zeros_like(self.at)
        if self.kind == "above":
            slope = slope * self.at.exp()
        elif self.kind == "between":
            part = self.at.sigmoid()
            slope = slope * self.width * part * (1 - part)
        self.at.grad = slope


def _coordinates(prior: MetricPrior) -> list[_Coordinate]:
    named = [row for part in prior.parts() for row in part.named_parameters_and_constraints()]
    constraints = {parameter: constraint for _, parameter, constraint in named}
    parameters = [p for p in prior.parameters() if p.requires_grad]
    return [_Coordinate(p, constraints.get(p)) for p in parameters]


def _descended(
    prior: MetricPrior, restart: int, x: Tensor, y: Tensor, noise: Tensor
) -> MetricPrior:
    """A copy at the best point of a descent; restarts other than 0 begin somewhere around."""
    prior = prior.copied()
    coordinates = _coordinates(prior)
    if not coordinates:
        return prior
    if restart:
        generator = torch.Generator().manual_seed(restart)
        for c in coordinates:
            step = torch.randn(c.at.shape, generator=generator, dtype=torch.float64)
            c.at = c.at + _RESTART_SPREAD * step.to(c.at)
    best = (math.inf, [c.at.clone() for c in coordinates])
    optimiser = torch.optim.LBFGS(
        [c.at for c in coordinates],
        max_iter=_MAX_ITERATIONS,
        max_eval=2 * _MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=_CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        nonlocal best
        for c in coordinates:
            c.apply()
            c.parameter.grad = None
        value = loss(prior, x, y, noise, slopes=True)
        for c in coordinates:
            c.take_gradient()
        if value < best[0]:
            best = (value, [c.at.detach().clone() for c in coordinates])
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    value, at = best
    if not math.isfinite(value) or not all(bool(u.isfinite().all()) for u in at):
        raise FitError("the likelihood is not finite")
    for c, fitted in zip(coordinates, at):
        c.at = fitted
        c.apply()
    return prior
