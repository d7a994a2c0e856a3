"""A transfer package: one domain's evidence in one JSON file, for named uses and a limited time.

It holds settings, deltas with their variances, and meta-features: sums over many users, nothing
about a single one, and never the address that the evidence was read from. Whether sums alone
protect a user is the subject of ``noise``.

The file is canonical: there is exactly one text for its content, so the checksum covers every byte,
including blanks and the order of keys. A checksum detects accidents; anyone who changes a file can
compute it again. A signature (``signing``) detects changes on purpose too. Packages of a source
have rising versions: who has learned from one does not go back to an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ...errors import ConfigError, MissingExtraError, PackageError
from ...runtime.files import write_atomically
from .. import checks
from ..source import Source
from . import canonical
from .revocation import Revocations
from .signing import SigningKey, check_public, check_signature
from .terms import Terms, end_of, origin_of, utc

SCHEMA = "hyperzero-transfer/2"
# Allowed difference between the clocks of two machines.
_CLOCK = timedelta(minutes=5)
_FIELDS = {"schema", "source", "scopes", "created", "expires", "privacy", "version", "sha256"} | {
    "signer", "signature",
}  # fmt: skip
_MOST_VERSION = 2**53
_SOURCE = {"name", "parameters", "metrics", "mean", "var", "meta_features"} | {
    "num_rounds", "base", "shared",
}  # fmt: skip


@dataclass(frozen=True)
class Package:
    """The content of a file and its terms.

    ``privacy`` describes the noise (``budget.Budget.statement``), None without noise. ``sha256``
    identifies the package in the journal. ``signer`` is the public key of its signature, None
    without one; ``authentic`` says whether that is one of the keys that were trusted.
    """

    source: Source
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    privacy: Mapping[str, Any] | None
    sha256: str
    authentic: bool
    version: int
    signer: str | None


def export(
    source: Source,
    path: str | Path,
    expires: datetime | timedelta,
    scopes: Sequence[str],
    *,
    privacy: Mapping[str, Any] | None = None,
    signer: SigningKey | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> str:
    """Write a source as a package, in one step: the whole file or none.

    Args:
        path: of the file; an existing package is replaced, any other file is not.
        expires: when it may no longer be used: a time with its zone, or a span from ``now``.
        scopes: what it may be used for, e.g. ``["feed-ranking/eu"]``.
        privacy: plain JSON values that describe the noise in the evidence.
        signer: the private key, so that those who import it can verify its origin.
        version: rises from package to package of a source; by default the seconds since 1970, or
            one more than that of the package which is replaced.
        now: the present, with its zone; by default the clock's.
    Returns:
        Its SHA-256, for the journal.
    Raises:
        ConfigError: not a source, invalid scopes, times, key or version, a file that cannot be
            written, or one that holds something else.
    """
    place, names, created, end = check_export(
        path, expires, scopes, signer=signer, version=version, now=now
    )
    flaws = checks.Flaws("this package")
    if not isinstance(source, Source):
        flaws.add(f"source must be a Source, got {type(source).__name__}")
    if privacy is not None and not isinstance(privacy, Mapping):
        flaws.add(f"privacy must map names to plain values, got {checks.brief(privacy)}")
    flaws.throw()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "source": _to_plain(source),
        "scopes": list(names),
        "created": created.isoformat(),
        "expires": end.isoformat(),
        "privacy": None if privacy is None else dict(privacy),
        "version": version or _next_version(place, created),
        "signer": None if signer is None else signer.public,
    }
    signature = None if signer is None else signer.sign(canonical.text(document))
    document["signature"] = signature
    document = canonical.sealed(document)
    written = canonical.text(document)
    if len(written) > canonical.MOST_BYTES:
        raise ConfigError(
            f"this package would be larger than {canonical.MOST_BYTES >> 20} MiB; export fewer "
            "settings, or a source without ``shared``"
        )
    write_atomically(place, written)
    return str(document["sha256"])


def check_export(
    path: str | Path,
    expires: datetime | timedelta,
    scopes: Sequence[str],
    *,
    signer: SigningKey | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> tuple[Path, tuple[str, ...], datetime, datetime]:
    """Refuse every argument that ``export`` would refuse, before a privacy budget is charged.

    Args:
        path, expires, scopes, signer, version, now: as for ``export``.
    Returns:
        The path, the scopes, and the times from which and until which it holds.
    Raises:
        ConfigError: invalid scopes, times, key or version, or a path that cannot be written to or
            that holds something other than a package.
    """
    flaws = checks.Flaws("this package")
    names = checks.names(flaws, "scopes", scopes)
    created = utc(flaws, "now", datetime.now(UTC) if now is None else now)
    if signer is not None and not isinstance(signer, SigningKey):
        flaws.add(f"signer must be a SigningKey, got {type(signer).__name__}")
    if version is not None and (type(version) is not int or not 0 < version < _MOST_VERSION):
        flaws.add(f"version must be a whole number above 0, got {checks.brief(version)}")
    end = end_of(flaws, created, expires)
    if end <= created:
        flaws.add(f"expires {end.isoformat()} is not after now, {created.isoformat()}")
    flaws.throw()
    return canonical.check_free(path, "the package", SCHEMA), names, created, end


def load(
    path: str | Path,
    scope: str,
    *,
    signers: Collection[str] | None = None,
    revoked: Revocations | None = None,
    now: datetime | None = None,
) -> Package:
    """Read a package, if it is unchanged, valid today, and meant for this use.

    The source's ``origin`` holds the package's terms (``terms_of``), so they are recorded in every
    journal that has the source.

    Args:
        scope: what it is to be used for; one of those that it names.
        signers: public keys; if given, the package must be signed by one of them.
        revoked: keys and packages that are not to be used.
        now: the present, with its zone; by default the clock's.
    Raises:
        PackageError: no such file, not a package, another schema, changed since it was made, signed
            by another key or none, revoked, expired or from the future, for other uses, or with an
            invalid source.
        ConfigError: an invalid path, key or time.
        MissingExtraError: a signature is to be verified, and cryptography is not installed.
    """
    package = look(path, signers=signers, revoked=revoked)
    in_force(package, scope, now=now, what=_called(path))
    return package


def look(
    path: str | Path,
    *,
    signers: Collection[str] | None = None,
    revoked: Revocations | None = None,
) -> Package:
    """Read a package for inspection: unchanged and authentic, but possibly expired.

    Args:
        signers, revoked: as for ``load``.
    Raises:
        PackageError: as for ``load``, except for its time and scope.
        ConfigError: an invalid path or key.
        MissingExtraError: as for ``load``.
    """
    place, what = canonical.as_path(path, "a package"), _called(path)
    trusted = None if signers is None else check_public(signers, what)
    document = canonical.read(place, what, SCHEMA, _FIELDS)
    check_signature(what, document, trusted)
    why = None if revoked is None else revoked.why(document["sha256"], document["signer"])
    if why is not None:
        raise canonical.refused(what, why)
    try:
        created, expires = canonical.time(document["created"]), canonical.time(document["expires"])
        scopes, privacy = _scopes(document["scopes"]), _privacy(document["privacy"])
        version, signer = _version(document["version"]), document["signer"]
        terms = Terms(document["sha256"], scopes, created, expires, privacy, version, signer)
        source = _from_plain(document["source"], origin_of(terms))
    except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise canonical.refused(what, f"its content cannot be read ({error})") from None
    return Package(
        *(source, scopes, created, expires, privacy, terms.sha256),
        *(trusted is not None, version, signer),
    )


def in_force(
    package: Package, scope: str, *, now: datetime | None = None, what: str = "the package"
) -> None:
    """Refuse a package that has expired, is from the future, or is not meant for this use.

    Args:
        now: the present, with its zone; by default the clock's.
        what: the package is called, for messages.
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
            what,
            f"it expired at {expires.isoformat()}, it is {present.isoformat()}; ask for a new one",
        )
    if created - present > _CLOCK:  # a difference: a sum could overflow
        raise canonical.refused(
            what,
            f"it was made at {created.isoformat()}, and it is {present.isoformat()}: compare the "
            "clocks of both machines",
        )
    if scope not in scopes:
        raise canonical.refused(
            what,
            f"it may be used for {list(scopes)}, not for {scope!r}; ask its maker for permission",
        )


