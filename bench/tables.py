"""Redraw the README's tables from the raw numbers under bench/results.

    python -m bench.tables [--check]

A table stands in the README between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def appendix_a() -> str:
    """Fraction of the oracle's gain and violation, mean ± standard deviation over seeds."""
    records = json.loads((RESULTS / "appendix_a.json").read_text())["records"]
    lines = [
        "| configuration | hour 10 | hour 20 | hour 30 | violation at 10 / 20 / 30 | worst seed, "
        "hour 30 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for config, name in (("default", "default"), ("paper", "`TunerConfig.paper()`")):
        runs = [r for r in records if r["config"] == config]
        cells, violations = [], []
        for hour in (10, 20, 30):
            share = [100 * r["gain"][hour] / r["oracle_gain"] for r in runs]
            violation = [r["violation"][hour] for r in runs]
            cells.append(f"{statistics.mean(share):.1f} ± {statistics.stdev(share):.1f} %")
            violations.append(f"{statistics.mean(violation):.4f}")
        worst = min(r["gain"][30] / r["oracle_gain"] for r in runs)
        lines.append(
            f"| {name} | {' | '.join(cells)} | {' / '.join(violations)} | {100 * worst:.1f} % |"
        )
    gains = [100 * r["oracle_gain"] for r in records if r["config"] == "default"]
    lines += [
        "",
        f"{len(gains)} seeds of the paper's list, each with a world of its own; the oracle's gain "
        f"over the base is {statistics.mean(gains):.2f} ± {statistics.stdev(gains):.2f} %.",
    ]
    return "\n".join(lines)


def calibration() -> str:
    """Coverage and robust spread of predicted interval deltas on real A/B tests."""
    metrics = json.loads((RESULTS / "calibration.json").read_text())["next_delta"]
    lines = [
        "| metric | intervals predicted | covered by the formula | by ours | robust std of the "
        "formula's errors | of ours |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in metrics.items():
        lines.append(
            f"| {name} | {found['predictions']} | {100 * found['covered_formula']:.1f} % "
            f"| {100 * found['covered']:.1f} % | {found['robust_std_formula']:.2f} "
            f"| {found['robust_std']:.2f} |"
        )
    return "\n".join(lines)


def race() -> str:
    """Against peers, on equal traffic and equal deltas."""
    from bench.quality.race.records import load
    from bench.quality.race.table import table

    parts = []
    for one in load(RESULTS):
        parts += [f"{one.title}:", "", table(one), ""]
    return "\n".join(parts[:-1])


TABLES: dict[str, Callable[[], str]] = {
    "appendix-a": appendix_a,
    "calibration": calibration,
    "race": race,
}


def main() -> None:
    readme = ROOT / "README.md"
    text = before = readme.read_text()
    for name, draw in TABLES.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            sys.exit(f"README.md has no place for the table {name!r}")
        drawn = draw()
        text = pattern.sub(lambda m, drawn=drawn: f"{m[1]}{drawn}\n{m[2]}", text)
        print(drawn)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if text == before else "README.md differs from the raw numbers")
    readme.write_text(text)


if __name__ == "__main__":
    main()
