"""A fitted BoTorch model with the interface that our kernels need of a posterior."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.deterministic import MatheronPathModel
from botorch.sampling.pathwise.utils import get_train_inputs
from torch import Tensor, nn

from ...errors import InputError, ShapeError
from .checks import check_points

_GROUP = 64  # paths in each of BoTorch's path models
_TILE_ELEMENTS = 2**22  # of one evaluation of such a model
_FEATURES = 1024  # random Fourier features, BoTorch's default
_OUTSIDE = 1e-6  # rounding error allowed at the cube's edge


class BoTorchPosterior:
    """A fitted BoTorch model as a posterior for ``thompson.propose`` and ``select_paths``.

    The model may have input transforms that map each point to one point, and a linear outcome
    transform (``Standardize``).

    Args:
        model: ``SingleTaskGP``, or ``ModelListGP`` of such with one output each, over the unit
            cube, in deltas, one output per metric; copied, in float64.
    Raises:
        InputError: any other model or transform, a batch of models, or a model fitted to points
            outside the unit cube, in which draws are made.
        ShapeError: the models of a list have different numbers of dims.
    """

    fit_succeeded = True

    def __init__(self, model: SingleTaskGP | ModelListGP) -> None:
        parts = _parts_of(model)
        for part in parts:
            _check_transforms(part)
        # Training mode first: it clears what the model has cached in its original dtype.
        self.model = copy.deepcopy(model).double().train().eval().requires_grad_(False)
        inputs = [_inputs(part) for part in _parts_of(self.model)]
        #: ``(n, dims)``, the points to which the (first) model was fitted.
        self.x: Tensor = inputs[0]
        if len({x.shape[1] for x in inputs}) > 1:
            raise ShapeError(
                "the models of a list take the same points; these are over "
                f"{[x.shape[1] for x in inputs]} dims"
            )
        low, high = (float(end) for end in torch.cat(inputs).aminmax())
        if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):
            raise InputError(
                f"the model was fitted to inputs from {low:g} to {high:g}, but is asked in the "
                "unit cube; fit it to space.to_unit(theta), without Normalize"
            )

    @property
    def num_metrics(self) -> int:
        """Number of outputs of the model."""
        return int(self.model.num_outputs)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.x.device

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Marginal mean and variance at each point, ``(..., dims)`` to ``(..., metrics)``."""
        check_points(x, self.x, "(..., {})")
        flat = x.reshape(-1, x.shape[-1]).to(self.x)
        tile = max(1, min(1024, _TILE_ELEMENTS // len(self.x)))
        parts = [self.model.posterior(points) for points in torch.split(flat, tile)]
        shape = (*x.shape[:-1], self.num_metrics)
        mean, var = torch.cat([p.mean for p in parts]), torch.cat([p.variance for p in parts])
        return mean.reshape(shape).to(x.dtype), var.reshape(shape).to(x.dtype)

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> BoTorchPaths:
        """Joint draws as functions, made by BoTorch (``draw_matheron_paths``).

        Args:
            num_paths: how many.
            generator: seeds them; the default generator if None.
        Raises:
            ShapeError: fewer than one path.
            InputError: BoTorch cannot draw paths of a model with this kernel.
        """
        if not isinstance(num_paths, int) or num_paths < 1:
            raise ShapeError(f"num_paths must be at least 1, a whole number, got {num_paths!r}")
        device = self.device if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        sizes = [min(_GROUP, num_paths - first) for first in range(0, num_paths, _GROUP)]
        try:
            groups = [
                MatheronPathModel(self.model, torch.Size([size]), seed=seed + number)
                for number, size in enumerate(sizes)
            ]
        except NotImplementedError as error:
            raise InputError(
                f"BoTorch cannot draw functions from this model ({str(error).splitlines()[0]}); "
                "fit one with a Matern or RBF kernel, or draw every point independently: "
                'thompson.propose(..., draws="marginal")'
            ) from error
        return BoTorchPaths(self, groups, range(num_paths))


class BoTorchPaths:
    """Functions drawn from a BoTorch model; called like ``Paths``."""

    def __init__(
        self, posterior: BoTorchPosterior, groups: Sequence[MatheronPathModel], which: range
    ) -> None:
        self.posterior = posterior
        self._groups = tuple(groups)
        self._which = which

    @property
    def num_paths(self) -> int:
        """Number of functions."""
        return len(self._which)

    @property
    def tile(self) -> int:
        """Points per evaluation, so that temporaries stay within about 64 MiB."""
        width = self.num_paths + _FEATURES + len(self.posterior.x)
        return max(1, 2 * _TILE_ELEMENTS // (self.posterior.num_metrics * width))

    def __getitem__(self, rows: slice) -> BoTorchPaths:
        """A slice of the functions."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise ShapeError(f"paths are taken by slices, e.g. paths[3:4], got {rows!r}")
        return BoTorchPaths(self.posterior, self._groups, self._which[rows])

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point: ``(N, dims)`` to ``(paths, N, metrics)``."""
        check_points(x, self.posterior.x, "(N, {})", exactly=2)
        at = x.to(self.posterior.x)
        parts = [self._groups[group](at)[rows] for group, rows, _ in self._parts()]
        return torch.cat(parts).to(x.dtype)

    def each(self, x: Tensor) -> Tensor:
        """Every function at points of its own: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        check_points(x, self.posterior.x, f"({self.num_paths}, S, {{}})", exactly=3)
        if len(x) != self.num_paths:
            raise ShapeError(f"expected points ({self.num_paths}, S, dims), got {tuple(x.shape)}")
        at, values = x.to(self.posterior.x), []
        for group, rows, mine in self._parts():
            size = self._groups[group].sample_shape[0]
            around = (0, 0, 0, 0, rows.start, size - rows.stop)  # the group's other paths get zeros
            padded = nn.functional.pad(at[mine], around)
            values.append(self._groups[group](padded)[rows])
        return torch.cat(values).to(x.dtype)

    def _parts(self) -> list[tuple[int, slice, slice]]:
        """For each group with some of these paths: its index, its rows, and their places here."""
        first, last = self._which.start, self._which.stop
        parts = []
        for group in range(first // _GROUP, -(-last // _GROUP)):
            start, stop = max(first, group * _GROUP), min(last, (group + 1) * _GROUP)
            rows = slice(start - group * _GROUP, stop - group * _GROUP)
            parts.append((group, rows, slice(start - first, stop - first)))
        return parts


def _parts_of(model: Any) -> list[SingleTaskGP]:
    """The single-output models of a list, or the one model, if they are supported."""
    listed = isinstance(model, ModelListGP)
    parts = list(model.models) if listed else [model]
    got = type(model).__name__
    if parts and all(isinstance(part, SingleTaskGP) for part in parts):
        batch = next((tuple(part.batch_shape) for part in parts if part.batch_shape), None)
        if batch is None and not (listed and any(part.num_outputs > 1 for part in parts)):
            return parts
        got += "" if batch is None else f" of batch shape {batch}"
    elif listed:
        got += f" of {[type(part).__name__ for part in parts]}"
    raise InputError(
        "BoTorchPosterior takes a SingleTaskGP, or a ModelListGP of such with one output each, "
        f"without a batch; got {got}"
    )


def _check_transforms(model: SingleTaskGP) -> None:
    """Refuse transforms after which points multiply or draws are not normal."""
    inputs, outcome = (getattr(model, f"{of}_transform", None) for of in ("input", "outcome"))
    if inputs is not None and inputs.is_one_to_many:
        raise InputError(
            f"the model's input transform, {type(inputs).__name__}, maps one point to several; "
            "leave it out, and put its effect into the objective"
        )
    if outcome is not None and not outcome._is_linear:
        raise InputError(
            f"the model's outcome transform, {type(outcome).__name__}, is not linear, and deltas "
            "are drawn from normals; use Standardize, and put the transform into the objective"
        )


def _inputs(model: SingleTaskGP) -> Tensor:
    """``(n, dims)``, the points to which a model was fitted, before its own transform."""
    x: Tensor
    (x,) = get_train_inputs(model, transformed=False)
    return x if x.ndim == 2 else x[0]
