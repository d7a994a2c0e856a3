"""Entries for the laws of a journal, and their exact comparison."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..study.journal import (
    EVIDENCE,
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Planned,
    ReadingsReceived,
    StudyHeader,
    pack_array,
)
from .values import HARD_FLOATS, HARD_NAMES, bits

SPEC: Mapping[str, Any] = {"objective": "views", "metrics": ["views"], "x": 0.1, "none": None}
HEADER = StudyHeader("study", 5, SPEC)
FIRST = Configured({"num_draws": 1000, "control_share": "auto"})
KINDS: tuple[type, ...] = (
    Configured,
    CandidateAdded,
    Planned,
    ReadingsReceived,
    Decision,
    Compacted,
)


def example_entries() -> list[Entry]:
    """A small study with every kind of entry."""
    return [
        Configured({"num_draws": 10, "control_share": "auto", "anchor": True, "x": 0.1 + 0.2}),
        CandidateAdded(0, 0, "base", (0.25, 3.0), {"w": 0.25, "depth": 3, "mode": "a"}),
        CandidateAdded(1, 0, "initial", (1 / 3, 1.0), {"w": 1 / 3, "depth": 1, "mode": "b"}),
        Planned(0, (0, 1), (0, 10), (0.5, 0.5), "hour 0", {"why": None, "proposed": []}),
        received((0, 1), mean=(0.1, 0.3)),
        Compacted((8, 9), (12, 13), 40, evidence(0.1, -0.0)),
        Planned(7, (0, 1), (0, 20), (0.1 + 0.2, 1 - (0.1 + 0.2)), None, {"fit": {"a": [[1e-9]]}}),
        received((0, 1), mean=(0.2, 0.4), revision=1),
        ReadingsReceived((0, 7), (1, 0), (1, 1), (2, 0), (0.0, 12.5), (0.0, -1.0), (0.0, 2.0)),
        Decision(7, "fallback", "the fit failed", {"tries": 3, "where": "surrogate"}),
    ]


def random_entries(generator: random.Random, num: int) -> list[Entry]:
    """Entries of random kinds and sizes; no two of them use the same candidate or round."""

    def number() -> float:
        if generator.random() < 0.2:
            return generator.choice(HARD_FLOATS)
        return math.ldexp(generator.uniform(-1, 1), generator.randint(-40, 40))

    def numbers(size: int) -> tuple[float, ...]:
        return tuple(number() for _ in range(size))

    def details() -> dict[str, Any]:
        return {generator.choice(HARD_NAMES): list(numbers(2)) for _ in range(2)}

    entries: list[Entry] = []
    for i in range(num):
        size = generator.randint(1, 5)
        arms = tuple(sorted(generator.sample(range(1000), size)))
        kind = generator.choice(KINDS)
        if kind is Configured:
            entries.append(Configured(details()))
        elif kind is CandidateAdded:
            entries.append(CandidateAdded(i, i // 2, "proposal", numbers(size), details()))
        elif kind is Planned:
            entries.append(Planned(i, arms, tuple(range(size)), numbers(size), None, details()))
        elif kind is ReadingsReceived:
            rows = ((i,) * size, arms, (i % 3,) * size, (i % 2,) * size)
            entries.append(ReadingsReceived(*rows, numbers(size), numbers(size), numbers(size)))
        elif kind is Compacted:  # of rounds that have no readings
            entries.append(Compacted((num + i,), arms, size, evidence(*numbers(size))))
        else:
            entries.append(Decision(i, "kind", generator.choice(HARD_NAMES), details()))
    return entries


def evidence(*means: float) -> dict[str, Any]:
    """Compacted evidence of one candidate per mean: one metric, arm and hour of the day each."""
    size = {"c": len(means), "m": 1, "a": len(means), "h": 1}
    arrays = {
        name: np.ones([size[a] for a in axes], {"i": np.int64, "f": np.float64}[kind])
        for name, (kind, axes) in EVIDENCE.items()
    }
    arrays["candidate"] = arrays["exposed_row"] = np.arange(len(means))
    arrays["mean"] = np.array(means)[:, None]
    return {name: pack_array(array) for name, array in arrays.items()}


def received(
    candidates: Iterable[int], mean: Iterable[float], revision: int = 0
) -> ReadingsReceived:
    """Readings of metric 0 in round 0."""
    candidates = tuple(candidates)
    num = len(candidates)
    return ReadingsReceived(
        round=(0,) * num,
        candidate=candidates,
        metric=(0,) * num,
        revision=(revision,) * num,
        count=(1000.0,) * num,
        mean=tuple(mean),
        var=(5e-324,) * num,
    )


def assert_same(got: Sequence[Entry], want: Sequence[Entry]) -> None:
    """Equal kinds, equal values, equal types and bits."""
    assert len(got) == len(want), f"{len(want)} entries were written, {len(got)} came back"
    for number, (g, w) in enumerate(zip(got, want), start=1):
        assert type(g) is type(w), f"entry {number} of these: wrote {w!r:.300}, read {g!r:.300}"
        for name, value in vars(w).items():
            back = getattr(g, name)
            assert back == value, (
                f"entry {number}, {name}: wrote {value!r:.300}, read {back!r:.300}"
            )
            assert bits(back) == bits(value), f"entry {number}, {name}: other bits or types"
