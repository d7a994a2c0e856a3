"""The exact posterior: marginals at any number of points, and joint paths.

    marginal   mean = c + k(x, X) K^-1 (y - c)         var = s - |L^-1 k(X, x)|^2
    path       f(x) = c + prior(x) + k(x, X) K^-1 (y - c - prior(X) - noise)

A path is one coherent function (Matheron's rule): a draw from the prior by random Fourier
features, corrected by the exact data term. It costs O(N (n + F)) for N points and can be
differentiated in x.

Whatever is factorised is factorised in float64. Points in float32 are *evaluated* in float32
("mixed mode"), which is faster. Its error, in the posterior's standard deviations, grows as the
evidence gets precise: it is negligible where noise is of the signal's size, and mixed mode is of no
use where noise is a hundredth of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FitError, ShapeError
from ..runtime import native
from ..runtime.memory import in_tiles
from .hyperparameters import Hyperparameters
from .kernels import gram, matern52
from .paths import Paths, draw_paths

if TYPE_CHECKING:
    from .as_gpytorch import ExactGP

# Elements of the largest temporary, (tile, n): 16 MiB in float64, what a cache may hold.
_TILE_ELEMENTS = 2**21


class Standardiser(NamedTuple):
    """Each metric's ``shift`` and ``scale``, both ``(metrics,)``; y = shift + scale * y_std."""

    shift: Tensor
    scale: Tensor


class Evaluation(NamedTuple):
    """A posterior's constants in one dtype; the last two are for the compiled kernels.

    ``x (n, dims)``, ``lengthscale (m, dims)``, ``outputscale (m,)``, ``constant (m,)``,
    ``observed (m, n)``, ``weights (m, n)``, ``cholesky (m, n, n)``, ``scale (m, dims)`` =
    sqrt(5) / lengthscale, ``data (m, dims, n)``: ``x`` so scaled.
    """

    x: Tensor
    lengthscale: Tensor
    outputscale: Tensor
    constant: Tensor
    observed: Tensor
    weights: Tensor
    cholesky: Tensor
    scale: Tensor
    data: Tensor


