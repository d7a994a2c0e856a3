"""An ensemble of small neural networks with known noise, as a surrogate of the protocol.

Every member is a network with a layer of tanh units. Its weights are drawn from a prior and trained
towards evidence that is disturbed by a draw of the noise, the control's common error included, and
towards its own initial weights. The last layer is then solved exactly:

    w = w0 + (P' N^-1 P + D^-1)^-1 P' N^-1 (y + e - P w0),    e ~ N(0, N),    w0 ~ N(0, D)

For fixed units P that is an exact draw of the posterior. The posterior is the Gaussian with the
members' mean and covariance, so it costs O(members x units) for a point, whatever the number of
candidates. Where no errors are shared a fit is linear in the number of candidates, too: beyond
``_BATCH`` of them each step of training sees as many, drawn anew. Means and variances of more than
``_MANY`` points are evaluated in float32, which is off by far less than the members are apart.

Source: Pearce, Leibfried and Brintrup (2020), Uncertainty in neural networks: approximately
Bayesian ensembling.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .conditioned import Standardiser
from .factors import cholesky
from .kernels import OUTPUTSCALE_MEDIAN, default_hyperparameters
from .standardise import Prepared, prepare

_RATE = 0.01
_STEEPNESS = 2.0  # of a unit, in lengthscales of the default kernel
# Rows of a step of training, and points from which on marginals are evaluated in float32.
_BATCH, _MANY = 512, 4096
# Elements of the largest temporary of marginals.
_TILE_ELEMENTS = 2**21
# Matrices (metrics, n, n) of a fit with shared errors.
_MATRICES = 5


class Ensemble:
    """Anchored ensemble of neural networks; see the module.

    Args:
        members: how many networks; variances have a relative error of sqrt(2 / members).
        units: of the hidden layer.
        steps: of training the hidden layer; with 0 its weights stay as they were drawn.
        seed: of the weights and of the disturbed evidence.
    """

    #: What its users must know; a study's journal says it when the study starts.
    caveat = (
        "not to be relied on for guardrails: on surfaces that change over short distances its 95 % "
        "intervals held 80 % of the true deltas (bench.quality.surrogates)"
    )

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
        prepared = prepare(x, mean, var, shared, prior_std, matrices=_num_matrices(shared))
        evidence = _disturbed(prepared, self.members, self.seed)
        start = _drawn(self, prepared.x, mean.shape[1])
        layer = _trained(start, prepared.x, evidence, self.steps, self.seed)
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
    """Targets ``y (m, K, n)``, and what makes their errors independent and of variance 1.

    ``whitening`` is ``(m, n, n)``, or ``(m, n)`` where no errors are shared; 0 in rows without the
    metric.
    """

    whitening: Tensor
    y: Tensor

    def white(self, rows: Tensor) -> Tensor:
        """Whitened rows: ``(m, K, n, ...)`` to the same shape."""
        if self.whitening.ndim == 2:
            return self.whitening[:, None, :, None] * rows
        return self.whitening.unsqueeze(1) @ rows

    def batch(self, at: Tensor) -> _Evidence:
        """Some rows, where no errors are shared."""
        return _Evidence(self.whitening[:, at], self.y[..., at])


def _num_matrices(shared: Tensor | None) -> int:
    return 0 if shared is None else _MATRICES


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
        prepared = prepare(
            *(x, mean, var, shared),
            standardiser=self.standardiser,
            matrices=_num_matrices(shared),
        )
        evidence = _disturbed(prepared, self.ensemble.members, self.ensemble.seed)
        return EnsemblePosterior(self.ensemble, self.layer, self.standardiser, prepared.x, evidence)

    def members(self, x: Tensor) -> Tensor:
        """Every member at points: ``(N, dims)`` to ``(members, N, metrics)``."""
        value = (self.layer(x) @ self.weights.unsqueeze(-1))[..., 0]  # (m, K, N)
        shift, scale = self.standardiser
        return shift + scale * value.permute(1, 2, 0)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(N, dims)`` to ``(N, metrics)``."""
        dtype = torch.float32 if len(x) > _MANY and not x.requires_grad else x.dtype
        flat = _Flat.of(self.layer, self.weights, dtype)
        size = max(1, _TILE_ELEMENTS // self.weights.numel())
        shift, scale = self.standardiser
        # Written in place: results that are kept between large temporaries would split the heap.
        mean, var = (x.new_empty(len(x), len(scale)) for _ in range(2))
        for first in range(0, len(x), size):
            rows = slice(first, first + size)
            mean[rows], var[rows] = flat.moments(x[rows].to(dtype))
        return shift + scale * mean, scale.square() * var.clamp_min(1e-12)

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


class _Flat(NamedTuple):
    """All networks side by side: ``weight (dims, m K H)``, ``bias (m K H,)``; ``last (m, K, H)``.

    ``constant (m, K)`` is the last layer's.
    """

    weight: Tensor
    bias: Tensor
    last: Tensor
    constant: Tensor

    @classmethod
    def of(cls, layer: _Layer, last: Tensor, dtype: torch.dtype) -> _Flat:
        """From hidden layers and last layers ``(m, K, 1 + H)``."""
        weight = layer.weight.permute(2, 0, 1, 3).flatten(1)
        fields = (weight, layer.bias.flatten(), last[..., 1:], last[..., 0])
        return cls(*(field.to(dtype).contiguous() for field in fields))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The members' mean and variance at points, ``(N, m)`` each."""
        units = torch.addmm(self.bias, x, self.weight).tanh()
        by_member = units.view(len(x), *self.last.shape)
        members = self.constant + torch.einsum("nmkh,mkh->nmk", by_member, self.last)
        return members.mean(-1), members.var(-1)


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
    variance = torch.where(noise.isfinite(), noise, 1.0).T
    normal = torch.randn(len(observed), len(x), members, generator=generator, dtype=x.dtype)
    if shared is None:
        targets = y.T.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * normal.to(x)
        return _Evidence(observed / variance.sqrt(), targets.mT)
    factor = cholesky(torch.diag_embed(variance) + shared)
    targets = y.T.unsqueeze(-1) + factor @ normal.to(x)
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device).expand_as(factor)
    whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
    whitening = whitening * observed.unsqueeze(-1) * observed.unsqueeze(-2)
    return _Evidence(whitening, targets.mT)


