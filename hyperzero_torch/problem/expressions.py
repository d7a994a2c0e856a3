"""Objective and constraint strings, read by a whitelisting parser and never by ``eval``.

    constraint := sum (">=" | "<=") sum
    sum        := product (("+" | "-") product)*
    product    := signed (("*" | "/") signed)*
    signed     := ("-" | "+") signed | atom ["**" signed]
    atom       := number ["%"] | metric | "level(" metric ")" | function "(" sums ")" | "(" sum ")"
    function   := abs | exp | log | sqrt | min | max

A bare metric is its delta, ``level(metric)`` its base level times (1 + delta), ``0.1%`` is 0.001.
A metric whose name is not an identifier stands in backticks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .tokens import Reader, Token

# (delta, level), each (..., metrics), to a tensor (...).
Compiled: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Tensor]]] = {
    "abs": (1, 1, torch.abs),
    "exp": (1, 1, torch.exp),
    "log": (1, 1, torch.log),
    "sqrt": (1, 1, torch.sqrt),
    "min": (2, 9, lambda *values: reduce(torch.minimum, values)),
    "max": (2, 9, lambda *values: reduce(torch.maximum, values)),
}
_OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "**": torch.pow,
}
_IN_FULL = "a number, a metric, level(metric), a function or '('"


class Expression(NamedTuple):
    """A string that was understood.

    ``compiled`` maps ``(delta, level)``, each ``(..., metrics)``, to ``(...)``; for a constraint
    it is the slack, positive where it holds.
    """

    source: str
    compiled: Compiled
    metrics: frozenset[str]
    levels: frozenset[str]


def parse_objective(source: str, metrics: Sequence[str]) -> Expression:
    """Read an objective such as ``"0.3 * views + 1.1 * level(watch_time)"``.

    Raises:
        ExpressionError: not understood, or it names no metric; says where and what would be.
    """
    parser = _Parser(source, metrics)
    compiled = parser.sum()
    token = parser.peek()
    if token.symbol in (">=", "<="):
        raise parser.error(
            f"an objective is maximised and has no {token.text!r}; "
            "a bound belongs into the constraints",
            token,
        )
    return parser.finish(compiled)


def parse_constraint(source: str, metrics: Sequence[str]) -> Expression:
    """Read a constraint such as ``"watch_time >= -0.1%"``; what it compiles to is the slack.

    Raises:
        ExpressionError: not understood, or it names no metric; says where and what would be.
    """
    parser = _Parser(source, metrics)
    left = parser.sum()
    token = parser.next()
    if token.symbol not in (">=", "<="):
        raise parser.error("expected an operator, or '>=' or '<=' and a bound", token)
    right = parser.sum()
    if parser.peek().symbol in (">=", "<="):
        raise parser.error(
            "a second comparison: write a range as two constraints, one for each bound",
            parser.peek(),
        )
    if token.symbol == "<=":
        left, right = right, left
    return parser.finish(lambda delta, level: left(delta, level) - right(delta, level))


class _Parser(Reader):
    """Recursive descent over the grammar at the top of this file; each rule is one method."""

    def __init__(self, source: str, metrics: Sequence[str]) -> None:
        super().__init__(
            source, metrics, "metric", _IN_FULL, "+ - * / ** >= <=", "use a torch callable"
        )
        self.metrics: set[str] = set()
        self.levels: set[str] = set()

    def finish(self, compiled: Compiled) -> Expression:
        token = self.peek()
        if token.kind != "end":
            raise self.error(
                f"{token.text!r} cannot stand here; expected an operator (+ - * / **) or the end",
                token,
            )
        if not self.metrics:
            raise self.error(f"no metric is named; known metrics: {list(self.index)}", token)
        return Expression(self.source, compiled, frozenset(self.metrics), frozenset(self.levels))

    def sum(self) -> Compiled:
        return self._left_to_right(("+", "-"), self.product)

    def product(self) -> Compiled:
        return self._left_to_right(("*", "/"), self.signed)

    def _left_to_right(self, symbols: tuple[str, ...], operand: Callable[[], Compiled]) -> Compiled:
        # A flat list and not nested closures: a sum of a thousand terms must not recurse.
        first, rest = operand(), []
        while self.peek().symbol in symbols:
            rest.append((_OPERATORS[self.next().text], operand()))
        if not rest:
            return first

        def run(delta: Tensor, level: Tensor) -> Tensor:
            value = first(delta, level)
            for operator, term in rest:
                value = operator(value, term(delta, level))
            return value

        return run

    def signed(self) -> Compiled:
        token = self.peek()
        self.deeper(token)
        if token.symbol in ("+", "-"):
            self.next()
            inner = self.signed()
            result = inner if token.symbol == "+" else lambda delta, level: -inner(delta, level)
        else:
            result = self.atom()
            if self.peek().symbol == "**":
                self.next()
                base, exponent = result, self.signed()
                result = lambda delta, level: torch.pow(  # noqa: E731
                    base(delta, level), exponent(delta, level)
                )
        self.depth -= 1
        return result

    def atom(self) -> Compiled:
        token = self.next()
        if token.kind == "number":
            return self._constant(token)
        if token.kind == "quoted":
            return self._metric(token, level=False)
        if token.kind == "name":
            return (
                self._call(token) if self.peek().symbol == "(" else self._metric(token, level=False)
            )
        if token.symbol == "(":
            inner = self.sum()
            self.close(token)
            return inner
        what = "the expression ends here" if token.kind == "end" else f"{token.text!r} came"
        raise self.error(f"{what}; expected {_IN_FULL}", token)

    def _constant(self, token: Token) -> Compiled:
        value = self.number(token)
        return lambda delta, level: delta.new_full((), value).expand(delta.shape[:-1])

    def _metric(self, token: Token, *, level: bool) -> Compiled:
        column = self.column(token, also=[*_FUNCTIONS, "level"])
        self.metrics.add(token.text)
        if level:
            self.levels.add(token.text)
            return lambda delta, level_: level_[..., column]
        return lambda delta, level_: delta[..., column]

    def _call(self, token: Token) -> Compiled:
        opening = self.next()
        if token.text == "level":
            inner = self.next()
            if inner.kind not in ("name", "quoted"):
                raise self.error("level() takes the name of one metric", inner)
            compiled = self._metric(inner, level=True)
            self.close(opening)
            return compiled
        if token.text not in _FUNCTIONS:
            known = ["level", *_FUNCTIONS]
            raise self.error(f"unknown function {token.text!r}; known functions: {known}", token)
        least, most, function = _FUNCTIONS[token.text]
        arguments = [self.sum()]
        while self.peek().symbol == ",":
            self.next()
            arguments.append(self.sum())
        self.close(opening)
        if not least <= len(arguments) <= most:
            takes = str(least) if least == most else f"{least} to {most}"
            raise self.error(f"{token.text}() takes {takes} values, got {len(arguments)}", token)
        return lambda delta, level: function(*(a(delta, level) for a in arguments))
