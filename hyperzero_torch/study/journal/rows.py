"""Entries as rows of the tables, and rows as entries.

Numbers are stored as 8-byte floats: what is read back is bit for bit what was written, and a digest
with every entry notices where it is not.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    kind_of,
    values_of,
)
from .schema import candidates, decisions, entries, plans, readings

_NUMBERS = ("theta", "shares", "count", "mean", "var")
_RESTORE = "restore the journal from a backup"
_Rows: TypeAlias = dict[sa.Table, list[dict[str, Any]]]
_Found: TypeAlias = dict[sa.Table, dict[int, list[Any]]]  # by the number of their entry


def digest(header: StudyHeader, number: int, entry: Entry) -> str:
    """A checksum of an entry, its number and its study: databases keep none of their own."""
    values = {
        name: list(map(float, value)) if name in _NUMBERS else value
        for name, value in values_of(entry).items()
    }
    values |= {name: dict(value) for name, value in values.items() if isinstance(value, Mapping)}
    study = [header.study, header.seed, dict(header.problem)]
    text = json.dumps([study, number, kind_of(entry).capitalize(), values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write(connection: sa.Connection, header: StudyHeader, new: Sequence[Entry], after: int) -> None:
    """Insert all rows of the entries, a table at a time."""
    rows: _Rows = defaultdict(list)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for number, entry in enumerate(new, start=after + 1):
        key: dict[str, Any] = {"study": header.study, "entry": number}
        round_, details = _split(entry, key, rows)
        rows[entries].append(
            key
            | {"kind": kind_of(entry), "round": round_, "at": now}
            | {"details": details, "digest": digest(header, number, entry)}
        )
    for table, values in rows.items():
        if values:
            connection.execute(table.insert(), values)
    for entry in new:
        if isinstance(entry, Compacted):
            _forget(connection, header, entry)


def _forget(connection: sa.Connection, header: StudyHeader, compacted: Compacted) -> None:
    """Delete the readings of compacted rounds; their messages stay, with what is left of them.

    The first digest of a message stays beside the one of what is left: it shows that what was
    deleted is what had been received.
    """
    of_study = readings.c.study == header.study
    gone = of_study & readings.c.round.in_(compacted.rounds)
    numbers = connection.scalars(sa.select(readings.c.entry).where(gone).distinct()).all()
    connection.execute(sa.delete(readings).where(gone))
    for number in sorted(numbers):
        of_entry = (entries.c.study == header.study) & (entries.c.entry == number)
        row = connection.execute(sa.select(entries).where(of_entry)).one()
        query = sa.select(readings).where(of_study, readings.c.entry == number)
        left = _received(connection.execute(query.order_by(*readings.primary_key.columns)).all())
        first = row.details.get("first_digest", row.digest)
        told = {"rows": len(left.round), "first_digest": first}
        changes = {"details": told, "digest": digest(header, number, left)}
        connection.execute(sa.update(entries).where(of_entry).values(**changes))


def read(connection: sa.Connection, header: StudyHeader, after: int, where: str) -> list[Entry]:
    """The entries numbered above ``after``, in order.

    Raises:
        JournalCorruptError: rows are missing, too many, or not those that were written.
    """
    study = header.study
    found: _Found = {}
    for table in (entries, candidates, plans, readings, decisions):
        # By entry first: that is an index, and what is older than the entries is not looked at.
        query = sa.select(table).where(table.c.study == study, table.c.entry > after)
        rows: dict[int, list[Any]] = defaultdict(list)
        for row in connection.execute(query.order_by(table.c.entry, *table.primary_key.columns)):
            rows[row.entry].append(row)
        found[table] = rows
    numbers = list(found[entries])
    strays = set().union(*found.values()).difference(numbers)
    if numbers != list(range(after + 1, after + 1 + len(numbers))) or strays:
        raise JournalCorruptError(
            f"the journal {where} misses entries of study {study!r}: after {after} it holds "
            f"{numbers[:5]}... and parts of {sorted(strays, key=repr)[:5]}; restore it from a "
            "backup"
        )
    if not numbers and after == 0:
        raise JournalCorruptError(
            f"the journal {where} has lost all entries of study {study!r}; restore it from a backup"
        )
    return [_checked(header, number, found, where) for number in numbers]


def _split(
    entry: Entry, key: Mapping[str, Any], rows: _Rows
) -> tuple[int | None, Mapping[str, Any]]:
    """An entry's round and details; what it has of its own goes to the rows of its table."""
    match entry:
        case Configured():
            return None, dict(entry.config)
        case CandidateAdded():
            born = {"theta": list(map(float, entry.theta)), "parameters": dict(entry.parameters)}
            rows[candidates].append({**key, **values_of(entry), **born})
            return entry.round, {}
        case Compacted():
            return None, {**values_of(entry), "evidence": dict(entry.evidence)}
        case Planned():
            rows[plans].extend(
                {**key, "round": entry.round, "candidate": c, "slots": k, "share": float(s)}
                for c, k, s in zip(entry.candidates, entry.slots, entry.shares)
            )
            return entry.round, {"trigger": entry.trigger, "details": dict(entry.details)}
        case ReadingsReceived():
            columns = {
                name: map(float, value) if name in _NUMBERS else value
                for name, value in values_of(entry).items()
            }
            rows[readings].extend(
                {**key, **dict(zip(columns, values))} for values in zip(*columns.values())
            )
            return None, {"rows": len(entry.round)}
        case Decision():
            rows[decisions].append({**key, **values_of(entry), "details": dict(entry.details)})
            return entry.round, {}


def _checked(header: StudyHeader, number: int, found: _Found, where: str) -> Entry:
    row = found[entries][number][0]
    name = f"entry {number} of study {header.study!r} in {where}"
    try:
        entry = _assemble(row, number, found, name)
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


def _assemble(row: Any, number: int, found: _Found, name: str) -> Entry:
    match row.kind:
        case "configured":
            return Configured(row.details)
        case "born":
            c = found[candidates][number][0]
            return CandidateAdded(c.candidate, c.round, c.origin, tuple(c.theta), c.parameters)
        case "planned":
            arms = found[plans][number]
            return Planned(
                row.round,
                tuple(a.candidate for a in arms),
                tuple(a.slots for a in arms),
                tuple(a.share for a in arms),
                row.details["trigger"],
                row.details["details"],
            )
        case "received":
            rows = found[readings].get(number, [])
            if len(rows) != row.details["rows"]:
                raise JournalCorruptError(
                    f"{name} received {row.details['rows']} readings, {len(rows)} are stored; "
                    f"{_RESTORE}"
                )
            return _received(rows)
        case "decided":
            d = found[decisions][number][0]
            return Decision(d.round, d.kind, d.reason, d.details)
        case "compacted":
            told = row.details
            rounds, messages = tuple(told["rounds"]), tuple(told["messages"])
            return Compacted(rounds, messages, told["rows"], told["evidence"])
    raise JournalCorruptError(
        f"{name} is of the unknown kind {row.kind!r}; it may come from a newer version"
    )


def _received(rows: Sequence[Any]) -> ReadingsReceived:
    fields = ("round", "candidate", "metric", "revision", "count", "mean", "var")
    return ReadingsReceived(**{f: tuple(getattr(r, f) for r in rows) for f in fields})