def _called(path: str | Path) -> str:
    return f"package {str(path)!r}"


def _next_version(place: Path, created: datetime) -> int:
    """The seconds since 1970, or one more than the version of the package at this place."""
    now = max(1, int(created.timestamp()))
    try:
        return max(now, look(place).version + 1)
    except (PackageError, MissingExtraError):
        return now  # there is none, or one of an earlier schema


def _version(written: Any) -> int:
    if type(written) is not int or not 0 < written < _MOST_VERSION:
        raise TypeError(f"version must be a whole number above 0, got {checks.brief(written)}")
    return written


def _to_plain(source: Source) -> dict[str, Any]:
    shared = None if source.shared is None else [_triangle(m) for m in source.shared.tolist()]
    return source.to_plain() | {"shared": shared}


def _from_plain(plain: Any, origin: str) -> Source:
    if not isinstance(plain, dict) or set(plain) != _SOURCE:
        raise ValueError(f"a source has the fields {sorted(_SOURCE)}")
    shared = plain["shared"]
    shared = None if shared is None else [_square(m) for m in shared]
    return Source.from_plain(plain | {"origin": origin, "shared": shared})


def _privacy(written: Any) -> dict[str, Any] | None:
    if written is not None and not isinstance(written, dict):
        raise TypeError(f"privacy must be an object or null, got {checks.brief(written)}")
    return written


def _scopes(written: Any) -> tuple[str, ...]:
    if not isinstance(written, list):
        raise TypeError(f"scopes must be a list of names, got {checks.brief(written)}")
    flaws = checks.Flaws("its terms")
    scopes = checks.names(flaws, "scopes", written)
    flaws.throw()
    return scopes


def _triangle(square: list[list[float]]) -> list[list[float]]:
    """The lower half of a symmetric matrix."""
    return [row[: i + 1] for i, row in enumerate(square)]


def _square(triangle: list[list[float]]) -> list[list[float]]:
    size = range(len(triangle))
    return [[triangle[max(i, j)][min(i, j)] for j in size] for i in size]
