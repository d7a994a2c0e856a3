"""Linear constraints on theta, such as ``"w_click + 2 * w_share <= 1.5"``, in the user's units.

The rules are in ``grammar``, without powers and functions. Of a product at most one side names
parameters, and a divisor names none. Parameters are Floats and Ints. An equality is two
constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..grammar import Parser, Token
from ..parameters import Choice, Float, Int

_NOT_LINEAR = "a constraint on theta is linear: numbers times parameters, added up"


@dataclass(frozen=True)
class Linear:
    """``sum of coefficients[i] * theta[i] <= bound``, one coefficient per parameter."""

    source: str
    coefficients: tuple[float, ...]
    bound: float


def parse_linear(source: str, parameters: Sequence[Float | Int | Choice]) -> Linear:
    """Read one constraint.

    Raises:
        ExpressionError: not understood, not linear, or it names a Choice or no parameter; says
            where and what was expected.
    """
    parser = _Parser(source, parameters)
    greater, less = parser.comparison()
    end = parser.end()
    form = less.plus(greater, -1.0)
    if not form.slopes:
        raise parser.error(f"no parameter is named; known parameters: {parser.usable}", end)
    row = [form.slopes.get(i, 0.0) for i in range(len(parameters))]
    if not any(row):
        raise parser.error("its parameters cancel out: it holds everywhere or nowhere", end)
    if not all(map(math.isfinite, (*row, form.constant))):
        raise parser.error("its numbers are too large for a float", end)
    return Linear(source, tuple(row), 0.0 - form.constant)


class _Form(NamedTuple):
    """``constant + sum of slopes[i] * theta[i]``; every parameter that was named has a slope."""

    slopes: dict[int, float]
    constant: float

    def plus(self, other: _Form, sign: float) -> _Form:
        slopes = dict(self.slopes)
        for i, slope in other.slopes.items():
            slopes[i] = slopes.get(i, 0.0) + sign * slope
        return _Form(slopes, self.constant + sign * other.constant)

    def times(self, factor: float) -> _Form:
        return _Form({i: s * factor for i, s in self.slopes.items()}, self.constant * factor)

    def over(self, divisor: float) -> _Form:
        return _Form({i: s / divisor for i, s in self.slopes.items()}, self.constant / divisor)


class _Parser(Parser[_Form]):
    """Values are linear forms in theta."""

    def __init__(self, source: str, parameters: Sequence[Float | Int | Choice]) -> None:
        names = [p.name for p in parameters]
        operands = "a number, a parameter or '('"
        super().__init__(source, names, "parameter", operands, "+ - * /", "write it more briefly")
        self.choices = {p.name for p in parameters if isinstance(p, Choice)}
        self.usable = [name for name in names if name not in self.choices]

    def constant(self, value: float) -> _Form:
        return _Form({}, value)

    def negative(self, value: _Form) -> _Form:
        return value.times(-1.0)

    def power(self, base: _Form, token: Token) -> _Form:
        raise self.error(f"no powers here; {_NOT_LINEAR}", token)

    def operations(self, first: _Form, rest: Sequence[tuple[Token, _Form]]) -> _Form:
        value = first
        for token, operand in rest:
            if token.symbol in ("+", "-"):
                value = value.plus(operand, 1.0 if token.symbol == "+" else -1.0)
            elif token.symbol == "/":
                if operand.slopes:
                    raise self.error(f"a division by a parameter; {_NOT_LINEAR}", token)
                if operand.constant == 0:
                    raise self.error("a division by 0", token)
                value = value.over(operand.constant)
            elif value.slopes and operand.slopes:
                raise self.error(f"a product of parameters; {_NOT_LINEAR}", token)
            else:
                value, factor = (operand, value) if operand.slopes else (value, operand)
                value = value.times(factor.constant)
        return value

    def name(self, token: Token) -> _Form:
        if token.kind == "name" and self.peek().symbol == "(":
            raise self.error(f"no functions here, not even {token.text}(); {_NOT_LINEAR}", token)
        column = self.column(token)
        if token.text in self.choices:
            raise self.error(
                f"parameter {token.text!r} is a Choice, whose options have no order; a constraint "
                f"may name {self.usable}",
                token,
            )
        return _Form({column: 1.0}, 0.0)
