"""``qlognei``: BoTorch's constrained log noisy expected improvement.

As BoTorch documents it for noisy, constrained, batched problems (tutorial "Closed-loop batch,
constrained BO with qLogEI and qLogNEI"; docstring of ``qLogNoisyExpectedImprovement``): one
``SingleTaskGP`` per metric with the known noise of its observations, objective and constraints as
functions of the posterior samples, ``prune_baseline=True``, pending points as ``X_pending``,
and a batch chosen greedily (``sequential=True``). Objective and slacks are divided by their
spread, because the temperatures of the smooth maximum and of the constraints assume values of
about 1. The tutorial's 10 restarts of 200 steps from 512 raw points with 256 samples are cut to 4,
50, 256 and 128.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.acquisition.objective import GenericMCObjective
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.model import Model
from botorch.optim import optimize_acqf
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.mlls import SumMarginalLogLikelihood
from torch import Tensor

from hyperzero_torch import Outcome

from .contender import Peer, Seen

# GPyTorch clamps known noise up to this, in units of the standardised outcome.
_NOISE_FLOOR = 1e-5
_NUM_SOBOL = 10  # observed points before there is a model, as many as the tutorial starts with


class QLogNEI(Peer):
    num_restarts = 4
    raw_samples = 256
    mc_samples = 128

    def propose(self, seen: Seen) -> Tensor:
        seed = self.seed * 1000 + seen.round
        if len(seen.rows) <= _NUM_SOBOL:
            space = self.tuner.problem.space
            drawn = space.sobol((seen.round + 1) * self.arms, seed=self.seed)
            return drawn[-self.arms :]
        torch.manual_seed(seed)
        x, mean, var = seen.x[seen.rows], seen.mean[seen.rows], seen.var[seen.rows]
        model = fit(x, mean, var)
        outcomes = seen.outcomes()
        return best_batch(model, seen, outcomes, self.arms, seed, prune=True)


def best_batch(
    model: Model, seen: Seen, outcomes: Outcome, arms: int, seed: int, prune: bool
) -> Tensor:
    """The batch ``(arms, dims)`` that maximises qLogNEI under a model of the metrics.

    ``outcomes`` of typical points set the scale of utility and slacks.
    """
    x, evaluate = seen.x[seen.rows], seen.problem.evaluate
    shift, scale = outcomes.utility.mean(), _spread(outcomes.utility)

    def utility(samples: Tensor, X: Tensor | None = None) -> Tensor:  # noqa: N803
        return (evaluate(samples).utility - shift) / scale

    def excess(samples: Tensor, column: int, scale: Tensor) -> Tensor:
        return -evaluate(samples).slack[..., column] / scale

    constraints: list[Callable[[Tensor], Tensor]] = [
        partial(excess, column=k, scale=_spread(slack))
        for k, slack in enumerate(outcomes.slack.unbind(-1))
    ]
    acquisition = qLogNoisyExpectedImprovement(
        model,
        X_baseline=x,
        sampler=SobolQMCNormalSampler(torch.Size([QLogNEI.mc_samples]), seed=seed),
        objective=GenericMCObjective(utility),
        X_pending=seen.x[list(seen.pending)] if seen.pending else None,
        constraints=constraints or None,
        prune_baseline=prune,
    )
    chosen: Tensor
    chosen, _ = optimize_acqf(
        acquisition,
        bounds=torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, x.shape[1]),
        q=arms,
        num_restarts=QLogNEI.num_restarts,
        raw_samples=QLogNEI.raw_samples,
        options={"init_batch_limit": QLogNEI.raw_samples, "maxiter": 50},
        sequential=True,
        retry_on_optimization_warning=False,  # a search that ends at its last step is enough
    )
    return chosen.detach()


def fit(x: Tensor, mean: Tensor, var: Tensor) -> ModelListGP:
    """A process per column of ``mean (n, outcomes)`` with known noise, fitted together."""
    floor = _NOISE_FLOOR * mean.var(0)
    models = [
        SingleTaskGP(x, mean[:, k : k + 1], var[:, k : k + 1].clamp_min(floor[k]))
        for k in range(mean.shape[1])
    ]
    model = ModelListGP(*models)
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return model


def _spread(values: Tensor) -> Tensor:
    return values.std().clamp_min(1e-12)
