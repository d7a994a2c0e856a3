"""The runs of a family as a Markdown table; for ``bench.tables``."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from .run import RESULTS

_NEARLY_ALL = 0.9
_HOURS = (5, 10, 15, 20)


def transfer_table(path: Path) -> str:
    """One row per kind of sources: hours to 90 % of the oracle's gain, and what a start lost.

    ``hours`` are the medians over worlds of the first hour whose recommendation is worth 90 % of
    the oracle's gain, worlds that never get there counted as the first hour after the last. The
    worst hour is the largest mean loss against the cold start at any hour, paired by world, with
    the upper end of its 95 % interval.
    """
    runs: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        runs[record["kind"]][record["seed"]] = record
    cold = runs["cold"]
    head = [
        "sources", "worlds", "hours to 90 %", "of a cold start's",
        *(f"hour {h}" for h in _HOURS),
        "worst hour behind cold", "exposed violation", "CPU s a round",
    ]  # fmt: skip
    lines = [" | ".join(["", *head, ""]).strip(), "|" + " --- |" * len(head)]
    for kind in ["cold", *sorted(k for k in runs if k != "cold")]:
        pairs = [(run, cold[seed]) for seed, run in runs[kind].items() if seed in cold]
        if not pairs:
            continue
        rounds = min(min(r["rounds"], c["rounds"]) for r, c in pairs)
        own = [_hours(run, rounds) for run, _ in pairs]
        base = [_hours(other, rounds) for _, other in pairs]
        mean = [sum(run["score"][h] for run, _ in pairs) / len(pairs) for h in range(rounds)]
        shown = [f"{mean[h]:.0%}" if h < rounds else "" for h in _HOURS]
        exposed = [sum(r["exposed_violation"][:rounds]) / rounds for r, _ in pairs]
        spent = [sum(r["seconds"][:rounds]) / rounds for r, _ in pairs]
        worst = "" if kind == "cold" else _worst(pairs, rounds)
        cells = [
            kind, str(len(pairs)), f"{_median(own):g}", f"{_median(own) / _median(base):.2f}",
            *shown, worst, f"{sum(exposed) / len(pairs):.3%}", f"{sum(spent) / len(pairs):.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _hours(run: dict[str, Any], rounds: int) -> int:
    return next((h for h, s in enumerate(run["score"][:rounds]) if s >= _NEARLY_ALL), rounds)


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return (ordered[middle - 1] + ordered[middle]) / 2


def _worst(pairs: list[tuple[dict[str, Any], dict[str, Any]]], rounds: int) -> str:
    """The largest upper end of the interval of the mean loss, over hours."""
    worst, said = -math.inf, ""
    for h in range(rounds):
        lost = [other["score"][h] - run["score"][h] for run, other in pairs]
        mean = sum(lost) / len(lost)
        spread = math.sqrt(sum((v - mean) ** 2 for v in lost) / max(1, len(lost) - 1))
        upper = mean + 1.96 * spread / math.sqrt(len(lost))
        if upper > worst:
            worst, said = upper, f"{100 * mean:+.1f} points (at most {100 * upper:+.1f}), hour {h}"
    return said


if __name__ == "__main__":
    for found in sorted(RESULTS.glob("transfer_d*.jsonl")):
        print(found.stem, "", transfer_table(found), "", sep="\n")
