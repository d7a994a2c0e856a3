"""Checks of what a source may hold. All faults are collected and reported in one error."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, InputError

_MOST_NAMED = 6
#: Largest delta, a fraction. Larger values are no measurements, and their powers overflow.
LARGEST = 1e12
# Refused as means and variances, although NumPy would convert them to numbers.
_NO_NUMBERS = (bool, np.bool_, str, bytes, complex, np.complexfloating)
# Added to the diagonal of correlations: rounding leaves a semi-definite matrix slightly indefinite.
_SEMI = 1e-7


class Flaws:
    """Collects faults and raises them all in one error."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Add a fault."""
        self.messages.append(message)

    def throw(self) -> None:
        """Raise ``ConfigError`` if there is any fault."""
        if self.messages:
            raise ConfigError(f"{self.what} cannot be used:\n  - " + "\n  - ".join(self.messages))


def shown(items: Iterable[Any]) -> str:
    """The first few items, for a message."""
    listed = list(items)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"{listed[:_MOST_NAMED]}{more}"


def brief(value: Any, most: int = 40) -> str:
    """Any value, shortened for a message."""
    try:
        return f"{value!r:.{most}}"
    except Exception:  # a failing __repr__, or an integer with thousands of digits
        return f"a value of type {type(value).__name__} that cannot be shown"


def names(flaws: Flaws, what: str, given: Any) -> tuple[str, ...]:
    """Names: at least one, none empty, no duplicates."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        flaws.add(f"{what} must be a list of names, got {given!r:.60}")
        return ()
    listed = tuple(given)
    if not listed:
        flaws.add(f"{what} is empty; name at least one")
    wrong = [name for name in listed if not isinstance(name, str) or not name.strip()]
    if wrong:
        flaws.add(f"{what} must be non-empty strings, got {shown(wrong)}")
        return ()
    twice = sorted(name for name, times in Counter(listed).items() if times > 1)
    if twice:
        flaws.add(f"{what} come twice: {shown(twice)}")
    return listed


def settings(flaws: Flaws, given: Any) -> tuple[dict[str, Any], ...]:
    """Settings: mappings over the same parameters to finite numbers, strings or bools."""
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        flaws.add(f"parameters must be a list of settings, got {type(given).__name__}")
        return ()
    rows = list(given)
    if not rows:
        flaws.add("parameters is empty; a source needs at least one setting")
        return ()
    if wrong := [i for i, row in enumerate(rows) if not isinstance(row, Mapping) or not row]:
        flaws.add(f"settings {shown(wrong)} are not mappings from parameter names to values")
        return ()
    wanted = set(rows[0])
    if wrong := [i for i, row in enumerate(rows) if set(row) != wanted]:
        flaws.add(
            f"settings {shown(wrong)} do not name the parameters of the first, "
            f"{shown(sorted(map(str, wanted)))}"
        )
    names(flaws, "parameter names", rows[0])
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    for i, row in enumerate(plain):
        if flaw := _no_value(row):
            flaws.add(f"setting {i}: {flaw}")
            break  # one example is enough: there may be thousands
    return tuple(plain)


def setting(flaws: Flaws, what: str, given: Any) -> dict[str, Any] | None:
    """One setting; None, and a fault, if it is not a setting."""
    if not isinstance(given, Mapping) or not given:
        flaws.add(
            f"{what} must be a setting, a mapping from parameter names to values, "
            f"got {brief(given)}"
        )
        return None
    plain = {name: _plain(value) for name, value in given.items()}
    if wrong := [name for name in plain if not isinstance(name, str)]:
        flaws.add(f"{what}: parameter names must be strings, got {shown(wrong)}")
        return None
    if flaw := _no_value(plain):
        flaws.add(f"{what}: {flaw}")
        return None
    return plain


def _no_value(row: Mapping[str, Any]) -> str | None:
    """A message on the first value that a parameter cannot have."""
    for name, value in row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, str | bool | int | float) or (number and not is_finite(value)):
            return f"{name!r} = {brief(value)} is not a finite number, string or bool"
    return None


def evidence(
    flaws: Flaws, mean: Any, var: Any, shape: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(settings, metrics)``, float64: NaN and infinity where not known.

    ``shape`` is None if settings or metrics were refused; then the shape is not checked.
    """
    mean, var = matrix(flaws, "mean", mean, shape), matrix(flaws, "var", var, shape)
    if not mean.numel() or mean.shape != var.shape:
        return torch.empty(0), torch.empty(0)
    given = ~mean.isnan()
    if bool(mean.isinf().any()):
        flaws.add(f"mean is infinite in rows {shown(rows_of(mean.isinf()))}; NaN means 'not known'")
    large = given & mean.isfinite() & (mean.abs() > LARGEST)
    if bool(large.any()):
        flaws.add(
            f"mean must lie within +-{LARGEST:g}, as fractions of the control's level, got "
            f"{shown(sorted(set(mean[large].tolist())))} in rows {shown(rows_of(large))}; is it "
            "in another unit, or a metric whose control is 0?"
        )
    vague = given & var.isfinite() & (var > LARGEST**2)
    if bool(vague.any()):
        flaws.add(
            f"var must be at most {LARGEST**2:g}, or mean and var both NaN, got "
            f"{shown(sorted(set(var[vague].tolist())))} in rows {shown(rows_of(vague))}"
        )
    wrong = given & ~((var > 0) & (var < torch.inf))
    if bool(wrong.any()):
        values = sorted(set(var[wrong].tolist()))
        flaws.add(
            "var must be finite and above 0 wherever mean is known, got "
            f"{shown(values)} in rows {shown(rows_of(wrong))}"
        )
    if not bool(given.any()):
        flaws.add("every mean is NaN: there is no evidence")
    return torch.where(given, mean, torch.nan), torch.where(given, var, torch.inf)


