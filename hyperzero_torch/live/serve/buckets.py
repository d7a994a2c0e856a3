"""The hashes that say which users take part in an experiment, and which arm each gets."""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import Literal, TypeAlias

from ..users import UserId, user_key

#: ``blake2b`` is the package's first hash; ``sha256`` is one that warehouses have too.
Hash: TypeAlias = Literal["blake2b", "sha256"]
HASHES: tuple[Hash, ...] = Hash.__args__  # type: ignore[attr-defined]
_HEX_DIGITS = 13  # 52 bits, which a double holds exactly


def bucket(user: UserId, round: int, salt: str, hash: Hash = "blake2b") -> float:
    """A user's place in ``[0, 1)``: the same in every process, and another one in every round.

    A user is a text, a whole number of any type or a UUID: 17 and "17" are one user, and a UUID is
    the text with hyphens and small letters.

    The first 53 bits of BLAKE2b-512 over ``salt NUL round NUL user`` (UTF-8, the round in
    decimal), as a fraction. For ``salt = "value-model"``, round 17, user "u1" the digest is that of
    ``printf 'value-model\\00017\\000u1' | b2sum``.

    With ``hash="sha256"``: the first 13 hexadecimal digits of SHA-256 over ``salt/round/user``, as
    a fraction of ``16^13``. Databases compute it too; ``examples/assignment`` has it in other
    languages. Its salt has no ``/``, so that no two users share a message.

    Raises:
        InputError: neither a text, nor a whole number, nor a UUID.
    Source: RFC 7693 (BLAKE2); FIPS 180-4 (SHA-256).
    """
    return _place(salt, str(round), user, hash)


def takes_part(user: UserId, share: float, salt: str, hash: Hash = "blake2b") -> bool:
    """Whether a user takes part in an experiment for a ``share`` of all users.

    It is the same in every process and every round: were it drawn anew each hour, nearly every user
    would have been in an experiment of 10 % after two days. Who takes part at a share takes part at
    every larger one, and the arm is independent of it.

    The hash of ``bucket``, with the text ``experiment`` in place of the round, is below ``share``.

    Raises:
        InputError: the user is neither a text, nor a whole number, nor a UUID.
    """
    return _place(salt, "experiment", user, hash) < share


def _place(salt: str, purpose: str, user: UserId, hash: Hash) -> float:
    if hash == "sha256":
        text = f"{salt}/{purpose}/{user_key(user)}".encode("utf-8", "surrogatepass")
        return int(sha256(text).hexdigest()[:_HEX_DIGITS], 16) / 16.0**_HEX_DIGITS
    message = f"{salt}\0{purpose}\0{user_key(user)}".encode("utf-8", "surrogatepass")
    first = int.from_bytes(blake2b(message).digest()[:8], "big")
    return (first >> 11) / 2.0**53
