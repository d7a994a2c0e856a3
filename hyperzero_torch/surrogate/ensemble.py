"""An ensemble of small neural networks with known noise, as a surrogate of the protocol.

Every member is a network with a layer of tanh units. Its weights are drawn from a prior and trained
towards evidence that is disturbed by a draw of the noise, the control's common error included, and
towards its own initial weights. The last layer is then solved exactly:

    w = w0 + (P' N^-1 P + D^-1)^-1 P' N^-1 (y + e - P w0),    e ~ N(0, N),    w0 ~ N(0, D)

For fixed units P that is an exact draw of the posterior. The posterior is the Gaussian with the
members' mean and covariance, so it costs O(members x units) for a point, whatever the number of
candidates.

Source: Pearce, Leibfried and Brintrup (2020), Uncertainty in neural networks: approximately
Bayesian ensembling.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .conditioned import Standardiser, cholesky
from .kernels import OUTPUTSCALE_MEDIAN, default_hyperparameters
from .standardise import Prepared, prepare

_RATE = 0.01
# How steep a unit is, in lengthscales of the default kernel.
_STEEPNESS = 2.0


class Ensemble:
    """Anchored ensemble of neural networks; see the module.

    Args:
        members: how many networks; variances have a relative error of sqrt(2 / members).
        units: of the hidden layer.
        steps: of training the hidden layer; with 0 its weights stay as they were drawn.
        seed: of the weights and of the disturbed evidence.
    """

    def __init__(self, members: int = 48, units: int = 128, steps: int = 40, seed: int = 0) -> None:
        for name, value, least in (("members", members, 8), ("units", units, 8),
                                   ("steps", steps, 0), ("seed", seed, 0)):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number >= {least}, got {value!r}")
        self.members, self.units, self.steps, self.seed = members, units, steps, seed

    @property
    def descriptor(self) -> str:
        """What its fits depend on, for the journal."""
        return (
            f"Ensemble(members={self.members}, units={self.units}, steps={self.steps}, "
            f"seed={self.seed})"
        )

    def fit(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None = None,
        prior_std: Tensor | None = None,
    ) -> EnsemblePosterior:
        """The posterior given evidence; arguments and errors as in ``Surrogate``."""
        prepared = prepare(x, mean, var, shared, prior_std)
        evidence = _disturbed(prepared, self.members, self.seed)
        start = _drawn(self, prepared.x, mean.shape[1])
        layer = _trained(start, prepared.x, evidence, self.steps)
        return EnsemblePosterior(self, layer, prepared.standardiser, prepared.x, evidence)


class _Layer(NamedTuple):
    """``weight (m, K, dims, H)`` and ``bias (m, K, 1, H)``; ``last (m, K, 1 + H)`` a priori."""

    weight: Tensor
    bias: Tensor
    last: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A constant and the units at points ``(N, dims)``, ``(m, K, N, 1 + H)``."""
        units = (x @ self.weight + self.bias).tanh()
        return torch.cat([torch.ones_like(units[..., :1]), units], dim=-1)

    @property
    def prior_variance(self) -> Tensor:
        """Of the last layer's weights, ``(1 + H,)``: the constant's is 1."""
        num = self.weight.shape[-1]
        # tanh units whose transitions are spread over the cube have a mean square of about a half.
        variance = self.weight.new_full((1 + num,), 2 * OUTPUTSCALE_MEDIAN / num)
        variance[0] = 1.0
        return variance


class _Evidence(NamedTuple):
    """``whitening (m, n, n)``, zero in rows without the metric; targets ``y (m, K, n)``."""

    whitening: Tensor
    y: Tensor


class EnsemblePosterior:
    """The Gaussian with the mean and the covariance of an ensemble's members.

    Args:
        ensemble: that was fitted.
        layer: its hidden layers.
        standardiser: back to the metrics' units.
        x: ``(n, dims)`` the data.
        evidence: standardised and disturbed.
    """

    fit_succeeded = True

    def __init__(
        self,
        ensemble: Ensemble,
        layer: _Layer,
        standardiser: Standardiser,
        x: Tensor,
        evidence: _Evidence,
    ) -> None:
        self.ensemble, self.layer, self.standardiser = ensemble, layer, standardiser
        self.weights = _solved(layer, x, evidence)  # (m, K, 1 + H)

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> EnsemblePosterior:
        """The same hidden layers given other evidence."""
        prepared = prepare(x, mean, var, shared, standardiser=self.standardiser)
        evidence = _disturbed(prepared, self.ensemble.members, self.ensemble.seed)
        return EnsemblePosterior(self.ensemble, self.layer, self.standardiser, prepared.x, evidence)

    def members(self, x: Tensor) -> Tensor:
        """Every member at points: ``(N, dims)`` to ``(members, N, metrics)``."""
        value = (self.layer(x) @ self.weights.unsqueeze(-1))[..., 0]  # (m, K, N)
        shift, scale = self.standardiser
        return shift + scale * value.permute(1, 2, 0)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(N, dims)`` to ``(N, metrics)``."""
        size = max(1, 2**22 // (self.weights.numel()))
        parts = [self.members(part) for part in torch.split(x, size)]
        floor = 1e-12 * self.standardiser.scale.square()
        mean = torch.cat([part.mean(0) for part in parts])
        return mean, torch.cat([part.var(0) for part in parts]).clamp_min(floor)

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance: ``(N, dims)`` to ``(metrics, N, N)``."""
        centred = self.members(x)
        centred = centred - centred.mean(0)
        return torch.einsum("kam,kbm->mab", centred, centred) / (len(centred) - 1)

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> EnsemblePaths:
        """Joint draws: the mean plus random combinations of the members' deviations."""
        shape = (self.weights.shape[0], self.weights.shape[1], num_paths)
        dtype, device = self.weights.dtype, self.weights.device
        normal = torch.randn(shape, generator=generator, dtype=dtype, device=device)
        return EnsemblePaths(self, normal)


