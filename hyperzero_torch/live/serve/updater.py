"""Experiment updaters: they write a plan in the form that a platform serves.

    plan -> FlagdUpdater -> flag definition -> flagd or its provider -> ThetaClient -> the app
    plan -> TableUpdater -> plain JSON table -> bucket(user, round, salt) -> a platform of your own

``takes_part(user, share, salt)`` says which users the experiment is for.

Both write one file, whole or not at all. Names and texts of users are written as data only.
"""

from __future__ import annotations

import copy
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from ...errors import InputError
from ...problem.parameters import Value
from ...runtime.files import locked
from ...study.plan import Plan
from ..users import UserId, user_key
from .buckets import HASHES, Hash, bucket, takes_part
from .fence import Terms, why_not_in_force
from .files import checked_path, read_object, replace_file, to_json
from .stored import StoredTableUpdater, arm_ends, check_table

__all__ = ["Assignment", "TableFile", "TableUpdater", "arm_ends", "assign", "read_table"]

#: ``Assignment.reason`` of a user who takes part in the round.
PLANNED = "planned"
#: ``Assignment.reason`` of a user whom the experiment does not serve.
OUTSIDE = "outside the experiment"


@dataclass(frozen=True)
class Assignment:
    """What one user is served.

    Args:
        candidate: whose parameters these are; 0 is the control.
        round: the round that the exposure counts in. None where the user takes no part and gets the
            control as a fallback: log no exposure then, it would bias the control.
        parameters: name to value; a copy that may be changed.
        reason: ``"planned"``, or why the user takes no part.
        study: whose plan this is, and
        epoch: the id of that study's journal, for the log of exposures; None where it is not known.
    """

    candidate: int
    round: int | None
    parameters: dict[str, Value]
    reason: str
    study: str | None = None
    epoch: str | None = None


class TableUpdater:
    """Writes a plain JSON table, for platforms that assign users themselves.

    ``{"kind": "hyperzero-torch assignment table", "version": 1, "round": 17, "salt": "...",
    "arms": [{"candidate": 0, "share": 0.3, "from": 0.0, "to": 0.3, "parameters": {...}}, ...]}``

    A user belongs to the arm with ``from <= bucket(user, round, salt) < to``. The control comes
    first; the boundaries go from 0.0 to 1.0 without a gap, and an arm's width differs from its
    share by less than 1e-15, apart from the rounding error of the shares' own sum. A round of null
    means that the control alone is served and that nothing counts as an exposure.

    Where the experiment is for a part of all users, the table has ``"version": 2`` and
    ``"experiment_share": 0.1``: it is for users with ``takes_part(user, 0.1, salt)``. All others
    get the control's parameters, and nothing counts as an exposure.

    A table that is written on behalf of a study (``on_behalf_of``; the live loop does so) has
    ``"version": 3`` and a ``"stamp"``: study, epoch, round, salt, and ``valid_from`` and
    ``valid_until`` in seconds since 1970. Outside of these times everybody gets the control's
    parameters, and nothing counts as an exposure. Such a table is never replaced by an older plan,
    nor by one of another study or another journal of the study.

    With ``hash="sha256"`` the table has ``"version": 4`` and ``"hash": "sha256"``, and is read by
    ``examples/assignment`` in Python, JavaScript, Go and SQL.

    Args:
        path: the table, in a folder that exists; its permissions are kept.
        salt: the experiment's name, so that experiments assign users independently of each other;
            any text without a NUL, and for ``sha256`` without a slash.
        hash: that of ``bucket``.
    Raises:
        ConfigError: the path, the salt or the hash cannot be used.
    """

    def __init__(
        self, path: str | Path, *, salt: str = "value-model", hash: Hash = "blake2b"
    ) -> None:
        self.path, self.salt = checked_path(path), salt
        self._table = StoredTableUpdater(TableFile(self.path), salt=salt, hash=hash)

    def on_behalf_of(self, terms: Terms) -> Self:
        """The same table for one study and one lease."""
        other = copy.copy(self)
        other._table = self._table.on_behalf_of(terms)
        return other

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again does not touch the file.

        Raises:
            InputError: the plan cannot be served.
            FencedError: a later plan is served, or one of another study or journal.
            ConfigError: the file cannot be read or written, or is another file; it is unchanged.
        """
        self._table.apply(plan)

    def withdraw(self) -> None:
        """Serve the control alone, outside any round.

        Without a table it does nothing, except on behalf of a study whose terms name the control.

        Raises:
            FencedError: the table serves another study.
            ConfigError: the file cannot be read or written, or is not such a table; it is
                unchanged.
        """
        self._table.withdraw()

    def owner(self) -> dict[str, Any] | None:
        """The stamp of what is served; None where there is none.

        Raises:
            ConfigError: the file cannot be read, or is not such a table.
        """
        return self._table.owner()

    def take_over(self) -> None:
        """Withdraw whatever is served, and serve this study's plans from now on.

        Raises:
            ConfigError: as for ``withdraw``, or there are no terms.
        """
        self._table.take_over()


class TableFile:
    """A file that holds one table, written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return f"the table {str(self.path)!r}"

    def held(self) -> AbstractContextManager[None]:
        """A lock on the file, which all its writers take."""
        return locked(self.path)

    def read(self) -> dict[str, Any] | None:
        """The table; None where there is no file yet."""
        return read_table(self.path) if self.path.exists() else None

    def write(self, table: Mapping[str, Any]) -> None:
        """Replace the file; the same table again does not touch it."""
        replace_file(self.path, to_json(table))


def assign(
    table: Mapping[str, Any], user: UserId | None, now: Callable[[], float] = time.time
) -> Assignment:
    """The arm that a table, as read by ``read_table``, assigns a user to.

    A user without a name, or with one that is no text, whole number or UUID, gets the control and
    takes no part; and so does a user outside the experiment, and everybody once the lease of the
    plan has run out.

    Args:
        table: of ``read_table``.
        user: who is served.
        now: tells the time, in seconds since 1970.
    """
    arms, number, stamp = table["arms"], table["round"], table.get("stamp") or {}
    salt, hash_ = table["salt"], table.get("hash", HASHES[0])
    arm, reason = arms[0], PLANNED
    why_not = _why_not(user) or (None if number is None else why_not_in_force(stamp, now()))
    if number is None or why_not is not None:
        number, reason = None, why_not or "withdrawn"
    elif not takes_part(cast(UserId, user), table.get("experiment_share", 1.0), salt, hash_):
        number, reason = None, OUTSIDE
    else:
        place = bucket(cast(UserId, user), number, salt, hash_)
        # An arm of width 0 starts where the next arm starts, and bisect_right finds the latter.
        arm = arms[bisect_right(arms, place, key=lambda a: a["from"]) - 1]
    study, epoch = stamp.get("study"), stamp.get("epoch")
    return Assignment(arm["candidate"], number, dict(arm["parameters"]), reason, study, epoch)


def _why_not(user: UserId | None) -> str | None:
    """Why a user cannot take part; None where it can."""
    if user is None or user == "":
        return "no user"
    try:
        user_key(user)
    except InputError as error:
        return str(error)
    return None


def read_table(path: str | Path) -> dict[str, Any]:
    """A table written by ``TableUpdater``.

    Raises:
        ConfigError: the file cannot be read or is not such a table.
    """
    path = checked_path(path)
    return check_table(read_object(path), repr(str(path)))
