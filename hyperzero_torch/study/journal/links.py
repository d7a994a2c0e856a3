"""The chain in the tables of a SQL journal: begun, continued, and read back for verification."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from ...errors import JournalCorruptError
from . import schema
from .base import StudyHeader
from .chain import (
    REPLACED,
    Beginning,
    check_writer,
    first_leaf,
    first_link,
    fits,
    journal_leaf,
    signer,
)
from .columns import JSON_COLUMNS, PARTS, Parts
from .keys import KeyRing
from .schema import chains, entries, journal, links, metrics, studies
from .verified import ChainStart, Fault, Head, StoredEntry

_TABLES = {name: schema.tables.tables[name] for name in PARTS}
_AT_ONCE = 500
# Larger than every number of an entry; in SQLite a text is larger than every number.
_TOO_LARGE = 2**62
_RESTORE = "restore the journal from a backup; 'hyperzero verify' names all that is wrong"


def begin(connection: sa.Connection, header: StudyHeader, ring: KeyRing) -> str:
    """Begin the chain of a new study; returns its first link."""
    begins = Beginning(0, dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    rows = [[r.metric, r.name] for r in connection.execute(_metrics(header.study))]
    link = first_link(header, rows, begins, ring)
    row = {"study": header.study, "entries_before": 0, "at": begins.at, "link": link}
    connection.execute(chains.insert(), [row])
    return link


def last(connection: sa.Connection, study: str) -> Head | None:
    """The last link of a study; None where it has none."""
    query = sa.select(links.c.entry, links.c.link).where(links.c.study == study)
    row = connection.execute(query.order_by(links.c.entry.desc()).limit(1)).first()
    return None if row is None else Head(row.link, row.entry)


def check_read(
    connection: sa.Connection, study: str, after: int, num_read: int, where: str
) -> Head | None:
    """Check that the entries read have links, and no others: the cheap part of a verification.

    Returns:
        The last link among them; None where nothing was read.
    Raises:
        JournalCorruptError: entries were deleted, or added by something else.
    """
    query = sa.select(links.c.entry, links.c.link).where(links.c.study == study)
    query = query.where(links.c.entry > after).order_by(links.c.entry)
    heads = [Head(row.link, row.entry) for row in connection.execute(query)]
    if [head.entry for head in heads] != list(range(after + 1, after + 1 + num_read)):
        ends = f"{heads[-1].entry}" if heads else f"{after} or before"
        raise _apart(study, after + num_read, ends, where)
    return heads[-1] if heads else None


def check_unreplaced(
    connection: sa.Connection, study: str, earlier: Head | None, where: str
) -> None:
    """Compare a link that this process has read before with the one that is stored now.

    Raises:
        JournalCorruptError: the journal was changed or replaced in between.
    """
    if earlier is None:
        return
    of_entry = (links.c.study == study) & (links.c.entry == earlier.entry)
    if connection.scalar(sa.select(links.c.link).where(of_entry)) != earlier.link:
        raise JournalCorruptError(
            f"entry {earlier.entry} of study {study!r} in {where} is not the one that this process "
            f"has read before: the journal was changed, or replaced by another one; {_RESTORE}. "
            "If it was restored on purpose, start this process again"
        )


def continued(
    connection: sa.Connection, study: str, after: int, ring: KeyRing, where: str, sign: bool
) -> str:
    """The link that new entries continue.

    Raises:
        JournalCorruptError: entries were deleted or added by something else.
        JournalError: it is signed, and this process has not the key; or it is not signed, and this
            process has one, unless it is to be signed from here on (``sign``).
    """
    if after == 0:
        first = connection.scalar(sa.select(chains.c.link).where(chains.c.study == study))
        head = None if first is None else Head(first, 0)
    else:
        head = last(connection, study)
    if head is None or head.entry != after:
        raise _apart(study, after, "no entry" if head is None else f"{head.entry}", where)
    check_writer(study, head.link, ring, sign)
    return head.link


def _apart(study: str, number: int, ends: str, where: str) -> JournalCorruptError:
    return JournalCorruptError(
        f"the last entry of study {study!r} in {where} is {number}, and its chain ends with "
        f"{ends}, or has gaps: entries were deleted, or written by something else; {_RESTORE}"
    )


def start(connection: sa.Connection, study: str) -> ChainStart:
    """What is stored of a study beside its entries."""
    query = sa.select(studies.c.seed, sa.cast(studies.c.problem, sa.String).label("problem"))
    row = connection.execute(query.where(studies.c.study == study)).one()
    names = [[r.metric, r.name] for r in connection.execute(_metrics(study))]
    chain = connection.execute(sa.select(chains).where(chains.c.study == study)).first()
    begins = None if chain is None else Beginning(chain.entries_before, chain.at)
    header = StudyHeader(study, row.seed, _parsed(row.problem))
    leaf = first_leaf(header, names, begins or Beginning(0, ""))
    return ChainStart(study, None if chain is None else chain.link, leaf, begins)


def replaced(connection: sa.Connection, study: str) -> dict[int, list[tuple[int, str, str]]]:
    """By number of a message, the compactions that reduced it: number, leaf before, leaf after."""
    query = sa.select(entries.c.entry, sa.cast(entries.c.details, sa.String).label("details"))
    query = query.where(entries.c.study == study, entries.c.kind == "compacted")
    by_message: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    for row in connection.execute(query.order_by(entries.c.entry)):
        details = _parsed(row.details)
        leaves = details.get(REPLACED) if isinstance(details, dict) else None
        for number, pair in leaves.items() if isinstance(leaves, dict) else ():
            if number.isdecimal() and isinstance(pair, list) and len(pair) == 2:
                before, after = pair
                by_message[int(number)].append((row.entry, str(before), str(after)))
    return by_message


def stored(connection: sa.Connection, study: str) -> Iterator[StoredEntry]:
    """All that is stored under the numbers of entries, ascending; some hundred are in memory."""
    low = _next(connection, study, 1)
    while low is not None:
        yield from _between(connection, study, low, low + _AT_ONCE)
        low = _next(connection, study, low + _AT_ONCE)


def strays(connection: sa.Connection) -> list[Fault]:
    """What is wrong beside the studies: rows of no study or no entry, the journal's own row."""
    faults = []
    row = connection.execute(sa.select(journal)).first()
    if row is None:
        faults.append(Fault(None, None, "its version is missing (hyperzero_journal)"))
    names = set(connection.scalars(sa.select(studies.c.study)))
    for table in (metrics, entries, *_TABLES.values(), chains, links):
        owners = set(connection.scalars(sa.select(table.c.study).distinct()))
        faults += [
            Fault(name, None, f"it is missing; rows of it are in {table.name}")
            for name in sorted(owners - names, key=repr)
        ]
        if "entry" in table.c:
            odd = sa.or_(table.c.entry < 1, table.c.entry >= _TOO_LARGE)
            query = sa.select(table.c.study).where(odd).distinct()
            faults += [
                Fault(name, None, f"rows of {table.name} belong to no entry")
                for name in sorted(connection.scalars(query), key=repr)
            ]
    return faults


