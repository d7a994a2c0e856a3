"""What comes in from BoTorch's side, checked: points, outputs, units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from torch import Tensor

from ...errors import InputError, ShapeError

# By how much finite differences and optimisers may step over the cube's edge.
_OUTSIDE = 0.01


def check_points(
    x: Tensor, like: Tensor, wanted: str, at_least: int = 1, exactly: int | None = None
) -> None:
    """Refuse what are no points as wide as ``like (n, dims)`` on its device.

    Args:
        x: what came.
        like: points of the right kind.
        wanted: the shape, with ``{}`` for the dims, for the message.
        at_least: axes.
        exactly: axes, where only one number will do.
    Raises:
        ShapeError: names what was expected.
    """
    dims = like.shape[1]
    if isinstance(x, Tensor):
        axes = x.ndim >= at_least if exactly is None else x.ndim == exactly
        if axes and x.shape[-1] == dims and x.device == like.device:
            return
        came = f"{tuple(x.shape)} on {x.device}"
    else:
        came = type(x).__name__
    raise ShapeError(
        f"expected points {wanted.format(dims)}, a tensor on {like.device}, got {came}"
    )


def told(what: object) -> str:
    """What came, for a message: a tensor's shape or else the type."""
    return str(tuple(what.shape)) if isinstance(what, Tensor) else type(what).__name__


def checked_unit(unit: float) -> float:
    """A positive number."""
    real = isinstance(unit, Real) and not isinstance(unit, bool)
    if not (real and math.isfinite(unit) and unit > 0):
        raise InputError(
            f"unit is a positive number, e.g. 0.01 for percentage points; got {unit!r}"
        )
    return float(unit)


def some_of(which: Sequence[int], num: int) -> tuple[int, ...]:
    """Numbers of outputs, each once; negative ones count from the end."""
    listed = list(which) if isinstance(which, Sequence) else []
    whole = all(isinstance(one, Integral) and not isinstance(one, bool) for one in listed)
    inside = whole and all(-num <= one < num for one in listed)
    places = [int(one) % num for one in listed] if inside else []
    if not places or len(set(places)) < len(places):
        raise ShapeError(
            f"outputs are a list of whole numbers from 0 to {num - 1}, each once, e.g. [0]; "
            f"got {which!r}"
        )
    return tuple(places)


def check_in_cube(x: Tensor) -> None:
    """Refuse points in the user's units; BoTorch would get the prior there and never know."""
    if not bool(((x >= -_OUTSIDE) & (x <= 1 + _OUTSIDE)).all()):
        raise InputError(
            f"points lie in the unit cube, got values from {float(x.min()):g} to "
            f"{float(x.max()):g}; pass space.to_unit(theta), and bounds of 0 and 1"
        )