def matrix(flaws: Flaws, what: str, given: Any, shape: tuple[int, ...] | None) -> Tensor:
    """A copy as float64 on the CPU, of this shape; a fault, and no elements, if that fails."""
    if isinstance(given, Tensor) and (given.layout != torch.strided or given.is_nested):
        flaws.add(f"{what} must be a dense tensor, got {given.layout}; give its to_dense()")
        return torch.empty(0)
    try:
        value = _doubles(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        flaws.add(f"{what} must be numbers, not booleans, text or complex, got {brief(given, 60)}")
        return torch.empty(0)
    if shape is not None and tuple(value.shape) != shape:
        flaws.add(f"{what} must have shape {shape}, got {tuple(value.shape)}")
        return torch.empty(0)
    return value


def _doubles(given: Any) -> Tensor:
    """A copy as float64 on the CPU; raises errors of Python, NumPy or PyTorch.

    NumPy and PyTorch themselves would convert booleans and text, and drop imaginary parts.
    """
    if isinstance(given, Tensor):
        if given.is_complex() or given.dtype == torch.bool:
            raise TypeError(given.dtype)
        return given.detach().to("cpu", torch.float64).clone()
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iuf":
        kinds = {type(value) for value in np.array(given, dtype=object).flat}
        if wrong := [kind for kind in kinds if issubclass(kind, _NO_NUMBERS)]:
            raise TypeError(wrong)
    return torch.from_numpy(np.array(given, dtype=np.float64))


def floats(flaws: Flaws, what: str, given: Any) -> dict[str, float]:
    """A mapping from names to finite numbers."""
    if not isinstance(given, Mapping):
        flaws.add(f"{what} must map names to numbers, got {type(given).__name__}")
        return {}
    kept: dict[str, float] = {}
    for name, value in given.items():
        number = _plain(value)
        if not isinstance(name, str) or not name.strip():
            flaws.add(f"{what}: a name must be a non-empty string, got {brief(name)}")
        elif not is_real(number):
            flaws.add(f"{what}[{name!r}] must be a number, got {brief(value)}")
        elif not is_finite(number):
            flaws.add(
                f"{what}[{name!r}] must be finite, got {brief(number)}; leave out what is not known"
            )
        else:
            kept[name] = float(number)
    return kept


def covariance(flaws: Flaws, shared: Any, var: Tensor, num_metrics: int) -> Tensor | None:
    """The shared part of the errors ``(metrics, n, n)``: symmetric, its diagonal within var."""
    num = len(var)
    value = matrix(flaws, "shared", shared, (num_metrics, num, num))
    if not value.numel():
        return None
    observed = var.isfinite().T
    value = torch.where(observed.unsqueeze(-1) & observed.unsqueeze(-2), value, 0.0)
    own = value.diagonal(dim1=-2, dim2=-1)
    within = torch.where(observed, var.T, 0.0)
    if not bool(value.isfinite().all()) or not torch.allclose(value, value.mT, rtol=1e-9, atol=0):
        flaws.add("shared must be finite and symmetric")
    elif not bool((own <= within * (1 + 1e-9)).all()) or not bool((own >= 0).all()):
        flaws.add("shared is a part of var: its diagonal must lie between 0 and var")
    elif not _is_semidefinite(value, own):
        flaws.add(
            "shared is not a covariance: it must be positive semi-definite, like the product of a "
            "matrix with its transpose"
        )
    return value


def _is_semidefinite(value: Tensor, own: Tensor) -> bool:
    """Checked on correlations, so that settings with small variances count equally."""
    root = own.sqrt()
    scale = root.unsqueeze(-1) * root.unsqueeze(-2)
    if bool((value[scale == 0] != 0).any()):
        return False
    correlation = torch.where(scale > 0, value / scale, 0.0)
    jitter = _SEMI * own.shape[-1] * torch.eye(own.shape[-1], dtype=own.dtype)
    return not bool(torch.linalg.cholesky_ex(correlation + jitter).info.any())


def rows_of(mask: Tensor) -> Sequence[int]:
    """Rows with any True."""
    rows: list[int] = mask.any(-1).nonzero().flatten().tolist()
    return rows


def whole(flaws: Flaws, what: str, value: Any, low: int, high: int | None = None) -> None:
    """A whole number of Python, no boolean, from ``low`` to ``high``."""
    if type(value) is not int or value < low or (high is not None and value > high):
        span = f">= {low}" if high is None else f"from {low} to {high}"
        flaws.add(f"{what} must be a whole number {span}, got {brief(value)}")


def expect(value: Any, kind: type, what: str) -> None:
    """Raise ``InputError`` unless a value is of this kind; ``what`` was expected."""
    if not isinstance(value, kind):
        raise InputError(f"expected {what}, got {type(value).__name__}")


def is_real(value: Any) -> bool:
    """Whether it is a real number of Python or NumPy, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a real number is a finite float."""
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer beyond all floats
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 0:
        return value.item()
    return value.item() if isinstance(value, np.generic) else value
