"""The exact posterior of GPyTorch priors, one for each metric, given evidence with known noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ShapeError
from ...runtime.memory import in_tiles, require
from ..factors import cholesky, leave_one_out_log_density
from ..standardise import Prepared, prepare
from .features import NUM_POINTS, Features, features
from .likelihood import System, solve
from .points import check_points
from .prior import MetricPrior

_TILE_ELEMENTS = 2**21
_PATH_ELEMENTS = 2**23


class MetricData(NamedTuple):
    """One metric's evidence, the rows that have it: ``x (n, dims)``, ``y (n,)``, ``noise (n, n)``.

    Standardised; ``noise`` is the whole covariance of the errors.
    """

    x: Tensor
    y: Tensor
    noise: Tensor


def metric_data(prepared: Prepared, metric: int) -> MetricData:
    """The rows of one metric."""
    x, y, noise, shared, _ = prepared
    rows = noise[:, metric].isfinite()
    covariance = torch.diag_embed(noise[rows, metric])
    if shared is not None:
        covariance = covariance + shared[metric][rows][:, rows]
    return MetricData(x[rows], y[rows, metric], covariance)


class KernelPosterior:
    """An exact Gaussian process per metric whose priors are GPyTorch modules.

    Args:
        priors: one for each metric, fitted; their parameters do not change any more.
        prepared: the evidence, standardised.
        fit_succeeded: False where parameters are not the data's.
    Raises:
        FitError: a covariance is not finite or not positive definite.
    """

    def __init__(
        self, priors: Sequence[MetricPrior], prepared: Prepared, *, fit_succeeded: bool = True
    ) -> None:
        self.priors = tuple(prior.requires_grad_(False) for prior in priors)
        self.fit_succeeded = fit_succeeded
        self.x = prepared.x
        self.standardiser = prepared.standardiser
        self._observed = prepared.noise.isfinite().T  # (metrics, n)
        self.data = [metric_data(prepared, m) for m in range(len(self.priors))]
        self.systems: list[System] = [solve(p, *d) for p, d in zip(self.priors, self.data)]
        self.lengthscale = torch.stack([prior.lengthscale(self.x) for prior in self.priors])

    @property
    def num_metrics(self) -> int:
        """Metrics, each with a Gaussian process of its own."""
        return len(self.priors)

    @property
    def device(self) -> torch.device:
        """Device of the data; points must be on it."""
        return self.x.device

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> KernelPosterior:
        """The same priors and units given other evidence; arguments as in ``Surrogate.fit``."""
        prepared = prepare(x, mean, var, shared, standardiser=self.standardiser)
        return KernelPosterior(self.priors, prepared, fit_succeeded=self.fit_succeeded)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(..., dims)`` to ``(..., metrics)``, in the deltas' unit."""
        self._check(x)
        flat = x.reshape(-1, x.shape[-1]).to(self.x.dtype)

        def work(tile: int) -> tuple[Tensor, Tensor]:
            parts = [self._standardised(part) for part in torch.split(flat, tile)]
            mean, var = zip(*parts) if parts else ([flat[:, :0]], [flat[:, :0]])
            return torch.cat(mean), torch.cat(var)

        mean, var = in_tiles(work, max(1, _TILE_ELEMENTS // len(self.x)), self.device)
        shift, scale = self.standardiser
        shape = (*x.shape[:-1], self.num_metrics)
        mean, var = shift + scale * mean, scale.square() * var
        return mean.reshape(shape).to(x.dtype), var.reshape(shape).to(x.dtype)

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance of few points: ``(N, dims)`` to ``(metrics, N, N)``."""
        self._check(x, 2)
        x = x.to(self.x.dtype)
        joint = []
        for prior, data, system in zip(self.priors, self.data, self.systems):
            k = prior.cross(data.x, x)
            half = torch.linalg.solve_triangular(system.factor, k, upper=False)
            joint.append(prior.cross(x, x) - half.T @ half)
        return self.standardiser.scale.square()[:, None, None] * torch.stack(joint)

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> KernelPaths:
        """Joint draws of all metrics as functions of x (Matheron's rule).

        Raises:
            ShapeError: no path, or a generator on another device.
            SizeError: they would not fit into memory.
        Source: Wilson et al. (2020), Efficiently sampling functions from GP posteriors, Eq. 12.
        """
        if num_paths < 1:
            raise ShapeError(f"num_paths must be at least 1, got {num_paths}")
        if generator is not None and generator.device.type != self.device.type:
            raise ShapeError(f"the generator lies on {generator.device}, the data on {self.device}")
        rows = len(self.x) + NUM_POINTS
        require(
            self.num_metrics * (3 * rows**2 + 4 * rows * num_paths) * self.x.element_size(),
            self.device,
            f"{num_paths} paths of {self.num_metrics} metrics over {len(self.x)} candidates and "
            f"{NUM_POINTS} points of the space (a kernel without a spectral density is factorised "
            "over both)",
            "draw fewer at a time, or fit fewer candidates",
        )

        def normal(num: int) -> Tensor:
            shape, kind = (num, num_paths), self.x.dtype
            return torch.randn(shape, dtype=kind, device=self.device, generator=generator)

        draws = []
        for prior, data, system in zip(self.priors, self.data, self.systems):
            phi = features(prior, self.x, generator)
            at_data = phi(data.x)
            weights = normal(at_data.shape[1])
            noise = cholesky(data.noise.clone()) @ normal(len(data.x))
            residual = (data.y - prior.mean(data.x)).unsqueeze(-1) - at_data @ weights - noise
            update = torch.cholesky_solve(residual, system.factor)
            draws.append(MetricPaths(phi, weights, update))
        return KernelPaths(self, draws)

    def leave_one_out(self) -> Tensor:
        """Log density of each metric's evidence, each row predicted from all others, ``(m,)``.

        In standardised units: comparable between fits of the same data.
        """
        parts = []
        for system in self.systems:
            density = leave_one_out_log_density(*system, torch.ones_like(system.weights))
            parts.append((density - 0.5 * math.log(2 * math.pi)).sum())
        return torch.stack(parts)

    def left_out(self) -> Tensor:
        """Log density of each row predicted from all others, ``(n, metrics)``, NaN where missing.

        In the metrics' unit.
        """
        whole = self.x.new_full((self.num_metrics, len(self.x)), torch.nan)
        for row, seen, system in zip(whole, self._observed, self.systems):
            density = leave_one_out_log_density(*system, torch.ones_like(system.weights))
            row[seen] = density - 0.5 * math.log(2 * math.pi)
        return whole.T - self.standardiser.scale.log()

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = [], []
        for prior, data, system in zip(self.priors, self.data, self.systems):
            k = prior.cross(data.x, x)
            half = torch.linalg.solve_triangular(system.factor, k, upper=False)
            means.append(prior.mean(x) + system.weights @ k)
            before = prior.variance(x)
            # Rounding can make a tiny variance negative.
            after = before - half.square().sum(0)
            variances.append(after.maximum(1e-12 * before.abs().clamp_min(1e-6)))
        return torch.stack(means, dim=-1), torch.stack(variances, dim=-1)

    def _check(self, x: Tensor, ndim: int | None = None) -> None:
        check_points(x, self.x.shape[1], self.device, ndim)


class MetricPaths(NamedTuple):
    """One metric's draws: features, their weights ``(features, paths)``, and ``(n, paths)``."""

    features: Features
    weights: Tensor
    update: Tensor


class KernelPaths:
    """Functions drawn from a ``KernelPosterior``; call them on points."""

    def __init__(self, posterior: KernelPosterior, draws: Sequence[MetricPaths]) -> None:
        self.posterior = posterior
        self._draws = tuple(draws)

    @property
    def num_paths(self) -> int:
        """How many functions."""
        return self._draws[0].weights.shape[1]

    @property
    def tile(self) -> int:
        """Points whose evaluation stays within about 64 MiB of temporaries."""
        width = sum(len(d.weights) + len(d.update) for d in self._draws)
        return max(1, _PATH_ELEMENTS // (3 * (width + len(self._draws) * self.num_paths)))

    def __getitem__(self, paths: slice) -> KernelPaths:
        """A few of the functions, by a slice."""
        if not isinstance(paths, slice):
            raise ShapeError(f"paths are taken by slices, e.g. paths[3:4], got {paths!r}")
        few = [MetricPaths(d.features, d.weights[:, paths], d.update[:, paths])
               for d in self._draws]  # fmt: skip
        return KernelPaths(self.posterior, few)

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point: ``(N, dims)`` to ``(paths, N, metrics)``."""
        self.posterior._check(x, 2)
        at = x.to(self.posterior.x.dtype)
        values = []
        for prior, data, draw in zip(self.posterior.priors, self.posterior.data, self._draws):
            value = draw.features(at) @ draw.weights + prior.cross(at, data.x) @ draw.update
            values.append((prior.mean(at).unsqueeze(-1) + value).T)
        return self._raw(values).to(x.dtype)

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        self.posterior._check(x, 3)
        if x.shape[0] != self.num_paths:
            raise ShapeError(f"expected points ({self.num_paths}, S, dims), got {tuple(x.shape)}")
        at = x.to(self.posterior.x.dtype).flatten(0, 1)
        num, points = x.shape[:2]
        values = []
        for prior, data, draw in zip(self.posterior.priors, self.posterior.data, self._draws):
            by_feature = draw.features(at).reshape(num, points, -1) @ draw.weights.T.unsqueeze(-1)
            k = prior.cross(at, data.x).reshape(num, points, -1)
            value = (by_feature + k @ draw.update.T.unsqueeze(-1))[..., 0]
            values.append(prior.mean(at).reshape(num, points) + value)
        return self._raw(values).to(x.dtype)

    def _raw(self, values: list[Tensor]) -> Tensor:
        shift, scale = self.posterior.standardiser
        return shift + scale * torch.stack(values, dim=-1)
