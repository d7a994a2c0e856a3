"""What goes wrong in one simulated study, and when: drawn from the seed, before the study begins.

A fault happens at the first I/O call of its kind that is not earlier than the call it was drawn
for. The same list of faults gives the same study, so a failing list can be shortened.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# Kinds of I/O calls.
READ, WRITE, STATEMENT, FILE, LOCK, CALL, SOURCE, WAIT = (
    "journal read", "journal write", "statement", "file write", "lock", "call", "source", "wait",
)  # fmt: skip
ANY = (READ, WRITE, STATEMENT, FILE, LOCK, SOURCE, WAIT)

#: Faults by name: the I/O calls that they can happen at.
KINDS: dict[str, tuple[str, ...]] = {
    "death before an I/O call": ANY,
    "death after a write took effect": (WRITE, FILE),
    "torn write": (FILE,),
    "machine crash": ANY,
    "machine crash with a lost fsync": ANY,
    "full disk": (WRITE, STATEMENT, FILE),
    "locked database": (READ, WRITE, STATEMENT),
    "database restart": (READ, WRITE),
    "answer of a commit lost": (WRITE,),
    "paused process": ANY,
    "clock jump": ANY,
    "call that hangs": (CALL,),
    "warehouse down": (SOURCE,),
    "nonsense from the warehouse": (SOURCE,),
    "duplicated readings": (SOURCE,),
    "late readings": (SOURCE,),
    "reordered readings": (SOURCE,),
    "revised readings": (SOURCE,),
    "absurd readings": (SOURCE,),
    "readings of an unknown round": (SOURCE,),
}
# Faults that last: each call that fails meanwhile is a fault of its own.
LASTING = ("full disk", "locked database", "database restart", "warehouse down")
# How many of each are drawn for one study, at most.
_MOST = {
    "death before an I/O call": 10,
    "death after a write took effect": 2,
    "torn write": 1,
    "machine crash": 1,
    "machine crash with a lost fsync": 1,
    "full disk": 7,
    "locked database": 7,
    "database restart": 6,
    "answer of a commit lost": 18,
    "paused process": 2,
    "clock jump": 2,
    "call that hangs": 4,
    "warehouse down": 8,
    "nonsense from the warehouse": 2,
    "duplicated readings": 40,
    "late readings": 16,
    "reordered readings": 34,
    "revised readings": 16,
    "absurd readings": 4,
    "readings of an unknown round": 4,
}
#: I/O calls of a study; later faults do not happen.
HORIZON = 450
#: What an operator does, up to six times in a study, and what undoes it, mostly later.
OPERATIONS = {
    "pause": "resume",
    "withdraw": "resume",
    "stop": "let back",
    "pin": "unpin",
    "set aside": "reinstate",
    "launch": "abort launch",
    "roll back": None,
    "take over": None,
    "resync": None,
}
_URGENT = ("stop", "withdraw")  # what must hold at once is done more often
_UNDONE = 0.7  # probability


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        kind: among ``KINDS``, or ``"operator: ..."``.
        at: number of the I/O call at which it happens, or of a later one.
        size: from 0 to 1: how long, how far, how many.
    """

    kind: str
    at: int
    size: float


@dataclass(frozen=True)
class Setting:
    """What a study looks like. Its first death is at I/O call ``seed mod HORIZON``."""

    loops: int
    rounds: int
    is_sql: bool


def setting(seed: int) -> Setting:
    """The setting of a seed: every twentieth has a real SQLite file."""
    dice = random.Random(f"setting {seed}")
    return Setting(dice.choice((1, 1, 2, 2, 3)), dice.choice((7, 9, 11)), seed % 20 == 19)


def schedule(seed: int) -> list[Fault]:
    """The faults of a seed, in order."""
    dice = random.Random(f"faults {seed}")
    faults = [Fault("death before an I/O call", seed % HORIZON, 0.5)]
    for kind, most in _MOST.items():
        faults += [
            Fault(kind, dice.randrange(HORIZON), dice.random())
            for _ in range(dice.randint(0, most))
        ]
    for _ in range(dice.randint(1, 6)):
        name = dice.choice((*OPERATIONS, *_URGENT))
        at, undo = dice.randrange(40, 300), OPERATIONS[name]
        faults += [Fault(f"operator: {name}", at, dice.random())]
        if undo is not None and dice.random() < _UNDONE:
            faults += [Fault(f"operator: {undo}", at + dice.randrange(10, 150), dice.random())]
    return sorted(faults, key=lambda f: f.at)
