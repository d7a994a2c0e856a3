"""A Gaussian process conditioned on data: the factorised system that posterior and paths share.

    K = s C(X, X) + N,    L L' = K,    weights = K^-1 (y - c)

C is the Matern correlation, s the outputscale, c the constant and N the noise covariance of the
standardised data. Whatever is factorised is factorised in float64.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..runtime import native
from . import factors
from .kernels import Hyperparameters, gram, matern52, matern52_in_place, on_card


class Standardiser(NamedTuple):
    """Each metric's ``shift`` and ``scale``, both ``(metrics,)``; y = shift + scale * y_std."""

    shift: Tensor
    scale: Tensor


class Evaluation(NamedTuple):
    """The constants of an evaluation in one dtype; the last two are for the compiled kernels.

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


class ConditionedProcess(nn.Module):
    """An exact Gaussian process per metric, given its data.

    A module of buffers: it moves with ``.to`` and saves with ``state_dict``, which holds the data
    and no factorisation; loading factorises again. It stays in float64, whatever it is cast to.

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

    Buffers, in standardised units: ``noise``, ``observed`` (1 where a row has the metric, else 0),
    ``residual`` (y - c, 0 where not observed) and ``weights``, each ``(metrics, n)``, and
    ``cholesky (metrics, n, n)``. A row without the metric is cut out of the system: it keeps a 1 on
    the diagonal, and neither its covariances nor its residual take part.
    """

    x: Tensor
    noise: Tensor
    lengthscale: Tensor
    outputscale: Tensor
    constant: Tensor
    shift: Tensor
    scale: Tensor
    observed: Tensor
    residual: Tensor
    cholesky: Tensor
    weights: Tensor
    _y: Tensor
    _shared: Tensor | None
    _fit_succeeded: Tensor

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
        # The same as a number of the host: reading the buffer would wait for a card.
        self._succeeded: bool | None = fit_succeeded
        self.register_load_state_dict_post_hook(_condition_again)  # type: ignore[no-untyped-call]
        self._condition()

    def _condition(self) -> None:
        observed = self.noise.isfinite()
        self.register_buffer("observed", observed.to(self.x.dtype), persistent=False)
        self._evaluations: dict[torch.dtype, Evaluation] = {}
        self._root: Tensor | None = None
        self._inverses: dict[torch.dtype, Tensor] = {}
        residual = torch.where(observed, self._y - self.constant.unsqueeze(-1), 0.0)
        self.register_buffer("residual", residual, persistent=False)
        if len(self.x) <= factors.MOST_AT_ONCE or len(residual) == 1:
            factor, weights = self._solved(slice(None))
        else:
            factor = self.x.new_empty(*residual.shape, len(self.x))
            weights = torch.empty_like(residual)
            for metric in range(len(residual)):
                one_metric = slice(metric, metric + 1)
                factor[one_metric], weights[one_metric] = self._solved(one_metric)
        self.register_buffer("cholesky", factor, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def _solved(self, metrics: slice) -> tuple[Tensor, Tensor]:
        """The factor ``(m, n, n)`` and the weights ``(m, n)`` of some metrics."""
        # In place throughout: with many candidates these matrices need most of the memory.
        observed, noise = self.observed[metrics], self.noise[metrics]
        system = self.prior_covariance(self.x, metrics).mul_(observed.unsqueeze(-1))
        system = system.mul_(observed.unsqueeze(-2))
        system.diagonal(dim1=-2, dim2=-1).add_(torch.where(observed > 0, noise, 1.0))
        factor = factors.cholesky(
            system if self._shared is None else system.add_(self._shared[metrics])
        )
        del system
        return factor, torch.cholesky_solve(self.residual[metrics].unsqueeze(-1), factor).squeeze(
            -1
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The process with this ``state_dict``, of any size, on the device of its tensors.

        Raises:
            ConfigError: not a posterior's state.
        """
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"not the state of a posterior, which is a mapping, but {type(state).__name__}; "
                "pass the result of posterior.state_dict()"
            )
        names = ("x", "_y", "noise", *Hyperparameters._fields, *Standardiser._fields)
        missing = [name for name in (*names, "_fit_succeeded") if name not in state]
        if missing:
            raise ConfigError(
                f"not the state of a posterior: {missing} are missing, got {sorted(state)[:9]}; "
                "pass the result of posterior.state_dict()"
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
        """Move to another device, as ``.to`` and ``.cuda`` ask for, without a cast."""
        self._evaluations, self._inverses, self._root = {}, {}, None

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor.new_empty(0)).device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def without_factor(self, buffers: Mapping[str, Tensor]) -> Self:
        """A copy with these buffers alone, which evaluates paths and nothing else."""
        none = buffers["x"].new_empty(self.num_metrics, 0)
        other = copy.copy(self)
        other._buffers = {**buffers, "weights": none, "cholesky": none}
        other._evaluations, other._inverses, other._root = {}, {}, None
        return other

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
        if self._succeeded is None:
            self._succeeded = bool(self._fit_succeeded)
        return self._succeeded

    @property
    def num_metrics(self) -> int:
        """Metrics, each with a Gaussian process of its own."""
        return self.weights.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the data; points must be on it."""
        return self.x.device

    @property
    def shared_noise(self) -> Tensor | None:
        """Standardised noise covariance between rows ``(metrics, n, n)``, zero on the diagonal."""
        return self._shared

    @property
    def outputs(self) -> Tensor:
        """Standardised observations ``(metrics, n)``; the constant where nothing was observed."""
        return self.residual + self.constant.unsqueeze(-1)

    def noise_root(self) -> Tensor:
        """A square root of the noise covariance; zero where unobserved.

        ``(metrics, n)`` where it is diagonal, ``(metrics, n, n)`` where errors are shared. That is
        made once: it takes as long as the factor itself.
        """
        if self._root is None:
            variance = torch.where(self.observed > 0, self.noise, 0.0)
            if self._shared is None:
                return variance.sqrt()
            with torch.inference_mode(False):  # as in ``evaluation``
                system = self._shared.clone()
                system.diagonal(dim1=-2, dim2=-1).add_(variance + (1.0 - self.observed))
                self._root = factors.cholesky(system).mul_(self.observed.unsqueeze(-1))
        return self._root

    def cross(self, x: Tensor, metrics: slice = slice(None)) -> Tensor:
        """Standardised prior covariance with the data: ``(..., N, dims)`` to ``(m, ..., N, n)``.

        In the dtype of ``x``, float64 or float32; of some metrics, or of all.
        """
        at = self.evaluation(x.dtype)
        x = x.to(at.x)
        scales, datas = at.scale[metrics], at.data[metrics]
        amplitude = at.outputscale[metrics].unsqueeze(-1) * at.observed[metrics]  # (m, n)
        operands = (x, scales, datas, amplitude)
        if x.ndim == 2 and native.usable(amplitude.numel() * len(x), *operands):
            k = x.new_empty(len(scales), len(x), len(self.x))
            for scale, data, out in zip(scales, datas, k):
                native.covariance(x * scale, data, out)
            return k.mul_(amplitude.unsqueeze(1))
        if x.ndim == 2 and on_card(x):
            return matern52_in_place(x, scales, datas).mul_(amplitude.unsqueeze(1))
        k = matern52(x, at.x, at.lengthscale[metrics])
        return k * amplitude.view(len(amplitude), *(1,) * (k.ndim - 2), -1)

    def prior_covariance(self, x: Tensor, metrics: slice = slice(None)) -> Tensor:
        """Standardised prior covariance of points ``(N, dims)`` with each other, ``(m, N, N)``."""
        lengthscale, outputscale = self.lengthscale[metrics], self.outputscale[metrics]
        return gram(x, lengthscale).mul_(outputscale[:, None, None])

    def evaluation(self, dtype: torch.dtype) -> Evaluation:
        """The constants of evaluations in float32, or else in float64; made once."""
        dtype = dtype if dtype == torch.float32 else self.x.dtype
        if dtype not in self._evaluations:
            with torch.inference_mode(False):  # kept for all later calls, whatever this one's mode
                lengthscale, outputscale, constant = self.hyperparameters
                scale = math.sqrt(5) / lengthscale
                data = (scale.unsqueeze(1) * self.x).transpose(1, 2)
                fields = (
                    *(self.x, lengthscale, outputscale, constant, self.observed, self.weights),
                    *(self.cholesky, scale, data.contiguous()),
                )
                self._evaluations[dtype] = Evaluation(*(field.to(dtype) for field in fields))
        return self._evaluations[dtype]

    def inverse(self, dtype: torch.dtype) -> Tensor:
        """The inverse factor's transpose, ``(metrics, n, n)``, an upper triangle; made once."""
        if dtype not in self._inverses:
            with torch.inference_mode(False):
                unit = torch.eye(len(self.x), dtype=self.x.dtype, device=self.device)
                inverse = torch.linalg.solve_triangular(self.cholesky, unit, upper=False)
                self._inverses[dtype] = inverse.mT.to(dtype).contiguous()
        return self._inverses[dtype]

    def check_points(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(..., dims)`` on the process's device."""
        if x.ndim < 1 or x.shape[-1] != self.x.shape[-1] or x.device != self.device:
            raise ShapeError(
                f"expected points (..., {self.x.shape[-1]}) on {self.device}, "
                f"got {tuple(x.shape)} on {x.device}"
            )

    def check_matrix(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(N, dims)`` on the process's device."""
        self.check_points(x)
        if x.ndim != 2:
            raise ShapeError(
                f"expected points (N, {self.x.shape[-1]}), got {tuple(x.shape)}; "
                "flatten the leading axes"
            )


def _condition_again(process: ConditionedProcess, _: Any) -> None:
    process._succeeded = None
    process._condition()
