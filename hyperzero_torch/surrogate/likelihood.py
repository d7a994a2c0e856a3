"""One metric's exact log marginal likelihood, its gradient in closed form, and its maximum.

    loss = (y - c)' a / 2 + log|K| / 2 + n log(2 pi) / 2 - log prior
    d loss / dK = (K^-1 - a a') / 2,    K = s C + N,    a = K^-1 (y - c)

An evaluation costs one factorisation, one inverse and one pass over the matrix. Automatic
differentiation would hold a dozen such matrices and pass over each of them twice.

Source: Rasmussen and Williams (2006), Eqs. 5.8 and 5.9.
"""

from __future__ import annotations

import inspect
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import FitError
from .factors import cholesky
from .kernels import (
    CONSTANT_SPREAD,
    LENGTHSCALE_SPREAD,
    OUTPUTSCALE_SPREAD,
    Hyperparameters,
    gram,
    matern52_slopes,
)

_BOUND = 12.0  # |log hyperparameter| beyond which a fit has diverged
# L-BFGS stops where no slope, in nats, exceeds the first, or no gain (nats) or step the second. A
# thousandth of a nat is far below what any evidence can distinguish.
_GRADIENT_TOLERANCE = 1e-2
_CHANGE_TOLERANCE = 1e-3


class _Step(NamedTuple):
    loss: float
    at: Tensor


class _LBFGS(torch.optim.LBFGS):
    """Without PyTorch's compiler, whose import costs a process two seconds.

    PyTorch keeps its compiler off this method by a decorator that imports the compiler.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


class MarginalLikelihood:
    """Negative log of (marginal likelihood times priors) of one metric's standardised data.

    Hyperparameters are one vector ``(dims + 2,)``: the logarithms of lengthscales and outputscale,
    then the constant.

    Args:
        x: ``(n, dims)``.
        y: ``(n,)``.
        noise: ``(n,)``, known variances.
        shared: ``(n, n)``, noise covariance with a zero diagonal, or None.
        medians: of the priors, ``(dims + 2,)``.
    """

    def __init__(
        self, x: Tensor, y: Tensor, noise: Tensor, shared: Tensor | None, medians: Tensor
    ) -> None:
        self.x, self.y, self.noise, self.shared = x, y, noise, shared
        dims = x.shape[1]
        self._median = medians
        spreads = [LENGTHSCALE_SPREAD] * dims + [OUTPUTSCALE_SPREAD, CONSTANT_SPREAD]
        spread = torch.tensor(spreads, dtype=torch.float64)
        self._precision = spread**-2
        # The density of a log-normal falls as 1 / value beside the normal of its logarithm.
        self._tilt = torch.tensor([1.0] * (dims + 1) + [0.0], dtype=torch.float64)
        self._log_volume = -float(spread.log().sum()) - 0.5 * (dims + 2) * math.log(2 * math.pi)

    def loss(self, at: Tensor) -> float:
        """At hyperparameters ``at``; infinite where the covariance cannot be factorised."""
        try:
            return self._loss(at)[0]
        except FitError:
            return math.inf

    def loss_and_gradient(self, at: Tensor) -> tuple[float, Tensor]:
        """At hyperparameters ``at``, the gradient in the same coordinates.

        Raises:
            FitError: the covariance cannot be factorised.
        """
        loss, factor, weights = self._loss(at)
        weight = torch.cholesky_inverse(factor)
        weight.addr_(weights, weights, alpha=-1.0).mul_(0.5)
        sums = matern52_slopes(self.x, at[:-2].exp().to(self.x), weight)
        slopes = torch.cat([sums[1:], sums[:1], -weights.sum().unsqueeze(0)]).cpu()
        slopes[:-1] *= at[-2].exp()
        return loss, slopes + self._precision * (at - self._median) + self._tilt

    def maximise(self, starts: list[Tensor], max_iterations: int) -> tuple[Tensor, bool]:
        """MAP hyperparameters by L-BFGS from the best start, or from the next where that fails.

        Where every descent fails or diverges the best start is kept: a poor kernel is better than
        none, and the next round tries again with more evidence. The second value is True where a
        descent was used.
        """
        losses = [self.loss(start) for start in starts]
        order = sorted(range(len(starts)), key=losses.__getitem__)
        for number in order:
            fitted = self._descend(starts[number], max_iterations)
            if fitted is not None and fitted.loss <= losses[order[0]] + 1e-6:
                return fitted.at, True
        return starts[order[0]], False

    def _descend(self, start: Tensor, max_iterations: int) -> _Step | None:
        """The best point of the descent; None where it fails or diverges."""
        at = start.clone()
        steps: list[_Step] = []
        optimiser = _LBFGS(
            [at],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=_GRADIENT_TOLERANCE,
            tolerance_change=_CHANGE_TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            loss, at.grad = self.loss_and_gradient(at)
            steps.append(_Step(loss, at.clone()))
            return loss

        try:
            optimiser.step(closure)  # type: ignore[no-untyped-call]
        except FitError:
            return None
        best = min(steps, key=lambda point: point.loss)
        diverged = not math.isfinite(best.loss) or float(best.at[:-1].abs().max()) > _BOUND
        return None if diverged else best

    def _loss(self, at: Tensor) -> tuple[float, Tensor, Tensor]:
        """The loss, the Cholesky factor of K, and the solved residual a."""
        *lengthscale, outputscale, _ = at.exp().tolist()
        system = gram(self.x, self.x.new_tensor([lengthscale]))[0].mul_(outputscale)
        if self.shared is not None:
            system.add_(self.shared)
        system.diagonal().add_(self.noise)
        factor = cholesky(system)
        residual = self.y - float(at[-1])
        weights = torch.cholesky_solve(residual.unsqueeze(-1), factor)[:, 0]
        volume = factor.diagonal().log().sum()
        data = float(0.5 * residual @ weights + volume) + 0.5 * len(self.y) * math.log(2 * math.pi)
        deviation = at - self._median
        prior = self._log_volume - float(
            0.5 * self._precision @ deviation.square() + self._tilt @ at
        )
        return data - prior, factor, weights


def as_vectors(fields: Hyperparameters) -> Tensor:
    """Hyperparameters in the fit's coordinates, ``(metrics, dims + 2)``, on the CPU."""
    lengthscale, outputscale, constant = fields
    columns = [lengthscale.log(), outputscale.log().unsqueeze(-1), constant.unsqueeze(-1)]
    return torch.cat(columns, dim=-1).cpu()


def as_hyperparameters(vectors: list[Tensor], like: Tensor) -> Hyperparameters:
    """Back from the fit's coordinates, on the device of ``like``."""
    stacked = torch.stack(vectors).to(like)
    return Hyperparameters(stacked[:, :-2].exp(), stacked[:, -2].exp(), stacked[:, -1])
