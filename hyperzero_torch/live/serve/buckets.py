"""The hashes that say which users take part in an experiment, and which arm each gets."""

from __future__ import annotations

from hashlib import blake2b

from ..users import UserId, user_key


def bucket(user: UserId, round: int, salt: str) -> float:
    """A user's place in ``[0, 1)``: the same in every process, and another one in every round.

    A user is a text, a whole number of any type or a UUID: 17 and "17" are one user, and a UUID is
    the text with hyphens and small letters.

    The first 53 bits of BLAKE2b-512 over ``salt NUL round NUL user`` (UTF-8, the round in
    decimal), as a fraction. For ``salt = "value-model"``, round 17, user "u1" the digest is that of
    ``printf 'value-model\\00017\\000u1' | b2sum``.

    Raises:
        InputError: neither a text, nor a whole number, nor a UUID.
    Source: RFC 7693 (BLAKE2).
    """
    return _place(salt, str(round), user)


def takes_part(user: UserId, share: float, salt: str) -> bool:
    """Whether a user takes part in an experiment for a ``share`` of all users.

    It is the same in every process and every round: were it drawn anew each hour, nearly every user
    would have been in an experiment of 10 % after two days. Who takes part at a share takes part at
    every larger one, and the arm is independent of it.

    The hash of ``bucket``, over ``salt NUL "experiment" NUL user``, is below ``share``.

    Raises:
        InputError: the user is neither a text, nor a whole number, nor a UUID.
    """
    return _place(salt, "experiment", user) < share


def _place(salt: str, purpose: str, user: UserId) -> float:
    message = f"{salt}\0{purpose}\0{user_key(user)}".encode("utf-8", "surrogatepass")
    first = int.from_bytes(blake2b(message).digest()[:8], "big")
    return (first >> 11) / 2.0**53
