"""Files in a canonical form: one text for one content, with a checksum over all of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import ConfigError, PackageError
from ...runtime.places import Kind, check_place, json_object

MOST_BYTES = 2**28


def text(document: Mapping[str, Any]) -> str:
    """The one text of a document: ASCII, keys sorted, and nothing but finite numbers.

    Raises:
        ConfigError: values that JSON does not have.
    """
    try:
        return json.dumps(document, sort_keys=True, indent=0, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"this cannot be written as JSON: {error}") from None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the SHA-256 of its text, under ``"sha256"``."""
    return {**document, "sha256": hashlib.sha256(text(document).encode()).hexdigest()}


def same(a: Any, b: str) -> bool:
    """Whether two digests are equal, in constant time."""
    # A digest is ASCII; other text may not even be encodable.
    return isinstance(a, str) and hmac.compare_digest(a.encode(errors="replace"), b.encode())


def refused(what: str, why: str) -> PackageError:
    """The error for a file that is not used."""
    return PackageError(f"{what} is refused: {why}")


def as_path(path: Any, what: str) -> Path:
    """The path of a file.

    Raises:
        ConfigError: not a path.
    """
    named = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(named, str) or not named.strip() or "\0" in named:
        raise ConfigError(f"{what} must be the path of a file, got {path!r:.60}")
    return Path(named)


def check_free(path: Any, what: str, schema: str) -> Path:
    """A path where a file of this kind may be written without overwriting anything else.

    Args:
        schema: of the file; an existing file of the same family may be replaced.
    Raises:
        ConfigError: not a path, no folder or none that can be written to, or a file that holds
            something else.
    """
    place, family = as_path(path, what), schema.partition("/")[0]

    def is_own(content: bytes) -> bool:
        document = json_object(content) or {}
        return str(document.get("schema")).partition("/")[0] == family

    check_place(place, f"{what} {str(place)!r:.80}", Kind(what.replace("the ", "a "), is_own))
    return place


def read(
    path: Path,
    what: str,
    schema: str | tuple[str, ...],
    fields: set[str] | None,
    again: str = "fetch it again",
) -> dict[str, Any]:
    """The document in a file, if it has this schema and is unchanged.

    Args:
        schema: that is expected; the first of several is today's.
        fields: that it has, ``"schema"`` and ``"sha256"`` included; None where the caller checks.
        again: advice on how to get an undamaged copy.
    Raises:
        PackageError: no such file, not canonical, another schema, other fields, or a wrong
            checksum.
    """
    schemas = (schema,) if isinstance(schema, str) else schema
    try:
        if path.stat().st_size > MOST_BYTES:
            raise refused(
                what, f"it is larger than the {MOST_BYTES >> 20} MiB that such files have at most"
            )
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise refused(what, f"it cannot be read ({error})") from None
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refused(what, f"it is not valid JSON ({error}); {again}") from None
    if not isinstance(document, dict) or "schema" not in document:
        raise refused(what, f"it is other JSON, without the schema {schemas[0]!r}")
    if document["schema"] not in schemas:
        raise refused(
            what,
            f"its schema is {document['schema']!r:.60}, this version reads {schemas[0]!r}; ask for "
            "it in this schema",
        )
    try:  # the canonical text of the content must be the file
        whole = text(document).encode() == raw
    except ConfigError as error:
        raise refused(what, f"it is not valid JSON ({error}); {again}") from None
    if not whole:
        raise refused(what, f"it was changed after it was written; {again}")
    if fields is not None and set(document) != fields:
        raise refused(what, f"its fields are {sorted(document)}, expected {sorted(fields)}")
    rest = {name: value for name, value in document.items() if name != "sha256"}
    if not same(document.get("sha256"), str(sealed(rest)["sha256"])):
        raise refused(what, f"its checksum does not match its content; {again}")
    return dict(document)


def time(written: str) -> datetime:
    """A time with its zone, as ``isoformat`` wrote it; raises ``ValueError``."""
    parsed = datetime.fromisoformat(written)
    if parsed.utcoffset() is None:
        raise ValueError(f"a time without a zone, {written!r}")
    return parsed


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
