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

import difflib
import math
import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .errors import ExpressionError

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
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)|`(?P<quoted>[^`]+)`|(?P<symbol>\*\*|>=|<=|[-+*/()%,]))"
)
_MAX_LENGTH = 10_000
_MAX_DEPTH = 60
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


class _Token(NamedTuple):
    kind: str
    text: str
    position: int

    @property
    def symbol(self) -> str:
        """Its text where it is a symbol, else empty: a metric may be called ``>=`` too."""
        return self.text if self.kind == "symbol" else ""


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


class _Parser:
    """Recursive descent over the grammar at the top of this file; each rule is one method."""

    def __init__(self, source: str, metrics: Sequence[str]) -> None:
        self.source = source
        self.index = {name: i for i, name in enumerate(metrics)}
        self.metrics: set[str] = set()
        self.levels: set[str] = set()
        self.depth = 0
        self.at = 0
        if len(source) > _MAX_LENGTH:
            raise ExpressionError(
                f"the expression has {len(source)} characters, at most {_MAX_LENGTH} are read; "
                "use a torch callable",
                source[:60] + "...",
                0,
            )
        self.tokens = self._tokenise()

    def _tokenise(self) -> list[_Token]:
        tokens, position = [], 0
        while self.source[position:].strip():
            match = _TOKEN.match(self.source, position)
            if match is None:
                start = (
                    position + len(self.source[position:]) - len(self.source[position:].lstrip())
                )
                raise ExpressionError(
                    f"{self.source[start]!r} is not understood; expected {_IN_FULL}, "
                    "or one of + - * / ** >= <=; a metric with such a sign in its name stands "
                    "in `backticks`",
                    self.source,
                    start,
                )
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, _Token("end", "", len(self.source))]

    def peek(self) -> _Token:
        return self.tokens[self.at]

    def next(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def error(self, reason: str, token: _Token) -> ExpressionError:
        return ExpressionError(reason, self.source, token.position)

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
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} deep; use a torch callable", token)
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
            return self._number(token)
        if token.kind == "quoted":
            return self._metric(token, level=False)
        if token.kind == "name":
            return (
                self._call(token) if self.peek().symbol == "(" else self._metric(token, level=False)
            )
        if token.symbol == "(":
            inner = self.sum()
            self._close(token)
            return inner
        what = "the expression ends here" if token.kind == "end" else f"{token.text!r} came"
        raise self.error(f"{what}; expected {_IN_FULL}", token)

    def _number(self, token: _Token) -> Compiled:
        value = float(token.text)
        if not math.isfinite(value):
            raise self.error("the number is too large for a float", token)
        if self.peek().symbol == "%":
            self.next()
            value /= 100.0
        return lambda delta, level: delta.new_full((), value).expand(delta.shape[:-1])

    def _metric(self, token: _Token, *, level: bool) -> Compiled:
        if token.text not in self.index:
            known = list(self.index)
            near = difflib.get_close_matches(token.text, [*known, *_FUNCTIONS, "level"], n=1)
            plain = near and _TOKEN.fullmatch(near[0])
            name = (repr(near[0]) if plain else f"`{near[0]}`, in backticks") if near else ""
            hint = f"; did you mean {name}?" if near else ""
            raise self.error(f"unknown metric {token.text!r}; known metrics: {known}{hint}", token)
        self.metrics.add(token.text)
        column = self.index[token.text]
        if level:
            self.levels.add(token.text)
            return lambda delta, level_: level_[..., column]
        return lambda delta, level_: delta[..., column]

    def _call(self, token: _Token) -> Compiled:
        opening = self.next()
        if token.text == "level":
            inner = self.next()
            if inner.kind not in ("name", "quoted"):
                raise self.error("level() takes the name of one metric", inner)
            compiled = self._metric(inner, level=True)
            self._close(opening)
            return compiled
        if token.text not in _FUNCTIONS:
            known = ["level", *_FUNCTIONS]
            raise self.error(f"unknown function {token.text!r}; known functions: {known}", token)
        least, most, function = _FUNCTIONS[token.text]
        arguments = [self.sum()]
        while self.peek().symbol == ",":
            self.next()
            arguments.append(self.sum())
        self._close(opening)
        if not least <= len(arguments) <= most:
            takes = str(least) if least == most else f"{least} to {most}"
            raise self.error(f"{token.text}() takes {takes} values, got {len(arguments)}", token)
        return lambda delta, level: function(*(a(delta, level) for a in arguments))

    def _close(self, opening: _Token) -> None:
        token = self.next()
        if token.symbol != ")":
            raise self.error(
                f"expected ')' for the '(' at position {opening.position}, or an operator", token
            )
