"""Tables of assignments in any store: what a table holds, and who may replace it.

    plan -> StoredTableUpdater -> TableStore (a file, GrowthBook, Unleash, one of your own)

A store has two methods. Flag services without an adapter here can carry a table too: each serves
one JSON value to everybody, and the application assigns users by it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, Protocol, Self, runtime_checkable

from ...errors import ConfigError
from ...study.history import CONTROL
from ...study.plan import Plan
from .buckets import HASHES, Hash
from .checks import check_plan
from .fence import Terms, check_apply, check_withdraw, checked_terms, read_stamp

_KIND = "hyperzero-torch assignment table"
# A table of an experiment with a part of all users is of version 2: a reader that knows version 1
# only would serve the experiment to everybody.
_VERSION, _VERSION_OF_PART = 1, 2
# A table with a stamp is of version 3: an earlier reader would serve a plan whose lease is over.
_VERSION_OF_STAMP = 3
# A table of another hash is of version 4: an earlier reader would give users other arms.
_VERSION_OF_HASH = 4


class TableStore(Protocol):
    """Where one table is kept; ``str(store)`` names it in messages.

    Where ``write`` raises, the store must keep what it had.
    """

    def read(self) -> Mapping[str, Any] | None:
        """The table as it was written; None where there is none yet.

        Raises:
            HyperZeroError: the store does not answer, or holds something that is not ours.
        """
        ...

    def write(self, table: Mapping[str, Any]) -> None:
        """Replace the table, whole or not at all.

        Raises:
            HyperZeroError: it was not written.
        """
        ...


@runtime_checkable
class LockedStore(Protocol):
    """A store that can keep other writers away while it is read and written."""

    def held(self) -> AbstractContextManager[Any]:
        """A context in which nobody else writes."""
        ...


class StoredTableUpdater:
    """Writes plans as tables into a store; ``TableUpdater`` has their format.

    On behalf of a study (``on_behalf_of``; the live loop does so) a table is never replaced by an
    older plan, nor by one of another study or another journal. A store without a lock leaves a
    moment between the look and the write: run one loop per study there.

    Args:
        store: where the table is kept.
        salt: the experiment's name, as for ``TableUpdater``.
        hash: that of ``bucket``.
    Raises:
        ConfigError: the salt or the hash cannot be used.
    """

    def __init__(
        self, store: TableStore, *, salt: str = "value-model", hash: Hash = "sha256"
    ) -> None:
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
        self.store, self.salt, self.hash = store, salt, hash
        self._terms: Terms | None = None

    def on_behalf_of(self, terms: Terms) -> Self:
        """The same table for one study and one lease."""
        other = copy.copy(self)
        other._terms = terms
        return other

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again changes nothing.

        Raises:
            InputError: the plan cannot be served.
            FencedError: a later plan is served, or one of another study or journal.
            HyperZeroError: the store cannot be read or written; it is unchanged.
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
        table = self._table(plan.round, arms, plan.experiment_share, stamp)
        with self._held():
            there = self._read()
            if there is not None:
                served = read_stamp(there.get("stamp"))
                check_apply(str(self.store), served, there["round"], plan, self._terms)
            self.store.write(table)

    def withdraw(self) -> None:
        """Serve the control alone, outside any round.

        Without a table it does nothing, except on behalf of a study whose terms name the control.

        Raises:
            FencedError: the table serves another study.
            HyperZeroError: the store cannot be read or written; it is unchanged.
        """
        with self._held():
            there, served = self._read(), None
            if there is not None:
                served = read_stamp(there.get("stamp"))
                check_withdraw(str(self.store), served, self._terms)
            elif self._terms is None or self._terms.control is None:
                return
            if self._terms is not None:
                served = self._terms.withdrawn(served, self.salt)
            self._withdraw(there, served)

    def owner(self) -> dict[str, Any] | None:
        """The stamp of what is served; None where there is none.

        Raises:
            HyperZeroError: the store cannot be read, or holds no such table.
        """
        there = self._read()
        return None if there is None else read_stamp(there.get("stamp"))

    def take_over(self) -> None:
        """Withdraw whatever is served, and serve this study's plans from now on.

        Raises:
            HyperZeroError: as for ``withdraw``, or there are no terms.
        """
        terms = checked_terms(self._terms)
        with self._held():
            there = self._read()
            if there is not None:
                self._withdraw(there, terms.empty_stamp(self.salt))

    def _held(self) -> AbstractContextManager[Any]:
        return self.store.held() if isinstance(self.store, LockedStore) else nullcontext()

    def _read(self) -> dict[str, Any] | None:
        there = self.store.read()
        return None if there is None else check_table(there, str(self.store))

    def _withdraw(self, there: Mapping[str, Any] | None, stamp: dict[str, Any] | None) -> None:
        if there is not None:
            control = there["arms"][0]
        else:
            parameters = dict(checked_terms(self._terms).control or {})
            control = {"candidate": CONTROL, "parameters": parameters}
        arms = [{**control, "share": 1.0, "from": 0.0, "to": 1.0}]
        self.store.write(self._table(None, arms, stamp=stamp))

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


def check_table(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table, if it is one that a ``StoredTableUpdater`` writes.

    Raises:
        ConfigError: it is something else.
    """
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
            f"{where} is not an assignment table of version {_VERSION} to {_VERSION_OF_HASH}; it "
            "was not changed: name another place"
        )
    return dict(table)


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
