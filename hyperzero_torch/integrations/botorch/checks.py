"""Checks of what BoTorch passes in: points, outputs, units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from torch import Tensor

from ...errors import InputError, ShapeError

# Finite differences and optimisers may step this far outside the cube.
_OUTSIDE = 0.01


def check_points(
    x: Tensor, like: Tensor, wanted: str, at_least: int = 1, exactly: int | None = None
) -> None:
    """Refuse points that differ from ``like (n, dims)`` in width or device: a ``ShapeError``.

    ``wanted`` is the expected shape for the message, with ``{}`` for the dims; ``at_least`` and
    ``exactly`` count axes.
    """
    dims, got = like.shape[1], shape_or_type(x)
    if isinstance(x, Tensor):
        axes = x.ndim >= at_least if exactly is None else x.ndim == exactly
        if axes and x.shape[-1] == dims and x.device == like.device:
            return
        got += f" on {x.device}"
    raise ShapeError(f"expected points {wanted.format(dims)}, a tensor on {like.device}, got {got}")


def shape_or_type(value: object) -> str:
    """The shape of a tensor or the type of anything else, for messages."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def checked_unit(unit: float) -> float:
    """A positive number."""
    real = isinstance(unit, Real) and not isinstance(unit, bool)
    if not (real and math.isfinite(unit) and unit > 0):
        raise InputError(
            f"unit is a positive number, e.g. 0.01 for percentage points; got {unit!r}"
        )
    return float(unit)


def checked_outputs(outputs: Sequence[int], num: int) -> tuple[int, ...]:
    """Indices of distinct outputs; negative ones count from the end."""
    listed = list(outputs) if isinstance(outputs, Sequence) else []
    whole = all(isinstance(i, Integral) and not isinstance(i, bool) for i in listed)
    inside = whole and all(-num <= i < num for i in listed)
    places = [int(i) % num for i in listed] if inside else []
    if not places or len(set(places)) < len(places):
        raise ShapeError(
            f"outputs are a list of whole numbers from 0 to {num - 1}, each once, e.g. [0]; "
            f"got {outputs!r}"
        )
    return tuple(places)


def check_in_cube(x: Tensor) -> None:
    """Refuse points in the user's units: there BoTorch would silently get the prior."""
    if not bool(((x >= -_OUTSIDE) & (x <= 1 + _OUTSIDE)).all()):
        raise InputError(
            f"points lie in the unit cube, got values from {float(x.min()):g} to "
            f"{float(x.max()):g}; pass space.to_unit(theta), and bounds of 0 and 1"
        )
