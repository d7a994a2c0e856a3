"""What differs between the databases that the hourly query is written for."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import ConfigError


class Dialect(NamedTuple):
    """How a database writes what standard SQL leaves open.

    Args:
        real: its type of double precision.
        text: its type of texts.
        as_of: its parameter for the current round, where no number is given.
        quote: an apostrophe within a text.
        identifier: the sign around names that are not plain; "" where output names need none.
    """

    real: str
    text: str
    as_of: str
    quote: str = "''"
    identifier: str = ""


DIALECTS: dict[str, Dialect] = {
    "bigquery": Dialect("FLOAT64", "STRING", "@round", "\\'"),
    "clickhouse": Dialect("Nullable(Float64)", "Nullable(String)", "{round:Int64}"),
    "duckdb": Dialect("DOUBLE", "VARCHAR", "$round"),
    "postgres": Dialect("DOUBLE PRECISION", "TEXT", ":round"),
    "redshift": Dialect("DOUBLE PRECISION", "VARCHAR", ":round"),
    # Its plain names become capitals, and readings are named in small letters.
    "snowflake": Dialect("DOUBLE", "VARCHAR", ":round", identifier='"'),
}

_PLAIN = r"[A-Za-z_][A-Za-z0-9_$]*(?:-[A-Za-z0-9_$]+)*"  # two hyphens would begin a comment
_QUOTED = r"`[^`\x00-\x1f\\]+`|\"[^\"\x00-\x1f\\]+\""
_NAME = re.compile(rf"(?:{_PLAIN}|{_QUOTED})")
_TABLE = re.compile(rf"(?:{_PLAIN}|{_QUOTED})(?:\.(?:{_PLAIN}|{_QUOTED}))*")
_AS_OF = re.compile(r"[0-9]{1,15}|[:@$%]{1,2}\w+|\{\{ ?\w+ ?\}\}|\{\w+:Int64\}|\?|%\(\w+\)s")


def dialect_of(name: str) -> Dialect:
    """A dialect by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in DIALECTS:
        raise ConfigError(f"there is no dialect {name!r:.60}; choose among {list(DIALECTS)}")
    return DIALECTS[name]


def checked_table(name: str, what: str) -> str:
    """A table's name, as it stands in a query.

    Raises:
        ConfigError: not a name, nor names with dots between them.
    """
    return _checked(name, what, _TABLE, "a table's name, such as logs.exposures")


def checked_column(name: str, what: str) -> str:
    """A column's name, as it stands in a query.

    Raises:
        ConfigError: not a name.
    """
    return _checked(name, what, _NAME, "a column's name, such as user_id")


def checked_round(text: str) -> str:
    """The current round: a number, or a parameter that a client or a scheduler fills in.

    Raises:
        ConfigError: anything else.
    """
    expected = "a whole number, or a parameter such as :round, @round, $round or {{ round }}"
    return _checked(text, "the round", _AS_OF, expected)


def literal(text: str, dialect: Dialect) -> str:
    """A text as SQL writes it.

    Raises:
        ConfigError: it has a backslash or a control character, which databases read in several
            ways.
    """
    if "\\" in text or not text.isprintable():
        raise ConfigError(
            f"the metric {text!r:.100} has a backslash or a control character, which databases "
            "read in several ways; rename it"
        )
    return "'" + text.replace("'", dialect.quote) + "'"


def _checked(text: str, what: str, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ConfigError(f"{what} must be {expected}; got {text!r:.100}")
    return text
