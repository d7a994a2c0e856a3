"""Objectives and constraints as strings, read by a parser with a whitelist and never by ``eval``.

The rules are in ``grammar``. A name is a metric, and stands for its delta; ``level(metric)`` is
base level + |base level| x delta. Functions are abs, exp, log, sqrt, and min and max of 2 to 9
values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .grammar import Parser, Token

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
}


class Expression(NamedTuple):
    """A parsed string.

    ``compiled`` maps ``(delta, level)``, each ``(..., metrics)``, to ``(...)``; for a constraint
    it is the slack, positive where it holds, and ``measured`` is the side that the other side
    bounds.
    """

    source: str
    compiled: Compiled
    metrics: frozenset[str]
    levels: frozenset[str]
    measured: Compiled | None = None


def parse_objective(source: str, metrics: Sequence[str]) -> Expression:
    """Read an objective such as ``"0.3 * views + 1.1 * level(watch_time)"``.

    Raises:
        ExpressionError: not understood, or it names no metric; says where and what was expected.
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
        ExpressionError: not understood, or it names no metric; says where and what was expected.
    """
    parser = _Parser(source, metrics)
    greater, less = parser.comparison()
    read = parser.finish(lambda delta, level: greater(delta, level) - less(delta, level))
    return read._replace(measured=parser.measured(greater, less))


class _Parser(Parser[Compiled]):
    """Values are functions of deltas and levels."""

    def __init__(self, source: str, metrics: Sequence[str]) -> None:
        operands = "a number, a metric, level(metric), a function or '('"
        super().__init__(source, metrics, "metric", operands, "+ - * / **", "use a torch callable")
        self.metrics: set[str] = set()
        self.levels: set[str] = set()
        self.first_metric = math.inf  # its position in the string

    def finish(self, compiled: Compiled) -> Expression:
        end = self.end()
        if not self.metrics:
            raise self.error(f"no metric is named; known metrics: {list(self.index)}", end)
        return Expression(self.source, compiled, frozenset(self.metrics), frozenset(self.levels))

    def measured(self, greater: Compiled, less: Compiled) -> Compiled:
        """The side of a comparison that names a metric; the left one where both do."""
        sign = next(token for token in self._tokens if token.symbol in (">=", "<="))
        left, right = (greater, less) if sign.symbol == ">=" else (less, greater)
        return left if self.first_metric < sign.position else right

    def constant(self, value: float) -> Compiled:
        return lambda delta, level: delta.new_full((), value).expand(delta.shape[:-1])

    def negative(self, value: Compiled) -> Compiled:
        return lambda delta, level: -value(delta, level)

    def power(self, base: Compiled, token: Token) -> Compiled:
        exponent = self.signed()
        return lambda delta, level: torch.pow(base(delta, level), exponent(delta, level))

    def operations(self, first: Compiled, rest: Sequence[tuple[Token, Compiled]]) -> Compiled:
        # A flat list and not nested closures: a sum of a thousand terms must not recurse.
        terms = [(_OPERATORS[token.text], operand) for token, operand in rest]

        def run(delta: Tensor, level: Tensor) -> Tensor:
            value = first(delta, level)
            for operator, term in terms:
                value = operator(value, term(delta, level))
            return value

        return run

    def name(self, token: Token) -> Compiled:
        if token.kind == "quoted" or self.peek().symbol != "(":
            column = self._metric(token)
            return lambda delta, level: delta[..., column]
        opening = self.next()
        if token.text == "level":
            metric = self.next()
            if metric.kind not in ("name", "quoted"):
                raise self.error("level() takes the name of one metric", metric)
            column = self._metric(metric)
            self.levels.add(metric.text)
            self.close(opening)
            return lambda delta, level: level[..., column]
        if token.text not in _FUNCTIONS:
            names = ["level", *_FUNCTIONS]
            raise self.error(f"unknown function {token.text!r}; known functions: {names}", token)
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

    def _metric(self, token: Token) -> int:
        column = self.column(token, also=[*_FUNCTIONS, "level"])
        self.metrics.add(token.text)
        self.first_metric = min(self.first_metric, token.position)
        return column
