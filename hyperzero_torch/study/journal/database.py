"""Connections and transactions of a SQL journal; database errors become ``JournalError``.

Several processes can write to one study on either database:

- SQLite: a transaction that writes begins with BEGIN IMMEDIATE, so there is one writer at a time.
- PostgreSQL: a transaction that writes locks the study's row before it reads the last entry, so
  only writers of the same study wait for each other. It runs at READ COMMITTED: a writer that had
  to wait sees what the previous one committed. (At REPEATABLE READ it would see a snapshot from
  before its wait, and fail on the primary key at best.)
- On both, the primary key of ``entries`` lets only one writer use each number.

Reads run in one transaction too, at REPEATABLE READ on PostgreSQL, so that an entry and its rows in
several tables are consistent.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from ...errors import (
    ForeignJournalError,
    HyperZeroError,
    JournalCorruptError,
    JournalError,
    MissingExtraError,
    StudyNotFoundError,
)
from ...runtime.files import make_private
from .address import Address
from .base import ConflictError
from .limits import BUSY_SECONDS, keep_log_ahead, limit
from .open_file import OpenFile

_CONNECT_SECONDS = 10
_IDLE_SECONDS = 600  # firewalls drop connections that are idle between two rounds
_SILENT_MILLISECONDS = 30_000
# Python errors for values that a database or its column cannot hold.
_PYTHON = (TypeError, ValueError, OverflowError, RecursionError)
_UNSTORABLE = ("22", "54")  # SQLSTATE classes: data exception, program limit exceeded


class Database:
    """The database at a journal's URL.

    Args:
        url: see ``Address.of``.
        create: create a missing SQLite file.
    Raises:
        StudyNotFoundError: there is no file, and ``create`` is false.
        MissingExtraError: PostgreSQL without psycopg.
        JournalError: the URL is not understood, or the file's folder does not exist.
    """

    def __init__(self, url: str | sa.URL, create: bool) -> None:
        self.address = Address.of(url)
        self.is_sqlite = self.address.is_sqlite
        if self.address.file is not None:
            _check_file(Path(self.address.file), str(self), create)
            if create:
                make_private(Path(self.address.file))
        #: SQLAlchemy's, for its events and settings; ``transaction`` is the way to read and write.
        self.engine = _engine(self.address)
        limit(self.engine, self.is_sqlite)
        if self.is_sqlite:
            self._reader = self._writer = self.engine
        else:
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writer = self.engine.execution_options(isolation_level="READ COMMITTED")
        file = self.address.file
        self._file = None if file is None else OpenFile(Path(file), str(self))
        self._process = os.getpid()
        # Close connections also when the journal is deleted without close().
        weakref.finalize(self, _dispose, self.engine, self._process)

    def __str__(self) -> str:
        return str(self.address)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def keep_log_ahead(self) -> None:
        """Let readers and the writer of a SQLite file work at once; see ``limits``."""
        if self.is_sqlite:
            keep_log_ahead(self.engine)

    @contextmanager
    def transaction(
        self, write: bool = False, conflict: str | None = None
    ) -> Iterator[sa.Connection]:
        """A transaction, committed as a whole or rolled back; errors become ``JournalError``.

        Args:
            write: whether it may write; it then waits for other writers up to a time limit.
            conflict: the message for a key that exists already.
        """
        if self._process != os.getpid():  # a fork must not use its parent's connections
            self.engine.dispose(close=False)
            self._process = os.getpid()
        if self._file is not None and self._file.is_another():
            self.engine.dispose()
        try:
            with (self._writer if write else self._reader).begin() as connection:
                if self.is_sqlite:
                    # Python's driver begins a transaction only before INSERT. Tables would be
                    # created one by one, and reads of several tables would not be consistent.
                    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                elif write:
                    limit = f"{1000 * BUSY_SECONDS:.0f}"
                    connection.execute(sa.select(sa.func.set_config("lock_timeout", limit, True)))
                if self._file is not None:
                    self._file.note()
                    self._file.check(is_written=False)
                yield connection
            if write and self._file is not None:
                self._file.check(is_written=True)
        except HyperZeroError:
            raise
        except IntegrityError as error:
            reason = conflict or "the journal refuses the entries"
            raise ConflictError(f"{reason}; nothing was written ({self._why(error)})") from None
        except DBAPIError as error:
            raise self._unusable(error, write) from None
        except (StatementError, *_PYTHON) as error:
            if write:
                raise self._unstorable(error) from None
            raise JournalCorruptError(
                f"the journal {self} holds a value that cannot be read: {self._why(error)}; "
                "restore it from a backup"
            ) from None

    def _unusable(self, error: DBAPIError, write: bool) -> JournalError:
        why = self._why(error)
        if error.connection_invalidated:
            advice = "; call again to reconnect"
            if write:
                advice += "; the write took effect completely or not at all"
            return JournalError(f"the journal {self} has lost its connection: {why}{advice}")
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if write and (isinstance(error, DataError) or state[:2] in _UNSTORABLE):
            return self._unstorable(error)
        if self.is_sqlite and ("not a database" in why or "malformed" in why):
            return ForeignJournalError(
                f"the journal {self} cannot be used: {why}; it is damaged or no journal of "
                "hyperzero"
            )
        return JournalError(f"the journal {self} cannot be used: {why}")

    def _unstorable(self, error: Exception) -> JournalError:
        return JournalError(
            f"the journal {self} cannot store an entry: {self._why(error)}; nothing was written"
        )

    def _why(self, error: Exception) -> str:
        """The database's own message, without the statement and its values."""
        orig = error.orig if isinstance(error, StatementError) else None
        return self.address.hide(str(error if orig is None else orig))


def _dispose(engine: sa.Engine, process: int) -> None:
    engine.dispose(close=os.getpid() == process)


def _check_file(path: Path, where: str, create: bool) -> None:
    if not create and not path.exists():
        raise StudyNotFoundError(
            f"there is no journal {where}; check the path, or start a study in it "
            "with hz.Tuner(problem, journal=..., study=...)"
        )
    if not path.parent.is_dir():
        raise JournalError(
            f"the journal {where} lies in the folder {str(path.parent)!r}, which does not exist; "
            "create it first"
        )


def _engine(address: Address) -> sa.Engine:
    if address.is_sqlite:
        return sa.create_engine(
            address.url, connect_args=address.options({"timeout": BUSY_SECONDS})
        )
    options = address.options(
        {
            "application_name": "hyperzero",
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": _SILENT_MILLISECONDS,
        }
    )
    try:
        return sa.create_engine(
            address.url, connect_args=options, pool_pre_ping=True, pool_recycle=_IDLE_SECONDS
        )
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise MissingExtraError("a journal on PostgreSQL", "psycopg", "postgres") from None
    except ImportError as error:  # psycopg is installed without the C library that it needs
        raise JournalError(
            f"psycopg cannot be loaded ({' '.join(str(error).split())}); install it with: "
            "pip install 'hyperzero-torch[postgres]'"
        ) from None
