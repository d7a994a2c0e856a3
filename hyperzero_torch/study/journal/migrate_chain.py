"""The step to format 3: the hash chain, begun with all that is there.

What the entries were before, nobody can tell any more; the chain covers them as they are, and says
up to which entry it does so. It is not signed: whoever can write to a journal can also make it
claim an earlier format, and a key must not vouch for what its holder has not written. As every
released step it is never changed, and uses no definition of ``schema.py``; what a link is never
changes either.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa

from .base import StudyHeader
from .chain import Beginning, first_link, leaf, next_link
from .columns import Parts
from .keys import KeyRing

_AT_ONCE = 500
_UNSIGNED = KeyRing()
_ENTRY = ("study", "entry", "kind", "round", "at", "details", "digest")
_KEYS = {
    "candidates": ("candidate",),
    "plans": ("round", "candidate"),
    "readings": ("round", "candidate", "metric", "revision"),
    "decisions": ("entry",),
}
_COLUMNS = {
    "candidates": ("candidate", "entry", "round", "origin", "theta", "parameters"),
    "plans": ("round", "candidate", "entry", "slots", "share"),
    "readings": ("round", "candidate", "metric", "revision", "entry", "count", "mean", "var"),
    "decisions": ("entry", "round", "kind", "reason", "details"),
}
_JSON = ("theta", "parameters", "details")


def to_3(connection: sa.Connection, _: KeyRing) -> None:
    """Add the tables of the chain, and the links of all entries."""
    for statement in (
        "ALTER TABLE hyperzero_journal ADD COLUMN link VARCHAR",
        "CREATE TABLE chains (study VARCHAR NOT NULL, entries_before BIGINT NOT NULL, "
        "at VARCHAR NOT NULL, link VARCHAR NOT NULL, PRIMARY KEY (study))",
        "CREATE TABLE links (study VARCHAR NOT NULL, entry BIGINT NOT NULL, "
        "link VARCHAR NOT NULL, PRIMARY KEY (study, entry))",
    ):
        connection.execute(sa.text(statement))
    query = "SELECT study, seed, CAST(problem AS VARCHAR) AS problem FROM studies ORDER BY study"
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for study, seed, problem in connection.execute(sa.text(query)).all():
        _chain(connection, StudyHeader(study, seed, _parsed(problem)), now)


def _chain(connection: sa.Connection, header: StudyHeader, now: str) -> None:
    of_study = {"study": header.study}
    query = "SELECT metric, name FROM metrics WHERE study = :study"
    names = [list(row) for row in connection.execute(sa.text(query), of_study)]
    query = "SELECT max(entry) FROM entries WHERE study = :study"
    last = connection.scalar(sa.text(query), of_study)
    begins = Beginning(last if isinstance(last, int) else 0, now)
    link = first_link(header, names, begins, _UNSIGNED)
    row = {**of_study, "entries_before": begins.entries_before, "at": now, "link": link}
    insert = "INSERT INTO chains VALUES (:study, :entries_before, :at, :link)"
    connection.execute(sa.text(insert), [row])
    query = "SELECT min(entry) FROM entries WHERE study = :study AND entry >= :low"
    low = connection.scalar(sa.text(query), {**of_study, "low": 1})
    while isinstance(low, int):
        link = _links(connection, header.study, low, link)
        low = connection.scalar(sa.text(query), {**of_study, "low": low + _AT_ONCE})


def _links(connection: sa.Connection, study: str, low: int, link: str) -> str:
    """Write the links of the next entries; returns the last."""
    values = {"study": study, "low": low, "end": low + _AT_ONCE}
    parts: dict[Any, Parts] = {}
    for table, columns in _COLUMNS.items():
        rows = connection.execute(_select(table, columns, _KEYS[table]), values)
        for row in rows:
            plain = _plain(row)
            parts.setdefault(plain["entry"], {}).setdefault(table, []).append(plain)
    new = []
    for row in connection.execute(_select("entries", _ENTRY, ("entry",)), values):
        plain = _plain(row)
        link = next_link(link, leaf(plain, parts.get(plain["entry"], {})), _UNSIGNED)
        new.append({"study": study, "entry": plain["entry"], "link": link})
    if new:
        connection.execute(sa.text("INSERT INTO links VALUES (:study, :entry, :link)"), new)
    return link


def _select(
    table: str, columns: tuple[str, ...], order: tuple[str, ...]
) -> sa.Select[*tuple[Any, ...]]:
    """Rows of a range of entries, with JSON as the text that is stored: it may be damaged."""
    named: list[sa.ColumnElement[Any]] = [
        sa.cast(sa.column(c), sa.String).label(c) if c in _JSON else sa.column(c) for c in columns
    ]
    entry = sa.column("entry", sa.BigInteger)
    in_range = (entry >= sa.bindparam("low")) & (entry < sa.bindparam("end"))
    of_study = sa.column("study") == sa.bindparam("study")
    query = sa.select(*named).select_from(sa.table(table))
    return query.where(of_study, in_range).order_by(*map(sa.column, order))


def _plain(row: Any) -> dict[str, Any]:
    return {
        name: _parsed(value) if name in _JSON else value for name, value in row._mapping.items()
    }


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
