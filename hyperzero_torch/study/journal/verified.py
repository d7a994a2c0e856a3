"""Verification of a study's chain: every stored value is what was written, and nothing is missing.

A storage gives what it holds as ``ChainStart`` and ``StoredEntry``; the comparison is the same for
all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ...errors import InputError, JournalCorruptError, JournalError
from . import chain
from .columns import Parts
from .keys import KEY_FILE_VARIABLE, KEY_VARIABLE, KeyRing

_HEAD = re.compile(r"((?:sha256|hmac-[0-9a-f]{8}):[0-9a-f]{64})@(\d+)")
# What is stored of each kind of entry, in words.
_STORED = {
    "configured": "the configuration (entries.details)",
    "born": "a candidate (candidates)",
    "planned": "a plan (plans, entries.details)",
    "received": "readings (readings)",
    "decided": "a decision with its reason (decisions)",
    "compacted": "the evidence in place of deleted readings (entries.details)",
}
_MOST_SHOWN = 20
#: What is wrong with a chain that has no signature, where there is a key.
UNSIGNED = (
    "the last link is not signed with the key, so whoever can write to the journal could have made "
    "it; if the key is new, compare with a head noted elsewhere: hyperzero verify --head ... --sign"
)


class Head(NamedTuple):
    """A link and the number of its entry: whoever notes it elsewhere notices a missing tail."""

    link: str
    entry: int

    def __str__(self) -> str:
        return f"{self.link}@{self.entry}"

    @classmethod
    def of(cls, text: str) -> Head:
        """A head from its text, ``HASH@POSITION``.

        Raises:
            InputError: it is none.
        """
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"expected a head such as sha256:<64 hex digits>@1234, as 'hyperzero verify' "
                f"prints it, got {text.strip()!r:.100}"
            )
        return cls(match[1], int(match[2]))


class Fault(NamedTuple):
    """What is wrong in a journal: in which study (None: beside all), at which entry."""

    study: str | None
    entry: int | None
    what: str

    def __str__(self) -> str:
        place = "the journal" if self.study is None else f"study {self.study!r}"
        return f"{place}{'' if self.entry is None else f', entry {self.entry}'}: {self.what}"


@dataclass(frozen=True)
class Verification:
    """The result for one study.

    Args:
        study: its name.
        entries: number of entries that are there.
        head: the last link; None where there is none.
        faults: what is wrong, in order.
        begins: where the chain begins; entries before were there already, and nobody can tell
            whether they had been changed until then.
        signed_from: the first entry that a key signed; None where none is.
        key: the id of the key that signed the last entry; None where it is not signed.
    """

    study: str
    entries: int
    head: Head | None
    faults: tuple[Fault, ...]
    begins: chain.Beginning | None
    signed_from: int | None
    key: str | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def check(self) -> None:
        """Raise a ``JournalCorruptError`` that names what is wrong, if anything is."""
        if self.faults:
            lines = [f"  - {fault}" for fault in self.faults[:_MOST_SHOWN]]
            if len(self.faults) > _MOST_SHOWN:
                lines.append(f"  ... and {len(self.faults) - _MOST_SHOWN} more")
            raise JournalCorruptError(
                f"study {self.study!r} is not what was written; restore the journal from a backup "
                "and compare:\n" + "\n".join(lines)
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "study": self.study,
            "entries": self.entries,
            "head": None if self.head is None else str(self.head),
            "ok": self.ok,
            "faults": [{"entry": f.entry, "what": f.what} for f in self.faults],
            "entries_before_chain": None if self.begins is None else self.begins.entries_before,
            "chain_begun_at": None if self.begins is None else self.begins.at,
            "signed_from": self.signed_from,
            "key": self.key,
        }


@runtime_checkable
class ChainedJournal(Protocol):
    """A journal whose entries form a hash chain, beside the methods of ``Journal``."""

    def verify(self, study: str, against: Head | None = None) -> Verification:
        """Compare everything that is stored of a study with its chain, from its first entry on.

        Args:
            study: its name.
            against: a head that was noted elsewhere.
        Raises:
            StudyNotFoundError: there is no such study.
            JournalError: the chain is signed, and there is no key here to verify it.
        """
        ...

    def chain_begins(self, study: str) -> chain.Beginning | None:
        """Where the chain of a study begins; None where it has lost its chain."""
        ...


class ChainStart(NamedTuple):
    """What a storage holds of a study beside its entries: its first link, and the leaf for it."""

    study: str
    link: str | None
    leaf: str
    begins: chain.Beginning | None


class StoredEntry(NamedTuple):
    """What a storage holds under the number of an entry; parts may be missing."""

    number: int
    row: Mapping[str, Any] | None
    parts: Parts
    link: str | None


@dataclass
class _Walk:
    """The state of a walk along a chain."""

    study: str
    ring: KeyRing
    faults: list[Fault] = field(default_factory=list)
    previous: str | None = None
    entries: int = 0
    last: Head | None = None
    signed_from: int | None = None
    is_signed: bool = False

    def add(self, entry: int | None, what: str) -> None:
        self.faults.append(Fault(self.study, entry, what))


def verify(
    start: ChainStart,
    stored: Iterable[StoredEntry],
    replaced: Mapping[int, list[tuple[int, str, str]]],
    ring: KeyRing,
    against: Head | None = None,
) -> Verification:
    """Compare what a storage holds with the chain.

    Args:
        start: beside the entries.
        stored: ascending by number.
        replaced: by number of a message, the compactions that reduced it, in order: number of the
            compaction, leaf before, leaf after.
        ring: the keys.
        against: a head that was noted elsewhere.
    Raises:
        JournalError: the chain is signed, and there is no key here to verify it.
    """
    walk = _Walk(start.study, ring)
    noted: str | None = None
    _start(walk, start)
    expected = 1
    for entry in stored:
        if entry.number < 1:
            walk.add(entry.number, "no entry has this number")
            continue
        if entry.number > expected:
            _gap(walk, expected, entry.number - 1)
        _step(walk, entry, replaced.get(entry.number, []))
        expected = entry.number + 1
        if against is not None and entry.number == against.entry:
            noted = entry.link
    if not walk.entries:
        walk.add(None, "all its entries are missing")
    _compare(walk, start, noted, against)
    if ring.keys and walk.entries and not walk.is_signed:
        walk.add(
            None if walk.last is None else walk.last.entry,
            UNSIGNED,
        )
    key = None if walk.last is None else chain.signer(walk.last.link)
    return Verification(
        *(walk.study, walk.entries, walk.last, tuple(walk.faults)),
        *(start.begins, walk.signed_from, key),
    )


def _start(walk: _Walk, start: ChainStart) -> None:
    walk.previous = start.link
    if start.link is None:
        walk.add(None, "its chain has no beginning (chains)")
        return
    _check_key(walk, start.link)
    walk.is_signed = chain.signer(start.link) is not None
    if not chain.fits(start.link, "", start.leaf, walk.ring):
        walk.add(
            None,
            "its header is not what was written: seed or problem (studies), names of metrics "
            "(metrics), or where the chain begins (chains)",
        )


def _gap(walk: _Walk, first: int, last: int) -> None:
    which = f"entry {first} is" if first == last else f"entries {first} to {last} are"
    walk.add(first, f"{which} missing")
    walk.previous = None


def _step(walk: _Walk, entry: StoredEntry, replaced: list[tuple[int, str, str]]) -> None:
    number, row, link = entry.number, entry.row, entry.link
    if row is None:
        left = sorted(entry.parts) + (["links"] if link is not None else [])
        walk.add(number, f"it is missing; what is left of it is in {', '.join(left)}")
        walk.previous = link
        return
    walk.entries += 1
    leaf = chain.leaf(row, entry.parts)
    if replaced and (changed := _reduced(leaf, replaced)) is not None:
        walk.add(number, changed)
    if link is None:
        walk.add(number, "it is not in the chain (links): it was added by something else")
        walk.previous = None
        return
    _check_key(walk, link)
    was = leaf if not replaced else replaced[0][1]
    if walk.previous is not None and not chain.fits(link, walk.previous, was, walk.ring):
        walk.add(number, _mismatch(row, link, walk.ring))
    id_ = chain.signer(link)
    if id_ is None and walk.is_signed:
        walk.add(number, "it is not signed, but entries before it are")
    if id_ is not None and walk.signed_from is None:
        walk.signed_from = number
    walk.is_signed = id_ is not None
    walk.previous, walk.last = link, Head(link, number)


def _reduced(leaf: str, replaced: list[tuple[int, str, str]]) -> str | None:
    """What does not fit the compactions that deleted a message's readings."""
    for (_, _, after), (compaction, before, _) in pairwise(replaced):
        if after != before:
            return f"its readings changed before they were compacted by entry {compaction}"
    if leaf != replaced[-1][2]:
        return (
            f"its remaining readings are not those that its compaction, entry {replaced[-1][0]}, "
            "left"
        )
    return None


