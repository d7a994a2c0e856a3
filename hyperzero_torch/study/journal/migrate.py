"""The version of a journal's format: created, checked and migrated.

A journal of an earlier format is migrated when it is opened, in one transaction: a process that is
killed during the migration leaves it unchanged. A journal of a later format is refused, and the
message says which package wrote it. A released step is never changed, so it uses no definition of
``schema.py``.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ...errors import ForeignJournalError, JournalError, StudyNotFoundError
from ...runtime import __version__
from .chain import journal_leaf, next_link
from .database import Database
from .keys import KeyRing
from .migrate_chain import to_3
from .schema import FORMAT_VERSION, journal, tables

_FIRST_TABLES = {
    "hyperzero_journal", "studies", "entries", "candidates", "plans", "readings", "decisions",
}  # fmt: skip
_LOCK = 0x687A5F6A6F75726E  # held while tables are made or migrated; an arbitrary number


def prepare(database: Database, create: bool, ring: KeyRing) -> None:
    """Check that the tables are a journal's; create missing ones, migrate those of old formats.

    Args:
        database: of the journal.
        create: missing tables.
        ring: the keys that sign chains.
    Raises:
        StudyNotFoundError: there are no tables, and ``create`` is false.
        ForeignJournalError: the tables are not a journal's, or of a later format.
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
            # Read again: another process may have migrated it in the meantime.
            _renew(connection, _version(connection, str(database)), ring)
    with database.transaction() as connection:
        _check_tables(connection, set(tables.tables), str(database))


def check_unchanged(connection: sa.Connection, where: str) -> None:
    """Check before writing that the format is unchanged, and block migrations meanwhile.

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
    """The journal's format, at most ``FORMAT_VERSION``; None where the database is empty."""
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
        f"{where} is a journal of format {version}, this version ({__version__}) reads formats "
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


def _renew(connection: sa.Connection, version: int | None, ring: KeyRing) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    row: dict[str, Any] = {"version": FORMAT_VERSION, "package": __version__, "at": now}
    row["link"] = next_link("", journal_leaf(*row.values()), ring)
    if version is None:
        tables.create_all(connection)
        connection.execute(journal.insert(), [row])
    elif version < FORMAT_VERSION:
        # Writers lock this row: they finish first, or see the new version.
        connection.execute(sa.select(journal.c.version).with_for_update())
        for step in _STEPS[version - 1 :]:
            step(connection, ring)
        connection.execute(journal.update().values(row))


def _to_2(connection: sa.Connection, _: KeyRing) -> None:
    """Add the package that wrote the journal, names of metrics for queries, indexes by entry.

    Without the indexes, reading the latest entries takes as long as reading all of them.
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
    """The parsed text; None where it is damaged, which opening that study reports."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


_STEPS: tuple[Callable[[sa.Connection, KeyRing], None], ...] = (_to_2, to_3)