class EnsemblePaths:
    """Functions drawn from an ensemble's Gaussian."""

    def __init__(self, posterior: EnsemblePosterior, normal: Tensor) -> None:
        self._posterior = posterior
        self._normal = normal / math.sqrt(normal.shape[1] - 1)  # (m, K, paths)

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(paths, N, metrics)``."""
        members = self._posterior.members(x)
        mean = members.mean(0)
        return mean + torch.einsum("knm,mkp->pnm", members - mean, self._normal)

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        members = self._posterior.members(x.flatten(0, 1))
        members = members.reshape(len(members), *x.shape[:2], -1)
        mean = members.mean(0)
        return mean + torch.einsum("kpsm,mkp->psm", members - mean, self._normal)


def _drawn(ensemble: Ensemble, x: Tensor, num_metrics: int) -> _Layer:
    """Networks of the prior; the transitions of their units are spread over the cube."""
    generator = torch.Generator().manual_seed(ensemble.seed)
    shape, dims = (num_metrics, ensemble.members), x.shape[1]
    lengthscale = default_hyperparameters(1, dims, x).lengthscale[0, 0].cpu()

    def normal(*size: int) -> Tensor:
        return torch.randn(*shape, *size, generator=generator, dtype=torch.float64)

    weight = normal(dims, ensemble.units) * (_STEEPNESS / lengthscale)
    centre = torch.rand(*shape, dims, ensemble.units, generator=generator, dtype=torch.float64)
    bias = -(weight * centre).sum(-2, keepdim=True)
    layer = _Layer(weight.to(x), bias.to(x), normal(1 + ensemble.units).to(x))
    return layer._replace(last=layer.last * layer.prior_variance.sqrt())


def _disturbed(prepared: Prepared, members: int, seed: int) -> _Evidence:
    x, y, noise, shared, _ = prepared
    generator = torch.Generator().manual_seed(seed + 1)
    observed = noise.isfinite().T.to(x.dtype)  # (m, n)
    system = torch.diag_embed(torch.where(noise.isfinite(), noise, 1.0).T)
    factor = cholesky(system if shared is None else system + shared)
    normal = torch.randn(len(observed), len(x), members, generator=generator, dtype=x.dtype)
    targets = y.T.unsqueeze(-1) + factor @ normal.to(x)
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device).expand_as(factor)
    whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
    whitening = whitening * observed.unsqueeze(-1) * observed.unsqueeze(-2)
    return _Evidence(whitening, targets.mT)


def _trained(start: _Layer, x: Tensor, evidence: _Evidence, steps: int) -> _Layer:
    """Hidden layers after some steps of Adam on the posterior density of all weights."""
    fields = [field.clone().requires_grad_() for field in start]
    optimiser = torch.optim.Adam(fields, lr=_RATE)
    spread = [start.weight.square().mean(), start.bias.square().mean(), start.prior_variance]
    for _ in range(steps):
        with torch.enable_grad():
            layer = _Layer(*fields)
            gap = (layer(x) @ layer.last.unsqueeze(-1))[..., 0] - evidence.y  # (m, K, n)
            white = evidence.whitening.unsqueeze(1) @ gap.unsqueeze(-1)
            loss = white.square().sum()
            for field, anchor, variance in zip(fields, start, spread):
                loss = loss + ((field - anchor).square() / variance).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weight, bias, _ = (field.detach() for field in fields)
    return _Layer(weight, bias, start.last)


@torch.no_grad()
def _solved(layer: _Layer, x: Tensor, evidence: _Evidence) -> Tensor:
    """The last layers given the hidden ones, ``(m, K, 1 + H)``."""
    phi = evidence.whitening.unsqueeze(1) @ layer(x)
    gap = evidence.y - (layer(x) @ layer.last.unsqueeze(-1))[..., 0]
    white = evidence.whitening.unsqueeze(1) @ gap.unsqueeze(-1)
    precision = phi.mT @ phi + torch.diag_embed(1 / layer.prior_variance)
    step = torch.cholesky_solve(phi.mT @ white, cholesky(precision))
    return layer.last + step[..., 0]
