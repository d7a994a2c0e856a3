"""The exact posterior: marginals at any number of points, and joint paths.

    marginal   mean = c + k(x, X) K^-1 (y - c)         var = s - |L^-1 k(X, x)|^2
    path       f(x) = c + prior(x) + k(x, X) K^-1 (y - c - prior(X) - noise)

A path is one function drawn from the posterior (Matheron's rule): a draw from the prior by random
Fourier features plus the exact data term. It costs O(N (n + F)) for N points and is differentiable
in x.

Points in float32 are *evaluated* in float32 ("mixed mode"), which is faster. Its error, in the
posterior's standard deviations, grows as the evidence gets precise: it is negligible where noise is
of the signal's size, and mixed mode is of no use where noise is a hundredth of it. Products are
computed in full float32, whatever ``torch.set_float32_matmul_precision`` is set to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..runtime import fused
from ..runtime.memory import elements, in_tiles
from ..runtime.precision import full_precision
from .conditioned import ConditionedProcess
from .factors import leave_one_out_log_density
from .kernels import on_card
from .paths import Paths, draw_paths
from .standardise import prepare, to_condition

if TYPE_CHECKING:
    from .as_gpytorch import ExactGP

# Elements of the largest temporary, (tile, n): 16 MiB in float64, what a cache may hold.
_TILE_ELEMENTS = 2**21


class Posterior(ConditionedProcess):
    """An exact Gaussian process given its data, made by ``Surrogate.fit``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``marginal``, so that the module can be compiled and called as one."""
        return self.marginal(x)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of each point.

        Tiled: memory besides the result stays within about 80 MiB at any N, on a card within about
        an eighth of its memory.

        Args:
            x: ``(..., dims)`` in the unit cube, on the posterior's device; float32 for mixed mode.
        Returns:
            mean and var, each ``(..., metrics)``, in the unit of what was fitted.
        Raises:
            ShapeError: wrong number of dims, or another device.
            DeviceMemoryError: the device is too full for small tiles.
        """
        self.check_points(x)
        at = self.evaluation(x.dtype)
        flat = x.reshape(-1, x.shape[-1]).to(at.x.dtype)
        if torch.compiler.is_compiling():
            mean, var = self._standardised(flat)
        else:
            at_once = self.num_metrics if on_card(flat) else 1
            most = elements(self.device, _TILE_ELEMENTS)
            stored = 1 if self._fuses(flat) else self.x.shape[0]
            tile = max(1, most // max(1, at_once * stored))
            with full_precision(flat):
                mean, var = in_tiles(lambda rows: self._tiled(flat, rows), tile, self.device)
        shift, scale = (field.to(flat) for field in self.standardiser)
        # Rounding can make a tiny variance negative.
        floor = (1e-12 if flat.dtype == torch.float64 else 1e-6) * at.outputscale
        shape = (*x.shape[:-1], self.num_metrics)
        mean = shift + scale * mean
        return mean.reshape(shape), (scale.square() * var.clamp_min(floor)).reshape(shape)

    def _tiled(self, x: Tensor, tile: int) -> tuple[Tensor, Tensor]:
        mean = x.new_empty(x.shape[0], self.num_metrics)
        var = torch.empty_like(mean)
        for start in range(0, x.shape[0], tile):
            rows = slice(start, start + tile)
            mean[rows], var[rows] = self._standardised(x[rows])
        return mean, var

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance in standardised units, ``(N, metrics)``."""
        at = self.evaluation(x.dtype)
        if self._fuses(x):
            amplitude = at.outputscale.unsqueeze(-1) * at.observed
            constants = (at.scale, at.data, amplitude, self.inverse(x.dtype), at.weights)
            expected, squares = fused.explained(x, *constants)
            return at.constant + expected.T, at.outputscale - squares.T
        if on_card(x):  # all metrics at once: fewer launches
            k = self.cross(x)  # (metrics, N, n)
            expected = (k @ at.weights.unsqueeze(-1)).squeeze(-1).T
            half = torch.linalg.solve_triangular(at.cholesky, k.mT, upper=False)
            variance = at.outputscale - torch.linalg.vector_norm(half, dim=1).T.square()
            return at.constant + expected, variance
        mean, explained = [], []
        for metric in range(self.num_metrics):  # one at a time allows larger tiles
            k = self.cross(x, slice(metric, metric + 1))[0]  # (N, n)
            mean.append(k @ at.weights[metric])
            half = torch.linalg.solve_triangular(at.cholesky[metric], k.mT, upper=False)
            explained.append(torch.linalg.vector_norm(half, dim=0))
        var = at.outputscale - torch.stack(explained, dim=-1).square()
        return at.constant + torch.stack(mean, dim=-1), var

    def _fuses(self, x: Tensor) -> bool:
        """Whether to use the fused kernel of a card: for enough points to pay for the inverse."""
        fits = fused.usable(x, self.evaluation(x.dtype).data)
        return fits and len(self.x) <= min(fused.MAX_ROWS, len(x))

    def covariance(self, x: Tensor) -> Tensor:
        """Joint posterior covariance of N points ``(N, dims)``, ``(metrics, N, N)``, for few."""
        self.check_matrix(x)
        x = x.to(self.x.dtype)
        k = self.cross(x)
        half = torch.linalg.solve_triangular(self.cholesky, k.transpose(-1, -2), upper=False)
        joint = self.prior_covariance(x) - half.transpose(-1, -2) @ half
        scaled: Tensor = self.standardiser.scale.square()[:, None, None] * joint
        return scaled

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> Posterior:
        """The same hyperparameters and units given other evidence; see ``Surrogate.fit``."""
        needed = to_condition(mean, shared)
        data = prepare(x, mean, var, shared, standardiser=self.standardiser, matrices=needed)
        return Posterior(
            *data[:3],
            self.hyperparameters,
            data.standardiser,
            data.shared,
            fit_succeeded=self.fit_succeeded,
        )

    def leave_one_out(self) -> Tensor:
        """Log density of each metric's evidence, every row predicted from all others, ``(m,)``.

        In standardised units: comparable between fits of the same data.

        Source: as ``leave_one_out_log_density``.
        """
        density = leave_one_out_log_density(self.cholesky, self.weights, self.observed)
        return (density - 0.5 * math.log(2 * math.pi) * self.observed).sum(-1)

    def left_out(self) -> Tensor:
        """Log density of each row predicted from all others, ``(n, metrics)``, NaN where missing.

        In the metrics' unit, so that other models can be compared with it.
        """
        density = leave_one_out_log_density(self.cholesky, self.weights, self.observed)
        density = density - 0.5 * math.log(2 * math.pi) - self.scale.log().unsqueeze(-1)
        return torch.where(self.observed > 0, density, torch.nan).T

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> Paths:
        """Joint draws of all metrics as functions of x (Matheron's rule).

        Args:
            num_paths: how many functions.
            generator: on the posterior's device; the default generator where it is None.
        Returns:
            Paths: ``paths(x)`` maps ``(N, dims)`` to ``(paths, N, metrics)``, differentiable in x.
        Raises:
            ShapeError: no path, or a generator on another device.
            SizeError: they would not fit into memory.
        Source: Wilson et al. (2020), Efficiently sampling functions from GP posteriors, Eq. 12.
        """
        return draw_paths(self, num_paths, generator)

    def as_gpytorch(self) -> ExactGP:
        """The same Gaussian process as a GPyTorch model, for stacks that have one.

        Batched over metrics and in standardised units (``standardiser`` takes them back): raw
        variances of deltas lie below what GPyTorch clamps noise to.

        Returns:
            A ``gpytorch.models.ExactGP`` in evaluation mode, with our priors: ``train()`` and
            ``ExactMarginalLogLikelihood`` fit it further.
        """
        from .as_gpytorch import as_gpytorch  # importing GPyTorch is slow

        y = torch.where(self.observed > 0, self.outputs, 0.0)
        return as_gpytorch(self.x, y, self.noise, self.shared_noise, self.hyperparameters)