def journal_fault(connection: sa.Connection, ring: KeyRing) -> Fault | None:
    """Why the journal's own row is not what was written; None where it is."""
    row = connection.execute(sa.select(journal)).first()
    if row is None:
        return None  # among the strays
    leaf = journal_leaf(row.version, row.package, row.at)
    if row.link is not None and fits(row.link, "", leaf, ring):
        return None
    id_ = None if row.link is None else signer(row.link)
    if id_ is not None and ring.find(id_) is None:
        return Fault(None, None, f"it is signed with the key {id_}, which is not among those given")
    return Fault(None, None, "its version, package or time was changed (hyperzero_journal)")


def _between(connection: sa.Connection, study: str, low: int, end: int) -> Iterator[StoredEntry]:
    rows: dict[int, dict[str, Any]] = {}
    parts: dict[int, Parts] = defaultdict(dict)
    link_of: dict[int, str] = {}
    for row in connection.execute(_raw(entries, study, low, end)):
        rows[row.entry] = _as_read(row)
    for row in connection.execute(_raw(links, study, low, end)):
        link_of[row.entry] = row.link
    for name, table in _TABLES.items():
        query = _raw(table, study, low, end).order_by(*table.primary_key.columns)
        for row in connection.execute(query):
            parts[row.entry].setdefault(name, []).append(_as_read(row))
    for number in sorted({*rows, *parts, *link_of}):
        yield StoredEntry(number, rows.get(number), parts.get(number, {}), link_of.get(number))


def _next(connection: sa.Connection, study: str, least: int) -> int | None:
    """The first number of an entry, from ``least`` on, in any of the tables."""
    numbers: list[int] = []
    for table in (entries, links, *_TABLES.values()):
        of_study = (table.c.study == study) & (table.c.entry >= least)
        query = sa.select(sa.func.min(table.c.entry)).where(of_study, table.c.entry < _TOO_LARGE)
        number = connection.scalar(query)
        if number is not None:
            numbers.append(int(number))
    return min(numbers, default=None)


def _raw(table: sa.Table, study: str, low: int, end: int) -> sa.Select[Any]:
    """Rows of a range of entries, with JSON as the text that is stored: it may be damaged."""
    columns = [
        sa.cast(c, sa.String).label(c.name) if c.name in JSON_COLUMNS else c for c in table.c
    ]
    of_range = (table.c.study == study) & (table.c.entry >= low) & (table.c.entry < end)
    return sa.select(*columns).where(of_range)


def _as_read(row: Any) -> dict[str, Any]:
    return {
        name: _parsed(value) if name in JSON_COLUMNS else value
        for name, value in row._mapping.items()
    }


def _metrics(study: str) -> sa.Select[Any]:
    return sa.select(metrics.c.metric, metrics.c.name).where(metrics.c.study == study)


def _parsed(text: Any) -> Any:
    """The value of a JSON text; a text that is none stays as it is, and fits no link."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
