"""The faults of a failing seed that it takes to fail: others are dropped while it still fails."""

from __future__ import annotations

from .faults import Fault, schedule
from .run import simulate


def shrunk(seed: int, invariant: str) -> list[Fault]:
    """A part of the seed's faults that still breaks the same invariant.

    Whole halves, quarters, and so on are dropped first, then single faults.
    """
    faults = schedule(seed)
    size = max(1, len(faults) // 2)
    while True:
        begin, dropped = 0, False
        while begin < len(faults):
            rest = faults[:begin] + faults[begin + size :]
            violation = simulate(seed, rest).violation
            if violation is not None and violation[0] == invariant:
                faults, dropped = rest, True
            else:
                begin += size
        if size == 1 and not dropped:
            return faults
        size = max(1, size // 2)
