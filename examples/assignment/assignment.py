"""Which arm a unit (a user) is served in a round: a table of ``hyperzero``.

    table = json.load(open("table.json"))       # live: {table: table.json, hash: sha256}
    served = assign(table, "user-17", time.time())
    served["parameters"]                        # serve these
    served["round"]                             # log an exposure only where it is not None

Copy this file; it needs the standard library only. ``vectors.json`` has what it must answer.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any


def place(unit: str | int, round: int | str, salt: str) -> float:
    """A unit's place in [0, 1): the same in every language, and another one in every round.

    The first 13 hexadecimal digits (52 bits) of SHA-256 over ``salt/round/unit`` in UTF-8, as a
    fraction of 16^13.
    """
    digest = sha256(f"{salt}/{round}/{unit}".encode()).hexdigest()
    return int(digest[:13], 16) / 16.0**13


def takes_part(unit: str | int, share: float, salt: str) -> bool:
    """Whether a unit is among the ``share`` of all users for whom the experiment is.

    It is the same in every round, and a larger share keeps who took part before.
    """
    return place(unit, "experiment", salt) < share


def assign(table: dict[str, Any], unit: str | int | None, now: float) -> dict[str, Any]:
    """Candidate, parameters and round of a unit; a round of None means: log no exposure.

    Raises:
        ValueError: the table is of another kind, version or hash.
    """
    check(table)
    stamp, control = table.get("stamp") or {}, table["arms"][0]
    nobody = {"candidate": 0, "round": None, "parameters": control["parameters"]}
    if unit is None or unit == "" or table["round"] is None:
        return nobody
    if "valid_until" in stamp and not stamp["valid_from"] <= now < stamp["valid_until"]:
        return nobody  # the lease of the plan has run out, or has not begun
    if not takes_part(unit, table.get("experiment_share", 1.0), table["salt"]):
        return nobody
    at = place(unit, table["round"], table["salt"])
    arm = next(arm for arm in table["arms"] if at < arm["to"])
    return {"candidate": arm["candidate"], "round": table["round"], "parameters": arm["parameters"]}


def check(table: dict[str, Any]) -> None:
    """Refuse a table that this file does not know: it would give users other arms."""
    expected = ("hyperzero-torch assignment table", 4, "sha256")
    if (table.get("kind"), table.get("version"), table.get("hash")) != expected:
        raise ValueError("expected an assignment table of version 4 with the hash sha256")
