"""The version of a journal's format: made, checked, brought up to date.

A journal of an earlier format is migrated when it is opened, in one transaction: killed in the
middle, it is what it was. One of a later format is refused, and the message says which package
wrote it. Steps are never changed once they are out: they repeat no definition of ``schema.py``.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ...errors import ForeignJournalError, JournalError, StudyNotFoundError
from .database import Database
from .schema import FORMAT_VERSION, journal, tables

_FIRST_TABLES = {
    "hyperzero_journal", "studies", "entries", "candidates", "plans", "readings", "decisions",
}  # fmt: skip
_LOCK = 0x687A5F6A6F75726E  # of everyone who makes or migrates tables; any number will do


def prepare(database: Database, create: bool) -> None:
    """Check that the tables are ours; make them where there are none, migrate old ones.

    Raises:
        StudyNotFoundError: there are no tables, and none were to be made.
        ForeignJournalError: other tables, or of a later format.
    """
    with database.transaction() as connection:
        version = _version(connection, str(database))
    if version is None and not create:
        raise StudyNotFoundError(
            f"there is no journal in {database}; check the URL, or start a study in it "
            "with hz.Tuner(problem, journal=..., study=...)"
        )
    if version != FORMAT_VERSION:
        with database.transaction(write=True) as connection:
            if not database.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            # Another process may have done it a moment ago.
            _renew(connection, _version(connection, str(database)))
    with database.transaction() as connection:
        _check_tables(connection, set(tables.tables), str(database))


def check_unchanged(connection: sa.Connection, where: str) -> None:
    """Whether the format is still ours, before writing; holds off those who would migrate it.

    Raises:
        JournalError: the journal was migrated by a newer package while it was open here.
    """
    version = connection.scalar(sa.select(journal.c.version).with_for_update(read=True))
    if version != FORMAT_VERSION:
        raise JournalError(
            f"the journal {where} was brought to format {version} while it was open here with "
            f"format {FORMAT_VERSION}; nothing was written. Start this process again with the "
            "newer hyperzero-torch"
        )


def metric_rows(study: str, problem: Any) -> list[dict[str, Any]]:
    """Rows of ``metrics``: the names that a problem's description lists."""
    names = problem.get("metrics") if isinstance(problem, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return [{"study": study, "metric": i, "name": name} for i, name in enumerate(names)]


def _version(connection: sa.Connection, where: str) -> int | None:
    """The journal's format, at most ours; None where the database is empty."""
    inspector = sa.inspect(connection)
    if not inspector.get_table_names():
        return None
    _check_tables(connection, _FIRST_TABLES, where)
    version = connection.scalar(sa.select(journal.c.version))
    if isinstance(version, int) and 1 <= version <= FORMAT_VERSION:
        return version
    columns = {column["name"] for column in inspector.get_columns(journal.name)}
    wrote = connection.scalar(sa.select(journal.c.package)) if "package" in columns else None
    newer = "the version of hyperzero-torch that wrote it" if wrote is None else (
        f"hyperzero-torch {wrote} or newer: pip install 'hyperzero-torch>={wrote}'"
    )  # fmt: skip
    raise ForeignJournalError(
        f"{where} is a journal of format {version}, this version ({_package()}) reads formats "
        f"1 to {FORMAT_VERSION}; use {newer}"
    )


def _check_tables(connection: sa.Connection, expected: set[str], where: str) -> None:
    present = set(sa.inspect(connection).get_table_names())
    missing = sorted(expected - present)
    if missing:
        raise ForeignJournalError(
            f"{where} is not a journal of hyperzero: it holds the tables {sorted(present)[:6]} "
            f"and misses {missing}; name another file or database"
        )


def _renew(connection: sa.Connection, version: int | None) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    row = {"version": FORMAT_VERSION, "package": _package(), "at": now}
    if version is None:
        tables.create_all(connection)
        connection.execute(journal.insert(), [row])
    elif version < FORMAT_VERSION:
        # Writers hold this row while they write: they finish first, or see the new version.
        connection.execute(sa.select(journal.c.version).with_for_update())
        for step in _STEPS[version - 1 :]:
            step(connection)
        connection.execute(journal.update().values(row))


def _package() -> str:
    from ... import __version__  # known only after the package is imported

    return __version__


def _to_2(connection: sa.Connection) -> None:
    """Who wrote the journal, names of metrics for queries, and the latest entries by an index.

    Without the indexes, reading what is new in a study takes as long as reading all of it.
    """
    for statement in (
        "ALTER TABLE hyperzero_journal ADD COLUMN package VARCHAR",
        "ALTER TABLE hyperzero_journal ADD COLUMN at VARCHAR",
        "CREATE TABLE metrics (study VARCHAR NOT NULL, metric BIGINT NOT NULL, "
        "name VARCHAR NOT NULL, PRIMARY KEY (study, metric))",
        "CREATE INDEX candidates_by_entry ON candidates (study, entry)",
        "CREATE INDEX plans_by_entry ON plans (study, entry)",
        "CREATE INDEX readings_by_entry ON readings (study, entry)",
    ):
        connection.execute(sa.text(statement))
    studies = connection.execute(
        sa.text("SELECT study, CAST(problem AS VARCHAR) AS problem FROM studies")
    ).all()
    rows = [row for study, text in studies for row in metric_rows(study, _json(text))]
    if rows:
        insert = "INSERT INTO metrics (study, metric, name) VALUES (:study, :metric, :name)"
        connection.execute(sa.text(insert), rows)


def _json(text: Any) -> Any:
    """What a text says; None where it is damaged, which whoever opens that study will be told."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


_STEPS: tuple[Callable[[sa.Connection], None], ...] = (_to_2,)