def _mismatch(row: Mapping[str, Any], link: str, ring: KeyRing) -> str:
    id_ = chain.signer(link)
    if id_ is not None and ring.find(id_) is None:
        return f"it is signed with the key {id_}, which is not among those given"
    stored = _STORED.get(str(row["kind"]), "an entry of an unknown kind")
    return (
        f"it is not what was written: {stored}, or its time, kind, round, place or number "
        "(entries), or its link (links) was changed"
    )


def _check_key(walk: _Walk, link: str) -> None:
    if chain.signer(link) is not None and not walk.ring.keys:
        raise JournalError(
            f"the chain of study {walk.study!r} is signed with the key {chain.signer(link)}; to "
            f"verify it set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
        )


def _compare(walk: _Walk, start: ChainStart, noted: str | None, against: Head | None) -> None:
    if against is None:
        return
    last = 0 if walk.last is None else walk.last.entry
    noted = start.link if against.entry == 0 else noted
    if against.entry > last:
        walk.add(
            against.entry,
            f"the head noted elsewhere is of entry {against.entry}, and the last one here is "
            f"{last}: entries are missing at the end",
        )
    elif noted != against.link:
        walk.add(
            against.entry,
            "the head noted elsewhere has another link for this entry: this entry or one before "
            "it was changed, and the chain was computed again",
        )
