"""Fitted processes with what their posteriors need at hand, and their ranking-weighted sum.

``Settled`` restates the posterior of a fitted BoTorch model at one task: the same numbers, without
the layers that a search of an acquisition function would pass thousands of times. ``Ensemble`` and
``rank_weights`` are BoTorch's tutorial "Meta-Learning with the Rank-Weighted GP Ensemble".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from botorch.models import MultiTaskGP, SingleTaskGP
from botorch.models.gpytorch import GPyTorchModel
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.models import GP
from torch import Tensor

NUM_DRAWS = 256  # of the ranking loss
_JITTER = 1e-8  # of a posterior's covariance, in units of the standardised outcome


class Units(NamedTuple):
    """A task's outcomes standardised: ``y (n,)``, known noise ``(n,)``, and the way back."""

    y: Tensor
    noise: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, y: Tensor, var: Tensor, like: Tensor | None = None) -> Units:
        """Standardise ``y (n,)`` and ``var (n,)`` by the moments of ``like``, of ``y`` if None."""
        like = y if like is None else like
        shift, scale = like.mean(), like.std().clamp_min(1e-9)
        return cls((y - shift) / scale, var / scale**2, shift, scale)


class Settled:
    """A process over the unit cube, conditioned on rows whose kernel with it is scaled.

        cov(f(x), row_j) = across_j k(x, x_j)        cov(f(x), f(x')) = own k(x, x')

    Args:
        x: rows, ``(n, dims)``.
        y: standardised outcomes less their prior means, ``(n,)``.
        noise: their known variances, ``(n,)``.
        lengthscale: of the squared-exponential kernel ``k``, ``(dims,)``.
        covariance: prior covariance of the rows over ``k`` between them, ``(n, n)`` or 1.
        across: ``(n,)`` or 1.
        own: prior variance.
        constant: prior mean.
        units: of the task that is predicted.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        lengthscale: Tensor,
        constant: Tensor,
        units: Units,
        covariance: Tensor | float = 1.0,
        across: Tensor | float = 1.0,
        own: Tensor | float = 1.0,
    ) -> None:
        self.x, self.y, self.noise = x / lengthscale, y, noise
        self.lengthscale, self.constant, self.units = lengthscale, constant, units
        self.across, self.own = across, own
        #: Prior covariance of the rows.
        self.prior = covariance * _kernel(self.x, self.x)
        root = torch.linalg.cholesky(self.prior + torch.diag(noise))
        self.solved = torch.cholesky_solve(y.unsqueeze(-1), root)
        # A product with the root's inverse is several times faster than solving with the root.
        self.inverse = torch.linalg.solve_triangular(root, torch.eye(len(y)).to(y), upper=False)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(*batch, q)`` and covariance ``(*batch, q, q)``, standardised."""
        x = x / self.lengthscale
        cross = self.across * _kernel(x, self.x)
        mean = self.constant + (cross @ self.solved).squeeze(-1)
        half = cross @ self.inverse.mT
        return mean, self.own * _kernel(x, x) - half @ half.mT


def single(model: SingleTaskGP, units: Units) -> Settled:
    """The posterior of a fitted model with known noise, without an outcome transform."""
    with torch.no_grad():
        constant = model.mean_module.constant.detach()
        return Settled(
            model.train_inputs[0],
            model.train_targets - constant,
            _noise(model),
            model.covar_module.lengthscale.detach().squeeze(0),
            constant,
            units,
        )


def target_of(model: MultiTaskGP, units: Units) -> Settled:
    """The posterior of task 0 of a fitted model with known noise, the task in the last column."""
    with torch.no_grad():
        data, tasks = model.covar_module.kernels
        between = tasks.covar_matrix.detach()
        inputs = model.train_inputs[0]
        task = inputs[:, -1].long()
        constants = torch.stack([mean.constant for mean in model.mean_module.base_means]).detach()
        return Settled(
            inputs[:, :-1],
            model.train_targets - constants[task],
            _noise(model),
            data.lengthscale.detach().squeeze(0),
            constants[0],
            units,
            covariance=between[task][:, task],
            across=between[0, task],
            own=between[0, 0],
        )


