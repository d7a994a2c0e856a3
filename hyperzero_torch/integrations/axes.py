"""Parameters of another stack as ours, and back: what Optuna's, Ray's and Ax's spaces share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import SpaceError
from ..problem.space import Choice, Float, Int

_MOST_STEPS = 2**40  # of a grid that is searched by its indices


@dataclass(frozen=True)
class Axis:
    """One parameter of another stack, as one of ours and back.

    Where there are ``values`` ours is an index of these; else an Int counts ``step`` from ``low``,
    and a Float is the value itself, rounded to whole steps where there are any.
    """

    name: str
    parameter: Float | Int | Choice
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    values: tuple[Any, ...] = ()

    def theta(self, value: Any) -> float:
        """The number that our theta holds for a value.

        Raises:
            SpaceError: none of the values, or out of range.
        """
        if self.values:
            for same in (_identical, _equal):
                for index, known in enumerate(self.values):
                    if same(known, value):
                        return float(index)
            raise SpaceError(f"{self.name!r} = {value!r} is none of {list(self.values)}")
        if isinstance(self.parameter, Int):
            assert self.step is not None
            return self.parameter.check(round((value - self.low) / self.step))
        return self.parameter.check(value)

    def value(self, theta: float) -> Any:
        """What the other stack's trial is given."""
        if self.values:
            return self.values[round(theta)]
        value = theta
        if isinstance(self.parameter, Int):
            assert self.step is not None
            value = self.low + self.step * round(theta)
        elif self.step is not None:
            value = self.low + self.step * round((theta - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(value)


def _identical(a: Any, b: Any) -> bool:
    return a is b


def _equal(a: Any, b: Any) -> bool:
    """Equal and of one kind: True == 1 in Python; a NaN is itself."""
    try:
        return type(a) is type(b) and bool(a == b or (a != a and b != b))
    except (TypeError, ValueError, RuntimeError):  # arrays: equality of many numbers is no bool
        return False


def number(value: Any) -> float | None:
    """What somebody reports, where it is one number: NaN and infinities included, bools not."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:  # a Python int or Fraction beyond what floats hold
        return None


def number_axis(
    name: str, low: float, high: float, *, log: bool = False, step: float | None = None
) -> Axis:
    """A number in ``[low, high]``; whole where bounds and step are ints.

    Args:
        name: in the other stack.
        low: least value.
        high: largest value; with a step, one that lies on its grid.
        log: uniform in the logarithm.
        step: of the grid from ``low`` on; None for every number.
    Raises:
        SpaceError: bounds or a step that cannot be, or that no float can hold.
    """
    _check_numbers(name, low, high, step)
    whole = all(isinstance(n, int) for n in (low, high, step))
    if step is None:
        return Axis(name, Float(name, low, high, log=log), low, high)
    steps = round((high - low) / step)
    if not log and steps < _MOST_STEPS:
        return Axis(name, Int(name, 0, steps), low, high, step, whole)
    # As wide on either side as a cell of the others, so that the ends are no rarer.
    first = max(low - step / 2, low / 2) if log else low - step / 2
    return Axis(name, Float(name, first, high + step / 2, log=log), low, high, step, whole)


def _check_numbers(name: str, low: Any, high: Any, step: Any) -> None:
    """Raise ``SpaceError`` unless floats hold the bounds and the number of steps between them."""
    least, most, width = number(low), number(high), number(1.0 if step is None else step)
    if (
        least is None
        or most is None
        or width is None
        or not width > 0
        or least > most
        or not math.isfinite((most - least) / width)
    ):
        # More digits than Python prints would be an error of their own.
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


def choice_axis(name: str, values: Sequence[Any]) -> Axis:
    """One of several values without an order, of any type."""
    return Axis(name, Choice(name, range(len(values))), values=tuple(values))


def ordered_axis(name: str, values: Sequence[Any]) -> Axis:
    """One of several values that lie in this order."""
    return Axis(name, Int(name, 0, len(values) - 1), values=tuple(values))
