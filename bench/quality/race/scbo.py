"""``scbo``: scalable constrained Bayesian optimisation (Eriksson and Poloczek, 2021).

As in BoTorch's tutorial "Scalable Constrained Bayesian Optimization": one process for the
objective and one per constraint (Matern 5/2, lengthscales in [0.005, 4]), a trust region around
the best point that doubles after 10 successes and halves after ``max(4, dims) / batch`` failures,
and constrained Thompson samples of 2000 perturbed points inside it. The tutorial's test function
has no noise and no delay; for these the papers on TuRBO and SCBO are followed:

- the noise of each observation is known and given to the models;
- points are compared by their posterior means, not by their noisy readings;
- the trust region is updated after every ``batch`` points that have arrived, from any rounds;
  Thompson samples need no correction for pending points;
- a trust region that has become too small is reset to its initial size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import gpytorch
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.generation.sampling import ConstrainedMaxPosteriorSampling
from botorch.models import ModelListGP, SingleTaskGP
from gpytorch.constraints import Interval
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor
from torch.quasirandom import SobolEngine

from hyperzero_torch.simulate import Environment

from .contender import Peer, Seen

_NUM_SOBOL = 10
_NUM_CANDIDATES = 2000
_NOISE_FLOOR = 1e-5
_LENGTH, _SHORTEST, _LONGEST = 0.8, 0.5**7, 1.6
_SUCCESSES = 10


@dataclass
class TrustRegion:
    """Side length of the region, and its numbers of consecutive successes and failures."""

    failures_allowed: int
    length: float = _LENGTH
    successes: int = 0
    failures: int = 0

    def update(self, success: bool) -> None:
        self.successes = self.successes + 1 if success else 0
        self.failures = 0 if success else self.failures + 1
        if self.successes == _SUCCESSES:
            self.length, self.successes = min(2 * self.length, _LONGEST), 0
        elif self.failures == self.failures_allowed:
            self.length, self.failures = self.length / 2, 0
        if self.length < _SHORTEST:
            self.length, self.successes, self.failures = _LENGTH, 0, 0


class SCBO(Peer):
    def __init__(self, world: Environment, seed: int, **options: float | None) -> None:
        super().__init__(world, seed, **options)
        allowed = math.ceil(max(4.0, self.dims) / self.arms)
        self.region = TrustRegion(allowed)
        self.sobol = SobolEngine(self.dims, scramble=True, seed=seed)
        self._judged: list[int] = [0]  # candidates that have updated the trust region

    def propose(self, seen: Seen) -> Tensor:
        torch.manual_seed(self.seed * 1000 + seen.round)
        if len(seen.rows) <= _NUM_SOBOL:
            self._judged = seen.rows.tolist()
            return self.sobol.draw(self.arms, dtype=torch.float64)
        x, outcomes = seen.x[seen.rows], seen.outcomes()
        models = [_fit(x, outcomes.utility, outcomes.utility_var)]
        models += [
            _fit(x, -outcomes.slack[:, k], outcomes.slack_var[:, k])
            for k in range(outcomes.slack.shape[1])
        ]
        with torch.no_grad(), gpytorch.settings.max_cholesky_size(10**6):
            means = [model.posterior(x).mean.squeeze(-1) for model in models]
            utility, excess = means[0], torch.stack(means[1:], dim=-1)
            self._update(seen.rows.tolist(), utility, excess)
            candidates = self._perturb(x[_best(utility, excess)])
            sample = ConstrainedMaxPosteriorSampling(
                models[0], constraint_model=ModelListGP(*models[1:]), replacement=False
            )
            chosen: Tensor = sample(candidates, num_samples=self.arms)
            return chosen

    def _update(self, rows: list[int], utility: Tensor, excess: Tensor) -> None:
        new = [i for i, row in enumerate(rows) if row not in self._judged]
        while len(new) >= self.arms:
            batch, new = new[: self.arms], new[self.arms :]
            old = [i for i, row in enumerate(rows) if row in self._judged]
            both = torch.tensor(old + batch)
            best = int(both[_best(utility[both], excess[both])])
            self.region.update(success=best in batch)
            self._judged += [rows[i] for i in batch]

    def _perturb(self, centre: Tensor) -> Tensor:
        half = self.region.length / 2
        low, high = (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)
        moved = low + (high - low) * self.sobol.draw(_NUM_CANDIDATES, dtype=torch.float64)
        mask = torch.rand_like(moved) <= min(20.0 / self.dims, 1.0)
        still = (~mask.any(-1)).nonzero().squeeze(-1)
        mask[still, torch.randint(self.dims, (len(still),))] = True
        return torch.where(mask, moved, centre)


def _best(utility: Tensor, excess: Tensor) -> Tensor:
    """The best feasible point, or else the one with the least violation."""
    feasible = (excess <= 0).all(-1)
    if bool(feasible.any()):
        return torch.where(feasible, utility, -torch.inf).argmax()
    return excess.clamp_min(0).sum(-1).argmin()


def _fit(x: Tensor, y: Tensor, var: Tensor) -> SingleTaskGP:
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=x.shape[1], lengthscale_constraint=Interval(0.005, 4.0))
    )
    floor = _NOISE_FLOOR * y.var()
    model = SingleTaskGP(
        x, y.unsqueeze(-1), var.clamp_min(floor).unsqueeze(-1), covar_module=kernel
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model
