"""A journal in plain SQL tables that an analyst can query, through SQLAlchemy Core.

    entries      one row per entry: study, entry (1, 2, 3, ...), kind, round, at, details, digest
    links        one row per entry: its link in the hash chain, see ``chain.py``
    candidates   one row per candidate      plans      one row per arm and round
    readings     one row per reading        decisions  one row per decision

Every append is one transaction. ``database.py`` lets several processes write at once, ``rows.py``
stores entries, ``migrate.py`` opens older journals, and README.md beside this file describes the
tables for analysts.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ...errors import JournalCorruptError, JournalError
from . import links, rows
from .base import ConflictError, Entry, StudyHeader
from .chain import Beginning
from .database import Database
from .keys import KeyRing
from .memory import not_found
from .migrate import check_unchanged, metric_rows, prepare
from .schema import entries, metrics, studies
from .verified import Fault, Head, Verification, verify


class SqlJournal:
    """A journal on SQLite, the embedded default, or on PostgreSQL.

    A call that fails because the database cannot be reached, or was restarted, has written nothing,
    or everything where only the answer to its commit was lost. The next call reconnects.

    Args:
        url: e.g. ``"sqlite:///study.db"`` or ``"postgresql://user:password@host/database"``.
        create: create a missing SQLite file and missing tables.
        keys: that sign the hash chain; by default those of the environment (``keys.py``).
    Raises:
        StudyNotFoundError: there is no file or no table, and ``create`` is false.
        ForeignJournalError: the file or database is not a journal, or of a later format.
        MissingExtraError: PostgreSQL without psycopg.
        JournalError: the URL is not understood, or the database cannot be reached.
    """

    def __init__(self, url: str | sa.URL, create: bool = True, keys: KeyRing | None = None) -> None:
        self._keys = KeyRing.from_environment() if keys is None else keys
        self._heads: dict[str, Head] = {}
        #: Its engine and its transactions, e.g. for queries of an analyst.
        self.database = Database(url, create)
        try:
            prepare(self.database, create, self._keys)
            if create:  # a process that only reads leaves the file as it is
                self.database.keep_log_ahead()
        except BaseException:
            self.database.close()
            raise

    def __repr__(self) -> str:
        return f"SqlJournal({str(self.database)!r})"

    @property
    def url(self) -> sa.URL:
        """The address of the journal; its password is masked when it is shown."""
        return self.database.address.url

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        with self.database.transaction() as connection:
            return _names(connection)

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries."""
        reason = self._impossible(header.study)
        if reason is not None:
            raise JournalError(
                f"a study named {header.study!r:.200} cannot be stored in {self.database}: "
                f"{reason}; nothing was written"
            )
        row = {"study": header.study, "seed": header.seed, "problem": dict(header.problem)}
        conflict = f"study {header.study!r} exists already"
        with self.database.transaction(write=True, conflict=conflict) as connection:
            check_unchanged(connection, str(self.database))
            connection.execute(studies.insert(), [row])
            names = metric_rows(header.study, row["problem"])
            if names:
                connection.execute(metrics.insert(), names)
            link = links.begin(connection, header, self._keys)
            link = rows.write(connection, header, entries, 0, link, self._keys)
        self._heads[header.study] = Head(link, len(entries))

    def header(self, study: str) -> StudyHeader:
        """The study's header."""
        self._check_name(study)
        with self.database.transaction() as connection:
            return self._header(connection, study)

    def append(self, study: str, new: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last."""
        return self._append(study, new, after)

    def sign(self, study: str, new: Entry, after: int) -> int:
        """Append the entry from which on the chain is signed, where it was not before."""
        return self._append(study, [new], after, sign=True)

    @property
    def keys(self) -> KeyRing:
        """The keys that sign the hash chain."""
        return self._keys

    def _append(self, study: str, new: Sequence[Entry], after: int, sign: bool = False) -> int:
        self._check_name(study)
        conflict = f"study {study!r} has entries after {after}"
        with self.database.transaction(write=True, conflict=conflict) as connection:
            header = self._header(connection, study, lock=True)
            check_unchanged(connection, str(self.database))
            last = connection.scalar(
                sa.select(sa.func.max(entries.c.entry)).where(entries.c.study == study)
            )
            if (last or 0) != after:
                raise ConflictError(f"{conflict}; nothing was written")
            links.check_unreplaced(connection, study, self._heads.get(study), str(self.database))
            where = str(self.database)
            link = links.continued(connection, study, after, self._keys, where, sign)
            link = rows.write(connection, header, new, after, link, self._keys)
        self._heads[study] = Head(link, after + len(new))
        return after + len(new)

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order."""
        self._check_name(study)
        with self.database.transaction() as connection:
            header = self._header(connection, study)
            where = str(self.database)
            new = rows.read(connection, header, after, where)
            links.check_unreplaced(connection, study, self._heads.get(study), where)
            head = links.check_read(connection, study, after, len(new), where)
        if head is not None:
            self._heads[study] = head
        return new

    def verify(self, study: str, against: Head | None = None) -> Verification:
        """Compare all that is stored of a study with its chain; see ``ChainedJournal``."""
        self._check_name(study)
        with self.database.transaction() as connection:
            self._header(connection, study)
            start = links.start(connection, study)
            replaced = links.replaced(connection, study)
            stored = links.stored(connection, study)
            return verify(start, stored, replaced, self._keys, against)

    def faults(self) -> list[Fault]:
        """What is wrong beside the studies: rows of no study, the journal's own row."""
        with self.database.transaction() as connection:
            own = links.journal_fault(connection, self._keys)
            return [*links.strays(connection), *([] if own is None else [own])]

    def chain_begins(self, study: str) -> Beginning | None:
        """Where the chain of a study begins; None where it has lost its chain."""
        self._check_name(study)
        with self.database.transaction() as connection:
            self._header(connection, study)
            return links.start(connection, study).begins

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def _header(self, connection: sa.Connection, study: str, lock: bool = False) -> StudyHeader:
        query = sa.select(studies).where(studies.c.study == study)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise not_found(study, _names(connection))
        if not isinstance(row.seed, int) or not isinstance(row.problem, dict):
            raise JournalCorruptError(
                f"the header of study {study!r} in {self.database} is damaged; restore the "
                "journal from a backup"
            )
        return StudyHeader(row.study, row.seed, row.problem)

    def _check_name(self, study: str) -> None:
        """Raise ``StudyNotFoundError`` for a name that cannot be stored."""
        if self._impossible(study) is not None:
            raise not_found(study, self.studies())

    def _impossible(self, study: str) -> str | None:
        """Why no study can have this name; None where one can."""
        if not isinstance(study, str):
            return "a name is text"
        if "\0" in study and not self.database.is_sqlite:
            return "PostgreSQL keeps no NUL character in a text"
        try:
            study.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair is no character"
        return None


def _names(connection: sa.Connection) -> list[str]:
    return sorted(connection.scalars(sa.select(studies.c.study)))
