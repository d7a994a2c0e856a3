"""Experiment updaters: they write a plan in the form that a platform serves.

    plan -> FlagdUpdater -> flag definition -> flagd or its provider -> ThetaClient -> the app
    plan -> TableUpdater -> plain JSON table -> bucket(user, round, salt) -> a platform of your own

``takes_part(user, share, salt)`` says which users the experiment is for.

Both write one file, whole or not at all. Names and texts of users are written as data only.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ...errors import ConfigError, InputError
from ...problem.parameters import Value
from ...runtime.files import locked
from ...study.history import CONTROL
from ...study.plan import Plan
from ..users import UserId, user_key
from .buckets import bucket, takes_part
from .files import checked_path, read_object, replace_file, to_json

#: ``Assignment.reason`` of a user who takes part in the round.
PLANNED = "planned"
#: ``Assignment.reason`` of a user whom the experiment does not serve.
OUTSIDE = "outside the experiment"

_KIND = "hyperzero-torch assignment table"
# A table of an experiment with a part of all users is of version 2: a reader that knows version 1
# only would serve the experiment to everybody.
_VERSION, _VERSION_OF_PART = 1, 2
# Rounding error of a sum of shares; a larger difference to 1 is refused.
_SUM_TOLERANCE = 1e-9


@runtime_checkable
class Updater(Protocol):
    """Where plans are served; ``hyperzero_torch.testing.UpdaterContract`` tests an implementation.

    A platform of your own needs these two methods. Where they raise, the platform must keep serving
    the plan before.
    """

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again changes nothing.

        Raises:
            HyperZeroError: the plan cannot be served; the one before is still served.
        """
        ...

    def withdraw(self) -> None:
        """Serve the control alone, outside any round, until the next ``apply``.

        It changes nothing where no plan was applied yet, or where the plan was withdrawn before.
        """
        ...


