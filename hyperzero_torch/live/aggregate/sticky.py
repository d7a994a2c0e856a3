"""Sticky users: assigned to an arm once, and not anew in every round.

Users differ for good. Where they keep their arm, so do its deltas keep their differences: further
hours do not average them out, and the variance of a delta promises too much. It shows in the
exposures: of the users seen in two rounds, as many have the same candidate in both as chance
predicts, or nearly all of them.
"""

from __future__ import annotations

import math
from typing import Any

import narwhals as nw

from .frames import collect

# Users of a round that are compared: the first by their ids, so that rounds have many in common.
_MAX_USERS = 4000
_MIN_USERS = 500
# Rounds back that are looked for the same users.
_MAX_APART = 6
# Of the users beyond those that chance predicts, the fraction that keep their arm; and how many
# standard deviations that has to be above chance.
_MIN_KEPT, _MIN_DEVIATION = 0.25, 6.0


class StickyUsers:
    """Remembers a sample of the users of each round, and compares rounds.

    An aggregator keeps it from call to call, so that rounds that are read one by one are compared.
    """

    def __init__(self) -> None:
        self._arms: dict[int, dict[Any, int]] = {}

    def observe(self, exposures: nw.LazyFrame[Any], window: list[int]) -> None:
        """Take a sample of the users of these rounds; those before the window are dropped."""
        for round_ in window:
            if len(self._arms.get(round_, {})) >= _MIN_USERS:
                continue
            here = exposures.filter(nw.col("round") == round_).select("user", "candidate")
            here = here.drop_nulls()  # rows without a user or an arm are counted elsewhere
            here = here.filter(nw.col("candidate") >= 0)  # and users outside the experiment
            sample = here.unique(subset=["user", "candidate"]).sort("user", "candidate")
            rows = collect(sample.head(_MAX_USERS), "a sample of the users")
            arms: dict[Any, int] = {}
            twice = set()
            for row in rows:
                if arms.setdefault(row["user"], int(row["candidate"])) != int(row["candidate"]):
                    twice.add(row["user"])  # in two arms: counted elsewhere
            self._arms[round_] = {u: c for u, c in arms.items() if u not in twice}
        for round_ in [r for r in self._arms if r < min(window) - _MAX_APART]:
            del self._arms[round_]

    def reason(self, round_: int) -> str | None:
        """Why a round must not count, in words; None where users are assigned anew."""
        here = self._arms.get(round_, {})
        for earlier in range(round_ - 1, round_ - 1 - _MAX_APART, -1):
            there = self._arms.get(earlier, {})
            both = here.keys() & there.keys()
            if len(both) < _MIN_USERS:
                continue
            same = sum(here[user] == there[user] for user in both)
            counts: dict[int, list[int]] = {}
            for i, arms in enumerate((here, there)):
                for user in both:
                    counts.setdefault(arms[user], [0, 0])[i] += 1
            chance = sum(a * b for a, b in counts.values()) / len(both) ** 2
            if chance >= 1:
                return None
            kept = (same / len(both) - chance) / (1 - chance)
            deviation = math.sqrt(chance * (1 - chance) / len(both))
            is_clear = same / len(both) - chance > _MIN_DEVIATION * deviation
            if kept >= _MIN_KEPT and is_clear:
                return (
                    f"users keep their arm: of {len(both):,} users seen in rounds {earlier} and "
                    f"{round_}, {same / len(both):.0%} have the same candidate in both, "
                    f"{chance:.0%} expected; assign users anew in every round, by a hash of user "
                    "and round"
                )
            return None
        return None
