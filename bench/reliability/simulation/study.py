"""The simulated study: its problem, the small model, and the warehouse with its readings."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.live.aggregate.source import Collected
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.tuner.model import ModelState, Unfitted

HOUR = 3600.0
START = 400_000 * HOUR
NAME = "simulated"
#: Small numbers of everything; the limits of exposure are those of the default.
CONFIG = hz.TunerConfig(
    num_draws=50, num_samples=4, num_proposals=1, initial_candidates=3, num_starts=0,
    verification_share=0.0, max_arms=4, drift_alpha=None, srm_alpha=None, calibrate=False,
)  # fmt: skip


@cache
def problem() -> hz.Problem:
    """One parameter, one metric, one guardrail."""
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    return hz.Problem(space, {"a": 0.4}, ["gain"], "gain", ["gain >= -50%"])


class SmallTuner(hz.Tuner):
    """A tuner with the evidence, stops, limits and switches of the package, and no posterior.

    Each arm is served in turn, as in a study whose readings do not suffice for a fit yet.
    """

    def _update_model(self, broken: str | None = None) -> ModelState:
        history, problem = self.study.history, self.study.problem
        bucket = gather(history, Pooling.of(self.study.config), self._cache.blocks)
        if bucket.levels_by_metric is not None:
            problem = problem.with_base_levels(bucket.levels_by_metric)
        everybody = torch.arange(history.num_candidates)
        why_not = "the small model of the simulation has no posterior"
        return Unfitted(bucket, problem, everybody, self._cache.blocks, None, None, why_not)

    def _reopened(self, problem: hz.Problem, name: str) -> SmallTuner:
        return SmallTuner(problem, None, self.journal, name, None)


class Warehouse:
    """Readings of the rounds that were served, as they come in, and as faults make of them.

    A value is a function of round, candidate and revision alone. ``given`` has all that was handed
    out, by (round, candidate, metric, revision): what the journal may hold.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.arms: dict[int, tuple[int, ...]] = {}  # served, by round
        self.late: dict[int, int] = {}
        self.revision: dict[int, int] = {}
        self.absurd: dict[int, int] = {}  # from which revision on it is absurd no more
        self.given: dict[tuple[int, int, int, int], set[tuple[float, float, float]]] = {}

    def value(self, round_: int, candidate: int, revision: int) -> tuple[float, float, float]:
        """Count, mean and variance."""
        dice = random.Random(f"reading {self.seed} {round_} {candidate} {revision}")
        factor = 1e6 if revision < self.absurd.get(round_, 0) else 1.0
        mean = factor * (10.0 + 0.2 * (candidate % 5) + dice.gauss(0.0, 0.1))
        return 100.0 * (1 + revision), mean, 1.0

    def due(self, as_of: int) -> list[int]:
        """Rounds with readings at this time."""
        return [r for r in self.arms if r + 1 + self.late.get(r, 0) <= as_of]

    def rows(self, round_: int, candidates: Collection[int], revision: int) -> list[list[float]]:
        """Rows of one round, which count as given."""
        rows = []
        for candidate in candidates:
            value = self.value(round_, candidate, revision)
            self.given.setdefault((round_, candidate, 0, revision), set()).add(value)
            rows.append([round_, candidate, revision, *value])
        return rows

    def collect(
        self, as_of: int, faults: Mapping[str, float], dice: random.Random, happened: Counter[str]
    ) -> Any:
        """All readings that are there, bent by the faults that happen at this call.

        Args:
            as_of: the round that begins.
            faults: the size of each, by name.
            dice: for the order of rows.
            happened: those faults that changed anything are counted there.
        """
        if "nonsense from the warehouse" in faults:
            happened["nonsense from the warehouse"] += 1
            return dice.choice((None, 7, {"readings": []}))
        due = self.due(as_of)
        for kind, size in faults.items() if due else ():
            if self._bend(kind, size, due):
                happened[kind] += 1
        rows = []
        for round_ in self.due(as_of):
            rows += self.rows(round_, self.arms[round_], self.revision.get(round_, 0))
        if "readings of an unknown round" in faults:
            happened["readings of an unknown round"] += 1
            rows += self.rows(as_of + 1000, (0, 1), 0)
        if "duplicated readings" in faults and rows:
            happened["duplicated readings"] += self._duplicate(rows, faults["duplicated readings"])
        if "reordered readings" in faults and len(rows) > 1:
            happened["reordered readings"] += 1
            dice.shuffle(rows)
        return Collected(_message(rows) if rows else None)

    def _bend(self, kind: str, size: float, due: list[int]) -> bool:
        round_, newest = due[int(size * len(due))], due[-1]
        if kind == "late readings":
            self.late[newest] = self.late.get(newest, 0) + 1 + int(2 * size)
        elif kind == "revised readings":
            self.revision[round_] = self.revision.get(round_, 0) + 1
        elif kind == "absurd readings" and (newest, 0, 0, 0) not in self.given:
            self.absurd[newest] = 1
        else:
            return False
        return True

    def _duplicate(self, rows: list[list[float]], size: float) -> bool:
        """Hand out an hour once more: as it was before its revision, or all the same rows twice."""
        round_ = int(rows[int(size * len(rows))][0])
        if round_ not in self.arms:
            return False
        if self.revision.get(round_, 0):
            rows += self.rows(round_, self.arms[round_], 0)
        else:
            rows += [list(row) for row in rows if row[0] == round_]
        return True


def _message(rows: list[list[float]]) -> hz.Readings:
    names = ("round", "candidate", "revision", "count", "mean", "var")
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows))))
    return hz.Readings.from_frame(columns | {"metric": ["gain"] * len(rows)})