class Posterior(nn.Module):
    """An exact Gaussian process given its data, made by ``Surrogate.fit``.

    A module of buffers: it moves with ``.to`` and saves with ``state_dict``, which holds the data
    and no factorisation; loading factorises anew. It stays in float64, whatever it is cast to.

    Args:
        x: ``(n, dims)`` in the unit cube.
        y: ``(n, metrics)``, standardised; anything where ``noise`` is infinite.
        noise: ``(n, metrics)``, standardised variances; infinite where nothing was observed.
        hyperparameters: of the standardised outputs.
        standardiser: back to the metric's unit.
        shared: ``(metrics, n, n)`` standardised noise covariance with a zero diagonal, or None.
        fit_succeeded: False where the hyperparameters are a fallback, not the data's.
    Raises:
        FitError: the covariance is not positive definite even with jitter.
    """

    x: Tensor
    noise: Tensor
    lengthscale: Tensor
    outputscale: Tensor
    constant: Tensor
    shift: Tensor
    scale: Tensor
    cholesky: Tensor
    weights: Tensor
    _y: Tensor
    _shared: Tensor | None
    _fit_succeeded: Tensor
    _observed: Tensor
    _residual: Tensor

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        hyperparameters: Hyperparameters,
        standardiser: Standardiser,
        shared: Tensor | None = None,
        *,
        fit_succeeded: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("x", x)
        self.register_buffer("_y", y.T)  # (metrics, n)
        self.register_buffer("noise", noise.T)  # (metrics, n)
        for name, field in (hyperparameters._asdict() | standardiser._asdict()).items():
            self.register_buffer(name, field)
        self.register_buffer("_shared", shared)
        self.register_buffer("_fit_succeeded", torch.tensor(fit_succeeded, device=x.device))
        self.register_load_state_dict_post_hook(_condition_again)  # type: ignore[no-untyped-call]
        self._condition()

    def _condition(self) -> None:
        """What follows from the data: the factorised system and the residual's weights."""
        observed = self.noise.isfinite()
        # A row without a reading of this metric is cut out of the system: it keeps a 1 on the
        # diagonal, and neither its covariances nor its residual take part.
        self.register_buffer("_observed", observed.to(self.x.dtype), persistent=False)
        self._evaluations: dict[torch.dtype, Evaluation] = {}
        # In place throughout: for large buckets a matrix (metrics, n, n) is what memory is for.
        system = self._prior(self.x).mul_(self._observed.unsqueeze(-1))
        system = system.mul_(self._observed.unsqueeze(-2))
        system.diagonal(dim1=-2, dim2=-1).add_(torch.where(observed, self.noise, 1.0))
        factor = cholesky(system if self._shared is None else system.add_(self._shared))
        del system
        self.register_buffer("cholesky", factor, persistent=False)
        residual = torch.where(observed, self._y - self.constant.unsqueeze(-1), 0.0)
        self.register_buffer("_residual", residual, persistent=False)
        weights = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
        self.register_buffer("weights", weights, persistent=False)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The posterior whose ``state_dict`` this is, of any size, where the state's tensors lie.

        Raises:
            ConfigError: not a posterior's state.
        """
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"not the state of a posterior, which is a mapping, but {type(state).__name__}; "
                "pass what posterior.state_dict() gave"
            )
        names = ("x", "_y", "noise", *Hyperparameters._fields, *Standardiser._fields)
        missing = [name for name in (*names, "_fit_succeeded") if name not in state]
        if missing:
            raise ConfigError(
                f"not the state of a posterior: {missing} are missing, got {sorted(state)[:9]}; "
                "pass what posterior.state_dict() gave"
            )
        x, y, noise, lengthscale, outputscale, constant, shift, scale = (state[n] for n in names)
        return cls(
            x,
            y.T,
            noise.T,
            Hyperparameters(lengthscale, outputscale, constant),
            Standardiser(shift, scale),
            state.get("_shared"),
            fit_succeeded=bool(state["_fit_succeeded"]),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves, as ``.to`` and ``.cuda`` ask for, and never casts."""
        self._evaluations = {}

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor.new_empty(0)).device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``marginal``, so that the module can be compiled and called as one."""
        return self.marginal(x)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Of the standardised outputs."""
        return Hyperparameters(self.lengthscale, self.outputscale, self.constant)

    @property
    def standardiser(self) -> Standardiser:
        """Back to the metric's unit."""
        return Standardiser(self.shift, self.scale)

    @property
    def fit_succeeded(self) -> bool:
        """False where the hyperparameters are a fallback, not the data's."""
        return bool(self._fit_succeeded)

    @property
    def num_metrics(self) -> int:
        """Metrics, each with a Gaussian process of its own."""
        return self.weights.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the posterior lies; points must lie there too."""
        return self.x.device

    def cross(self, x: Tensor) -> Tensor:
        """Standardised prior covariance with the data: ``(..., N, dims)`` to ``(m, ..., N, n)``.

        In the dtype of ``x``, float64 or float32.
        """
        return self._cross(x, slice(None))

    def _cross(self, x: Tensor, metrics: slice) -> Tensor:
        """``cross`` of some metrics."""
        at = self.at(x.dtype)
        x = x.to(at.x)
        scales, datas = at.scale[metrics], at.data[metrics]
        amplitude = at.outputscale[metrics].unsqueeze(-1) * at.observed[metrics]  # (m, n)
        made_of = (x, scales, datas, amplitude)
        if x.ndim == 2 and native.usable(amplitude.numel() * len(x), *made_of):
            k = x.new_empty(len(scales), len(x), len(self.x))
            for scale, data, out in zip(scales, datas, k):
                native.covariance(x * scale, data, out)
            return k.mul_(amplitude.unsqueeze(1))
        k = matern52(x, at.x, at.lengthscale[metrics])
        one = (1,) * (k.ndim - 2)
        return k * amplitude.view(len(amplitude), *one, -1)

    def _prior(self, x: Tensor) -> Tensor:
        """Prior covariance of points ``(N, dims)`` with each other, ``(m, N, N)``."""
        lengthscale, outputscale, _ = self.hyperparameters
        return gram(x, lengthscale).mul_(outputscale[:, None, None])

    def at(self, dtype: torch.dtype) -> Evaluation:
        """What evaluations need, in float32 or else in float64."""
        dtype = dtype if dtype == torch.float32 else self.x.dtype
        if dtype not in self._evaluations:
            self._evaluations[dtype] = self._evaluation(dtype)
        return self._evaluations[dtype]

    def _evaluation(self, dtype: torch.dtype) -> Evaluation:
        # Kept for all who come after, whatever the first one's mode is.
        with torch.inference_mode(False):
            lengthscale, outputscale, constant = self.hyperparameters
            scale = math.sqrt(5) / lengthscale
            data = (scale.unsqueeze(1) * self.x).transpose(1, 2)
            fields = (
                *(self.x, lengthscale, outputscale, constant, self._observed, self.weights),
                *(self.cholesky, scale, data.contiguous()),
            )
            return Evaluation(*(field.to(dtype) for field in fields))

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance at each point on its own.

        Tiled: no more than about 80 MiB is held beside the result, at any N.

        Args:
            x: ``(..., dims)`` in the unit cube, on the posterior's device; float32 for mixed mode.
        Returns:
            mean and var, each ``(..., metrics)``, in the unit of what was fitted.
        Raises:
            ShapeError: wrong number of dims, or another device.
            DeviceMemoryError: the device is too full for small tiles.
        """
        self._check(x)
        at = self.at(x.dtype)
        flat = x.reshape(-1, x.shape[-1]).to(at.x.dtype)
        if torch.compiler.is_compiling():
            mean, var = self._standardised(flat)
        else:
            tile = max(1, _TILE_ELEMENTS // max(1, self.x.shape[0]))
            mean, var = in_tiles(lambda rows: self._tiled(flat, rows), tile, self.device)
        shift, scale = (field.to(flat) for field in self.standardiser)
        # Rounding can push an all but certain point below zero.
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
        """Mean and variance before the metric's unit is put back, ``(N, metrics)``."""
        at = self.at(x.dtype)
        mean, explained = [], []
        for metric in range(self.num_metrics):  # one at a time: larger tiles, the same memory
            k = self._cross(x, slice(metric, metric + 1))[0]  # (N, n)
            mean.append(k @ at.weights[metric])
            half = torch.linalg.solve_triangular(at.cholesky[metric], k.mT, upper=False)
            explained.append(torch.linalg.vector_norm(half, dim=0))
        var = at.outputscale - torch.stack(explained, dim=-1).square()
        return at.constant + torch.stack(mean, dim=-1), var

    def covariance(self, x: Tensor) -> Tensor:
        """Joint posterior covariance of N points ``(N, dims)``, ``(metrics, N, N)``: small N."""
        self._check_matrix(x)
        x = x.to(self.x.dtype)
        k = self.cross(x)
        half = torch.linalg.solve_triangular(self.cholesky, k.transpose(-1, -2), upper=False)
        joint = self._prior(x) - half.transpose(-1, -2) @ half
        scaled: Tensor = self.standardiser.scale.square()[:, None, None] * joint
        return scaled

    def left_out(self) -> Tensor:
        """Log density of each metric's evidence, every row predicted from all others, ``(m,)``.

        In standardised units: comparable between fits of the same data.

        Source: Rasmussen and Williams (2006), Eqs. 5.10 to 5.12.
        """
        precision = torch.cholesky_inverse(self.cholesky).diagonal(dim1=-2, dim2=-1)
        density = precision.log() - self.weights.square() / precision - math.log(2 * math.pi)
        return 0.5 * (density * self._observed).sum(-1)

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
        from .as_gpytorch import as_gpytorch  # here: importing GPyTorch takes its time

        y = self._residual + self.hyperparameters.constant.unsqueeze(-1)
        fields = (self.noise, self._shared, self.hyperparameters)
        return as_gpytorch(self.x, torch.where(self._observed > 0, y, 0.0), *fields)

    def _noise_root(self) -> Tensor:
        """A square root of the noise covariance; zero where unobserved.

        ``(metrics, n)`` where it is diagonal, ``(metrics, n, n)`` where errors are shared.
        """
        own = torch.where(self._observed > 0, self.noise, 0.0)
        if self._shared is None:
            return own.sqrt()
        unobserved = 1.0 - self._observed
        root = cholesky(torch.diag_embed(own + unobserved) + self._shared)
        return root * self._observed.unsqueeze(-1)

    def _check(self, x: Tensor) -> None:
        if x.ndim < 1 or x.shape[-1] != self.x.shape[-1] or x.device != self.device:
            raise ShapeError(
                f"expected points (..., {self.x.shape[-1]}) on {self.device}, "
                f"got {tuple(x.shape)} on {x.device}"
            )

    def _check_matrix(self, x: Tensor) -> None:
        self._check(x)
        if x.ndim != 2:
            raise ShapeError(
                f"expected points (N, {self.x.shape[-1]}), got {tuple(x.shape)}; "
                "flatten the leading axes"
            )


def _condition_again(posterior: Posterior, _: Any) -> None:
    posterior._condition()


def cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor, with the least jitter that makes one possible; overwrites ``matrix``.

    Jitter is a fraction of each row's own variance: one very noisy row blurs no other.
    """
    own = matrix.diagonal(dim1=-2, dim2=-1)
    exact = own.clone()
    for jitter in (0.0, 1e-10, 1e-8, 1e-6):
        own.copy_(exact + jitter * exact)
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(matrix)
        # Whatever is not finite in a row has reached its diagonal.
        if not bool(info.any()) and bool(factor.diagonal(dim1=-2, dim2=-1).isfinite().all()):
            return factor
    raise FitError(
        "the covariance of the evidence is not positive definite even with jitter 1e-6; "
        "look for NaN or for a variance of 0 among candidates that lie on each other"
    )
