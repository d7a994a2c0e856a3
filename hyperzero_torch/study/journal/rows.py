"""Conversion between entries and rows of the tables.

Numbers are stored as 8-byte floats, so they are read back bit for bit. A digest of every entry
detects changed values.
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
    FLOATS,
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

_RESTORE = "restore the journal from a backup"
_Rows: TypeAlias = dict[sa.Table, list[dict[str, Any]]]
_RowsByEntry: TypeAlias = dict[sa.Table, dict[int, list[Any]]]


def digest(header: StudyHeader, number: int, entry: Entry) -> str:
    """A checksum of an entry, its number and its study, which databases do not keep."""
    values = {
        name: list(map(float, value)) if name in FLOATS else value
        for name, value in values_of(entry).items()
    }
    values |= {name: dict(value) for name, value in values.items() if isinstance(value, Mapping)}
    study = [header.study, header.seed, dict(header.problem)]
    text = json.dumps([study, number, kind_of(entry).capitalize(), values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write(connection: sa.Connection, header: StudyHeader, new: Sequence[Entry], after: int) -> None:
    """Insert all rows of the entries, table by table."""
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
            _delete_readings(connection, header, entry)


def _delete_readings(connection: sa.Connection, header: StudyHeader, compacted: Compacted) -> None:
    """Delete the readings of compacted rounds; their messages stay with the remaining readings.

    The original digest of a message stays beside the digest of the rest. It proves which readings
    had been received.
    """
    of_study = readings.c.study == header.study
    deleted = of_study & readings.c.round.in_(compacted.rounds)
    numbers = connection.scalars(sa.select(readings.c.entry).where(deleted).distinct()).all()
    connection.execute(sa.delete(readings).where(deleted))
    for number in sorted(numbers):
        of_entry = (entries.c.study == header.study) & (entries.c.entry == number)
        row = connection.execute(sa.select(entries).where(of_entry)).one()
        query = sa.select(readings).where(of_study, readings.c.entry == number)
        rest = _received(connection.execute(query.order_by(*readings.primary_key.columns)).all())
        first = row.details.get("first_digest", row.digest)
        details = {"rows": len(rest.round), "first_digest": first}
        changes = {"details": details, "digest": digest(header, number, rest)}
        connection.execute(sa.update(entries).where(of_entry).values(**changes))


def read(connection: sa.Connection, header: StudyHeader, after: int, where: str) -> list[Entry]:
    """The entries numbered above ``after``, in order.

    Raises:
        JournalCorruptError: rows are missing, superfluous or changed.
    """
    study = header.study
    stored: _RowsByEntry = {}
    for table in (entries, candidates, plans, readings, decisions):
        # Ordered by entry, which is an index, so that older rows are not read.
        query = sa.select(table).where(table.c.study == study, table.c.entry > after)
        rows: dict[int, list[Any]] = defaultdict(list)
        for row in connection.execute(query.order_by(table.c.entry, *table.primary_key.columns)):
            rows[row.entry].append(row)
        stored[table] = rows
    numbers = list(stored[entries])
    strays = set().union(*stored.values()).difference(numbers)
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
    return [_checked(header, number, stored, where) for number in numbers]


def _split(
    entry: Entry, key: Mapping[str, Any], rows: _Rows
) -> tuple[int | None, Mapping[str, Any]]:
    """An entry's round and details; its other values are added to the rows of its table."""
    match entry:
        case Configured():
            return None, dict(entry.config)
        case CandidateAdded():
            plain = {"theta": list(map(float, entry.theta)), "parameters": dict(entry.parameters)}
            rows[candidates].append({**key, **values_of(entry), **plain})
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
                name: map(float, value) if name in FLOATS else value
                for name, value in values_of(entry).items()
            }
            rows[readings].extend(
                {**key, **dict(zip(columns, values))} for values in zip(*columns.values())
            )
            return None, {"rows": len(entry.round)}
        case Decision():
            rows[decisions].append({**key, **values_of(entry), "details": dict(entry.details)})
            return entry.round, {}


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
            arms = stored[plans][number]
            return Planned(
                row.round,
                tuple(a.candidate for a in arms),
                tuple(a.slots for a in arms),
                tuple(a.share for a in arms),
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
    return ReadingsReceived(**{f: tuple(getattr(r, f) for r in rows) for f in fields})
