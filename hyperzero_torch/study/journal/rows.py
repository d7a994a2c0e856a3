"""Conversion between entries and rows of the tables.

Numbers are stored as 8-byte floats, so they are read back bit for bit. A digest of every entry
detects changed values when it is read, and a link of its chain when a study is verified.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import sqlalchemy as sa

from ...errors import JournalCorruptError
from .base import (
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Planned,
    ReadingsReceived,
    StudyHeader,
    flaw,
)
from .chain import REPLACED, in_order, leaf, next_link
from .columns import Parts, digest, reduced, split
from .keys import KeyRing
from .schema import candidates, decisions, entries, links, plans, readings

_RESTORE = "restore the journal from a backup"
_Rows: TypeAlias = dict[sa.Table, list[dict[str, Any]]]
_RowsByEntry: TypeAlias = dict[sa.Table, dict[int, list[Any]]]
_PARTS = (candidates, plans, readings, decisions)
_TABLES = {table.name: table for table in _PARTS}
_KEY = tuple(c.name for c in readings.primary_key.columns if c.name != "study")
_BLOCK = 2000  # entries whose rows are held at once


def write(
    connection: sa.Connection,
    header: StudyHeader,
    new: Sequence[Entry],
    after: int,
    link: str,
    ring: KeyRing,
) -> str:
    """Insert all rows of the entries, table by table, and delete what they compact.

    Args:
        link: of the last entry before these.
        ring: the keys of the chain.
    Returns:
        The link of the last of them.
    """
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    rows: _Rows = defaultdict(list)
    for number, entry in enumerate(new, start=after + 1):
        row, parts = split(header.study, number, entry, now)
        row["digest"] = digest(header, number, entry)
        if isinstance(entry, Compacted):
            _insert(connection, rows)  # a compaction may reduce what comes with it
            row["details"][REPLACED] = _delete_readings(connection, header, entry)
        link = next_link(link, leaf(row, in_order(parts)), ring)
        rows[entries].append(row)
        rows[links].append({"study": header.study, "entry": number, "link": link})
        for name, values in parts.items():
            rows[_TABLES[name]].extend(values)
    _insert(connection, rows)
    return link


def _insert(connection: sa.Connection, rows: _Rows) -> None:
    for table, values in rows.items():
        if values:
            connection.execute(table.insert(), values)
    rows.clear()


def _delete_readings(
    connection: sa.Connection, header: StudyHeader, compacted: Compacted
) -> dict[str, list[str]]:
    """Delete the readings of compacted rounds; their messages stay with the remaining readings.

    Returns:
        By number of the message, its leaves before and after, which the compaction keeps.
    """
    of_study = readings.c.study == header.study
    deleted = of_study & readings.c.round.in_(compacted.rounds)
    # Not made distinct by the database: SQLite would walk over all readings in order of entry.
    numbers = set(connection.scalars(sa.select(readings.c.entry).where(deleted)))
    leaves: dict[str, list[str]] = {}
    before = {number: _message(connection, header, number) for number in sorted(numbers)}
    connection.execute(sa.delete(readings).where(deleted))
    for number, (row, received) in before.items():
        of_entry = (entries.c.study == header.study) & (entries.c.entry == number)
        _, rest = _message(connection, header, number)
        changes = reduced(header, row, _received(rest))
        connection.execute(sa.update(entries).where(of_entry).values(**changes))
        leaves[str(number)] = [leaf(row, _parts(received)), leaf(row | changes, _parts(rest))]
    return leaves


def _message(
    connection: sa.Connection, header: StudyHeader, number: int
) -> tuple[dict[str, Any], Sequence[Any]]:
    """The row of a message, and its readings."""
    of_entry = (entries.c.study == header.study) & (entries.c.entry == number)
    row = connection.execute(sa.select(entries).where(of_entry)).one()
    of_part = (readings.c.study == header.study) & (readings.c.entry == number)
    # Not ordered by the database: SQLite would walk over all readings in the order of their key.
    received = connection.execute(sa.select(readings).where(of_part)).all()
    return dict(row._mapping), sorted(received, key=attrgetter(*_KEY))


def _parts(received: Sequence[Any]) -> Parts:
    return {readings.name: [dict(row._mapping) for row in received]}


def read(connection: sa.Connection, header: StudyHeader, after: int, where: str) -> list[Entry]:
    """The entries numbered above ``after``, in order.

    Rows become entries block by block: the rows of a long study are millions, and need several
    times the memory of its entries.

    Raises:
        JournalCorruptError: rows are missing, superfluous or changed.
    """
    study = header.study
    heads = _by_entry(connection, entries, study, after)
    numbers = list(heads)
    last = after + len(numbers)
    if numbers != list(range(after + 1, last + 1)):
        raise _misses(study, after, numbers, _numbers_of_parts(connection, study, after), where)
    if not numbers and after == 0:
        raise JournalCorruptError(
            f"the journal {where} has lost all entries of study {study!r}; restore it from a backup"
        )
    read: list[Entry] = []
    for start in range(after, max(last, after + 1), _BLOCK):
        # The last block has no end, so that parts of entries that do not exist are found.
        end = start + _BLOCK if start + _BLOCK < last else None
        stored = {table: _by_entry(connection, table, study, start, end) for table in _PARTS}
        strays = set().union(*stored.values()).difference(numbers)
        if strays:
            raise _misses(study, after, numbers, strays, where)
        of_block = range(start + 1, min(start + _BLOCK, last) + 1)
        stored[entries] = {number: heads[number] for number in of_block}
        read += [_checked(header, number, stored, where) for number in of_block]
    return read


def _by_entry(
    connection: sa.Connection, table: sa.Table, study: str, after: int, end: int | None = None
) -> dict[int, list[Any]]:
    """Rows of a table, in the order of their key, by number of their entry."""
    # Ordered by entry, which is an index, so that older rows are not read.
    wanted = (table.c.study == study) & (table.c.entry > after)
    if end is not None:
        wanted &= table.c.entry <= end
    query = sa.select(*(column for column in table.columns if column.name != "study"))
    result = connection.execute(
        query.where(wanted).order_by(table.c.entry, *table.primary_key.columns)
    )
    # All at once: row by row they take twice as long.
    number_of = itemgetter(list(result.keys()).index("entry"))
    return {number: list(rows) for number, rows in groupby(result.all(), number_of)}


def _numbers_of_parts(connection: sa.Connection, study: str, after: int) -> set[int]:
    numbers: set[int] = set()
    for table in _PARTS:
        query = sa.select(table.c.entry).where(table.c.study == study, table.c.entry > after)
        numbers.update(connection.scalars(query.distinct()))
    return numbers


def _misses(
    study: str, after: int, numbers: list[int], parts: set[int], where: str
) -> JournalCorruptError:
    strays = sorted(parts.difference(numbers), key=repr)[:5]
    return JournalCorruptError(
        f"the journal {where} misses entries of study {study!r}: after {after} it holds "
        f"{numbers[:5]}... and parts of {strays}; restore it from a backup"
    )


def _checked(header: StudyHeader, number: int, stored: _RowsByEntry, where: str) -> Entry:
    row = stored[entries][number][0]
    name = f"entry {number} of study {header.study!r} in {where}"
    try:
        entry = _assemble(row, number, stored, name)
    except (IndexError, KeyError, TypeError) as error:
        raise JournalCorruptError(
            f"{name}, of kind {row.kind!r}, is incomplete: {type(error).__name__}: {error}; "
            f"{_RESTORE}"
        ) from None
    reason = flaw(entry)
    if reason is None and digest(header, number, entry) != row.digest:
        reason = "its values are not those that were written"
    if reason is not None:
        raise JournalCorruptError(f"{name} is damaged: {reason}; {_RESTORE}")
    return entry


def _assemble(row: Any, number: int, stored: _RowsByEntry, name: str) -> Entry:
    match row.kind:
        case "configured":
            return Configured(row.details)
        case "born":
            c = stored[candidates][number][0]
            return CandidateAdded(c.candidate, c.round, c.origin, tuple(c.theta), c.parameters)
        case "planned":
            arms = _columns(stored[plans][number])
            return Planned(
                row.round,
                arms["candidate"],
                arms["slots"],
                arms["share"],
                row.details["trigger"],
                row.details["details"],
            )
        case "received":
            rows = stored[readings].get(number, [])
            if len(rows) != row.details["rows"]:
                raise JournalCorruptError(
                    f"{name} received {row.details['rows']} readings, {len(rows)} are stored; "
                    f"{_RESTORE}"
                )
            return _received(rows)
        case "decided":
            d = stored[decisions][number][0]
            return Decision(d.round, d.kind, d.reason, d.details)
        case "compacted":
            details = row.details
            rounds, messages = tuple(details["rounds"]), tuple(details["messages"])
            return Compacted(rounds, messages, details["rows"], details["evidence"])
    raise JournalCorruptError(
        f"{name} is of the unknown kind {row.kind!r}; it may come from a newer version"
    )


def _received(rows: Sequence[Any]) -> ReadingsReceived:
    fields = ("round", "candidate", "metric", "revision", "count", "mean", "var")
    columns = _columns(rows) if rows else dict.fromkeys(fields, ())
    return ReadingsReceived(**{name: columns[name] for name in fields})


def _columns(rows: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """Rows of a table, at least one, as columns by name."""
    return dict(zip(rows[0]._fields, zip(*rows)))
