"""Files of which there is exactly one text for one content, with a checksum over all of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ConfigError, PackageError

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


def signature(document: Mapping[str, Any], key: bytes) -> str:
    """HMAC-SHA-256 of a document's text."""
    return hmac.new(key, text(document).encode(), hashlib.sha256).hexdigest()


def same(a: Any, b: str) -> bool:
    """Whether two digests are equal, in a time that does not tell how much of them is."""
    return isinstance(a, str) and hmac.compare_digest(a.encode(), b.encode())


def refused(what: str, why: str) -> PackageError:
    """The error for a file that is not used."""
    return PackageError(f"{what} is refused: {why}")


def read(path: str | Path, what: str, schema: str, fields: set[str]) -> dict[str, Any]:
    """The document in a file, if it is of this schema and as it was written.

    Args:
        path: of the file.
        what: it is, for messages.
        schema: that is read.
        fields: that it has, ``"schema"`` and ``"sha256"`` among them.
    Raises:
        PackageError: no such file, not canonical, another schema, other fields, or a checksum
            that does not fit.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise refused(what, f"it is larger than {MOST_BYTES >> 20} MiB, none of ours is")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise refused(what, f"it cannot be read ({error})") from None
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        # What was parsed must be all that was there.
        whole = isinstance(document, dict) and text(document).encode() == raw
    except (ValueError, RecursionError) as error:
        raise refused(what, f"it is no JSON of ours ({error}); fetch it again") from None
    if not whole:
        raise refused(what, "it is not as it was written, a byte was changed; fetch it again")
    if document.get("schema") != schema:
        raise refused(
            what,
            f"its schema is {document.get('schema')!r:.60}, this version reads {schema!r}; have it "
            "written anew",
        )
    if set(document) != fields:
        raise refused(what, f"its fields are {sorted(document)}, expected {sorted(fields)}")
    rest = {name: value for name, value in document.items() if name != "sha256"}
    if not same(document["sha256"], str(sealed(rest)["sha256"])):
        raise refused(what, "its checksum does not fit its content; fetch it again")
    return dict(document)


def time(written: str) -> datetime:
    """A time with its zone, as ``isoformat`` wrote it; raises ``ValueError``."""
    found = datetime.fromisoformat(written)
    if found.utcoffset() is None:
        raise ValueError(f"a time without a zone, {written!r}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
