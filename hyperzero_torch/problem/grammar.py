"""The grammar of every string that this package reads, and errors that point at the place.

    comparison := sum (">=" | "<=") sum
    sum        := product (("+" | "-") product)*
    product    := signed (("*" | "/") signed)*
    signed     := ("-" | "+") signed | atom ["**" signed]
    atom       := number ["%"] | name | name "(" ... ")" | "(" sum ")"

``0.1%`` is 0.001. A name that is not an identifier is written in backticks.
"""

from __future__ import annotations

import difflib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ..errors import ExpressionError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)|`(?P<quoted>[^`]+)`|(?P<symbol>\*\*|>=|<=|[-+*/()%,]))"
)
_MAX_LENGTH = 10_000
_MAX_DEPTH = 60

Value = TypeVar("Value")


class Token(NamedTuple):
    """A piece of a string: its kind (number, name, quoted, symbol, end) and its position."""

    kind: str
    text: str
    position: int

    @property
    def symbol(self) -> str:
        """Its text where it is a symbol, else empty: a metric may be called ``>=`` too."""
        return self.text if self.kind == "symbol" else ""


class Parser(ABC, Generic[Value]):
    """Recursive descent over the grammar above, one method for each rule.

    A subclass says what numbers, names and operators mean. It reads nothing else, so a string can
    never run code.

    ``names`` are those it may use, in the order of their columns. The other arguments are words of
    messages: what a name is, the operands and operators, and advice where a string is too long.

    Raises:
        ExpressionError: too long, or a character that no token begins with.
    """

    def __init__(
        self,
        source: str,
        names: Sequence[str],
        noun: str,
        operands: str,
        operators: str,
        advice: str,
    ) -> None:
        self.source = source
        self.index = {name: i for i, name in enumerate(names)}
        self.noun = noun
        self.operands = operands
        self.operators = operators
        self.advice = advice
        self._depth = 0
        self._next = 0
        if len(source) > _MAX_LENGTH:
            raise ExpressionError(
                f"the expression has {len(source)} characters, at most {_MAX_LENGTH} are read; "
                f"{advice}",
                source[:60] + "...",
                0,
            )
        self._tokens = self._tokenise()

    @abstractmethod
    def constant(self, value: float) -> Value:
        """The meaning of a number."""

    @abstractmethod
    def name(self, token: Token) -> Value:
        """The meaning of a name, and of the call that may follow it."""

    @abstractmethod
    def negative(self, value: Value) -> Value:
        """The meaning of a minus sign before a value."""

    @abstractmethod
    def power(self, base: Value, token: Token) -> Value:
        """The meaning of ``**``, whose exponent has not been read yet."""

    @abstractmethod
    def operations(self, first: Value, rest: Sequence[tuple[Token, Value]]) -> Value:
        """The meaning of operators and operands that follow a first operand, left to right."""

    def comparison(self) -> tuple[Value, Value]:
        """The two sides of the only comparison, the greater one first."""
        left = self.sum()
        token = self.next()
        if token.symbol not in (">=", "<="):
            raise self.error(
                f"expected an operator ({self.operators}), or '>=' or '<=' and a bound", token
            )
        right = self.sum()
        if self.peek().symbol in (">=", "<="):
            raise self.error(
                "a second comparison: write a range as two constraints, one for each bound",
                self.peek(),
            )
        return (left, right) if token.symbol == ">=" else (right, left)

    def end(self) -> Token:
        """The end of the string; everything has been read."""
        token = self.peek()
        if token.kind != "end":
            raise self.error(
                f"unexpected {token.text!r}; expected an operator ({self.operators}) or the end",
                token,
            )
        return token

    def sum(self) -> Value:
        """One or more products, added and subtracted."""
        return self._left_to_right(("+", "-"), self._product)

    def _product(self) -> Value:
        return self._left_to_right(("*", "/"), self.signed)

    def _left_to_right(self, symbols: tuple[str, ...], operand: Callable[[], Value]) -> Value:
        first, rest = operand(), []
        while self.peek().symbol in symbols:
            rest.append((self.next(), operand()))
        return self.operations(first, rest) if rest else first

    def signed(self) -> Value:
        """A value with its signs and its exponent."""
        token = self.peek()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} deep; {self.advice}", token)
        if token.symbol in ("+", "-"):
            self.next()
            value = self.signed()
            value = value if token.symbol == "+" else self.negative(value)
        else:
            value = self._atom()
            if self.peek().symbol == "**":
                value = self.power(value, self.next())
        self._depth -= 1
        return value

    def _atom(self) -> Value:
        token = self.next()
        if token.kind == "number":
            return self.constant(self._number(token))
        if token.kind in ("name", "quoted"):
            return self.name(token)
        if token.symbol == "(":
            value = self.sum()
            self.close(token)
            return value
        problem = "the text ends here" if token.kind == "end" else f"unexpected {token.text!r}"
        raise self.error(f"{problem}; expected {self.operands}", token)

    def _number(self, token: Token) -> float:
        """The value of a number token, with the ``%`` that may follow."""
        value = float(token.text)
        if not math.isfinite(value):
            raise self.error("the number is too large for a float", token)
        if self.peek().symbol == "%":
            self.next()
            value /= 100.0
        return value

    def column(self, token: Token, also: Sequence[str] = ()) -> int:
        """The column of a name; ``also`` are words to suggest for a wrong name."""
        if token.text not in self.index:
            names = list(self.index)
            close = difflib.get_close_matches(token.text, [*names, *also], n=1)
            hint = ""
            if close:
                plain = _TOKEN.fullmatch(close[0])
                name = repr(close[0]) if plain else f"`{close[0]}`, in backticks"
                hint = f"; did you mean {name}?"
            raise self.error(
                f"unknown {self.noun} {token.text!r}; known {self.noun}s: {names}{hint}", token
            )
        return self.index[token.text]

    def close(self, opening: Token) -> None:
        """Take the ``)`` that belongs to an opening one."""
        token = self.next()
        if token.symbol != ")":
            raise self.error(
                f"expected ')' for the '(' at position {opening.position}, or an operator", token
            )

    def peek(self) -> Token:
        """The next token, without taking it."""
        return self._tokens[self._next]

    def next(self) -> Token:
        """Take the next token."""
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def error(self, reason: str, token: Token) -> ExpressionError:
        """An error that points at a token."""
        return ExpressionError(reason, self.source, token.position)

    def _tokenise(self) -> list[Token]:
        tokens, position = [], 0
        while rest := self.source[position:].lstrip():
            match = _TOKEN.match(self.source, position)
            if match is None:
                start = len(self.source) - len(rest)
                raise ExpressionError(
                    f"{self.source[start]!r} is not understood; expected {self.operands}, "
                    f"or one of {self.operators} >= <=; a {self.noun} with such a character in "
                    "its name is written in `backticks`",
                    self.source,
                    start,
                )
            kind = str(match.lastgroup)
            tokens.append(Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, Token("end", "", len(self.source))]
