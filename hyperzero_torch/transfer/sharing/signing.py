"""Signatures of packages with Ed25519: a private key signs, the public key verifies.

A public key is written as ``ed25519:`` and 64 hexadecimal digits. It is no secret: its owner gives
it to those who learn from the packages, by another way than the packages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, MissingExtraError
from ...runtime.secrets import read_secret
from . import canonical

PUBLIC = re.compile("ed25519:[0-9a-f]{64}")
# One text for one signature: another spelling would give a revoked package another checksum.
_SIGNATURE = re.compile("[0-9a-f]{128}")
_PRIVATE = re.compile("ed25519-private:([0-9a-f]{64})")
_FORM = "ed25519: and 64 hexadecimal digits, as 'hyperzero transfer keygen' prints it"


@dataclass(frozen=True, repr=False)
class SigningKey:
    """A private key; its ``repr`` shows the public one."""

    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.public!r})"

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key.

        Raises:
            MissingExtraError: cryptography is not installed.
        """
        return cls(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_file(cls, path: str | Path) -> SigningKey:
        """The key that ``to_file`` wrote.

        Raises:
            ConfigError: it cannot be read, others may read it, or it holds no private key.
            MissingExtraError: cryptography is not installed.
        """
        what = f"the key file {str(path)!r}"
        match = _PRIVATE.fullmatch(read_secret(path, what).strip())
        if match is None:
            raise ConfigError(
                f"{what} holds no private key; make one with 'hyperzero transfer keygen'"
            )
        key = cls(bytes.fromhex(match[1]))
        _ed25519()
        return key

    def to_file(self, path: str | Path) -> None:
        """Write the key to a new file that only its owner can read.

        Raises:
            ConfigError: the file exists, or cannot be written.
        """
        try:  # in one step, so that nobody can put a file or a link of theirs in its place
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"ed25519-private:{self.secret.hex()}\n")
        except FileExistsError:
            raise ConfigError(f"{str(path)!r} is there already; a key is never replaced") from None
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror})") from None

    @property
    def public(self) -> str:
        """The public key, to be given to others."""
        raw = self._key().public_key().public_bytes_raw()
        return f"ed25519:{raw.hex()}"

    def sign(self, text: str) -> str:
        """The signature of a text."""
        return str(self._key().sign(text.encode()).hex())

    def _key(self) -> Any:
        return _ed25519().Ed25519PrivateKey.from_private_bytes(self.secret)


def is_signed_by(public: str, text: str, signature: str) -> bool:
    """Whether the owner of a public key has signed a text.

    Raises:
        MissingExtraError: cryptography is not installed.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(
            bytes.fromhex(public.removeprefix("ed25519:"))
        )
        key.verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def check_public(keys: Collection[Any], what: str) -> tuple[str, ...]:
    """Public keys, checked.

    Raises:
        ConfigError: one of them is none.
    """
    if isinstance(keys, str) or not isinstance(keys, Collection):
        raise ConfigError(f"{what} must be a list of public keys, got {type(keys).__name__}")
    for key in keys:
        if not isinstance(key, str) or not PUBLIC.fullmatch(key):
            # Not a word of it is repeated: it may be a private key.
            raise ConfigError(f"{what}: a public key is written as {_FORM}")
    return tuple(keys)


def check_signature(
    what: str, document: Mapping[str, Any], trusted: tuple[str, ...] | None
) -> None:
    """Refuse a package whose signature is wrong.

    Args:
        what: names the package in messages.
        document: its content.
        trusted: public keys of which one must have signed it; None where no signature is needed.
    Raises:
        PackageError: it is refused.
        MissingExtraError: cryptography is not installed.
    """
    signer, signature = document["signer"], document["signature"]
    if signer is None and signature is None:
        if trusted is not None:
            raise canonical.refused(what, "it is not signed, and a signature is required")
        return
    if not PUBLIC.fullmatch(str(signer)) or not _SIGNATURE.fullmatch(str(signature)):
        raise canonical.refused(what, "its signature cannot be read")
    if trusted is not None and signer not in trusted:
        raise canonical.refused(
            what, f"it is signed by another key, {signer}; ask its maker for the present key"
        )
    signed = {n: v for n, v in document.items() if n not in ("sha256", "signature")}
    if not is_signed_by(str(signer), canonical.text(signed), signature):
        raise canonical.refused(what, "it was changed by someone without the key that signed it")


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError("a signed package", "cryptography", "privacy") from None
    return ed25519
