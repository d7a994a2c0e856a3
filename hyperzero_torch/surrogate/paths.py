"""Functions drawn from a posterior, see ``posterior``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ShapeError
from ..runtime import fused, native
from ..runtime.memory import elements, require
from ..runtime.precision import full_precision
from .conditioned import ConditionedProcess, Standardiser
from .kernels import Hyperparameters, features, frequencies, on_card

# Elements of the largest temporary: 64 MiB in float64.
_TILE_ELEMENTS = 2**23
# Up to so many paths are faster without storing the covariance; more are a matrix product.
_MAX_COMPILED_PATHS = 16
# Arrays of the result's size held at once by a path's evaluation and the problem's.
_COPIES = 4
_NUM_FREQUENCIES = 512
# PyTorch computes sines and cosines fast, so the compiled kernel needs this much more work to win.
_WORK_FACTOR = 3


class Paths:
    """Functions drawn from a posterior; call them on points."""

    def __init__(
        self, posterior: ConditionedProcess, omega: Tensor, prior: Tensor, update: Tensor
    ) -> None:
        self.posterior = posterior
        self._omega = omega
        self._prior = prior  # (metrics, features, paths)
        #: ``(metrics, n, paths)``: weights of the kernels at the data, in standardised units.
        self.update = update
        self._cast: dict[torch.dtype, tuple[Tensor, ...]] = {}

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Frequencies, weights of the features and of the kernels in a dtype; cast once."""
        weights = (self._omega, self._prior, self.update)
        if dtype == self.update.dtype:
            return weights
        if dtype not in self._cast:
            with torch.inference_mode(False):  # kept for later calls, whatever this one's mode
                self._cast[dtype] = tuple(weight.to(dtype) for weight in weights)
        return self._cast[dtype]

    @property
    def num_paths(self) -> int:
        """How many functions."""
        return self._prior.shape[-1]

    def __getitem__(self, paths: slice) -> Paths:
        """A few of the functions, by a slice."""
        if not isinstance(paths, slice):
            raise ShapeError(f"paths are taken by slices, e.g. paths[3:4], got {paths!r}")
        return Paths(self.posterior, self._omega, self._prior[..., paths], self.update[..., paths])

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point.

        Memory grows with ``metrics * N * (n + features)``; tile N where that is too much. For a few
        paths a compiled kernel needs none besides the result. On a card N is tiled here, unless a
        gradient is wanted.

        Args:
            x: ``(N, dims)`` in the unit cube, on the posterior's device; float32 for mixed mode.
        Returns:
            ``(paths, N, metrics)``, in the unit of what was fitted and the dtype of ``x``.
        Raises:
            ShapeError: wrong number of dims, or another device.
        """
        self.posterior.check_matrix(x)
        if on_card(x) and len(x) > self.tile:
            parts = x.split(self.tile)  # type: ignore[no-untyped-call]
            result = x.new_empty(self.num_paths, len(x), self.posterior.num_metrics)
            for part, target in zip(parts, result.split(self.tile, dim=1)):  # type: ignore[no-untyped-call]
                target.copy_(self(part))
            return result
        at = self.posterior.evaluation(x.dtype)
        x = x.to(at.x)
        omega, prior, update = self._weights(x.dtype)
        work = len(x) * len(at.scale) * (len(at.x) + len(omega))
        if self._fuses(x, at.data, update, prior):
            value = fused.paths(x, at.scale, at.data, *self._operands(x.dtype))
        elif self._compiles(work, x, at.data, update, prior):
            value = self._compiled(x)
        else:
            with full_precision(x):
                value = features(x, omega, at.lengthscale) @ prior
                value = value + self.posterior.cross(x) @ update
        shift, scale = (field.to(x) for field in self.posterior.standardiser)
        return shift + scale * (value + at.constant[:, None, None]).permute(2, 1, 0)

    def _compiled(self, x: Tensor) -> Tensor:
        """Without the constant, ``(metrics, N, paths)``; ``__call__`` in one pass."""
        at = self.posterior.evaluation(x.dtype)
        update, omega, waves = self._operands(x.dtype)
        num = omega.shape[1]
        cosines, sines = waves[..., :num].contiguous(), waves[..., num:].contiguous()
        value = x.new_empty(len(at.scale), len(x), self.num_paths)
        for metric, scale in enumerate(at.scale):
            value[metric] = native.paths(
                *(x * scale, at.data[metric], update[metric]),
                *(omega, cosines[metric], sines[metric]),
            )
        return value

    def _operands(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Of the kernels: ``update (m, paths, n)``, ``omega (dims, waves)`` and the waves' weights.

        The weights are ``(metrics, paths, 2 waves)``: of the cosines, then of the sines.
        """
        at = self.posterior.evaluation(dtype)
        _, prior, update = self._weights(dtype)
        amplitude = at.outputscale.unsqueeze(-1) * at.observed
        update = (update * amplitude.unsqueeze(-1)).mT.contiguous()
        waves = (prior / math.sqrt(len(self._omega))).mT
        return update, (self._omega.T / math.sqrt(5)).contiguous().to(update), waves

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points.

        Args:
            x: ``(paths, S, dims)`` in the unit cube, on the posterior's device.
        Returns:
            ``(paths, S, metrics)``, differentiable in ``x``.
        Raises:
            ShapeError: wrong number of paths or dims, or another device.
        """
        self.posterior.check_points(x)
        if x.ndim != 3 or x.shape[0] != self.num_paths:
            raise ShapeError(f"expected points ({self.num_paths}, S, dims), got {tuple(x.shape)}")
        x = x.to(self.posterior.x.dtype)
        lengthscale, _, constant = self.posterior.hyperparameters
        prior, update = (w.permute(0, 2, 1).unsqueeze(-1) for w in (self._prior, self.update))
        value = features(x, self._omega, lengthscale) @ prior  # (metrics, paths, S, 1)
        value = value + self.posterior.cross(x) @ update
        shift, scale = self.posterior.standardiser
        return shift + scale * (value[..., 0].permute(1, 2, 0) + constant)

    def on_cpu(self) -> Paths:
        """The same functions on the CPU, for a few points that are too little work for a card."""
        posterior = self.posterior
        names = ("x", "observed", *Hyperparameters._fields, *Standardiser._fields)
        fields = [getattr(posterior, name) for name in names]
        fields += [self._omega, self._prior, self.update]
        # In one copy from the device: each copy waits for it.
        flat = torch.cat([field.to(posterior.x).flatten() for field in fields]).cpu()
        parts = flat.split([field.numel() for field in fields])  # type: ignore[no-untyped-call]
        moved = [part.view(field.shape) for part, field in zip(parts, fields)]
        return Paths(posterior.without_factor(dict(zip(names, moved))), *moved[len(names) :])

    def work(self, num_points: int) -> int:
        """Terms of the sums when every function is evaluated at so many points of its own."""
        metrics, width, paths = self._prior.shape
        return metrics * paths * num_points * (width + self.posterior.x.shape[0])

    @property
    def tile(self) -> int:
        """Points whose evaluation stays within about 64 MiB of temporaries; see ``elements``."""
        metrics, width, paths = self._prior.shape
        per_point = metrics * _COPIES * paths
        operands = (self.posterior.x, self.update, self._prior)
        if not (self._fuses(*operands) or self._compiles(_TILE_ELEMENTS, *operands)):
            per_point += metrics * (width + self.posterior.x.shape[0])
        return max(1, elements(self.posterior.device, _TILE_ELEMENTS) // per_point)

    def _fuses(self, *operands: Tensor) -> bool:
        """Whether to use the fused kernel of a card."""
        return self.num_paths <= fused.MAX_PATHS and fused.usable(*operands)

    def _compiles(self, work: int, *operands: Tensor) -> bool:
        """Whether to use the compiled kernel for ``work`` terms of the sums."""
        return self.num_paths <= _MAX_COMPILED_PATHS and native.usable(
            work // _WORK_FACTOR, *operands
        )


def draw_paths(
    posterior: ConditionedProcess, num_paths: int, generator: torch.Generator | None
) -> Paths:
    """Joint draws of all metrics by Matheron's rule; see ``Posterior.paths``."""
    if num_paths < 1:
        raise ShapeError(f"num_paths must be at least 1, got {num_paths}")
    x, device = posterior.x, posterior.device
    metrics, n = posterior.weights.shape
    width = 2 * (2 * _NUM_FREQUENCIES + 3 * n)
    matrices = 0 if posterior.shared_noise is None else 3 * n**2
    require(
        metrics * (width * num_paths + matrices) * x.element_size(),
        device,
        f"{num_paths} paths of {metrics} metrics over {n} candidates",
        "draw fewer at a time",
    )
    if generator is not None and generator.device.type != device.type:
        raise ShapeError(f"the generator lies on {generator.device}, the posterior on {device}")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=x.dtype, device=device, generator=generator)

    omega = frequencies(_NUM_FREQUENCIES, x.shape[-1], generator).to(x)
    prior = normal(metrics, 2 * _NUM_FREQUENCIES, num_paths)
    prior = prior * posterior.outputscale.sqrt()[:, None, None]
    root = posterior.noise_root()
    noise = normal(metrics, n, num_paths)
    noise = root.unsqueeze(-1) * noise if root.ndim == 2 else root @ noise
    at_data = features(x, omega, posterior.lengthscale) @ prior
    residual = posterior.residual.unsqueeze(-1)
    residual = residual - posterior.observed.unsqueeze(-1) * (at_data + noise)
    return Paths(posterior, omega, prior, torch.cholesky_solve(residual, posterior.cholesky))
