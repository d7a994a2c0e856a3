"""Until when and for what a package may be used: in its file, and in a journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .. import checks
from . import canonical

_ORIGIN = "package "


class Terms(NamedTuple):
    """A package's own statements, which its source's ``origin`` keeps in every journal."""

    sha256: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    privacy: Mapping[str, Any] | None
    version: int | None = None
    signer: str | None = None


def terms_of(origin: str) -> Terms | None:
    """The terms of the package that a source came from; None for any other origin."""
    if not origin.startswith(_ORIGIN):
        return None
    try:
        plain = json.loads(origin.removeprefix(_ORIGIN))
        return Terms(
            str(plain["sha256"]),
            tuple(map(str, plain["scopes"])),
            canonical.time(plain["created"]),
            canonical.time(plain["expires"]),
            None if plain["privacy"] is None else dict(plain["privacy"]),
            None if plain.get("version") is None else int(plain["version"]),
            None if plain.get("signer") is None else str(plain["signer"]),
        )
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None  # another origin that begins with the same word


def origin_of(terms: Terms) -> str:
    """Terms as a source's origin."""
    times = {"created": terms.created.isoformat(), "expires": terms.expires.isoformat()}
    return _ORIGIN + json.dumps(terms._asdict() | times)


def utc(flaws: checks.Flaws, what: str, time: Any) -> datetime:
    """A time with its zone, in UTC; otherwise a fault, and the latest possible time."""
    try:
        if isinstance(time, datetime) and time.utcoffset() is not None:
            return time.astimezone(UTC)
        flaws.add(f"{what} must be a datetime with its zone, e.g. datetime.now(UTC), got {time!r}")
    except OverflowError:
        flaws.add(f"{what}: {time} is outside the range of dates in UTC")
    return datetime.max.replace(tzinfo=UTC)


def end_of(flaws: checks.Flaws, created: datetime, expires: Any) -> datetime:
    """When a package expires: a time with its zone, or a span from its creation."""
    if not isinstance(expires, timedelta):
        return utc(flaws, "expires", expires)
    try:
        return created + expires
    except OverflowError:
        flaws.add(f"expires: {expires} from now is outside the range of dates")
        return datetime.max.replace(tzinfo=UTC)


def why_older(before: Terms | None, now: Terms | None) -> str | None:
    """Why a package may not replace the last one of its source; None where it may.

    Args:
        before: the terms of the last package that was learned from; None where there was none.
        now: those of the package at hand; None where the source is no package.
    """
    if before is None or now is None or now.sha256 == before.sha256:
        return None
    if before.signer is not None and now.signer is None:
        return f"it is not signed, and the last one was signed by {before.signer}"
    if before.version is None or now.version is None or now.version > before.version:
        return None
    if now.version == before.version:
        return f"another package of the same version, {now.version}, was learned from"
    return f"its version {now.version} is older than {before.version}, the last one learned from"
