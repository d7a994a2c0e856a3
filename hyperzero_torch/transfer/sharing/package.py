"""A transfer package: one domain's evidence in one JSON file, for named uses and a limited time.

What is in it are settings, deltas with their variances, and meta-features: sums over many users,
nothing of a single one, and never the address that the evidence was read from. Whether sums alone
protect a user is what ``privacy`` is for.

The file is canonical: there is exactly one text for its content. So the checksum covers every
byte, blanks and the order of keys among them. A checksum finds accidents; whoever can change a
file can compute it anew. A key that both sides share (``key``) finds that too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...errors import ConfigError
from ...runtime.files import write_atomically
from .. import checks
from ..source import Source
from . import canonical
from .terms import Terms, check_key, end_of, origin_of, utc

SCHEMA = "hyperzero-transfer/1"
# Clocks of two machines may differ by so much.
_CLOCK = timedelta(minutes=5)
_FIELDS = {"schema", "source", "scopes", "created", "expires", "privacy", "hmac", "sha256"}
_SOURCE = {"name", "parameters", "metrics", "mean", "var", "meta_features"} | {
    "num_rounds", "base", "shared",
}  # fmt: skip


@dataclass(frozen=True)
class Package:
    """What a file held and what may be done with it.

    ``privacy`` is what was spent on noise (``privacy.Budget.statement``), None for none.
    ``sha256`` identifies the package in the journal; ``authentic`` says that a key was checked.
    """

    source: Source
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    privacy: Mapping[str, Any] | None
    sha256: str
    authentic: bool


def export(
    source: Source,
    path: str | Path,
    expires: datetime | timedelta,
    scopes: Sequence[str],
    *,
    privacy: Mapping[str, Any] | None = None,
    key: bytes | None = None,
    now: datetime | None = None,
) -> str:
    """Write a source as a package, in one step: the whole file or none.

    Args:
        source: the evidence; its ``origin`` stays at home.
        path: of the file; a package that is there is replaced, nothing else is.
        expires: when it may no longer be used: a time with its zone, or a span from ``now``.
        scopes: what it may be used for, e.g. ``["feed-ranking/eu"]``.
        privacy: plain JSON values on the noise that the evidence carries.
        key: shared with those who import it, at least 16 bytes: then they can tell that it is
            yours.
        now: the present, with its zone; by default the clock's.
    Returns:
        Its SHA-256, for the journal.
    Raises:
        ConfigError: what is no source, scopes, times or a key that cannot be, a file that cannot
            be written, or one that holds something else.
    """
    terms = check_export(path, expires, scopes, key=key, now=now)
    flaws = checks.Flaws("this package")
    if not isinstance(source, Source):
        flaws.add(f"source must be a Source, got {type(source).__name__}")
    if privacy is not None and not isinstance(privacy, Mapping):
        flaws.add(f"privacy must map names to plain values, got {checks.brief(privacy)}")
    flaws.throw()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "source": _to_plain(source),
        "scopes": list(terms.scopes),
        "created": terms.created.isoformat(),
        "expires": terms.expires.isoformat(),
        "privacy": None if privacy is None else dict(privacy),
    }
    document["hmac"] = None if key is None else canonical.signature(document, key)
    document = canonical.sealed(document)
    written = canonical.text(document)
    if len(written) > canonical.MOST_BYTES:
        raise ConfigError(
            f"this package would be larger than {canonical.MOST_BYTES >> 20} MiB; export fewer "
            "settings, or a source without ``shared``"
        )
    write_atomically(terms.path, written)
    return str(document["sha256"])


class Ready(NamedTuple):
    """Where a package will be written, for what, and its times."""

    path: Path
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime


def check_export(
    path: str | Path,
    expires: datetime | timedelta,
    scopes: Sequence[str],
    *,
    key: bytes | None = None,
    now: datetime | None = None,
) -> Ready:
    """Refuse all that ``export`` would refuse of its arguments, before noise is paid for.

    Args:
        path, expires, scopes, key, now: as of ``export``.
    Raises:
        ConfigError: scopes, times or a key that cannot be, or a place that cannot be written to,
            or that holds something other than a package.
    """
    flaws = checks.Flaws("this package")
    kept = checks.names(flaws, "scopes", scopes)
    created = utc(flaws, "now", datetime.now(UTC) if now is None else now)
    check_key(flaws, key)
    end = end_of(flaws, created, expires)
    if end <= created:
        flaws.add(f"expires {end.isoformat()} is not after now, {created.isoformat()}")
    flaws.throw()
    return Ready(canonical.check_free(path, "the package", SCHEMA), kept, created, end)


def load(
    path: str | Path, scope: str, *, key: bytes | None = None, now: datetime | None = None
) -> Package:
    """Read a package, if it is whole, in force, and meant for this use.

    The source's ``origin`` holds the package's terms (``terms_of``), so that a journal that knows
    the source knows until when and for what it was given.

    Args:
        path: of the file.
        scope: what it is to be used for; one of those that its maker named.
        key: if given, the package must have been made with it.
        now: the present, with its zone; by default the clock's.
    Raises:
        PackageError: no such file, no package, another schema, changed since it was made, made
            with another key or none, expired or from the future, for other uses, or with a source
            that cannot be.
        ConfigError: a path, a key or a time that cannot be.
    """
    found = look(path, key=key)
    in_force(found, scope, now=now, what=_called(path))
    return found


def look(path: str | Path, *, key: bytes | None = None) -> Package:
    """Read a package to see what it is: whole and authentic, but perhaps expired; not for use.

    Args:
        path: of the file.
        key: if given, the package must have been made with it.
    Raises:
        PackageError: as for ``load``, but for its time and scope.
        ConfigError: a path or a key that cannot be.
    """
    place, what = canonical.as_path(path, "a package"), _called(path)
    flaws = checks.Flaws(what)
    check_key(flaws, key)
    flaws.throw()
    document = canonical.read(place, what, SCHEMA, _FIELDS)
    if key is not None:
        _check_signature(what, document, key)
    try:
        created, expires = canonical.time(document["created"]), canonical.time(document["expires"])
        scopes, privacy = _scopes(document["scopes"]), _privacy(document["privacy"])
        terms = Terms(document["sha256"], scopes, created, expires, privacy)
        source = _from_plain(document["source"], origin_of(terms))
    except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise canonical.refused(what, f"its content cannot be read ({error})") from None
    return Package(source, scopes, created, expires, privacy, terms.sha256, key is not None)


def in_force(
    package: Package, scope: str, *, now: datetime | None = None, what: str = "the package"
) -> None:
    """Refuse a package whose time is over or has not come, or that is not meant for this use.

    Args:
        package: as ``look`` gives it.
        scope: what it is to be used for.
        now: the present, with its zone; by default the clock's.
        what: it is called, for messages.
    Raises:
        PackageError: expired, from the future, or for other uses.
        ConfigError: a time without its zone.
    """
    flaws = checks.Flaws(what)
    present = utc(flaws, "now", datetime.now(UTC) if now is None else now)
    flaws.throw()
    created, expires, scopes = package.created, package.expires, package.scopes
    if present >= expires:
        raise canonical.refused(
            what, f"it expired at {expires.isoformat()}, it is {present.isoformat()}; ask for a new"
        )
    if created - present > _CLOCK:  # no sum, which could pass the first of all dates
        raise canonical.refused(
            what,
            f"it was made at {created.isoformat()}, and it is {present.isoformat()}: compare the "
            "clocks of both machines",
        )
    if scope not in scopes:
        raise canonical.refused(
            what, f"it may be used for {list(scopes)}, not for {scope!r}; ask its maker for that"
        )


def _called(path: str | Path) -> str:
    return f"package {str(path)!r}"


def _check_signature(what: str, document: Mapping[str, Any], key: bytes) -> None:
    signed = {n: v for n, v in document.items() if n not in ("sha256", "hmac")}
    if document["hmac"] is None:
        raise canonical.refused(what, "it was made without a key, and a key was demanded")
    if not canonical.same(document["hmac"], canonical.signature(signed, key)):
        raise canonical.refused(
            what, "it was made with another key, or changed by somebody without it"
        )


def _to_plain(source: Source) -> dict[str, Any]:
    def numbers(tensor: torch.Tensor) -> list[Any]:
        rows = torch.where(tensor.isfinite(), tensor, 0.0).tolist()
        known = tensor.isfinite().tolist()
        return [[v if k else None for v, k in zip(*row)] for row in zip(rows, known)]

    return {
        "name": source.name,
        "parameters": [dict(row) for row in source.parameters],
        "metrics": list(source.metrics),
        "mean": numbers(source.mean),
        "var": numbers(source.var),
        "meta_features": dict(source.meta_features),
        "num_rounds": source.num_rounds,
        "base": None if source.base is None else dict(source.base),
        "shared": None if source.shared is None else [_triangle(m) for m in source.shared.tolist()],
    }


def _from_plain(plain: Any, origin: str) -> Source:
    if not isinstance(plain, dict) or set(plain) != _SOURCE:
        raise ValueError(f"a source has the fields {sorted(_SOURCE)}")

    def numbers(rows: Any) -> list[list[float]]:
        return [[math.nan if v is None else v for v in row] for row in rows]

    given = plain | {"mean": numbers(plain["mean"]), "var": numbers(plain["var"])}
    if given["shared"] is not None:
        given["shared"] = [_square(m) for m in given["shared"]]
    return Source(**given, origin=origin)


def _privacy(written: Any) -> dict[str, Any] | None:
    if written is not None and not isinstance(written, dict):
        raise TypeError(f"privacy is an object or null, got {checks.brief(written)}")
    return written


def _scopes(written: Any) -> tuple[str, ...]:
    if not isinstance(written, list):
        raise TypeError(f"scopes is a list of names, got {checks.brief(written)}")
    flaws = checks.Flaws("its terms")
    found = checks.names(flaws, "scopes", written)
    flaws.throw()
    return found


def _triangle(square: list[list[float]]) -> list[list[float]]:
    """The half of a symmetric matrix that says it all."""
    return [row[: i + 1] for i, row in enumerate(square)]


def _square(triangle: list[list[float]]) -> list[list[float]]:
    size = range(len(triangle))
    return [[triangle[max(i, j)][min(i, j)] for j in size] for i in size]
