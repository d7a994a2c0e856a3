"""The speed tables from pytest-benchmark's JSON under bench/results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

FILES = ("streaming", "moments", "paths", "marginals", "selection", "fits", "round")


def records(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Each question's contenders, in the order in which they ran."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in (*FILES, *(f"cuda_{name}" for name in FILES)):
        path = results / f"speed_{name}.json"
        if not path.exists():
            continue
        for one in json.loads(path.read_text())["benchmarks"]:
            found[one["group"]].append(one["extra_info"] | {"stats": one["stats"]})
    return found


def table(results: Path) -> str:
    """One line per contender: how long, how much a second, and against limit and peers."""
    lines = [
        "| question | who | median | per second | against the limit | against the fastest peer |",
        "|" + " --- |" * 6,
    ]
    for question, ran in records(results).items():
        peer = _fastest(ran, "peer")
        title = question
        for one in ran:
            rate = one["work"] / one["median"]
            limit = _fastest([o for o in ran if one.get("limit", o["who"]) == o["who"]], "limit")
            name = f"**{one['who']}**" if one["role"] == "ours" else one["who"]
            cells = [title, name, _time(one["median"]), _count(rate) if one["work"] > 1 else ""]
            against_limit = "" if limit is None or one["role"] == "limit" else limit / rate
            against_peer = "" if peer is None or one["role"] != "ours" else rate / peer
            cells.append(against_limit and f"{against_limit:.2f} x its time")
            cells.append(against_peer and f"{against_peer:.1f} x as fast")
            lines.append(f"| {' | '.join(cells)} |")
            title = ""
    if not any(results.glob("speed_cuda_*.json")):
        lines.append("| the same on CUDA (`python -m bench.cuda`) | not measured |  |  |  |  |")
    return "\n".join(lines)


def machine(results: Path) -> str:
    """On what it was measured, and how far mixed mode was off."""
    told = json.loads((results / f"speed_{FILES[0]}.json").read_text())
    info, threads = told["machine_info"], told["benchmarks"][0]["extra_info"]["threads"]
    packages = ", ".join(f"{name} {number}" for name, number in info["packages"].items())
    errors = [
        f"{what} {number:.1g} ({question})"
        for question, ran in records(results).items()
        for one in ran
        for what, number in one.items()
        if "error" in what
    ]
    devices = {
        json.loads(path.read_text())["machine_info"].get("device", "")
        for path in results.glob("speed_cuda_*.json")
    }
    device = f"CUDA rows: {', '.join(sorted(devices))}. " if any(devices) else ""
    return (
        f"{device}{threads} threads of {info['cpu']['brand_raw']} ({info['cpu_capability']}); "
        f"{packages}. "
        f"Mixed mode against float64: {'; '.join(errors)}."
    )


def _fastest(ran: list[dict[str, Any]], role: str) -> float | None:
    return max((one["work"] / one["median"] for one in ran if one["role"] == role), default=None)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _count(rate: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:,.0f}"
