"""Fitting GPyTorch priors, and models of GPyTorch and BoTorch whose priors they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from gpytorch.kernels import GridKernel, InducingPointKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.models import ExactGP
from torch import Tensor

from ...errors import ConfigError
from ..standardise import prepare
from .likelihood import maximise
from .posterior import KernelPosterior, MetricData, metric_data
from .prior import MetricPrior, shortest_lengthscale

#: From one metric's data to its prior before the fit.
Start: TypeAlias = Callable[[MetricData], MetricPrior]

# Fitted parameters without a prior, for each dimension and one more, that need no warning.
_FREE_PARAMETERS = 4


class KernelSurrogate:
    """Fits a GPyTorch prior to each metric, always from the same start.

    Args:
        start: the prior before a fit.
    """

    def __init__(self, start: Start) -> None:
        self._start = start

    def fit(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None = None,
        prior_std: Tensor | None = None,
    ) -> KernelPosterior:
        """The posterior given evidence; arguments and errors as in ``Surrogate.fit``.

        ``prior_std`` scales the outputs as in ``Surrogate``.
        """
        prepared = prepare(x, mean, var, shared, prior_std)
        priors, succeeded = [], True
        for metric in range(mean.shape[1]):
            data = metric_data(prepared, metric)
            prior, is_fitted = maximise(self._start(data).to(x.device), *data)
            priors.append(prior)
            succeeded = succeeded and is_fitted
        return KernelPosterior(priors, prepared, fit_succeeded=succeeded)


class ModelPrior(MetricPrior):
    """The prior of a GPyTorch ``ExactGP`` or a BoTorch ``SingleTaskGP``: what its ``forward`` says.

    Its likelihood is not used: noise is known, and the control's part of it shared.
    """

    def __init__(self, model: ExactGP) -> None:
        torch.nn.Module.__init__(self)
        self.model = model.double().eval()
        self.has_kernel = self._has_kernel()

    def mean(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(N,)``."""
        value: Tensor = self._at(x).mean
        return value

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariance of two sets of points, ``(N, n)``."""
        if self.has_kernel:
            value: Tensor = self.model.covar_module(self._moved(a), self._moved(b)).to_dense()
            return value
        joint: Tensor = self._at(torch.cat([a, b])).covariance_matrix
        return joint[: len(a), len(a) :]

    def variance(self, x: Tensor) -> Tensor:
        """Prior variance of points, ``(N,)``."""
        if self.has_kernel:
            value: Tensor = self.model.covar_module(self._moved(x), diag=True)
            return value
        # One at a time would be slow, all at once would need a matrix of all points.
        parts = [self._at(part).covariance_matrix.diagonal() for part in torch.split(x, 256)]
        return torch.cat(parts)

    @property
    def kernel(self) -> Any:
        """The kernel where it takes points as they are; else None."""
        is_plain = self.has_kernel and getattr(self.model, "input_transform", None) is None
        return self.model.covar_module if is_plain else None

    def lengthscale(self, like: Tensor) -> Tensor:
        """Of its kernel, where points reach it as they are; else the default's."""
        return shortest_lengthscale(self.kernel, like)

    def parts(self) -> list[Any]:
        """All parts but the likelihood, whose noise is known."""
        return [m for name, m in self.model.named_children()
                if name != "likelihood" and hasattr(m, "named_priors")]  # fmt: skip

    def _moved(self, x: Tensor) -> Tensor:
        transform = getattr(self.model, "input_transform", None)
        return x if transform is None else transform(x)

    def _at(self, x: Tensor) -> Any:
        return self.model.forward(self._moved(x))

    def _has_kernel(self) -> bool:
        """Whether its kernel alone gives the covariance of ``forward``."""
        if not hasattr(self.model, "covar_module"):
            return False
        (inputs,) = self.model.train_inputs
        x = inputs[:4].double()
        with torch.no_grad():
            try:
                by_kernel = self.model.covar_module(x).to_dense()
                return bool(torch.allclose(by_kernel, self.model.forward(x).covariance_matrix))
            except (RuntimeError, IndexError):
                return False


def check_model(model: Any, text: str) -> ExactGP:
    """A model that a factory made, refused where its prior cannot be used.

    Raises:
        ConfigError: not an exact Gaussian process of one output with known noise.
    """
    if not isinstance(model, ExactGP):
        raise ConfigError(
            f"{text} must make a gpytorch.models.ExactGP or a BoTorch SingleTaskGP, whose "
            f"posterior is Gaussian; it made {type(model).__name__}"
        )
    check_known_noise(model, text)
    num_outputs = getattr(model, "_num_outputs", 1)
    batch = tuple(getattr(model, "batch_shape", ()))
    if num_outputs != 1 or batch:
        raise ConfigError(
            f"{text} is called for each metric on its own, with y (n, 1), and must make a model of "
            f"one output without a batch; it made one of {num_outputs} outputs and batch {batch}"
        )
    return model


