"""The tables of a journal; README.md beside this file describes them for analysts.

A change of a table or an index raises ``FORMAT_VERSION`` and adds a step to ``migrate.py``, so that
journals of all earlier formats can be opened.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

FORMAT_VERSION = 3

tables = sa.MetaData()


def _table(name: str, *parts: sa.Column[Any] | sa.Index) -> sa.Table:
    return sa.Table(name, tables, *parts)


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _column(name: str, kind: Any, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null)


def _by_entry(table: str) -> sa.Index:
    """An index that keeps reading the latest entries fast in a long study."""
    return sa.Index(f"{table}_by_entry", "study", "entry")


class _Untyped(sa.types.UserDefinedType[float]):
    """SQLite's column without a type: one of type REAL turns -0.0 into 0.0."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return ""


# The double of every database; SQL's FLOAT has 4 bytes in some of them.
_Double: sa.types.TypeEngine[float] = sa.Double().with_variant(_Untyped(), "sqlite")

# One row. Every future format keeps ``version`` and ``package``, so that older code can name the
# package that is needed.
journal = _table(
    "hyperzero_journal",
    _key("version", sa.Integer),
    _column("package", sa.String, null=True),
    _column("at", sa.String, null=True),
    _column("link", sa.String, null=True),
)
studies = _table(
    "studies", _key("study", sa.String), _column("seed", sa.BigInteger), _column("problem", sa.JSON)
)
# For queries only: the names are also in ``studies.problem``. The package does not read them.
metrics = _table(
    "metrics",
    _key("study", sa.String),
    _key("metric", sa.BigInteger),
    _column("name", sa.String),
)
entries = _table(
    "entries",
    _key("study", sa.String),
    _key("entry", sa.BigInteger),
    _column("kind", sa.String),
    _column("round", sa.BigInteger, null=True),
    _column("at", sa.String),
    _column("details", sa.JSON),
    _column("digest", sa.String),
)
candidates = _table(
    "candidates",
    _key("study", sa.String),
    _key("candidate", sa.BigInteger),
    _column("entry", sa.BigInteger),
    _column("round", sa.BigInteger),
    _column("origin", sa.String),
    _column("theta", sa.JSON),
    _column("parameters", sa.JSON),
    _by_entry("candidates"),
)
plans = _table(
    "plans",
    _key("study", sa.String),
    _key("round", sa.BigInteger),
    _key("candidate", sa.BigInteger),
    _column("entry", sa.BigInteger),
    _column("slots", sa.BigInteger),
    _column("share", _Double),
    _by_entry("plans"),
)
readings = _table(
    "readings",
    _key("study", sa.String),
    _key("round", sa.BigInteger),
    _key("candidate", sa.BigInteger),
    _key("metric", sa.BigInteger),
    _key("revision", sa.BigInteger),
    _column("entry", sa.BigInteger),
    _column("count", _Double),
    _column("mean", _Double),
    _column("var", _Double),
    _by_entry("readings"),
)
decisions = _table(
    "decisions",
    _key("study", sa.String),
    _key("entry", sa.BigInteger),
    _column("round", sa.BigInteger),
    _column("kind", sa.String),
    _column("reason", sa.String),
    _column("details", sa.JSON),
)
# The hash chain: where it begins, and its links; see ``chain.py``.
chains = _table(
    "chains",
    _key("study", sa.String),
    _column("entries_before", sa.BigInteger),
    _column("at", sa.String),
    _column("link", sa.String),
)
links = _table(
    "links",
    _key("study", sa.String),
    _key("entry", sa.BigInteger),
    _column("link", sa.String),
)
