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
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Self, cast

from ...errors import ConfigError, InputError
from ...problem.parameters import Value
from ...runtime.files import locked
from ...study.history import CONTROL
from ...study.plan import Plan
from ..users import UserId, user_key
from .buckets import HASHES, Hash, bucket, takes_part
from .checks import check_plan
from .fence import (
    Terms,
    check_apply,
    check_withdraw,
    checked_terms,
    read_stamp,
    why_not_in_force,
)
from .files import checked_path, read_object, replace_file, to_json

#: ``Assignment.reason`` of a user who takes part in the round.
PLANNED = "planned"
#: ``Assignment.reason`` of a user whom the experiment does not serve.
OUTSIDE = "outside the experiment"

_KIND = "hyperzero-torch assignment table"
# A table of an experiment with a part of all users is of version 2: a reader that knows version 1
# only would serve the experiment to everybody.
_VERSION, _VERSION_OF_PART = 1, 2
# A table with a stamp is of version 3: an earlier reader would serve a plan whose lease is over.
_VERSION_OF_STAMP = 3
# A table of another hash is of version 4: an earlier reader would give users other arms.
_VERSION_OF_HASH = 4


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
        self.path = checked_path(path)
        if not isinstance(salt, str) or not salt or "\0" in salt:
            raise ConfigError(
                f"a salt is a text without NUL, got {salt!r}; use the experiment's name"
            )
        if hash not in HASHES:
            raise ConfigError(f"a hash is one of {list(HASHES)}, got {hash!r:.60}")
        if hash == "sha256" and "/" in salt:
            raise ConfigError(
                f"with the hash sha256 a salt has no slash, got {salt!r:.100}; users of two salts "
                "could share their hashes"
            )
        self.salt, self.hash = salt, hash
        self._terms: Terms | None = None

    def on_behalf_of(self, terms: Terms) -> Self:
        """The same table for one study and one lease."""
        other = copy.copy(self)
        other._terms = terms
        return other

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again does not touch the file.

        Raises:
            InputError: the plan cannot be served.
            FencedError: a later plan is served, or one of another study or journal.
            ConfigError: the file cannot be read or written, or is another file; it is unchanged.
        """
        check_plan(plan)
        ends = arm_ends(plan.shares)
        arms = [
            {"candidate": c, "share": share, "from": start, "to": end, "parameters": parameters}
            for c, share, start, end, parameters in zip(
                plan.candidate_ids, plan.shares, (0.0, *ends), ends, plan.parameters
            )
        ]
        stamp = None if self._terms is None else self._terms.stamp(plan, self.salt)
        text = to_json(self._table(plan.round, arms, plan.experiment_share, stamp))
        with locked(self.path):
            if self.path.exists():
                table = read_table(self.path)  # refuses to replace a file that is something else
                there = read_stamp(table.get("stamp"))
                check_apply(self._where(), there, table["round"], plan, self._terms)
            replace_file(self.path, text)

    def withdraw(self) -> None:
        """Serve the control alone, outside any round.

        Without a table it does nothing, except on behalf of a study whose terms name the control.

        Raises:
            FencedError: the table serves another study.
            ConfigError: the file cannot be read or written, or is not such a table; it is
                unchanged.
        """
        with locked(self.path):
            there, control = None, None if self._terms is None else self._terms.control
            if self.path.exists():
                there = read_stamp(read_table(self.path).get("stamp"))
                check_withdraw(self._where(), there, self._terms)
            elif control is None:
                return
            if self._terms is not None:
                there = self._terms.withdrawn(there, self.salt)
            self._withdraw(there)

    def owner(self) -> dict[str, Any] | None:
        """The stamp of what is served; None where there is none.

        Raises:
            ConfigError: the file cannot be read, or is not such a table.
        """
        if not self.path.exists():
            return None
        return read_stamp(read_table(self.path).get("stamp"))

    def take_over(self) -> None:
        """Withdraw whatever is served, and serve this study's plans from now on.

        Raises:
            ConfigError: as for ``withdraw``, or there are no terms.
        """
        terms = checked_terms(self._terms)
        with locked(self.path):
            if self.path.exists():
                self._withdraw(terms.empty_stamp(self.salt))

    def _withdraw(self, stamp: dict[str, Any] | None) -> None:
        if self.path.exists():
            control = read_table(self.path)["arms"][0]
        else:
            parameters = dict(checked_terms(self._terms).control or {})
            control = {"candidate": CONTROL, "parameters": parameters}
        arms = [{**control, "share": 1.0, "from": 0.0, "to": 1.0}]
        replace_file(self.path, to_json(self._table(None, arms, stamp=stamp)))

    def _where(self) -> str:
        return f"the table {str(self.path)!r}"

    def _table(
        self,
        number: int | None,
        arms: list[dict[str, Any]],
        share: float = 1.0,
        stamp: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        head: dict[str, Any] = {"kind": _KIND, "version": _VERSION}
        if share < 1:
            head |= {"version": _VERSION_OF_PART, "experiment_share": share}
        if stamp is not None:
            head |= {"version": _VERSION_OF_STAMP, "stamp": stamp}
        if self.hash != HASHES[0]:
            head |= {"version": _VERSION_OF_HASH, "hash": self.hash}
        return {**head, "round": number, "salt": self.salt, "arms": arms}


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
    table = read_object(path)
    try:
        numbers = [arm["from"] for arm in table["arms"]] + [table["arms"][-1]["to"]]
        is_valid = (
            table["kind"] == _KIND
            and _is_version(table)
            and isinstance(table["salt"], str)
            and (table["round"] is None or isinstance(table["round"], int))
            and (numbers[0], numbers[-1]) == (0.0, 1.0)
            and all(a <= b for a, b in pairwise(numbers))
            and all(isinstance(arm["parameters"], dict) for arm in table["arms"])
            and table["arms"][0]["candidate"] == CONTROL
            and all(isinstance(arm["candidate"], int) for arm in table["arms"])
        )
    except (KeyError, TypeError, IndexError):
        is_valid = False
    if not is_valid:
        raise ConfigError(
            f"{str(path)!r} is not an assignment table of version {_VERSION} to "
            f"{_VERSION_OF_HASH}; it was not changed: name another file"
        )
    return table


def _is_version(table: Mapping[str, Any]) -> bool:
    version, share, stamp = (table.get(n) for n in ("version", "experiment_share", "stamp"))
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        return False
    if stamp is not None and not (isinstance(stamp, dict) and "epoch" in stamp):
        return False
    if "hash" in table:
        return version == _VERSION_OF_HASH and table["hash"] in HASHES[1:]
    if stamp is not None:
        return bool(version == _VERSION_OF_STAMP)
    return bool(version == (_VERSION if share is None else _VERSION_OF_PART))


def arm_ends(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Upper boundaries of the arms: exact sums, rounded once; the last one is 1.0.

    Args:
        shares: of a plan that ``check_plan`` accepts.
    """
    sums = list(accumulate(map(Fraction, shares)))
    return tuple(float(s / sums[-1]) for s in sums)
