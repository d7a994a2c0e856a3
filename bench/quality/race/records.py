"""The race's JSON lines, read and summarised."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .judge import TOLERANCE
from .run import RESULTS

#: The contender with which the others are compared.
OURS = "hyperzero"
HOURS = (10, 20, 30)
# Student's t for a two-sided interval of 95 %, by degrees of freedom; above 30 the normal's.
_T = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23,
    2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09,
    2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
)  # fmt: skip


class Race(NamedTuple):
    """The runs of one kind of world: from a contender to its runs by seed."""

    title: str
    runs: dict[str, dict[int, dict[str, Any]]]

    def contenders(self) -> list[str]:
        """Ours first, then by mean score at the last hour that all reached; no variants."""
        plain = [name for name in self.runs if "@" not in name]
        return sorted(self._by_score(plain), key=lambda name: name != OURS)

    def variants(self) -> list[str]:
        """Ours with options, by mean score."""
        return self._by_score([name for name in self.runs if name.startswith(f"{OURS}@")])

    def _by_score(self, names: list[str]) -> list[str]:
        hour = self.hours()[-1]
        return sorted(names, key=lambda name: -float(self.column(name, "score")[:, hour].mean()))

    def hours(self) -> list[int]:
        """Those of ``HOURS`` that every run reached, or else the last round."""
        last = min(len(r["score"]) for runs in self.runs.values() for r in runs.values()) - 1
        return [hour for hour in HOURS if hour <= last] or [last]

    def column(self, contender: str, name: str) -> NDArray[np.float64]:
        """``(runs, rounds)`` of a column, the runs by seed."""
        runs = self.runs[contender]
        rounds = min(len(r[name]) for r in runs.values())
        return np.array([runs[seed][name][:rounds] for seed in sorted(runs)])

    def violating(self, contender: str, hour: int) -> float:
        """Share of runs whose recommendation truly violates at this hour."""
        return float((self.column(contender, "violation")[:, hour] > TOLERANCE).mean())

    def advantage(self, contender: str, hour: int) -> tuple[float, float, int]:
        """Ours less theirs on the seeds that both ran: mean, half of its interval, how many."""
        ours, theirs = self.runs.get(OURS, {}), self.runs[contender]
        seeds = sorted(set(ours) & set(theirs))
        difference = [ours[s]["score"][hour] - theirs[s]["score"][hour] for s in seeds]
        mean, half = interval(difference)
        return mean, half, len(seeds)


def interval(values: list[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval; NaN if there are too few values."""
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        return float("nan"), float("nan")
    if len(data) < 2:
        return float(data.mean()), float("nan")
    t = _T[len(data) - 2] if len(data) - 2 < len(_T) else 1.96
    return float(data.mean()), float(t * data.std(ddof=1) / len(data) ** 0.5)


def load(results: Path = RESULTS) -> dict[str, Race]:
    """All races of a folder by file name; of repeated runs the longest is used."""
    races = {}
    for path in sorted(results.glob("race_*.jsonl")):
        runs: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for line in path.read_text().splitlines():
            record = json.loads(line)
            held = runs[record["contender"]].get(record["seed"])
            if held is None or record["rounds"] >= held["rounds"]:
                runs[record["contender"]][record["seed"]] = record
        if runs:
            first = next(iter(next(iter(runs.values())).values()))
            title = f"{first['world']}, d = {first['dims']}, traffic x {first['traffic']:g}"
            races[path.stem] = Race(title, dict(runs))
    return races


def load_limits(results: Path = RESULTS) -> dict[str, dict[str, float]]:
    """The results of ``race.limit``: from a race's title to its scores."""
    path = results / "limit.json"
    limits: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    return limits
