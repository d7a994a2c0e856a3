"""The ids of users: one text for each user, whatever type an application or a warehouse uses.

    17, numpy.int64(17), Decimal("17"), Decimal("17.0"), 17.0, "17"    the user "17"
    uuid.UUID(int=17)                  the user "00000000-0000-0000-0000-000000000011"

A user has the same arm in a table and in a flag, and the same readings, under each of these types.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np

from ..errors import InputError

UserId: TypeAlias = str | int | float | Decimal | UUID

_EXACT = 2**53  # whole numbers beyond it share a float
_INT64 = 2**63


def user_key(user: UserId) -> str:
    """The text that stands for a user.

    Raises:
        InputError: neither a text, nor a whole number, nor a UUID.
    """
    if isinstance(user, str):
        return str(user)
    if isinstance(user, UUID):
        return str(user)
    number = _whole(user)
    if number is None:
        raise InputError(
            f"a user is named by a text, a whole number or a UUID, got {type(user).__name__} "
            f"{user!r:.80}"
        )
    return str(number)


def plain_users(users: Sequence[Any]) -> list[Any]:
    """A column of Python objects as whole numbers, where all are, or as texts.

    None stands for a missing value, and for one that names no user.
    """
    keys = [_key_or_none(user) for user in users]
    whole = [None if key is None else _whole(user) for key, user in zip(keys, users)]
    if all(n is not None and abs(n) < _INT64 for n, key in zip(whole, keys) if key is not None):
        return whole
    return keys


def _key_or_none(user: Any) -> str | None:
    try:
        return user_key(user)
    except InputError:
        return None


def _whole(value: Any) -> int | None:
    """A whole number of any type; None for anything else, and for floats that are not exact."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value == value.to_integral_value()
    elif isinstance(value, float | np.floating):
        is_whole = abs(float(value)) <= _EXACT and float(value).is_integer()
    else:
        return None
    return int(value) if is_whole else None
