"""A journal in plain SQL tables that an analyst can query, through SQLAlchemy Core.

    entries      one row per entry: study, entry (1, 2, 3, ...), kind, round, at, details, digest
    candidates   one row per candidate      plans      one row per arm and round
    readings     one row per reading        decisions  one row per decision

Every append is one transaction, and the primary key of ``entries`` lets only one writer have each
number. Numbers are stored as 8-byte floats: what is read back is bit for bit what was written, and
a digest with every entry notices where it is not.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    StatementError,
)

from ..errors import (
    ForeignJournalError,
    HyperZeroError,
    JournalCorruptError,
    JournalError,
    StudyNotFoundError,
)
from .base import (
    Born,
    Configured,
    ConflictError,
    Decided,
    Entry,
    Planned,
    Received,
    StudyHeader,
    flaw,
)
from .memory import not_found
from .schema import (
    FORMAT_VERSION,
    candidates,
    decisions,
    entries,
    journal,
    plans,
    readings,
    studies,
    tables,
)

_BUSY_SECONDS = 30
_NUMBERS = ("theta", "shares", "count", "mean", "var")


class SqlJournal:
    """A journal behind an SQLAlchemy URL; SQLite is the embedded default.

    Args:
        url: e.g. ``"sqlite:///study.db"``.
        create: make the SQLite file where there is none.
    Raises:
        StudyNotFoundError: there is no file, and none was to be made.
        ForeignJournalError: the file or database is not ours, or of another format version.
        JournalError: the URL is not understood, or the database cannot be reached.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        self.url = url
        shown = str(url)
        try:
            parsed = sa.engine.make_url(url)
            shown = parsed.render_as_string(hide_password=True)
            options = {"timeout": _BUSY_SECONDS} if parsed.get_backend_name() == "sqlite" else {}
            self._engine = sa.create_engine(parsed, connect_args=options)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise JournalError(
                f"the journal {shown!r} is not understood ({error}); expected an SQLAlchemy URL "
                "such as sqlite:///study.db"
            ) from None
        self._where = shown
        database = parsed.database
        if parsed.get_backend_name() == "sqlite" and database not in (None, "", ":memory:"):
            folder = Path(str(database)).parent
            if not create and not Path(str(database)).exists():
                raise StudyNotFoundError(
                    f"there is no journal {self._where}; check the path, or start a study in it "
                    "with hz.Tuner(problem, journal=..., study=...)"
                )
            if not folder.is_dir():
                raise JournalError(
                    f"the journal {self._where} lies in the folder {str(folder)!r}, which does "
                    "not exist; create it first"
                )
        self._prepare()

    def __repr__(self) -> str:
        return f"SqlJournal({self._where!r})"

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        with self._transaction() as connection:
            return sorted(connection.scalars(sa.select(studies.c.study)))

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries."""
        row = {"study": header.study, "seed": header.seed, "problem": dict(header.problem)}
        conflict = f"study {header.study!r} exists already"
        with self._transaction(write=True, conflict=conflict) as connection:
            connection.execute(studies.insert(), [row])
            _insert(connection, header, entries, after=0)

    def header(self, study: str) -> StudyHeader:
        """The study's header."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(studies).where(studies.c.study == study)).first()
        if row is None:
            raise not_found(study, self.studies())
        if not isinstance(row.seed, int) or not isinstance(row.problem, dict):
            raise JournalCorruptError(
                f"the header of study {study!r} in {self._where} is damaged; restore the journal "
                "from a backup"
            )
        return StudyHeader(row.study, row.seed, row.problem)

    def append(self, study: str, new: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last."""
        header = self.header(study)
        conflict = f"study {study!r} has moved on since entry {after}"
        with self._transaction(write=True, conflict=conflict) as connection:
            last = connection.scalar(
                sa.select(sa.func.max(entries.c.entry)).where(entries.c.study == study)
            )
            if (last or 0) != after:
                raise ConflictError(f"{conflict}; nothing was written")
            _insert(connection, header, new, after)
        return after + len(new)

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order."""
        header = self.header(study)
        with self._transaction() as connection:
            found: dict[sa.Table, dict[int, list[Any]]] = {}
            for table in (entries, candidates, plans, readings, decisions):
                query = sa.select(table).where(table.c.study == study, table.c.entry > after)
                rows: dict[int, list[Any]] = defaultdict(list)
                for row in connection.execute(query.order_by(*table.primary_key.columns)):
                    rows[row.entry].append(row)
                found[table] = rows
        numbers = list(found[entries])
        strays = set().union(*found.values()).difference(numbers)
        if numbers != list(range(after + 1, after + 1 + len(numbers))) or strays:
            raise JournalCorruptError(
                f"the journal {self._where} misses entries of study {study!r}: after {after} it "
                f"holds {numbers[:5]}... and parts of {sorted(strays, key=repr)[:5]}; restore it "
                "from a backup"
            )
        if not numbers and after == 0:
            raise JournalCorruptError(
                f"the journal {self._where} has lost all entries of study {study!r}; restore it "
                "from a backup"
            )
        return [self._entry(header, number, found) for number in numbers]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _entry(
        self, header: StudyHeader, number: int, found: dict[sa.Table, dict[int, list[Any]]]
    ) -> Entry:
        entry = self._assemble(header.study, number, found)
        reason = flaw(entry)
        if reason is None and _digest(header, number, entry) != found[entries][number][0].digest:
            reason = "its values are not those that were written"
        if reason is not None:
            raise JournalCorruptError(
                f"entry {number} of study {header.study!r} in {self._where} is damaged: {reason}; "
                "restore the journal from a backup"
            )
        return entry

    def _assemble(
        self, study: str, number: int, found: dict[sa.Table, dict[int, list[Any]]]
    ) -> Entry:
        row = found[entries][number][0]
        try:
            if row.kind == "configured":
                return Configured(row.details)
            if row.kind == "born":
                c = found[candidates][number][0]
                return Born(c.candidate, c.round, c.origin, tuple(c.theta), c.parameters)
            if row.kind == "planned":
                arms = found[plans][number]
                return Planned(
                    row.round,
                    tuple(a.candidate for a in arms),
                    tuple(a.slots for a in arms),
                    tuple(a.share for a in arms),
                    row.details["trigger"],
                    row.details["details"],
                )
            if row.kind == "received":
                fields = ("round", "candidate", "metric", "revision", "count", "mean", "var")
                rows = found[readings][number]
                if len(rows) != row.details["rows"]:
                    raise JournalCorruptError(
                        f"entry {number} of study {study!r} received {row.details['rows']} "
                        f"readings, {len(rows)} are stored; restore the journal from a backup"
                    )
                return Received(**{f: tuple(getattr(r, f) for r in rows) for f in fields})
            if row.kind == "decided":
                d = found[decisions][number][0]
                return Decided(d.round, d.kind, d.reason, d.details)
        except (IndexError, KeyError, TypeError) as error:
            raise JournalCorruptError(
                f"entry {number} ({row.kind}) of study {study!r} in {self._where} is incomplete: "
                f"{type(error).__name__}: {error}; restore the journal from a backup"
            ) from None
        raise JournalCorruptError(
            f"entry {number} of study {study!r} in {self._where} is of the unknown kind "
            f"{row.kind!r}; it may come from a newer version"
        )

    def _prepare(self) -> None:
        """Check that the tables are ours; make them where there are none, all or none of them."""
        with self._transaction() as connection:
            empty = not sa.inspect(connection).get_table_names()
        if empty:
            with self._transaction(write=True) as connection:
                # Another process may have made them a moment ago.
                if not sa.inspect(connection).get_table_names():
                    tables.create_all(connection)
                    connection.execute(journal.insert(), [{"version": FORMAT_VERSION}])
        with self._transaction() as connection:
            present = set(sa.inspect(connection).get_table_names())
            missing = sorted(set(tables.tables) - present)
            if missing:
                raise ForeignJournalError(
                    f"{self._where} is not a journal of hyperzero: it holds the tables "
                    f"{sorted(present)[:6]} and misses {missing}; name another file"
                )
            version = connection.scalar(sa.select(journal.c.version))
            if version != FORMAT_VERSION:
                raise ForeignJournalError(
                    f"{self._where} is a journal of format {version}, this version reads "
                    f"{FORMAT_VERSION}; use the version of hyperzero-torch that wrote it"
                )

    @contextmanager
    def _transaction(
        self, write: bool = False, conflict: str | None = None
    ) -> Iterator[sa.Connection]:
        """One transaction: committed as a whole or rolled back; database errors become ours."""
        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "sqlite":
                    # Python's driver begins one only before INSERT: tables would be made one by
                    # one, and a read of several tables would see them at several times.
                    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
        except HyperZeroError:
            raise
        except IntegrityError as error:
            reason = conflict or "the journal refuses the entries"
            raise ConflictError(f"{reason}; nothing was written ({error.orig})") from None
        except DBAPIError as error:
            foreign = "not a database" in str(error) or "malformed" in str(error)
            kind = ForeignJournalError if foreign else JournalError
            raise kind(
                f"the journal {self._where} cannot be used: {error.orig}"
                + ("; it is damaged or no journal of hyperzero" if foreign else "")
            ) from None
        except (StatementError, TypeError, ValueError, OverflowError) as error:  # not the database
            if write:
                raise JournalError(
                    f"the journal {self._where} cannot store an entry: {error}; nothing was written"
                ) from None
            raise JournalCorruptError(
                f"the journal {self._where} holds a value that cannot be read: {error}; "
                "restore it from a backup"
            ) from None


def _digest(header: StudyHeader, number: int, entry: Entry) -> str:
    """A checksum of an entry, its number and its study: databases keep none of their own."""
    values = {
        name: list(map(float, value)) if name in _NUMBERS else value
        for name, value in vars(entry).items()
    }
    values |= {name: dict(value) for name, value in values.items() if isinstance(value, Mapping)}
    study = [header.study, header.seed, dict(header.problem)]
    text = json.dumps([study, number, type(entry).__name__, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _insert(
    connection: sa.Connection, header: StudyHeader, new: Sequence[Entry], after: int
) -> None:
    """All rows of the entries, a table at a time."""
    rows: dict[sa.Table, list[dict[str, Any]]] = defaultdict(list)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for number, entry in enumerate(new, start=after + 1):
        key: dict[str, Any] = {"study": header.study, "entry": number}
        round_: int | None = None
        details: dict[str, Any] = {}
        match entry:
            case Configured():
                details = dict(entry.config)
            case Born():
                round_ = entry.round
                rows[candidates].append(
                    key
                    | {
                        "candidate": entry.candidate,
                        "round": entry.round,
                        "origin": entry.origin,
                        "theta": list(entry.theta),
                        "parameters": dict(entry.parameters),
                    }
                )
            case Planned():
                round_ = entry.round
                details = {"trigger": entry.trigger, "details": dict(entry.details)}
                rows[plans].extend(
                    key | {"round": entry.round, "candidate": c, "slots": k, "share": s}
                    for c, k, s in zip(entry.candidates, entry.slots, entry.shares)
                )
            case Received():
                details = {"rows": len(entry.round)}
                columns = {name: list(value) for name, value in vars(entry).items()}
                rows[readings].extend(
                    key | dict(zip(columns, values)) for values in zip(*columns.values())
                )
            case Decided():
                round_ = entry.round
                rows[decisions].append(key | vars(entry) | {"details": dict(entry.details)})
        kind = type(entry).__name__.lower()
        rows[entries].append(
            key
            | {"kind": kind, "round": round_, "at": now, "details": details}
            | {"digest": _digest(header, number, entry)}
        )
    for table, values in rows.items():
        connection.execute(table.insert(), values)