class Ensemble(GP, GPyTorchModel):
    """The weighted sum of processes, each in its own task's units; after the tutorial's ``RGPE``.

    Args:
        parts: processes; those of weight 0 are left out.
        weights: ``(parts,)``, they need not sum to 1.
    """

    num_outputs = 1

    def __init__(self, parts: list[Settled], weights: Tensor) -> None:
        super().__init__()
        shares = (weights / weights.sum()).tolist()
        self.parts = [(part, share) for part, share in zip(parts, shares) if share > 0]
        # What BoTorch looks for in a model; neither is used to predict.
        self.likelihood = FixedNoiseGaussianLikelihood(noise=parts[-1].noise)
        self.train_inputs = (parts[-1].x * parts[-1].lengthscale,)

    def forward(self, x: Tensor) -> MultivariateNormal:
        mean = x.new_zeros(x.shape[:-1])
        covariance = x.new_zeros(*x.shape[:-1], x.shape[-2])
        jitter = _JITTER * torch.eye(x.shape[-2], dtype=x.dtype)
        for part, share in self.parts:
            value, spread = part.posterior(x)
            mean = mean + share * (part.units.shift + part.units.scale * value)
            covariance = covariance + (share * part.units.scale) ** 2 * (spread + jitter)
        return MultivariateNormal(mean, covariance)

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> MultivariateNormal:
        return self.forward(x)


def rank_weights(
    target: Settled, base: list[Settled], x: Tensor, y: Tensor, guarded: bool = False
) -> Tensor:
    """How often each process misranks the target's rows least, ``(base + 1,)``, the target last.

    As the tutorial: joint draws at the target's rows; the target's own prediction of a row comes
    from the process without it, and is compared with that process's draws at the other rows; ties
    go to the first.

    Args:
        target: conditioned on the rows.
        base: of the sources.
        x: the target's rows, ``(n, dims)``.
        y: their outcomes, ``(n,)``, in any unit.
        guarded: leave out sources whose median loss is above the 95th percentile of the target's
            (Feurer, Letham and Bakshy 2018).
    """
    smaller = y.unsqueeze(-1) < y
    losses = []
    for part in base:
        draws = _draw(*part.posterior(x))
        losses.append(((draws.unsqueeze(-1) < draws.unsqueeze(-2)) ^ smaller).sum((-2, -1)))
    losses.append(left_out_loss(target, smaller))
    stacked = torch.stack(losses).double()
    if guarded:
        dilutes = stacked[:-1].median(dim=1).values > stacked[-1].quantile(0.95)
        stacked[:-1][dilutes] = torch.inf
    return torch.bincount(stacked.argmin(0), minlength=len(stacked)).double() / NUM_DRAWS


def left_out_loss(target: Settled, smaller: Tensor) -> Tensor:
    """The target's ranking loss of each draw, ``(draws,)``, by processes that lack one row each."""
    prior, n = target.prior, len(target.y)
    loss = torch.zeros(NUM_DRAWS, dtype=torch.long)
    for row in range(n):
        kept = torch.arange(n) != row
        root = torch.linalg.cholesky(prior[kept][:, kept] + torch.diag(target.noise[kept]))
        half = torch.linalg.solve_triangular(root, prior[kept], upper=False)
        rest = torch.linalg.solve_triangular(root, target.y[kept].unsqueeze(-1), upper=False)
        draws = _draw((half.mT @ rest).squeeze(-1), prior - half.mT @ half)
        loss += ((draws[:, row : row + 1] < draws) ^ smaller[row]).sum(-1)
    return loss


def _draw(mean: Tensor, covariance: Tensor) -> Tensor:
    """Joint draws, ``(draws, n)``."""
    root = torch.linalg.cholesky(covariance + _JITTER * torch.eye(len(mean), dtype=mean.dtype))
    return mean + torch.randn(NUM_DRAWS, len(mean), dtype=mean.dtype) @ root.mT


def _noise(model: Any) -> Tensor:
    noise: Tensor = model.likelihood.noise.detach()
    return noise


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """``exp(-|a - b|^2 / 2)``, ``(*batch, n, m)``, of points over their lengthscales."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (a @ b.mT - squares / 2).exp()