def caveat_of(prior: MetricPrior, dims: int) -> str | None:
    """What users of a prior must know: it has more free parameters than evidence can settle.

    A trend and a few kernels with a scale and a lengthscale for each dimension stay below the
    limit; a network, or a spectral mixture, without priors does not.
    """
    num = prior.num_without_prior()
    if num <= _FREE_PARAMETERS * (dims + 1):
        return None
    return (
        f"not to be relied on for guardrails: {num} parameters are fitted to each metric without a "
        "prior, and intervals of such a kernel can be far too narrow (bench.quality.surrogates); "
        "state priors, or freeze a network that is trained"
    )


def check_known_noise(model: Any, text: str) -> None:
    """Refuse a model that learns noise, or whose posterior is not Gaussian.

    Raises:
        ConfigError: it does, or is not.
    """
    if getattr(model, "_is_fully_bayesian", False):
        raise ConfigError(
            f"the posterior of {type(model).__name__} is a mixture over its hyperparameters, not "
            "Gaussian; surrogate='saas' averages draws of SaasFullyBayesianSingleTaskGP"
        )
    likelihood = model.likelihood
    learns = getattr(likelihood, "second_noise_covar", None) is not None
    if not isinstance(likelihood, FixedNoiseGaussianLikelihood) or learns:
        raise ConfigError(
            f"{text} makes a model whose likelihood ({type(likelihood).__name__}) learns noise, "
            "but noise is known here; hand the third argument on: SingleTaskGP(x, y, yvar), or "
            "FixedNoiseGaussianLikelihood(noise=yvar.squeeze(-1))"
        )
    transform = getattr(model, "outcome_transform", None)
    if transform is not None and not getattr(transform, "_is_linear", False):
        raise ConfigError(
            f"{text} makes a model with the outcome transform {type(transform).__name__}, after "
            "which the posterior is not Gaussian; leave it out"
        )


def check_prior(prior: MetricPrior, x: Tensor, text: str) -> None:
    """Evaluate a prior at points ``x (n, dims)`` of the cube, and refuse it where that fails.

    Raises:
        ConfigError: other dimensions, a batch, values that are not finite, not a covariance; an
            approximate kernel, which keeps results of earlier parameters.
    """
    n, dims = x.shape
    for part in prior.modules():
        if isinstance(part, GridKernel | InducingPointKernel):
            raise ConfigError(
                f"{text} has a {type(part).__name__}, an approximation for fits that are not "
                "exact; fits are exact here: hand over its base kernel"
            )
    try:
        with torch.no_grad():
            mean, joint, variance = prior.mean(x), prior.cross(x, x), prior.variance(x)
    except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"{text} cannot be evaluated at points ({n}, {dims}) of this problem's unit cube "
            f"({type(error).__name__}: {first:.200}); a Choice has one dimension for each option: "
            f"give it ard_num_dims={dims}, or active_dims below {dims}"
        ) from None
    try:  # paths are climbed by their slopes
        at = x[:2].clone().requires_grad_()
        with torch.enable_grad():
            prior.cross(at, x), prior.mean(at)
    except RuntimeError as error:
        raise ConfigError(
            f"{text} cannot be differentiated in x ({str(error).strip():.100}); write it in torch"
        ) from None
    shapes = tuple(tuple(t.shape) for t in (mean, joint, variance))
    if shapes != ((n,), (n, n), (n,)):
        raise ConfigError(
            f"{text} must give a mean ({n},) and a covariance ({n}, {n}) at {n} points, got "
            f"{shapes[0]} and {shapes[1]}; each metric has a copy of its own: leave batch_shape out"
        )
    if not all(bool(t.isfinite().all()) for t in (mean, joint, variance)):
        raise ConfigError(f"{text} is not finite everywhere in the unit cube")
    size = joint.abs().max().clamp_min(1e-300)
    symmetric = bool(((joint - joint.T).abs() <= 1e-8 * size).all())
    if not symmetric or float(torch.linalg.eigvalsh(joint)[0]) < -1e-6 * n * float(size):
        raise ConfigError(f"{text} is no covariance: not symmetric and positive semi-definite")
