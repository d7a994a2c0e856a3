"""The keys that sign the chains of journals, from the environment or from a file.

A chain without a key detects every change by somebody who does not compute it again. With a key
nobody without the key can compute it again. The key must not lie where the journal lies.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...runtime.secrets import read_secret

#: Environment variables: the keys themselves, or the file that holds them.
KEY_VARIABLE = "HYPERZERO_JOURNAL_KEY"
KEY_FILE_VARIABLE = "HYPERZERO_JOURNAL_KEY_FILE"
_SHORTEST = 16
_MAKE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"


@dataclass(frozen=True, repr=False)
class KeyRing:
    """Keys of journals: the first signs new entries, all of them verify. Empty: nothing is signed.

    To change a key, put the new one before the old one.
    """

    keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"KeyRing({list(map(key_id, self.keys))})"

    @classmethod
    def of(cls, texts: Sequence[str], where: str) -> KeyRing:
        """Keys from their texts.

        Raises:
            ConfigError: a key is too short; the message does not repeat it.
        """
        keys = tuple(text.encode() for text in texts)
        if any(len(key) < _SHORTEST for key in keys):
            raise ConfigError(
                f"{where}: a key of a journal has at least {_SHORTEST} bytes, without spaces; "
                f"{_MAKE}"
            )
        return cls(keys)

    @classmethod
    def from_file(cls, path: str | Path) -> KeyRing:
        """The keys in a file, one a line.

        Raises:
            ConfigError: it cannot be read, others may read or change it, or it holds no key.
        """
        where = f"the key file {str(path)!r}"
        text = read_secret(path, where)
        ring = cls.of(text.split(), where)
        if not ring.keys:
            raise ConfigError(f"{where} holds no key; {_MAKE}")
        return ring

    @classmethod
    def from_environment(cls) -> KeyRing:
        """The keys in ``HYPERZERO_JOURNAL_KEY``, or in the file of ``HYPERZERO_JOURNAL_KEY_FILE``.

        Raises:
            ConfigError: both are set, or a key cannot be used.
        """
        keys, file = os.environ.get(KEY_VARIABLE), os.environ.get(KEY_FILE_VARIABLE)
        if keys and file:
            raise ConfigError(f"set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}, not both")
        if file:
            return cls.from_file(file)
        return cls.of((keys or "").split(), f"the environment variable {KEY_VARIABLE}")

    def find(self, id_: str) -> bytes | None:
        """The key with this id."""
        return next((key for key in self.keys if key_id(key) == id_), None)


def key_id(key: bytes) -> str:
    """A short name of a key, which does not reveal it."""
    return hmac.new(key, b"hyperzero journal key id", hashlib.sha256).hexdigest()[:8]
