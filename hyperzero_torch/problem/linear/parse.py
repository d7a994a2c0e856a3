"""Linear constraints on theta, such as ``"w_click + 2 * w_share <= 1.5"``, in the user's units.

    constraint := sum (">=" | "<=") sum
    sum        := product (("+" | "-") product)*
    product    := signed (("*" | "/") signed)*
    signed     := ("-" | "+") signed | atom
    atom       := number ["%"] | parameter | "(" sum ")"

Of a product at most one side names parameters, and a divisor names none. Parameters are Floats and
Ints; one whose name is not an identifier stands in backticks. An equality is two constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..parameters import Choice, Float, Int
from ..tokens import Reader, Token

_IN_FULL = "a number, a parameter or '('"
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
            where and what would be understood.
    """
    parser = _Parser(source, parameters)
    left = parser.sum()
    token = parser.next()
    if token.symbol not in (">=", "<="):
        raise parser.error("expected an operator (+ - * /), or '>=' or '<=' and a bound", token)
    right = parser.sum()
    end = parser.peek()
    if end.symbol in (">=", "<="):
        raise parser.error(
            "a second comparison: write a range as two constraints, one for each bound", end
        )
    if end.kind != "end":
        raise parser.error(
            f"{end.text!r} cannot stand here; expected an operator (+ - * /) or the end", end
        )
    if token.symbol == ">=":
        left, right = right, left
    form = left.plus(right, -1.0)
    if not form.slopes:
        raise parser.error(f"no parameter is named; known parameters: {parser.usable}", end)
    row = [form.slopes.get(i, 0.0) for i in range(len(parameters))]
    if not any(row):
        raise parser.error("its parameters cancel out: it holds everywhere or nowhere", end)
    if not all(map(math.isfinite, (*row, form.constant))):
        raise parser.error("its numbers are too large for a float", end)
    return Linear(source, tuple(row), 0.0 - form.constant)


class _Form(NamedTuple):
    """``constant + sum of slopes[i] * theta[i]``; a parameter that was named has a slope."""

    slopes: dict[int, float]
    constant: float

    def plus(self, other: _Form, sign: float) -> _Form:
        slopes = dict(self.slopes)
        for i, slope in other.slopes.items():
            slopes[i] = slopes.get(i, 0.0) + sign * slope
        return _Form(slopes, self.constant + sign * other.constant)

    def times(self, factor: float) -> _Form:
        return _Form({i: s * factor for i, s in self.slopes.items()}, self.constant * factor)


class _Parser(Reader):
    """Recursive descent over the grammar at the top of this file; each rule is one method."""

    def __init__(self, source: str, parameters: Sequence[Float | Int | Choice]) -> None:
        names = [p.name for p in parameters]
        super().__init__(
            source, names, "parameter", _IN_FULL, "+ - * / >= <=", "write it more briefly"
        )
        self.choices = {p.name for p in parameters if isinstance(p, Choice)}
        self.usable = [name for name in names if name not in self.choices]

    def sum(self) -> _Form:
        value = self.product()
        while self.peek().symbol in ("+", "-"):
            sign = 1.0 if self.next().symbol == "+" else -1.0
            value = value.plus(self.product(), sign)
        return value

    def product(self) -> _Form:
        value = self.signed()
        while self.peek().symbol in ("*", "/", "**"):
            token = self.next()
            if token.symbol == "**":
                raise self.error(f"no powers here; {_NOT_LINEAR}", token)
            other = self.signed()
            if token.symbol == "/":
                value = self._divide(value, other, token)
            elif value.slopes and other.slopes:
                raise self.error(f"a product of parameters; {_NOT_LINEAR}", token)
            elif other.slopes:
                value = other.times(value.constant)
            else:
                value = value.times(other.constant)
        return value

    def _divide(self, value: _Form, other: _Form, token: Token) -> _Form:
        if other.slopes:
            raise self.error(f"a division by a parameter; {_NOT_LINEAR}", token)
        if other.constant == 0:
            raise self.error("a division by 0", token)
        return _Form(
            {i: s / other.constant for i, s in value.slopes.items()},
            value.constant / other.constant,
        )

    def signed(self) -> _Form:
        token = self.peek()
        self.deeper(token)
        if token.symbol in ("+", "-"):
            self.next()
            inner = self.signed()
            value = inner if token.symbol == "+" else inner.times(-1.0)
        else:
            value = self.atom()
        self.depth -= 1
        return value

    def atom(self) -> _Form:
        token = self.next()
        if token.kind == "number":
            return _Form({}, self.number(token))
        if token.kind in ("name", "quoted"):
            return self._parameter(token)
        if token.symbol == "(":
            inner = self.sum()
            self.close(token)
            return inner
        what = "the constraint ends here" if token.kind == "end" else f"{token.text!r} came"
        raise self.error(f"{what}; expected {_IN_FULL}", token)

    def _parameter(self, token: Token) -> _Form:
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
