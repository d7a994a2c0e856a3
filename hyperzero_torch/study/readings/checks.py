"""Checks that collect all faulty rows, and conversions that raise ``ReadingsError`` only."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import ReadingsError

MAX_ROWS_NAMED = 10
_MAX_ID = 2**53
# Texts that exports write where a value is missing.
_MISSING = frozenset({"", "null", "none", "nan", "na", "n/a", "<na>", "nat", "\\n"})
_INFINITE = frozenset({"inf", "infinity"})


class Faults:
    """Faulty rows, collected by vectorised checks; messages are built for the first rows only."""

    def __init__(self, where: Callable[[int], str], num_rows: int) -> None:
        self.where = where
        self.bad = np.zeros(num_rows, dtype=bool)
        self.reasons: dict[int, str] = {}

    def add(self, mask: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
        """Add the rows of ``mask``, with the reason for each; a row keeps its first reason."""
        mask = mask & ~self.bad
        for i in np.flatnonzero(mask)[:MAX_ROWS_NAMED].tolist():
            self.reasons[i] = f"{self.where(i)}: {reason(i)}"
        self.bad |= mask

    def throw(self, summary: str) -> None:
        """Raise ``ReadingsError`` if any row is faulty."""
        if self.bad.any():
            rows = [self.reasons[i] for i in sorted(self.reasons)[:MAX_ROWS_NAMED]]
            raise ReadingsError(summary, rows, int(self.bad.sum()))

    def number(
        self, name: str, raw: NDArray[Any], empty: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Finite numbers, and 0 where ``empty``; all other rows are faulty."""
        values = to_floats(raw)
        finite = np.isfinite(values)
        if empty is not None:
            values, finite = np.where(empty, 0.0, values), finite | empty
        self.add(~finite, lambda i: f"{name} is {raw[i]!r}, expected a finite number")
        return values

    def whole(self, name: str, raw: NDArray[Any]) -> NDArray[np.int64]:
        """Whole numbers >= 0; all other rows are faulty."""
        values = to_floats(raw)
        with np.errstate(invalid="ignore"):
            good = np.isfinite(values) & (values == np.floor(values))
            good &= (values >= 0) & (values < _MAX_ID)
        self.add(~good, lambda i: f"{name} is {raw[i]!r}, expected a whole number >= 0")
        return np.where(good, values, 0.0).astype(np.int64)


def to_floats(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers, NaN for values that are none; numeric arrays are converted without a loop."""
    if raw.dtype.kind in "fiu":
        return raw.astype(np.float64)
    return np.array([to_float(v) for v in raw], dtype=np.float64)


def to_float(value: Any) -> float:
    """A number, or NaN for values that are none, such as True and the text '1_000'."""
    if type(value) is float:  # nearly all are
        return value
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    is_whole = type(value) is int
    if not is_whole and (
        isinstance(value, bool) or not isinstance(value, str | numbers.Real | Decimal)
    ):
        return float("nan")
    if isinstance(value, str) and "_" in value:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def is_undefined(value: Any) -> bool:
    """Whether a value is what a query gives for the variance of one user.

    NULL, NaN or, in some warehouses, infinity; as an object or as the text in a file.
    """
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None:
        return True
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, numbers.Real | Decimal):
        return not np.isfinite(float(value))
    text = str(value).strip().lower()  # pandas has objects of its own for missing values
    return text in _MISSING or text.lstrip("+-") in _INFINITE


def as_array(values: Any, name: str) -> NDArray[Any]:
    """A tensor, an array or nested lists as an array; ``ReadingsError`` for other values."""
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().resolve_conj().resolve_neg()
            # NumPy has no bfloat16, and every float of torch converts to a double exactly.
            values = values.double() if values.is_floating_point() else values
            return np.asarray(values.numpy())
        return np.asarray(values)
    except ValueError:
        raise ReadingsError(f"{name} is ragged; expected one value per arm and metric") from None
    except (TypeError, RuntimeError) as error:  # on the meta device, sparse, requires grad, ...
        raise ReadingsError(f"{name} holds no plain numbers: {error}") from None


def as_scalar(value: Any, name: str) -> Any:
    """A single value; ``ReadingsError`` for several."""
    array = as_array(value, name)
    if array.ndim != 0:
        raise ReadingsError(f"{name} must be one whole number, got {value!r}")
    return array.item()


def as_objects(values: Sequence[Any]) -> NDArray[Any]:
    """One object per row; ``np.array`` would unpack lists into axes."""
    return np.fromiter(values, dtype=object, count=len(values))


def as_column(name: str, values: Any) -> list[Any]:
    """The values of a column; tensors and arrays become Python values."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ReadingsError(
            f"column {name!r} must be a list of values, one per row, got {values!r}"
        )
    try:
        return list(values.tolist() if isinstance(values, torch.Tensor | np.ndarray) else values)
    except (TypeError, RuntimeError) as error:
        raise ReadingsError(f"column {name!r} cannot be read: {error}") from None
