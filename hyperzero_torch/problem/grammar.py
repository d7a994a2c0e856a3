"""Strings cut into tokens, with errors that point at the place: what every parser here reads from.

A number, a name, a name in backticks, or one of ``+ - * / ** >= <= ( ) % ,``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ExpressionError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)|`(?P<quoted>[^`]+)`|(?P<symbol>\*\*|>=|<=|[-+*/()%,]))"
)
_MAX_LENGTH = 10_000
_MAX_DEPTH = 60


class Token(NamedTuple):
    """A piece of a string: its kind (number, name, quoted, symbol, end), and where it stands."""

    kind: str
    text: str
    position: int

    @property
    def symbol(self) -> str:
        """Its text where it is a symbol, else empty: a metric may be called ``>=`` too."""
        return self.text if self.kind == "symbol" else ""


class Reader:
    """The tokens of a string in turn; what parsers of different grammars have in common.

    Args:
        source: the string.
        names: what may be named in it, in the order of their columns.
        noun: what a name is: "metric", "parameter".
        in_full: what an operand may be, for messages.
        operators: the symbols between operands, for messages.
        instead: what to do where the string is too long or nested too deep.
    Raises:
        ExpressionError: too long, or a sign that no token begins with.
    """

    def __init__(
        self,
        source: str,
        names: Sequence[str],
        noun: str,
        in_full: str,
        operators: str,
        instead: str,
    ) -> None:
        self.source = source
        self.index = {name: i for i, name in enumerate(names)}
        self.noun = noun
        self.in_full = in_full
        self.operators = operators
        self.instead = instead
        self.depth = 0
        self.at = 0
        if len(source) > _MAX_LENGTH:
            raise ExpressionError(
                f"the expression has {len(source)} characters, at most {_MAX_LENGTH} are read; "
                f"{instead}",
                source[:60] + "...",
                0,
            )
        self.tokens = self._tokenise()

    def _tokenise(self) -> list[Token]:
        tokens, position = [], 0
        while self.source[position:].strip():
            match = _TOKEN.match(self.source, position)
            if match is None:
                start = (
                    position + len(self.source[position:]) - len(self.source[position:].lstrip())
                )
                raise ExpressionError(
                    f"{self.source[start]!r} is not understood; expected {self.in_full}, "
                    f"or one of {self.operators}; a {self.noun} with such a sign in its name "
                    "stands in `backticks`",
                    self.source,
                    start,
                )
            kind = str(match.lastgroup)
            tokens.append(Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, Token("end", "", len(self.source))]

    def peek(self) -> Token:
        """The next token; it stays."""
        return self.tokens[self.at]

    def next(self) -> Token:
        """The next token; it is taken."""
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def error(self, reason: str, token: Token) -> ExpressionError:
        """An error that points at a token."""
        return ExpressionError(reason, self.source, token.position)

    def deeper(self, token: Token) -> None:
        """Count a level of nesting, up to the limit."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} deep; {self.instead}", token)

    def number(self, token: Token) -> float:
        """The value of a number token, with the ``%`` that may follow."""
        value = float(token.text)
        if not math.isfinite(value):
            raise self.error("the number is too large for a float", token)
        if self.peek().symbol == "%":
            self.next()
            value /= 100.0
        return value

    def column(self, token: Token, also: Sequence[str] = ()) -> int:
        """The column of a name; ``also`` are words that a wrong name may have meant."""
        if token.text not in self.index:
            known = list(self.index)
            near = difflib.get_close_matches(token.text, [*known, *also], n=1)
            plain = near and _TOKEN.fullmatch(near[0])
            name = (repr(near[0]) if plain else f"`{near[0]}`, in backticks") if near else ""
            hint = f"; did you mean {name}?" if near else ""
            raise self.error(
                f"unknown {self.noun} {token.text!r}; known {self.noun}s: {known}{hint}", token
            )
        return self.index[token.text]

    def close(self, opening: Token) -> None:
        """Take the ``)`` that belongs to an opening one."""
        token = self.next()
        if token.symbol != ")":
            raise self.error(
                f"expected ')' for the '(' at position {opening.position}, or an operator", token
            )
