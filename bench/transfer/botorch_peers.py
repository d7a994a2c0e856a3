"""``multitask`` and ``rgpe``: BoTorch's two ways to learn from other tasks, at equal traffic.

Both choose their arms as the race's ``qlognei`` does (constrained log noisy expected improvement,
what is in flight as pending); only the model differs, and there is one from the first hour on:

multitask   ``MultiTaskGP`` per metric with known noise: the target is task 0, every source one
            more, intrinsic coregionalisation; posteriors of the target's task
rgpe        the ranking-weighted ensemble of BoTorch's tutorial "Using BoTorch with Ax / RGPE":
            a ``SingleTaskGP`` per source and metric on standardised outcomes, weights by ranking
            loss with the target's left out, sources that would dilute them dropped

Sources are thinned to 400 rows in all, at random, because ``MultiTaskGP`` is exact. What is
recommended is chosen by this package's rule with the same sources, which is generous to the peers.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, MultiTaskGP, SingleTaskGP
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model import Model
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import LikelihoodList
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models import GP
from torch import Tensor

import hyperzero_torch as hz
from bench.quality.race.contender import Peer, Seen
from bench.quality.race.qlognei import best_batch
from hyperzero_torch.transfer import Source, align

from .families import MemberWorld

_MOST_ROWS = 400
_FLOOR = 1e-5  # of the noise, in units of the standardised outcome


class Transferring(Peer):
    """Arms by qLogNEI under a model that knows the sources."""

    def __init__(self, world: MemberWorld, seed: int, given: list[Source], **options: Any) -> None:
        super().__init__(world, seed, **options)
        self.tuner = hz.Tuner(world.problem, seed=seed, sources=given)
        aligned = [align(source, world.problem) for source in given]
        generator = torch.Generator().manual_seed(seed)
        most = max(1, _MOST_ROWS // max(1, len(aligned)))
        self.sources = []
        for one in aligned:
            rows = torch.randperm(len(one.x), generator=generator)[:most]
            self.sources.append((one.x[rows], one.mean[rows], one.var[rows]))

    @abstractmethod
    def model(self, seen: Seen) -> Model:
        """One that predicts every metric of the target."""

    def propose(self, seen: Seen) -> Tensor:
        seed = self.seed * 1000 + seen.round
        torch.manual_seed(seed)
        model, x = self.model(seen), seen.x[seen.rows]
        with torch.no_grad():
            mean = model.posterior(torch.rand(256, self.dims, dtype=torch.float64)).mean
        outcome = seen.problem.evaluate(mean)
        return best_batch(model, seen, outcome, self.arms, seed, prune=len(x) > 1)


class MultiTask(Transferring):
    """A ``MultiTaskGP`` per metric."""

    def model(self, seen: Seen) -> Model:
        own = (seen.x[seen.rows], seen.mean[seen.rows], seen.var[seen.rows])
        parts = [own, *self.sources]
        x = torch.cat(
            [torch.cat([p[0], torch.full((len(p[0]), 1), float(i)).double()], 1)
             for i, p in enumerate(parts)]
        )  # fmt: skip
        models = []
        for k in range(seen.mean.shape[1]):
            y = torch.cat([p[1][:, k : k + 1] for p in parts])
            var = torch.cat([p[2][:, k : k + 1] for p in parts])
            var = var.clamp_min(_FLOOR * float(y.var()))
            model = MultiTaskGP(x, y, task_feature=-1, train_Yvar=var, output_tasks=[0])
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": {"maxiter": 50}},
            )
            models.append(model)
        return ModelListGP(*models)


class RankingWeighted(Transferring):
    """RGPE per metric; source models are fitted once."""

    def __init__(self, world: MemberWorld, seed: int, given: list[Source], **options: Any) -> None:
        super().__init__(world, seed, given, **options)
        self.base_models = [
            [_single(x, mean[:, k : k + 1], var[:, k : k + 1]) for x, mean, var in self.sources]
            for k in range(world.problem.num_metrics)
        ]

    def model(self, seen: Seen) -> Model:
        x = seen.x[seen.rows]
        models = []
        for k, base in enumerate(self.base_models):
            y, var = seen.mean[seen.rows, k : k + 1], seen.var[seen.rows, k : k + 1]
            if len(x) < 3:  # no pair can be ranked yet: the sources, equally
                unit = torch.stack([m.scale for m in base]).mean()
                models.append(_Ensemble(base, torch.full((len(base),), 1 / len(base)), 0.0, unit))
                continue
            target = _single(x, y, var)
            weights = _rank_weights(target, base, x, (y - target.shift) / target.scale)
            models.append(_Ensemble([*base, target], weights, target.shift, target.scale))
        return ModelListGP(*models)


class _Standardised(SingleTaskGP):
    shift: Tensor
    scale: Tensor


def _single(x: Tensor, y: Tensor, var: Tensor) -> _Standardised:
    shift, scale = y.mean(), y.std().clamp_min(1e-9)
    noise = (var / scale**2).clamp_min(_FLOOR)
    model = _Standardised(x, (y - shift) / scale, noise, outcome_transform=None)
    model.shift, model.scale = shift, scale
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _rank_weights(
    target: _Standardised, base: list[_Standardised], x: Tensor, y: Tensor, num: int = 256
) -> Tensor:
    """As the tutorial: how often each model misranks least, the target's rows left out."""

    def loss(samples: Tensor) -> Tensor:  # (num, n)
        wrong = (samples.unsqueeze(-1) < samples.unsqueeze(-2)) ^ (y < y.T)
        return wrong.sum((-2, -1)).double()

    with torch.no_grad():
        drawn = [model.posterior(x).rsample(torch.Size([num])).squeeze(-1) for model in base]
        losses = [loss(samples) for samples in drawn]
        target.eval()
        kernel = target.covar_module(x).to_dense()
        system = kernel + torch.diag(target.likelihood.noise.squeeze())
        inverse = torch.linalg.inv(system)
        constant = target.mean_module(x)
        left = y.squeeze(-1) - (inverse @ (y.squeeze(-1) - constant)) / inverse.diagonal()
        spread = (1 / inverse.diagonal() - target.likelihood.noise.squeeze()).clamp_min(1e-9).sqrt()
        losses.append(loss(left + spread * torch.randn(num, len(x), dtype=torch.float64)))
    stacked = torch.stack(losses)
    limit = stacked[-1].quantile(0.95)
    diluted = stacked[:-1].median(dim=1).values > limit
    stacked[:-1][diluted] = torch.inf
    best = stacked.amin(0)
    won = torch.where((stacked[-1] == best), len(stacked) - 1, stacked.argmin(0))
    return torch.bincount(won, minlength=len(stacked)).double() / num


class _Ensemble(GP, GPyTorchModel):
    """Weighted sum of standardised models, in the target's unit; after the tutorial's ``RGPE``."""

    num_outputs = 1

    def __init__(
        self, models: list[_Standardised], weights: Tensor, shift: Tensor | float, scale: Tensor
    ) -> None:
        super().__init__()
        self.models, self.weights = models, weights.double()
        self.shift, self.scale = shift, scale
        self.likelihood = LikelihoodList(*[model.likelihood for model in models])
        self.train_inputs = models[-1].train_inputs
        self.to(torch.float64)

    def forward(self, x: Tensor) -> MultivariateNormal:
        mean, covariance = 0.0, 0.0
        for model, weight in zip(self.models, self.weights):
            if weight <= 0:
                continue
            found = model.posterior(x).mvn
            mean = mean + weight * found.mean
            covariance = covariance + weight**2 * found.covariance_matrix
        jitter = 1e-8 * torch.eye(x.shape[-2], dtype=x.dtype)
        return MultivariateNormal(
            self.shift + self.scale * mean, self.scale**2 * (covariance + jitter)
        )

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> MultivariateNormal:
        return self.forward(x)
