"""What a journal stores of an entry: the row of ``entries``, and its rows in the other tables.

Every storage takes the values from here, so that all of them have one digest and one chain. A
digest of every entry detects changed values when it is read; ``chain`` has the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

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
    kind_of,
    values_of,
)

#: Rows by the name of their table.
Parts: TypeAlias = dict[str, list[dict[str, Any]]]

#: Tables with parts of entries, and their columns but for the study: first those of the key.
PARTS: Mapping[str, tuple[str, ...]] = {
    "candidates": ("candidate", "entry", "round", "origin", "theta", "parameters"),
    "plans": ("round", "candidate", "entry", "slots", "share"),
    "readings": (
        *("round", "candidate", "metric", "revision"),
        *("entry", "count", "mean", "var"),
    ),
    "decisions": ("entry", "round", "kind", "reason", "details"),
}
#: How many of these columns are the key.
KEYS: Mapping[str, int] = {"candidates": 1, "plans": 2, "readings": 4, "decisions": 1}
#: Columns that hold JSON.
JSON_COLUMNS = ("theta", "parameters", "details")


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


def split(study: str, number: int, entry: Entry, at: str) -> tuple[dict[str, Any], Parts]:
    """The row of an entry, but for its digest, and its rows in the other tables."""
    key: dict[str, Any] = {"study": study, "entry": number}
    parts: Parts = {}
    round_, details = _split(entry, key, parts)
    row = {"kind": kind_of(entry), "round": round_, "at": at, "details": dict(details)}
    return key | row, parts


def reduced(
    header: StudyHeader, row: Mapping[str, Any], rest: ReadingsReceived
) -> dict[str, dict[str, Any] | str]:
    """The columns of a message that change where some of its readings are deleted.

    The original digest of a message stays beside the digest of the rest.
    """
    first = row["details"].get("first_digest", row["digest"])
    return {
        "details": {"rows": len(rest.round), "first_digest": first},
        "digest": digest(header, row["entry"], rest),
    }


def _split(
    entry: Entry, key: Mapping[str, Any], parts: Parts
) -> tuple[int | None, Mapping[str, Any]]:
    """An entry's round and details; its other values are added to the rows of its table."""
    match entry:
        case Configured():
            return None, entry.config
        case CandidateAdded():
            plain = {"theta": list(map(float, entry.theta)), "parameters": dict(entry.parameters)}
            parts["candidates"] = [{**key, **values_of(entry), **plain}]
            return entry.round, {}
        case Compacted():
            return None, {**values_of(entry), "evidence": dict(entry.evidence)}
        case Planned():
            parts["plans"] = [
                {**key, "round": entry.round, "candidate": c, "slots": k, "share": float(s)}
                for c, k, s in zip(entry.candidates, entry.slots, entry.shares)
            ]
            return entry.round, {"trigger": entry.trigger, "details": dict(entry.details)}
        case ReadingsReceived():
            columns = {
                name: map(float, value) if name in FLOATS else value
                for name, value in values_of(entry).items()
            }
            parts["readings"] = [
                {**key, **dict(zip(columns, values))} for values in zip(*columns.values())
            ]
            return None, {"rows": len(entry.round)}
        case Decision():
            details = dict(entry.details)
            parts["decisions"] = [{**key, **values_of(entry), "details": details}]
            return entry.round, {}
