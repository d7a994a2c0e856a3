"""How long a connection waits: for another one's lock, for an answer, and for nothing.

A database that is locked, or never answers, fails with an error after these times, for reads too;
the next call tries again. A limit that the server, the role or the URL sets already is kept.
"""

from __future__ import annotations

import contextlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

BUSY_SECONDS = 30
_STATEMENT_SECONDS = 120
_POSTGRES = {
    "lock_timeout": 1000 * BUSY_SECONDS,
    "statement_timeout": 1000 * _STATEMENT_SECONDS,
    # A process that was paused within a transaction must not hold its locks for good.
    "idle_in_transaction_session_timeout": 1000 * _STATEMENT_SECONDS,
}


def limit(engine: sa.Engine, is_sqlite: bool) -> None:
    """Limit every connection that an engine opens from now on."""
    sa.event.listen(engine, "connect", _limit_sqlite if is_sqlite else _limit_postgres)


def keep_log_ahead(engine: sa.Engine) -> None:
    """Let a SQLite file keep a write-ahead log: readers do not hold up the writer, nor it them.

    The file remembers it. Where it cannot be, as on a medium that is read only, in memory, or while
    others use the file, it stays as it is.
    """
    with contextlib.suppress(DBAPIError), engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        if mode == "delete":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def _limit_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # A commit is on the disk before it is answered, also with a write-ahead log.
    cursor.execute("PRAGMA synchronous = FULL")
    # Each commit goes into the file at once, unless a reader holds it up: a copy of the file alone
    # is a backup, as it was without the log.
    cursor.execute("PRAGMA wal_autocheckpoint = 1")
    cursor.close()


def _limit_postgres(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        for name, milliseconds in _POSTGRES.items():
            cursor.execute(
                "SELECT set_config(%s, %s, false) WHERE current_setting(%s, true) IN ('0', '0ms')",
                (name, str(milliseconds), name),
            )
    connection.commit()
