"""A journal in the memory of the process: the default, and the reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import StudyNotFoundError
from .base import Compacted, ConflictError, Entry, ReadingsReceived, StudyHeader, without
from .chain import Beginning, first_leaf, first_link, in_order, leaf, next_link
from .columns import Parts, split
from .keys import KeyRing
from .verified import ChainStart, Head, StoredEntry, Verification, verify

_BEGINS = Beginning(0, "")
_UNSIGNED = KeyRing()


@dataclass
class _Log:
    """A study's entries, their links, and for each reduced message its compactions' leaves."""

    header: StudyHeader
    first: str
    entries: list[Entry] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    replaced: dict[int, list[tuple[int, str, str]]] = field(default_factory=dict)

    def extend(self, new: Sequence[Entry]) -> None:
        """Add entries, and reduce messages whose readings they compact."""
        link, after = self.links[-1] if self.links else self.first, len(self.entries)
        links = []
        for number, entry in enumerate(new, start=after + 1):  # before anything is changed
            link = next_link(link, leaf(*self.stored(number, entry)), _UNSIGNED)
            links.append(link)
        self.entries.extend(new)
        self.links.extend(links)
        for number, entry in enumerate(new, start=after + 1):
            if isinstance(entry, Compacted):
                self._reduce(number, entry)

    def stored(self, number: int, entry: Entry) -> tuple[dict[str, Any], Parts]:
        """An entry as a database stores it, without time and digest."""
        row, parts = split(self.header.study, number, entry, "")
        return row | {"digest": ""}, in_order(parts)

    def _reduce(self, compaction: int, compacted: Compacted) -> None:
        rounds = set(compacted.rounds)
        for number, entry in enumerate(self.entries, start=1):
            if isinstance(entry, ReadingsReceived) and rounds.intersection(entry.round):
                rest = without(entry, rounds)
                self.entries[number - 1] = rest
                pair = (leaf(*self.stored(number, entry)), leaf(*self.stored(number, rest)))
                self.replaced.setdefault(number, []).append((compaction, *pair))


class MemoryJournal:
    """Entries in lists. ``Journal`` and ``ChainedJournal`` document the methods."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}

    def __repr__(self) -> str:
        return f"MemoryJournal({self.studies()})"

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        return sorted(self._logs)

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        """Start a study with its first entries."""
        if header.study in self._logs:
            raise ConflictError(f"study {header.study!r} exists already; nothing was written")
        log = _Log(header, first_link(header, (), _BEGINS, _UNSIGNED))
        log.extend(entries)
        self._logs[header.study] = log

    def header(self, study: str) -> StudyHeader:
        """The study's header."""
        return self._log(study).header

    def append(self, study: str, entries: Sequence[Entry], after: int) -> int:
        """Append entries, all or none, and return the number of the last."""
        log = self._log(study)
        if len(log.entries) != after:
            raise ConflictError(
                f"study {study!r} has {len(log.entries)} entries, the writer had read {after}; "
                "nothing was written"
            )
        log.extend(entries)
        return len(log.entries)

    def read(self, study: str, after: int = 0) -> list[Entry]:
        """All entries numbered above ``after``, in order."""
        return self._log(study).entries[after:]

    def verify(self, study: str, against: Head | None = None) -> Verification:
        """Compare all entries of a study with their chain."""
        log = self._log(study)
        start = ChainStart(study, log.first, first_leaf(log.header, (), _BEGINS), _BEGINS)
        stored = (
            StoredEntry(number, *log.stored(number, entry), link)
            for number, (entry, link) in enumerate(zip(log.entries, log.links), start=1)
        )
        return verify(start, stored, log.replaced, _UNSIGNED, against)

    def chain_begins(self, study: str) -> Beginning | None:
        """Where the chain of a study begins: with its first entry."""
        self._log(study)
        return _BEGINS

    def close(self) -> None:
        """There is nothing to release."""

    def _log(self, study: str) -> _Log:
        if study not in self._logs:
            raise not_found(study, self.studies())
        return self._logs[study]


def not_found(study: str, studies: list[str]) -> StudyNotFoundError:
    """The error for a study that does not exist."""
    return StudyNotFoundError(
        f"the journal holds no study {study!r:.200}; it holds {studies if studies else 'none'}. "
        "Check the name, or start it with hz.Tuner(problem, journal=..., study=...)"
    )
