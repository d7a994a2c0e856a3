"""Who may do what: tokens with a name and a role, in a file that holds only their hashes.

A token has 256 random bits, so a plain SHA-256 of it cannot be reversed by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from pydantic import Field

from ...errors import ConfigError
from ...runtime.files import check_own, locked, write_atomically
from ...study.config.base import Config

Role: TypeAlias = Literal["viewer", "platform", "operator", "approver"]
Right: TypeAlias = Literal["read", "feed", "operate", "decide"]

#: What each role may do: read; ask and tell; throw switches; approve, launch and change goals.
RIGHTS: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({"read"}),
    "platform": frozenset({"read", "feed"}),
    "operator": frozenset({"read", "operate"}),
    "approver": frozenset({"read", "operate", "decide"}),
}
_PREFIX = "hz_"  # so that scanners of repositories find tokens
_MOST_NAME = 64


class Caller(NamedTuple):
    """Who is asking."""

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Whether the role allows it."""
        return right in RIGHTS[self.role]


class Token(Config):
    """One token of the file."""

    name: str = Field(min_length=1, max_length=_MOST_NAME)
    role: Role
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str


class _Document(Config):
    """The file."""

    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The tokens of a server. A file that another process changes is read again.

    Args:
        path: of the file; where there is none, there are no tokens.
    Raises:
        ConfigError: it is not such a file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self.tokens()

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, without their secrets."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._state, self._tokens = None, ()
            return ()
        except OSError as error:
            raise ConfigError(f"the tokens {str(self.path)!r} cannot be read: {error}") from None
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        if state != self._state:
            check_own(self.path, "the file of tokens")
            self._tokens, self._state = self._read(), state
        return self._tokens

    def add(self, name: str, role: str) -> str:
        """Make a token; returns its secret, which is not stored anywhere.

        Raises:
            ConfigError: the name is taken or no name, or there is no such role.
        """
        if role not in get_args(Role):
            raise ConfigError(f"a role is one of {', '.join(get_args(Role))}, got {role!r:.40}")
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise ConfigError(f"a token's name is a printable text, got {name!r:.80}")
        if len(name) > _MOST_NAME:
            raise ConfigError(f"a token's name has up to {_MOST_NAME} characters, got {len(name)}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        with locked(self.path):
            tokens = self.tokens()
            if any(token.name == name for token in tokens):
                raise ConfigError(
                    f"there is a token named {name!r} already; remove it first, or take another "
                    "name: the journal names who does what"
                )
            token = Token.model_validate(
                {"name": name, "role": role, "sha256": _hash(secret), "created": created}
            )
            self._write((*tokens, token))
        return secret

    def remove(self, name: str) -> None:
        """Remove a token: whoever has it is refused from now on.

        Raises:
            ConfigError: there is none of this name.
        """
        with locked(self.path):
            tokens = self.tokens()
            left = tuple(token for token in tokens if token.name != name)
            if len(left) == len(tokens):
                names = [token.name for token in tokens] or "none"
                raise ConfigError(f"there is no token named {name!r:.80}; there are: {names}")
            self._write(left)

    def caller(self, secret: str) -> Caller | None:
        """Whose secret it is; None where it is nobody's."""
        digest = _hash(secret)
        match = None
        for token in self.tokens():  # all of them, so that the time says nothing
            if hmac.compare_digest(token.sha256, digest):
                match = Caller(token.name, token.role)
        return match

    def is_still(self, caller: Caller) -> bool:
        """Whether there is a token of this name and role."""
        return any((token.name, token.role) == caller for token in self.tokens())

    def _read(self) -> tuple[Token, ...]:
        try:
            document = json.loads(self.path.read_bytes())
            if not isinstance(document, dict):
                raise ConfigError("expected a JSON object with 'tokens'")
            return _Document(**document).tokens
        except (OSError, ValueError, RecursionError) as error:  # ConfigError is a ValueError
            raise ConfigError(
                f"{str(self.path)!r} is not a file of tokens, as 'hyperzero serve token add' "
                f"writes it: {error}"
            ) from None

    def _write(self, tokens: tuple[Token, ...]) -> None:
        document = {"tokens": [token.model_dump() for token in tokens]}
        write_atomically(self.path, json.dumps(document, indent=2) + "\n", private=True)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