def _trained(start: _Layer, x: Tensor, evidence: _Evidence, steps: int, seed: int) -> _Layer:
    """Hidden layers after some steps of Adam on the posterior density of all weights."""
    fields = [field.clone().requires_grad_() for field in start]
    optimiser = torch.optim.Adam(fields, lr=_RATE)
    spread = [start.weight.square().mean(), start.bias.square().mean(), start.prior_variance]
    generator, in_parts = torch.Generator().manual_seed(seed + 2), _is_large(x, evidence)
    for _ in range(steps):
        points, part, repeated = x, evidence, 1.0
        if in_parts:
            at = torch.randperm(len(x), generator=generator)[:_BATCH].to(x.device)
            points, part, repeated = x[at], evidence.batch(at), len(x) / _BATCH
        with torch.enable_grad():
            layer = _Layer(*fields)
            gap = (layer(points) @ layer.last.unsqueeze(-1))[..., 0] - part.y  # (m, K, n)
            loss = repeated * part.white(gap.unsqueeze(-1)).square().sum()
            for field, anchor, variance in zip(fields, start, spread):
                loss = loss + ((field - anchor).square() / variance).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weight, bias, _ = (field.detach() for field in fields)
    return _Layer(weight, bias, start.last)


def _is_large(x: Tensor, evidence: _Evidence) -> bool:
    """Whether rows are taken in parts: they can be where no errors are shared."""
    return evidence.whitening.ndim == 2 and len(x) > _BATCH


@torch.no_grad()
def _solved(layer: _Layer, x: Tensor, evidence: _Evidence) -> Tensor:
    """The last layers given the hidden ones, ``(m, K, 1 + H)``."""
    parts = [torch.arange(len(x), device=x.device)]
    if _is_large(x, evidence):
        parts = list(torch.split(parts[0], _BATCH))
    precision, slope = torch.diag_embed(1 / layer.prior_variance), torch.zeros(())
    for at in parts:
        part = evidence.batch(at) if len(parts) > 1 else evidence
        units = layer(x[at])
        phi = part.white(units)
        gap = part.y - (units @ layer.last.unsqueeze(-1))[..., 0]
        precision = precision + phi.mT @ phi
        slope = slope + phi.mT @ part.white(gap.unsqueeze(-1))
    step = torch.cholesky_solve(slope, cholesky(precision))
    return layer.last + step[..., 0]