@dataclass(frozen=True)
class Assignment:
    """What one user is served.

    Args:
        candidate: whose parameters these are; 0 is the control.
        round: the round that the exposure counts in. None where the user takes no part and gets the
            control as a fallback: log no exposure then, it would bias the control.
        parameters: name to value; a copy that may be changed.
        reason: ``"planned"``, or why the user takes no part.
    """

    candidate: int
    round: int | None
    parameters: dict[str, Value]
    reason: str


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

    Args:
        path: the table, in a folder that exists; its permissions are kept.
        salt: the experiment's name, so that experiments assign users independently of each other;
            any text without a NUL.
    Raises:
        ConfigError: the path or the salt cannot be used.
    """

    def __init__(self, path: str | Path, *, salt: str = "value-model") -> None:
        self.path = checked_path(path)
        if not isinstance(salt, str) or not salt or "\0" in salt:
            raise ConfigError(
                f"a salt is a text without NUL, got {salt!r}; use the experiment's name"
            )
        self.salt = salt

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again does not touch the file.

        Raises:
            InputError: the plan cannot be served.
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
        text = to_json(self._table(plan.round, arms, plan.experiment_share))
        with locked(self.path):
            if self.path.exists():
                read_table(self.path)  # refuses to replace a file that is something else
            replace_file(self.path, text)

    def withdraw(self) -> None:
        """Serve the control alone, outside any round; without a table it does nothing.

        Raises:
            ConfigError: the file cannot be read or written, or is not such a table; it is
                unchanged.
        """
        with locked(self.path):
            if not self.path.exists():
                return
            control = read_table(self.path)["arms"][0]
            arms = [{**control, "share": 1.0, "from": 0.0, "to": 1.0}]
            replace_file(self.path, to_json(self._table(None, arms)))

    def _table(
        self, number: int | None, arms: list[dict[str, Any]], share: float = 1.0
    ) -> dict[str, Any]:
        head: dict[str, Any] = {"kind": _KIND, "version": _VERSION}
        if share < 1:
            head |= {"version": _VERSION_OF_PART, "experiment_share": share}
        return {**head, "round": number, "salt": self.salt, "arms": arms}


def assign(table: Mapping[str, Any], user: UserId | None) -> Assignment:
    """The arm that a table, as read by ``read_table``, assigns a user to.

    A user without a name, or with one that is no text, whole number or UUID, gets the control and
    takes no part; and so does a user outside the experiment.
    """
    arms, number = table["arms"], table["round"]
    arm, reason = arms[0], PLANNED
    why_not = _why_not(user)
    if number is None or why_not is not None:
        number, reason = None, why_not or "withdrawn"
    elif not takes_part(cast(UserId, user), table.get("experiment_share", 1.0), table["salt"]):
        number, reason = None, OUTSIDE
    else:
        place = bucket(cast(UserId, user), number, table["salt"])
        # An arm of width 0 starts where the next arm starts, and bisect_right finds the latter.
        arm = arms[bisect_right(arms, place, key=lambda a: a["from"]) - 1]
    return Assignment(arm["candidate"], number, dict(arm["parameters"]), reason)


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
            and _is_version(table["version"], table.get("experiment_share"))
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
            f"{str(path)!r} is not an assignment table of version {_VERSION} or "
            f"{_VERSION_OF_PART}; it was not changed: name another file"
        )
    return table


def _is_version(version: object, share: object) -> bool:
    if share is None:
        return version == _VERSION
    return version == _VERSION_OF_PART and isinstance(share, int | float) and 0 < share <= 1


def check_plan(plan: Plan) -> None:
    """Refuse a plan that a platform could not serve.

    Raises:
        InputError: a round, candidate, share or parameter that is not valid; the message names it.
    """
    ids, shares = plan.candidate_ids, plan.shares
    if not all(_is_count(number) for number in (plan.round, *ids)):
        raise InputError(
            f"rounds and candidates are whole numbers >= 0, got {plan.round!r} and {ids!r}"
        )
    if not len(ids) == len(shares) == len(plan.parameters):
        raise InputError(
            f"a plan has one share and one set of parameters per arm, got {len(shares)} and "
            f"{len(plan.parameters)} for {len(ids)} arms"
        )
    if ids[:1] != (CONTROL,) or len(set(ids)) != len(ids):
        raise InputError(
            f"a plan's candidates are the control, {CONTROL}, and then each other arm once, got "
            f"{_brief(ids)}"
        )
    _check_shares(shares)
    part = plan.experiment_share
    if not isinstance(part, int | float) or not 0 < part <= 1:
        raise InputError(f"experiment_share is a fraction above 0 and up to 1, got {part!r}")
    for candidate, parameters in zip(ids, plan.parameters):
        _check_parameters(candidate, parameters, plan.parameters[0])


def _check_shares(shares: tuple[float, ...]) -> None:
    if not all(
        isinstance(s, int | float) and math.isfinite(s) and 0.0 <= s <= 1.0 + _SUM_TOLERANCE
        for s in shares
    ):
        raise InputError(f"shares are fractions from 0 to 1, got {_brief(shares)}")
    total = math.fsum(shares)
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise InputError(f"a plan's shares must sum to 1, got {total!r}; scale them")


def _check_parameters(
    candidate: int, parameters: Mapping[str, Value], control: Mapping[str, Value]
) -> None:
    if parameters.keys() != control.keys():
        names = sorted(map(str, parameters.keys() ^ control.keys()))
        raise InputError(
            f"every arm sets the parameters that the control sets; candidate {candidate} differs "
            f"in {_brief(names)}"
        )
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise InputError(f"a parameter's name is a text, got {name!r}")
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, bool | int | float | str) or not is_finite:
            raise InputError(
                f"candidate {candidate}: parameter {_brief(name)} is {_brief(value)}; JSON holds "
                "finite numbers, texts, true and false"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def arm_ends(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Upper boundaries of the arms: exact sums, rounded once; the last one is 1.0.

    Args:
        shares: of a plan that ``check_plan`` accepts.
    """
    sums = list(accumulate(map(Fraction, shares)))
    return tuple(float(s / sums[-1]) for s in sums)
