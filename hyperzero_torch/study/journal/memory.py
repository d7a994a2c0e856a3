"""A journal in the memory of the process: the default, and the reference implementation."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import StudyNotFoundError
from .base import Compacted, ConflictError, Entry, ReadingsReceived, StudyHeader, without


class MemoryJournal:
    """Entries in lists. ``Journal`` documents the methods."""

    def __init__(self) -> None:
        self._headers: dict[str, StudyHeader] = {}
        self._entries: dict[str, list[Entry]] = {}

    def __repr__(self) -> str:
        return f"MemoryJournal({self.studies()})"

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        return sorted(self._headers)

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries."""
        if header.study in self._headers:
            raise ConflictError(f"study {header.study!r} exists already; nothing was written")
        self._headers[header.study] = header
        self._entries[header.study] = list(entries)

    def header(self, study: str) -> StudyHeader:
        """The study's header."""
        if study not in self._headers:
            raise not_found(study, self.studies())
        return self._headers[study]

    def append(self, study: str, entries: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last."""
        self.header(study)
        log = self._entries[study]
        if len(log) != after:
            raise ConflictError(
                f"study {study!r} has {len(log)} entries, the writer had read {after}; "
                "nothing was written"
            )
        log.extend(entries)
        gone = {r for e in entries if isinstance(e, Compacted) for r in e.rounds}
        if gone:
            log[:] = [without(e, gone) if isinstance(e, ReadingsReceived) else e for e in log]
        return len(log)

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order."""
        self.header(study)
        return self._entries[study][after:]

    def close(self) -> None:
        """There is nothing to release."""


def not_found(study: str, studies: list[str]) -> StudyNotFoundError:
    """The error for a study that does not exist."""
    return StudyNotFoundError(
        f"the journal holds no study {study!r:.200}; it holds {studies if studies else 'none'}. "
        "Check the name, or start it with hz.Tuner(problem, journal=..., study=...)"
    )
