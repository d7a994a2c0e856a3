"""The kinds of parameters, Float, Int and Choice, each with its map to the unit cube and back."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import SpaceError

Value: TypeAlias = float | int | str | bool

# A base such as 0.30000000000000004 for a bound of 0.3 is the bound, not an error.
_BOUND_TOLERANCE = 1e-9
# With more cells, whole numbers do not survive the unit interval in float64.
_MAX_CELLS = 2**50


@dataclass(frozen=True)
class Float:
    """A real parameter in ``[low, high]``; with ``log=True`` uniform in its logarithm.

    Raises:
        SpaceError: the bounds are reversed, equal or not finite, or ``log`` with ``low <= 0``.
    """

    name: str
    low: float
    high: float
    log: bool = False
    kind: Literal["float"] = field(default="float", kw_only=True)
    width: ClassVar[int] = 1  # coordinates of the unit cube

    def __post_init__(self) -> None:
        _check_bounds(self)
        if not isinstance(self.log, bool):
            raise SpaceError(f"parameter {self.name!r}: log is True or False, got {self.log!r}")
        if self.log and self.low <= 0:
            raise SpaceError(
                f"parameter {self.name!r}: log=True needs low > 0, got low={self.low}; drop log, "
                "or raise low (every value, the base's too, is then > 0)"
            )
        if self.log and not math.log(self.low) < math.log(self.high):
            raise SpaceError(
                f"parameter {self.name!r}: bounds [{self.low}, {self.high}] are too close for a "
                "logarithm; drop log"
            )
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    def check(self, value: Any) -> float:
        """The value as theta holds it; raises ``SpaceError`` where it is outside."""
        number = _number(self.name, value)
        slop = _BOUND_TOLERANCE * max(abs(self.low), abs(self.high))
        if not self.low - slop <= number <= self.high + slop:
            if self.log and number <= 0:
                raise SpaceError(
                    f"parameter {self.name!r} = {value} lies outside [{self.low}, {self.high}], "
                    f"and no logarithmic scale reaches it: drop log and set low={number}, or "
                    f"keep log and use a value > 0, such as {self.low}"
                )
            raise SpaceError(
                f"parameter {self.name!r} = {value} lies outside [{self.low}, {self.high}]; "
                "widen the bounds or change the value"
            )
        return min(max(number, self.low), self.high)

    def to_unit(self, theta: Tensor) -> Tensor:
        """``(...)`` in the user's unit to ``(..., 1)``."""
        low, high = self.low, self.high
        if self.log:
            theta, low, high = theta.log(), math.log(low), math.log(high)
        return ((theta - low) / (high - low)).unsqueeze(-1)

    def from_unit(self, x: Tensor) -> Tensor:
        """``(..., 1)`` to ``(...)`` in the user's unit, never outside the bounds."""
        x = x[..., 0]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (low + x * (high - low)).exp().clamp(self.low, self.high)
        return (self.low + x * (self.high - self.low)).clamp(self.low, self.high)

    def value(self, theta: float) -> Value:
        """What a platform is given."""
        return theta

    def levels(self, num: int) -> Tensor:
        """At most ``num`` evenly spread positions in the unit interval, cell centres."""
        return (torch.arange(num, dtype=torch.float64) + 0.5) / num


@dataclass(frozen=True)
class Int:
    """A whole number in ``[low, high]``, both included.

    Raises:
        SpaceError: the bounds are reversed or equal.
    """

    name: str
    low: int
    high: int
    kind: Literal["int"] = field(default="int", kw_only=True)
    width: ClassVar[int] = 1  # coordinates of the unit cube

    def __post_init__(self) -> None:
        _check_bounds(self)
        if self.low != round(self.low) or self.high != round(self.high):
            raise SpaceError(
                f"parameter {self.name!r}: an Int has whole bounds, got {self.low} and {self.high}"
            )
        if max(abs(self.low), abs(self.high)) > _MAX_CELLS // 2:
            raise SpaceError(
                f"parameter {self.name!r}: whole numbers beyond {_MAX_CELLS // 2} are not exact "
                f"here, got {self.low} and {self.high}; use a Float"
            )
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    def check(self, value: Any) -> float:
        """The value as theta holds it; raises ``SpaceError`` unless whole and in bounds."""
        number = _number(self.name, value)
        if number != round(number) or not self.low <= number <= self.high:
            raise SpaceError(
                f"parameter {self.name!r} = {value} is not a whole number in "
                f"[{self.low}, {self.high}]"
            )
        return number

    def to_unit(self, theta: Tensor) -> Tensor:
        """``(...)`` whole numbers to ``(..., 1)``: the centres of equal cells."""
        return ((theta - self.low + 0.5) / (self.high - self.low + 1)).unsqueeze(-1)

    def from_unit(self, x: Tensor) -> Tensor:
        """``(..., 1)`` to the whole number ``(...)`` of the cell."""
        cells = self.high - self.low + 1
        return self.low + (x[..., 0] * cells).floor().clamp(0, cells - 1)

    def value(self, theta: float) -> Value:
        """What a platform is given."""
        return round(theta)

    def levels(self, num: int) -> Tensor:
        """At most ``num`` evenly spread cell centres."""
        cells = self.high - self.low + 1
        index = torch.linspace(0, cells - 1, min(num, cells), dtype=torch.float64).round()
        return (index + 0.5) / cells


