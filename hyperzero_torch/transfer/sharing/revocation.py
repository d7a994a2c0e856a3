"""Revocations: keys and packages not to be used any more, in a file of the study that learns.

The file is the study's own, like the study file: whoever can change it can take a revocation back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...runtime.files import locked, write_atomically
from . import canonical
from .signing import PUBLIC

SCHEMA = "hyperzero-revocations/1"
_FIELDS = {"schema", "revoked", "sha256"}
_AGAIN = "restore it from a backup: what was revoked stays revoked"


@dataclass(frozen=True)
class Revocations:
    """Reasons by public key, and by SHA-256 of a package."""

    reasons: Mapping[str, str]

    @classmethod
    def from_file(cls, path: str | Path) -> Revocations:
        """Read a file of revocations.

        Raises:
            PackageError: there is no such file, or it was changed or damaged.
        """
        return cls({r["revoked"]: r["reason"] for r in _read(Path(path))})

    def why(self, sha256: str, signer: str | None) -> str | None:
        """Why a package is not to be used; None where it is not revoked."""
        for subject, words in ((sha256, "the package"), (signer, f"its key {signer}")):
            if subject is not None and subject in self.reasons:
                return f"{words} was revoked: {self.reasons[subject]}"
        return None


def revoke(path: str | Path, subject: str, reason: str, now: datetime | None = None) -> bool:
    """Add a public key, or the SHA-256 of a package, to a file of revocations.

    Args:
        path: of the file, which is made where it is missing.
        subject: the key or the checksum.
        reason: why, in a sentence.
        now: the present, with its zone; by default the clock's.
    Returns:
        Whether it was not in the file before.
    Raises:
        ConfigError: no key or checksum, no reason, or a file that cannot be written.
        PackageError: a file that was changed or damaged.
    """
    is_checksum = len(subject) == 64 and all(c in "0123456789abcdef" for c in subject)
    if not is_checksum and not PUBLIC.fullmatch(subject):
        raise ConfigError(
            "expected a public key (ed25519:<64 hex digits>) or the SHA-256 of a package, as "
            "'hyperzero transfer inspect' shows them"
        )
    if not reason.strip():
        raise ConfigError("give a reason, in a sentence; the file and the journal keep it")
    place = canonical.check_free(path, "the file of revocations", SCHEMA)
    with locked(place):
        present = _read(place) if place.exists() else []
        if any(r["revoked"] == subject for r in present):
            return False
        at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
        entries = [*present, {"revoked": subject, "reason": reason, "at": at}]
        document = canonical.sealed({"schema": SCHEMA, "revoked": entries})
        write_atomically(place, canonical.text(document))
    return True


def _read(path: Path) -> list[dict[str, Any]]:
    what = f"the file of revocations {str(path)!r}"
    document = canonical.read(path, what, SCHEMA, _FIELDS, _AGAIN)
    entries = document["revoked"]
    names = {"revoked", "reason", "at"}
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and set(e) == names and all(isinstance(v, str) for v in e.values())
        for e in entries
    ):
        raise canonical.refused(what, f"its entries cannot be read; {_AGAIN}")
    return entries
