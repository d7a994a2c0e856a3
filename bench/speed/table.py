"""The speed tables from pytest-benchmark's JSON under bench/results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

FILES = ("streaming", "moments", "paths", "marginals", "selection", "fits", "round")


def records(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Each question's contenders, in the order in which they ran."""
    contenders: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ours = [results / f"speed_{name}.json" for name in FILES]
    for path in (*ours, *sorted(results.glob("speed_cuda_*.json"))):
        if not path.exists():
            continue
        for result in json.loads(path.read_text())["benchmarks"]:
            contenders[result["group"]].append(result["extra_info"] | {"stats": result["stats"]})
    return contenders


def table(results: Path) -> str:
    """One line per contender: time, work per second, and ratios to the limit and the peers."""
    lines = [
        "| question | who | median | per second | against the limit | against the fastest peer |",
        "|" + " --- |" * 6,
    ]
    for question, contenders in records(results).items():
        peer = _fastest(contenders, "peer")
        title = question
        for this in contenders:
            rate = this["work"] / this["median"]
            bounding = [o for o in contenders if this.get("limit", o["who"]) == o["who"]]
            limit = _fastest(bounding, "limit")
            name = f"**{this['who']}**" if this["role"] == "ours" else this["who"]
            cells = [title, name, _time(this["median"]), _count(rate) if this["work"] > 1 else ""]
            against_limit = "" if limit is None or this["role"] == "limit" else limit / rate
            against_peer = "" if peer is None or this["role"] != "ours" else rate / peer
            cells.append(against_limit and f"{against_limit:.2f} x its time")
            cells.append(against_peer and f"{against_peer:.1f} x as fast")
            lines.append(f"| {' | '.join(cells)} |")
            title = ""
    if not any(results.glob("speed_cuda_*.json")):
        lines.append("| the same on CUDA (`python -m bench.cuda`) | not measured |  |  |  |  |")
    return "\n".join(lines)


def machine(results: Path) -> str:
    """The machine and the packages, and the error of mixed mode."""
    report = json.loads((results / f"speed_{FILES[0]}.json").read_text())
    info, threads = report["machine_info"], report["benchmarks"][0]["extra_info"]["threads"]
    packages = ", ".join(f"{name} {number}" for name, number in info["packages"].items())
    errors = [
        f"{what} {number:.1g} ({question})"
        for question, contenders in records(results).items()
        for contender in contenders
        for what, number in contender.items()
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


def _fastest(contenders: list[dict[str, Any]], role: str) -> float | None:
    return max((c["work"] / c["median"] for c in contenders if c["role"] == role), default=None)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _count(rate: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:,.0f}"
