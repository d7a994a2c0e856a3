"""The runs of a family as a Markdown table; for ``bench.tables``.

    python -m bench.transfer.table

draws one table for every results file there is.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from hyperzero_torch import InputError

from .run import RESULTS

_NEARLY_ALL = 0.9
_HOURS = (5, 10, 20)
_STEM = re.compile(
    r"transfer_(?P<world>d\d+|regions)_x(?P<traffic>[^_]+)_s(?P<share>[^_]+)(_r(?P<richer>[^_]+))?"
)

Runs = dict[str, dict[int, dict[str, Any]]]  # by kind and seed


def transfer_tables(results: Path = RESULTS) -> str:
    """A table of every family and traffic that is there, each under its title."""
    parts = []
    for path in recorded(results):
        parts += [f"{title(path)}:", "", transfer_table(path), ""]
        if comparison := against_peers(path):
            parts += [comparison, ""]
    return "\n".join(parts[:-1])


def recorded(results: Path) -> list[Path]:
    """The files that hold runs of a family."""
    return sorted(p for p in results.glob("transfer_*.jsonl") if _STEM.fullmatch(p.stem))


def title(path: Path) -> str:
    """What a results file is about."""
    match = _STEM.fullmatch(path.stem)
    if match is None:
        raise InputError(f"{path.name} holds no runs of a family")
    world = match["world"]
    what = "regions of a living recommender" if world == "regions" else f"d = {world[1:]}"
    rich = f", sources with {match['richer']} times as much" if match["richer"] else ""
    return f"{what}, traffic x {match['traffic']}{rich}, share {match['share']}"


def transfer_table(path: Path) -> str:
    """One row per kind of sources: hours to 90 % of the oracle's gain, and what a start lost.

    ``hours`` are the medians over worlds of the first hour whose recommendation is worth 90 % of
    the oracle's gain, worlds that never get there counted as the first hour after the last. What
    a start is ahead of the cold one is the mean over hours and worlds with its 95 % interval. The
    worst hour is the largest mean loss against the cold start at any hour, paired by world, with
    the upper end of its 95 % interval. All kinds that the file holds are shown, peers last, each
    on the worlds that it shares with the cold start, on all where there is none to compare with.
    """
    runs = load(path)
    cold = runs.get("cold")
    head = [
        "sources", "worlds", "hours to 90 %", "of a cold start's",
        *(f"hour {h}" for h in _HOURS),
        "ahead of cold, all hours", "worst hour behind cold", "exposed violation", "CPU s a round",
    ]  # fmt: skip
    lines = [" | ".join(["", *head, ""]).strip(), "|" + " --- |" * len(head)]
    for kind in in_order(set(runs)):
        others = runs[kind] if cold is None else cold
        pairs = [(run, others[seed]) for seed, run in runs[kind].items() if seed in others]
        if not pairs:
            continue
        rounds = min(min(r["rounds"], c["rounds"]) for r, c in pairs)
        own = [_hours(run, rounds) for run, _ in pairs]
        base = [_hours(other, rounds) for _, other in pairs]
        mean = [sum(run["score"][h] for run, _ in pairs) / len(pairs) for h in range(rounds)]
        shown = [f"{mean[h]:.0%}" if h < rounds else "" for h in _HOURS]
        exposed = [sum(r["exposed_violation"][:rounds]) / rounds for r, _ in pairs]
        spent = [sum(r["seconds"][:rounds]) / rounds for r, _ in pairs]
        compared = cold is not None and kind != "cold"
        ahead = _ahead(pairs) if compared and len(pairs) > 1 else ""
        worst = _worst(pairs, rounds) if compared else ""
        part = "" if cold is None else f"{_median(own) / _median(base):.2f}"
        cells = [
            kind, str(len(pairs)), f"{_median(own):g}", part, *shown, ahead, worst,
            f"{sum(exposed) / len(pairs):.3%}", f"{sum(spent) / len(pairs):.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against_peers(path: Path) -> str:
    """This package's score less each peer's, over all hours, paired by world; empty if none ran."""
    runs = load(path)
    comparisons = []
    for ours in in_order({kind for kind in runs if "/" not in kind}):
        against = []
        for kind in in_order(set(runs)):
            peer, slash, sources = kind.rpartition("/")
            if not slash or sources != ours.partition("@")[0]:
                continue
            both = sorted(set(runs[kind]) & set(runs[ours]))
            if len(both) > 1:
                pairs = [(runs[ours][seed], runs[kind][seed]) for seed in both]
                against.append(f"{peer} {_ahead(pairs)} ({len(both)} worlds)")
        if against:
            comparisons.append(f"{ours} less {', less '.join(against)}")
    if not comparisons:
        return ""
    listed = "; ".join(comparisons)
    return f"This package's score less the peers' on the same sources, all hours: {listed}."


def load(path: Path) -> Runs:
    """The runs of a file; of two of one kind and world, the last."""
    runs: Runs = defaultdict(dict)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        runs[record["kind"]][record["seed"]] = record
    return dict(runs)


def in_order(kinds: set[str]) -> list[str]:
    """The cold start first, peers last."""
    return sorted(kinds, key=_order)


def _order(kind: str) -> tuple[Any, ...]:
    """The cold start, then this package by kind and number of sources, then peers alike."""
    label, _, option = kind.partition("@")
    peer, _, sources = label.rpartition("/")
    name, _, num = sources.partition(":")
    return kind != "cold", peer, name != "related", name, int(num or 1), option


def _hours(run: dict[str, Any], rounds: int) -> int:
    return next((h for h, s in enumerate(run["score"][:rounds]) if s >= _NEARLY_ALL), rounds)


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return (ordered[middle - 1] + ordered[middle]) / 2


def _ahead(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """By how much the first of each pair is ahead on average over hours, with its interval."""
    ahead = []
    for run, other in pairs:
        hours = min(len(run["score"]), len(other["score"]))
        ahead.append(100 * (sum(run["score"][:hours]) - sum(other["score"][:hours])) / hours)
    mean = sum(ahead) / len(ahead)
    spread = math.sqrt(sum((v - mean) ** 2 for v in ahead) / (len(ahead) - 1))
    return f"{mean:+.1f} ± {1.96 * spread / math.sqrt(len(ahead)):.1f} points"


def _worst(pairs: list[tuple[dict[str, Any], dict[str, Any]]], rounds: int) -> str:
    """The largest upper end of the interval of the mean loss, over hours."""
    worst, text = -math.inf, ""
    for h in range(rounds):
        lost = [other["score"][h] - run["score"][h] for run, other in pairs]
        mean = sum(lost) / len(lost)
        spread = math.sqrt(sum((v - mean) ** 2 for v in lost) / max(1, len(lost) - 1))
        upper = mean + 1.96 * spread / math.sqrt(len(lost))
        if upper > worst:
            worst, text = upper, f"{100 * mean:+.1f} points (at most {100 * upper:+.1f}), hour {h}"
    return text


if __name__ == "__main__":
    print(transfer_tables())
