"""The hash chain of a study's entries.

    leaf_n = H(every stored column of entry n, in every table)
    link_n = H(link_{n-1}, leaf_n)             H = SHA-256, or HMAC-SHA-256 where there is a key
    link_0 = H(the header, the names of the metrics, where the chain begins)

A leaf holds the names of its study and its number. So a changed column, a deleted entry, and
entries in another order do not fit the links. That the last entries are missing is seen only by
somebody who has noted a later link, the head, elsewhere.

A compaction deletes readings, so their leaves cannot be computed any more. Its own entry keeps, for
each message that it reduced, the leaf before and the leaf after it (``replaced``). These are part
of the compaction's leaf.

What is hashed never changes: links that are stored have to verify for ever.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ...errors import JournalError
from .base import StudyHeader
from .columns import JSON_COLUMNS, KEYS, PARTS, Parts
from .keys import KEY_FILE_VARIABLE, KEY_VARIABLE, KeyRing, key_id

#: In the details of a compaction's row: by number of the message, the leaves before and after.
REPLACED = "replaced"
_PLAIN, _KEYED = "sha256", "hmac-"
_COLUMNS_OF = {name: itemgetter(*columns) for name, columns in PARTS.items()}
_KEY_OF = {name: itemgetter(*columns[: KEYS[name]]) for name, columns in PARTS.items()}


@dataclass(frozen=True)
class Beginning:
    """Where a chain begins: the number of entries that were there before, and when."""

    entries_before: int
    at: str


def leaf(row: Mapping[str, Any], parts: Parts) -> str:
    """The hash of everything that is stored of an entry.

    Args:
        row: of ``entries``.
        parts: the rows of the other tables, ascending by their keys.
    """
    columns = ("study", "entry", "kind", "round", "at")
    tables = {name: _values(name, rows) for name, rows in parts.items() if rows}
    values = [*(row[c] for c in columns), _plain("details", row["details"]), row["digest"], tables]
    return _hash(values)


def in_order(parts: Parts) -> Parts:
    """The rows of each table, ascending by their key."""
    return {name: sorted(rows, key=_KEY_OF[name]) for name, rows in parts.items()}


def first_link(
    header: StudyHeader,
    metric_rows: Sequence[Sequence[Any]],
    begins: Beginning,
    ring: KeyRing,
) -> str:
    """The link before the first entry.

    Args:
        metric_rows: index and name of each metric, as they are stored for queries.
        begins: where the chain begins.
        ring: the keys.
    """
    return next_link("", first_leaf(header, metric_rows, begins), ring)


def first_leaf(header: StudyHeader, metric_rows: Sequence[Sequence[Any]], begins: Beginning) -> str:
    """The hash of what is stored of a study beside its entries."""
    problem = _round_trip(header.problem)
    rows = sorted(map(list, metric_rows), key=repr)
    return _hash([header.study, header.seed, problem, rows, begins.entries_before, begins.at])


def journal_leaf(version: Any, package: Any, at: Any) -> str:
    """The hash of what is stored of a journal beside its studies."""
    return _hash([version, package, at])


def next_link(previous: str, leaf: str, ring: KeyRing) -> str:
    """The link after ``previous``, by the first key; by a plain hash where there is no key."""
    if not ring.keys:
        return f"{_PLAIN}:{hashlib.sha256(_joined(previous, leaf)).hexdigest()}"
    return _signed(previous, leaf, ring.keys[0])


def fits(link: str, previous: str, leaf: str, ring: KeyRing) -> bool:
    """Whether a link is that of these, by the key that it names."""
    id_ = signer(link)
    key = None if id_ is None else ring.find(id_)
    if id_ is not None and key is None:
        return False
    right = next_link(previous, leaf, KeyRing()) if key is None else _signed(previous, leaf, key)
    return hmac.compare_digest(link.encode(errors="replace"), right.encode())


def signer(link: str) -> str | None:
    """The id of the key that signed a link; None where it is a plain hash."""
    head = link.partition(":")[0]
    return head.removeprefix(_KEYED) if head.startswith(_KEYED) else None


def check_writer(study: str, link: str, ring: KeyRing, sign: bool = False) -> None:
    """Refuse to add entries without a key, or with a foreign one, to a chain that is signed.

    Entries with a key are not added to a chain that is not signed either: whoever has computed the
    chain anew would only have to wait for the next one.

    Args:
        study: its name.
        link: the last one.
        ring: the keys.
        sign: whether a person wants the chain to be signed from here on.
    Raises:
        JournalError: it is refused.
    """
    id_ = signer(link)
    if id_ is None and ring.keys and not sign:
        raise JournalError(
            f"the chain of study {study!r} is not signed, and this process has a key, whose "
            "signature would vouch for entries that anybody may have written; nothing was written. "
            "If the key is new, check the journal and sign from here on: hyperzero verify JOURNAL "
            "--head HEAD --sign"
        )
    if id_ is None or ring.find(id_) is not None:
        return
    have = f"holds {ring!r}" if ring.keys else "is not set"
    raise JournalError(
        f"the chain of study {study!r} is signed with the key {id_}, and the key of this process "
        f"{have}: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE} (to change the key, put the new one "
        "before the old one); nothing was written"
    )


def _signed(previous: str, leaf: str, key: bytes) -> str:
    mac = hmac.new(key, _joined(previous, leaf), hashlib.sha256).hexdigest()
    return f"{_KEYED}{key_id(key)}:{mac}"


def _joined(previous: str, leaf: str) -> bytes:
    return f"{previous}\n{leaf}".encode(errors="replace")


def _hash(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _values(table: str, rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
    """The rows of a table as the values of their columns, in the order of ``PARTS``."""
    if not set(PARTS[table]).intersection(JSON_COLUMNS):
        return list(map(_COLUMNS_OF[table], rows))
    return [[_plain(c, row[c]) for c in PARTS[table]] for row in rows]


def _plain(column: str, value: Any) -> Any:
    return _round_trip(value) if column in JSON_COLUMNS else value


def _round_trip(value: Any) -> Any:
    """A value as it is read back from JSON, e.g. with keys that are texts."""
    if isinstance(value, Mapping) and not isinstance(value, dict):
        value = dict(value)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError):  # damaged: fits no link
        return repr(value)
