"""A mixture of exact Gaussian processes, one for each draw of hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.means import ConstantMean
from torch import Tensor

from ...errors import FitError
from ..standardise import prepare
from .posterior import KernelPaths, KernelPosterior, MetricData, metric_data
from .prior import MetricPrior


class Sampler(Protocol):
    """The steps of a sampler; ``Saas`` states them."""

    warmup: int
    samples: int
    thinning: int
    depth: int
    seed: int


def fit_saas(
    saas: Sampler,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    shared: Tensor | None,
    prior_std: Tensor | None,
) -> MixturePosterior:
    """See ``Saas``. What JAX compiled in this process before is compiled again when it is used."""
    import jax

    prepared = prepare(x, mean, var, shared, prior_std)
    try:
        by_metric = [_drawn_priors(saas, metric_data(prepared, m)) for m in range(mean.shape[1])]
    finally:
        # The sampler is compiled anew for the data of each metric, and JAX keeps every program:
        # over 200 MB a fit, which would end a live loop within a day or two.
        jax.clear_caches()
    parts = [KernelPosterior(list(priors), prepared) for priors in zip(*by_metric)]
    return MixturePosterior(parts)


def _drawn_priors(saas: Sampler, data: MetricData) -> list[MetricPrior]:
    """One metric's priors, a draw of hyperparameters each."""
    from botorch.fit import fit_fully_bayesian_model_nuts
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    x, y = data.x.cpu(), data.y.cpu().unsqueeze(-1)
    noise = data.noise.diagonal().cpu().unsqueeze(-1)
    model = SaasFullyBayesianSingleTaskGP(x, y, noise)
    fit_fully_bayesian_model_nuts(
        model,
        max_tree_depth=saas.depth,
        warmup_steps=saas.warmup,
        num_samples=saas.samples,
        thinning=saas.thinning,
        disable_progbar=True,
        seed=saas.seed,
    )
    kernel, constants = model.covar_module, model.mean_module.constant.detach().reshape(-1)
    scales = kernel.outputscale.detach().reshape(-1)
    lengths = kernel.base_kernel.lengthscale.detach().reshape(len(scales), -1)
    priors = []
    for constant, scale, length in zip(constants, scales, lengths):
        if not all(bool(t.isfinite().all()) for t in (constant, scale, length)):
            continue
        drawn = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=len(length))).double()
        drawn.base_kernel.lengthscale, drawn.outputscale = length, scale
        centre = ConstantMean().double()
        centre.constant.data.copy_(constant)
        priors.append(MetricPrior(centre, drawn).to(data.x.device))
    if not priors:
        raise FitError("the sampler of hyperparameters diverged: no draw is finite")
    # Metrics have the same number of draws: the last is repeated where some are not finite.
    num = len(scales)
    return [*priors, *([priors[-1]] * (num - len(priors)))]


class MixturePosterior:
    """The average of exact Gaussian processes with other hyperparameters.

    Args:
        parts: equally likely, of the same data.
    """

    fit_succeeded = True

    def __init__(self, parts: Sequence[KernelPosterior]) -> None:
        self.parts = tuple(parts)
        self.lengthscale = torch.stack([part.lengthscale for part in parts]).median(0).values

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> MixturePosterior:
        """The same draws of hyperparameters given other evidence."""
        return MixturePosterior([part.condition(x, mean, var, shared) for part in self.parts])

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mixture's mean and variance: ``(N, dims)`` to ``(N, metrics)``."""
        pairs = [part.marginal(x) for part in self.parts]
        means, variances = (torch.stack(field) for field in zip(*pairs))
        return means.mean(0), variances.mean(0) + means.var(0, correction=0)

    def covariance(self, x: Tensor) -> Tensor:
        """The mixture's joint covariance: ``(N, dims)`` to ``(metrics, N, N)``."""
        joint = torch.stack([part.covariance(x) for part in self.parts]).mean(0)
        means = torch.stack([part.marginal(x)[0] for part in self.parts])
        centred = means - means.mean(0)
        return joint + torch.einsum("sam,sbm->mab", centred, centred) / len(self.parts)

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> MixturePaths:
        """Joint draws, each of a process that is drawn first."""
        device = self.parts[0].device
        which = torch.randint(len(self.parts), (num_paths,), generator=generator, device=device)
        drawn, places = [], []
        for number, part in enumerate(self.parts):
            at = (which == number).nonzero().flatten()
            if len(at):
                drawn.append(part.paths(len(at), generator))
                places.append(at)
        return MixturePaths(drawn, places)


class MixturePaths:
    """Functions drawn from a mixture: of several processes, in the order of drawing."""

    def __init__(self, drawn: Sequence[KernelPaths], places: Sequence[Tensor]) -> None:
        self._drawn, self._places = tuple(drawn), tuple(places)
        self._order = torch.cat(self._places).argsort()

    @property
    def tile(self) -> int:
        """Points to evaluate at once."""
        return min(paths.tile for paths in self._drawn)

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(paths, N, metrics)``."""
        return torch.cat([paths(x) for paths in self._drawn])[self._order]

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        pairs = zip(self._drawn, self._places)
        return torch.cat([paths.each(x[at]) for paths, at in pairs])[self._order]