@dataclass(frozen=True)
class Choice:
    """One of several options without an order, e.g. ``Choice("mode", ["a", "b"])``.

    Raises:
        SpaceError: fewer than two options, or an option twice.
    """

    name: str
    options: Sequence[Value]
    kind: Literal["choice"] = field(default="choice", kw_only=True)

    def __post_init__(self) -> None:
        _check_name(self)
        if isinstance(self.options, str) or not isinstance(self.options, Sequence):
            raise SpaceError(
                f"parameter {self.name!r}: options must be a list, got {self.options!r}"
            )
        options = tuple(o.item() if isinstance(o, np.generic) else o for o in self.options)
        object.__setattr__(self, "options", options)
        for option in options:
            if not isinstance(option, str | int | float) or (
                isinstance(option, float) and not math.isfinite(option)
            ):
                raise SpaceError(
                    f"parameter {self.name!r}: an option is a string, a finite number or a bool, "
                    f"got {option!r}"
                )
        if len(self.options) < 2:
            raise SpaceError(
                f"parameter {self.name!r} needs at least two options, got {list(self.options)}"
            )
        if len(set(self.options)) != len(self.options):
            raise SpaceError(f"parameter {self.name!r} names an option twice: {list(self.options)}")

    @property
    def width(self) -> int:
        """Coordinates of the unit cube that it takes: one per option."""
        return len(self.options)

    @property
    def served(self) -> tuple[Value, ...]:
        """The options that are served: all of them."""
        return tuple(self.options)

    def check(self, value: Any) -> float:
        """The option's index; raises ``SpaceError`` where it is no option that is served."""
        value = value.item() if isinstance(value, np.generic) else value
        served = self.served
        for index, option in enumerate(self.options):
            # Compare types first: True == 1 in Python, but a flag is not a number.
            same_type = isinstance(value, str | int | float) and (
                isinstance(value, bool) == isinstance(option, bool)
            )
            if same_type and value == option and option in served:
                return float(index)
        raise SpaceError(f"parameter {self.name!r} = {value!r} is none of its options {[*served]}")

    def check_index(self, value: float) -> None:
        """Raise ``SpaceError`` unless this is the index of an option, as theta holds it."""
        if value not in range(self.width):
            raise SpaceError(
                f"parameter {self.name!r}: theta holds the index of an option, 0 to "
                f"{self.width - 1}, got {value}"
            )

    def to_unit(self, theta: Tensor) -> Tensor:
        """``(...)`` indices to one-hot ``(..., options)``."""
        return torch.nn.functional.one_hot(theta.long(), self.width).to(theta.dtype)

    def from_unit(self, x: Tensor) -> Tensor:
        """``(..., options)`` to the index ``(...)`` of the largest coordinate."""
        return x.argmax(-1).to(x.dtype)

    def spread(self, u: Tensor) -> Tensor:
        """Uniform numbers ``(...)`` to indices ``(...)``, each option as likely as any other."""
        num = len(self.served)
        return (u * num).floor().clamp(0, num - 1)

    def value(self, theta: float) -> Value:
        """What a platform is given."""
        return self.options[round(theta)]

    def levels(self, num: int) -> Tensor:
        """Every option that is served, as the middle of its cell in the unit interval."""
        return (torch.arange(len(self.served), dtype=torch.float64) + 0.5) / len(self.served)


class _ByKind:
    """Tells pydantic to choose by ``kind``; it is imported here, since kernels need none of it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator="kind")])


Parameter: TypeAlias = Annotated[Float | Int | Choice, _ByKind()]


def _check_name(parameter: Float | Int | Choice) -> None:
    if not isinstance(parameter.name, str) or not parameter.name.strip():
        raise SpaceError(f"a parameter's name must be a non-empty string, got {parameter.name!r}")


def _check_bounds(parameter: Float | Int) -> None:
    _check_name(parameter)
    name, low, high = parameter.name, parameter.low, parameter.high
    _number(name, low)
    _number(name, high)
    if low > high:
        raise SpaceError(
            f"parameter {name!r}: bounds are reversed, low={low} > high={high}; swap them"
        )
    if low == high:
        raise SpaceError(
            f"parameter {name!r}: bounds are equal ({low}), nothing to tune; leave it out"
        )
    if not float(high) - float(low) < math.inf:
        raise SpaceError(f"parameter {name!r}: bounds [{low}, {high}] are too far apart")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SpaceError(f"parameter {name!r} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpaceError(f"parameter {name!r} must be finite, got {number}")
    return number
