"""A posterior of any model, checked at every call: never an answer from a broken model.

Whatever the model returns must have the right shape and be finite; variances are >= 0. Where that
does not hold, or where the model raises, there is one ``FitError``: the planner then uses the
default model for the round.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...errors import FitError, HyperZeroError, ShapeError
from ..kernels import default_hyperparameters
from ..protocol import MyPaths, MyPosterior
from .descriptor import sobol_points
from .points import check_points

_T = TypeVar("_T")
_TILE_ELEMENTS = 2**20
# Points at which a new posterior is examined, and those of its covariance and paths.
_NUM_POINTS = 256
_NUM_FEW = 12
_PATH_POINTS = 2**12
# Of the largest variance: how far a covariance may be from symmetric, or its diagonal from the
# variances, or its smallest eigenvalue below 0.
_TOLERANCE = 1e-5
_SEED = 0


def guarded(text: str, what: str, work: Callable[[], _T]) -> _T:
    """The result of another's code; any error becomes a ``FitError`` that names it.

    Its global random numbers are the same in every call, and not taken from the caller's.
    """
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(_SEED)
            return work()
    except (FitError, torch.OutOfMemoryError):
        raise
    except HyperZeroError as error:
        raise FitError(str(error)) from error
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise FitError(f"{what} of {text} raised {type(error).__name__}: {first:.200}") from error


class CheckedPosterior:
    """The posterior that the package uses of a model that is not its own.

    Args:
        inner: what the model's ``fit`` returned.
        x: ``(n, dims)`` the data.
        num_metrics: how many metrics it must predict.
        text: names the model in messages.
    Raises:
        FitError: it lacks a method, or its answers at examined points cannot be used.
    """

    def __init__(self, inner: MyPosterior, x: Tensor, num_metrics: int, text: str) -> None:
        self.inner, self.x, self.text = inner, x, text
        self.num_metrics = num_metrics
        missing = [name for name in ("marginal", "covariance", "paths", "condition")
                   if not callable(getattr(inner, name, None))]  # fmt: skip
        if missing:
            raise FitError(
                f"what {text} fitted, {type(inner).__name__}, has no {', '.join(missing)}; "
                "hyperzero_torch.surrogate.protocol.MyPosterior lists the methods"
            )
        self.fit_succeeded = bool(getattr(inner, "fit_succeeded", True))
        self.lengthscale = self._lengthscale()

    @property
    def device(self) -> torch.device:
        """Device of the data; points must be on it."""
        return self.x.device

    @torch.no_grad()
    def examine(self) -> CheckedPosterior:
        """Ask it at the data and at other points of the cube; returns itself.

        Raises:
            FitError: an answer is not finite, has another shape, or contradicts another.
        """
        dims = self.x.shape[1]
        sobol = sobol_points(_NUM_POINTS, self.x)
        corners = self.x.new_tensor([[0.0], [1.0]]).expand(2, dims)
        self.marginal(torch.cat([self.x, sobol, corners]))
        few = torch.cat([self.x[: _NUM_FEW // 2], sobol[: _NUM_FEW // 2]])
        joint = self.covariance(few)
        _, var = self.marginal(few)
        size = joint.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
        if bool(((joint - joint.mT).abs() > _TOLERANCE * size).any()):
            raise FitError(f"the covariance of {self.text} is not symmetric")
        gap = (joint.diagonal(dim1=-2, dim2=-1) - var.T).abs().unsqueeze(-1)
        if bool((gap > 1e-3 * size).any()):
            raise FitError(f"the variances of {self.text} are not the diagonal of its covariance")
        if float((torch.linalg.eigvalsh(joint) / size[..., 0]).min()) < -_TOLERANCE * len(few):
            raise FitError(f"the covariance of {self.text} is not positive semi-definite")
        generator = torch.Generator(self.device).manual_seed(_SEED)
        drawn = self.paths(2, generator)
        if not bool(torch.allclose(drawn(few), drawn(few))):
            raise FitError(f"paths of {self.text} change from call to call")
        return self

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> CheckedPosterior:
        """The same prior given other evidence."""
        work = partial(self.inner.condition, x, mean, var, shared)
        inner = guarded(self.text, "condition", work)
        return CheckedPosterior(inner, x, self.num_metrics, self.text)

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(..., dims)`` to ``(..., metrics)``."""
        self.check(x)
        flat = x.reshape(-1, x.shape[-1]).to(self.x.dtype)
        means, variances = [], []
        for part in torch.split(flat, max(1, _TILE_ELEMENTS // self.num_metrics)):
            answer: Any = guarded(self.text, "marginal", partial(self.inner.marginal, part))
            if not isinstance(answer, tuple | list) or len(answer) != 2:
                raise FitError(
                    f"marginal of {self.text} must return a mean and a variance, a Gaussian; it "
                    f"returned {type(answer).__name__}"
                )
            shape = (len(part), self.num_metrics)
            means.append(self.checked("mean", answer[0], shape))
            variances.append(self.checked("variance", answer[1], shape))
        mean, var = torch.cat(means), torch.cat(variances)
        if bool((var < 0).any()):
            raise FitError(f"{self.text} has negative variances, down to {float(var.min()):g}")
        shape = (*x.shape[:-1], self.num_metrics)
        return mean.reshape(shape).to(x.dtype), var.reshape(shape).to(x.dtype)

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance of few points: ``(N, dims)`` to ``(metrics, N, N)``."""
        self.check(x, 2)
        at = x.to(self.x.dtype)
        joint = guarded(self.text, "covariance", lambda: self.inner.covariance(at))
        return self.checked("covariance", joint, (self.num_metrics, len(x), len(x)))

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> CheckedPaths:
        """Joint draws as functions of x."""
        if num_paths < 1:
            raise ShapeError(f"num_paths must be at least 1, got {num_paths}")
        if generator is None:
            seed = int(torch.randint(2**62, ()))
            generator = torch.Generator(self.device).manual_seed(seed)
        inner = guarded(self.text, "paths", lambda: self.inner.paths(num_paths, generator))
        if not callable(inner):
            raise FitError(
                f"paths of {self.text} must be callable on points, got {type(inner).__name__}"
            )
        return CheckedPaths(self, inner, range(num_paths), num_paths)

    def check(self, x: Tensor, ndim: int | None = None) -> None:
        """Raise ``ShapeError`` unless ``x`` are points on the posterior's device."""
        check_points(x, self.x.shape[1], self.device, ndim)

    def checked(self, what: str, value: Any, shape: tuple[int, ...]) -> Tensor:
        """An answer of the model, in float64.

        Raises:
            FitError: another shape, another device, or not finite.
        """
        if not isinstance(value, Tensor):
            raise FitError(f"{what} of {self.text} must be a tensor, got {type(value).__name__}")
        if tuple(value.shape) != shape or value.device.type != self.device.type:
            raise FitError(
                f"{what} of {self.text} must be {shape} on {self.device}, got "
                f"{tuple(value.shape)} on {value.device}"
            )
        if not bool(value.isfinite().all()):
            raise FitError(f"{what} of {self.text} is not finite everywhere")
        return value.to(self.x.dtype)

    def _lengthscale(self) -> Tensor:
        """Of the model where it has any of the right shape, else the default's."""
        usual = default_hyperparameters(self.num_metrics, self.x.shape[1], self.x).lengthscale
        given = getattr(self.inner, "lengthscale", None)
        if not isinstance(given, Tensor) or given.shape != usual.shape:
            return usual
        given = given.detach().to(usual)
        return torch.where(given.isfinite() & (given > 0), given, usual)


class CheckedPaths:
    """Functions drawn from a ``CheckedPosterior``: of ``num`` drawn, those in ``which``."""

    def __init__(self, posterior: CheckedPosterior, inner: MyPaths, which: range, num: int) -> None:
        self.posterior = posterior
        self._inner, self._which, self._num = inner, which, num

    @property
    def num_paths(self) -> int:
        """How many functions."""
        return len(self._which)

    @property
    def tile(self) -> int:
        """Points to evaluate at once."""
        given = getattr(self._inner, "tile", None)
        if isinstance(given, int) and given > 0:
            return given
        return max(1, min(_PATH_POINTS, 2**23 // (self._num * self.posterior.num_metrics)))

    def __getitem__(self, paths: slice) -> CheckedPaths:
        """A few of the functions, by a slice."""
        if not isinstance(paths, slice):
            raise ShapeError(f"paths are taken by slices, e.g. paths[3:4], got {paths!r}")
        return CheckedPaths(self.posterior, self._inner, self._which[paths], self._num)

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point: ``(N, dims)`` to ``(paths, N, metrics)``."""
        self.posterior.check(x, 2)
        values = self._evaluated(x.to(self.posterior.x.dtype))
        return values[self._which.start : self._which.stop : self._which.step].to(x.dtype)

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``.

        A model whose paths have ``each`` themselves is asked once; any other for all its functions
        at each one's points.
        """
        self.posterior.check(x, 3)
        if len(x) != self.num_paths:
            raise ShapeError(f"expected points ({self.num_paths}, S, dims), got {tuple(x.shape)}")
        at = x.to(self.posterior.x.dtype)
        own = getattr(self._inner, "each", None)
        if callable(own) and len(self._which) == self._num:
            values = guarded(self.posterior.text, "paths", lambda: own(at))
            shape = (*x.shape[:2], self.posterior.num_metrics)
            return self.posterior.checked("paths", values, shape).to(x.dtype)
        rows = [self._evaluated(points)[path] for path, points in zip(self._which, at)]
        return torch.stack(rows).to(x.dtype)

    def _evaluated(self, at: Tensor) -> Tensor:
        values = guarded(self.posterior.text, "paths", lambda: self._inner(at))
        shape = (self._num, len(at), self.posterior.num_metrics)
        return self.posterior.checked("paths", values, shape)
