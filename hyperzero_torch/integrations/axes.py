"""Parameters of another package as ours, and back: shared by the Optuna, Ray and Ax adapters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ConfigError, SpaceError
from ..problem.space import Choice, Float, Int

_MAX_GRID_STEPS = 2**40  # a finer grid is searched as a continuous range


@dataclass(frozen=True)
class Axis:
    """One parameter of another package, and the parameter of ours that stands for it.

    With ``values``, ours is an index into them. Otherwise an Int counts steps of ``step`` from
    ``low``, and a Float is the value itself, rounded to a multiple of ``step`` if there is one.
    """

    name: str
    parameter: Float | Int | Choice
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    values: tuple[Any, ...] = ()

    def theta(self, value: Any) -> float:
        """The number that represents ``value`` in our theta; ``SpaceError`` if there is none."""
        if self.values:
            indices = range(len(self.values))
            matches = [i for i in indices if self.values[i] is value]
            matches = matches or [i for i in indices if _equal(self.values[i], value)]
            if not matches:
                raise SpaceError(f"{self.name!r} = {value!r} is none of {list(self.values)}")
            return float(matches[0])
        if isinstance(self.parameter, Int):
            value = round((value - self.low) / (self.step or 1))
        return self.parameter.check(value)

    def value(self, theta: float) -> Any:
        """The value that the other package's trial is given."""
        if self.values:
            return self.values[round(theta)]
        value = theta
        if isinstance(self.parameter, Int):
            value = self.low + (self.step or 1) * round(theta)
        elif self.step is not None:
            value = self.low + self.step * round((theta - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(value)


def _equal(a: Any, b: Any) -> bool:
    """Equal and of the same type (True == 1 in Python); a NaN equals itself."""
    try:
        return type(a) is type(b) and bool(a == b or (a != a and b != b))
    except (TypeError, ValueError, RuntimeError):  # comparing arrays does not give one bool
        return False


def number(value: Any) -> float | None:
    """``value`` as a float, NaN and infinities included; None if it is a bool or no number."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:  # a Python int or Fraction too large for a float
        return None


def whole_number(name: str, value: Any, least: int, below: int | None = None) -> int:
    """``value`` as an int; ``ConfigError`` unless whole (bools are not) in ``[least, below)``."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (below is not None and int(value) >= below):
        end = "" if below is None else f" and < {below}"
        raise ConfigError(f"{name} is a whole number >= {least}{end}, got {value!r}")
    return int(value)


def number_axis(
    name: str, low: float, high: float, *, log: bool = False, step: float | None = None
) -> Axis:
    """A number in ``[low, high]``; an int if bounds and step are ints.

    With a step it lies on the grid that starts at ``low`` and ends at ``high``.

    Raises:
        SpaceError: bounds or a step that are invalid or too large for a float.
    """
    if not _is_range(low, high, 1.0 if step is None else step):
        # Python refuses to print ints of more than a few thousand digits.
        ends = [
            f"a whole number of {n.bit_length()} bits"
            if type(n) is int and abs(n) >> 999
            else repr(n)
            for n in (low, high)
        ]
        raise SpaceError(
            f"{name!r} goes from {ends[0]} to {ends[1]} with step {step!r}; expected finite "
            "bounds, the lower one first, a step > 0, and finitely many steps between them"
        )
    whole = all(isinstance(n, int) for n in (low, high, step))
    if step is None:
        return Axis(name, Float(name, low, high, log=log), low, high)
    steps = round((high - low) / step)
    if not log and steps < _MAX_GRID_STEPS:
        return Axis(name, Int(name, 0, steps), low, high, step, whole)
    # Half a step wider on both sides, so that the end values are as likely as the others.
    first = max(low - step / 2, low / 2) if log else low - step / 2
    return Axis(name, Float(name, first, high + step / 2, log=log), low, high, step, whole)


def _is_range(low: Any, high: Any, step: Any) -> bool:
    """Whether floats hold the bounds, in order, and the number of steps between them."""
    least, most, width = number(low), number(high), number(step)
    if least is None or most is None or width is None:
        return False
    return least <= most and width > 0 and math.isfinite((most - least) / width)


def choice_axis(name: str, values: Sequence[Any]) -> Axis:
    """One of several unordered values of any type."""
    return Axis(name, Choice(name, range(len(values))), values=tuple(values))


def ordered_axis(name: str, values: Sequence[Any]) -> Axis:
    """One of several values in the given order."""
    return Axis(name, Int(name, 0, len(values) - 1), values=tuple(values))
