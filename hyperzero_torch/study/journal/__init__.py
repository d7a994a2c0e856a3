"""The append-only log of a study, from which all its state is computed."""

from __future__ import annotations

from ...errors import JournalError
from .arrays import EVIDENCE, OPTIONAL_EVIDENCE, pack_array, unpack_array
from .base import (
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Journal,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from .memory import MemoryJournal

__all__ = [
    "EVIDENCE",
    "OPTIONAL_EVIDENCE",
    "CandidateAdded",
    "Compacted",
    "Configured",
    "Decision",
    "Entry",
    "Journal",
    "MemoryJournal",
    "Planned",
    "ReadingsReceived",
    "StudyHeader",
    "open_journal",
    "pack_array",
    "unpack_array",
]


def open_journal(journal: Journal | str | None, create: bool = True) -> Journal:
    """A journal from its URL, from itself, or from None (in memory).

    URLs are ``sqlite:///study.db`` and ``postgresql://user:password@host/database``. A journal of
    an earlier format is migrated. With ``create=False`` no missing SQLite file or table is
    created.

    Raises:
        StudyNotFoundError: there is no file or no table, and ``create`` is false.
        MissingExtraError: PostgreSQL without psycopg.
        JournalError: the URL is not understood, it names something other than a journal, or
            neither a URL nor a journal was given.
    """
    if journal is None:
        return MemoryJournal()
    if isinstance(journal, str):
        from .sql import SqlJournal  # SQLAlchemy only where it is used

        return SqlJournal(journal, create)
    if not isinstance(journal, Journal):
        raise JournalError(
            f"expected a journal, its URL such as 'sqlite:///study.db', or None, got "
            f"{type(journal).__name__}"
        )
    return journal
