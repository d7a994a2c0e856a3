"""GPyTorch's exact marginal likelihood of a batch of metrics, and its maximiser.

Imported only when something is fitted. GPyTorch's settings are entered as contexts and left again.
"""

from __future__ import annotations

import math
import warnings
from contextlib import ExitStack
from typing import Any

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.means import ConstantMean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior, NormalPrior
from linear_operator import to_linear_operator
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # not in its __all__

from .posterior import Hyperparameters

_LENGTHSCALE_SPREAD = 0.6  # of its logarithm
_OUTPUTSCALE_SPREAD = 0.7  # of its logarithm
_CONSTANT_SPREAD = 1.0
# What a fit may run into with honest data; anything else is a bug and must be seen.
_NUMERICAL = (NanError, NotPSDError, LinAlgError)
_BOUND = 12.0  # |log hyperparameter| beyond which a fit has run away


class _Model(gpytorch.models.ExactGP):  # type: ignore[misc]  # GPyTorch is untyped
    """Constant mean and Matern 5/2 with one lengthscale per dimension, batched over metrics."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        likelihood: Any,
        shared: Tensor | None,
        medians: Hyperparameters,
    ) -> None:
        super().__init__(x, y, likelihood)
        self.shared = shared
        batch = torch.Size([y.shape[0]])

        def number(value: float) -> Tensor:  # in the data's precision, not the global default
            return x.new_tensor(value)

        self.mean_module = ConstantMean(
            batch_shape=batch, constant_prior=NormalPrior(number(0.0), number(_CONSTANT_SPREAD))
        )
        self.covar_module = ScaleKernel(
            MaternKernel(
                nu=2.5,
                ard_num_dims=x.shape[-1],
                batch_shape=batch,
                lengthscale_prior=LogNormalPrior(
                    medians.lengthscale[0, 0].log(), number(_LENGTHSCALE_SPREAD)
                ),
            ),
            batch_shape=batch,
            outputscale_prior=LogNormalPrior(
                medians.outputscale[0].log(), number(_OUTPUTSCALE_SPREAD)
            ),
        )

    def forward(self, x: Tensor) -> Any:
        covariance = self.covar_module(x)
        if self.shared is not None:  # only ever called on the training inputs
            # As an operator: a tensor would be factorised at once, without the likelihood's part.
            covariance = to_linear_operator(covariance.to_dense() + self.shared)
        return MultivariateNormal(self.mean_module(x), covariance)

    def load(self, start: Hyperparameters) -> None:
        self.covar_module.base_kernel.lengthscale = start.lengthscale.unsqueeze(-2)
        self.covar_module.outputscale = start.outputscale
        self.mean_module.constant.data.copy_(start.constant)

    def read(self) -> Hyperparameters:
        return Hyperparameters(
            self.covar_module.base_kernel.lengthscale.detach().squeeze(-2).clone(),
            self.covar_module.outputscale.detach().clone(),
            self.mean_module.constant.detach().clone(),
        )


class MarginalLikelihood:
    """Log marginal likelihood plus log priors, summed over metrics, of standardised data.

    Args:
        x: ``(n, dims)``.
        y: ``(metrics, n)``.
        noise: ``(metrics, n)``, known variances.
        shared: ``(metrics, n, n)`` noise covariance beside the diagonal, or None.
        medians: of the priors.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        shared: Tensor | None,
        medians: Hyperparameters,
    ) -> None:
        inputs = x.expand(y.shape[0], *x.shape)
        likelihood = FixedNoiseGaussianLikelihood(noise=noise)
        self.x = inputs
        self.y = y
        self.model = _Model(inputs, y, likelihood, shared, medians).to(x)
        self.value = ExactMarginalLogLikelihood(likelihood, self.model)

    def maximise(
        self, starts: list[Hyperparameters], max_iterations: int
    ) -> tuple[Hyperparameters, bool]:
        """MAP hyperparameters: L-BFGS from the best start, from the next where that fails.

        Where every descent fails or runs away the best start is kept: a poor kernel is better than
        none, and the next round tries again with more evidence. The second value says whether a
        fit was used.
        """
        with ExitStack() as settings:
            # Exact and deterministic at any n: Cholesky, never conjugate gradients.
            settings.enter_context(gpytorch.settings.fast_computations(False, False, False))
            settings.enter_context(gpytorch.settings.max_cholesky_size(10**9))
            # A trial step may need jitter, whatever the caller's filters make of warnings.
            settings.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", NumericalWarning)
            self.model.train()
            with torch.no_grad():
                losses = [self._loss_at(start) for start in starts]
            known = [math.inf if math.isnan(loss) else loss for loss in losses]
            order = sorted(range(len(starts)), key=known.__getitem__)
            for start in order:
                fitted = self._fit_from(starts[start], known[order[0]], max_iterations)
                if fitted is not None:
                    return fitted, True
            return starts[order[0]], False

    def _fit_from(
        self, start: Hyperparameters, to_beat: float, max_iterations: int
    ) -> Hyperparameters | None:
        """Where the descent ends; None where it fails, runs away or ends above ``to_beat``."""
        self.model.load(start)
        try:
            self._descend(max_iterations)
        except _NUMERICAL:
            return None
        fitted: Hyperparameters = self.model.read()
        ran_away = max(float(t.log().abs().nan_to_num(torch.inf).max()) for t in fitted[:2])
        with torch.no_grad():
            if ran_away > _BOUND or not self._loss_at(fitted) <= to_beat + 1e-6:
                return None
        return fitted

    def _loss(self) -> Tensor:
        loss: Tensor = -self.value(self.model(self.x), self.y).sum()
        return loss

    def _loss_at(self, start: Hyperparameters) -> float:
        self.model.load(start)
        try:
            return float(self._loss())
        except _NUMERICAL:
            return math.inf

    def _descend(self, max_iterations: int) -> None:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.LBFGS(
            parameters,
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = self._loss()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
