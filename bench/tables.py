"""Redraw the README's tables from the raw numbers under bench/results.

    python -m bench.tables [--check]

A table stands in the README between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def appendix_a() -> str:
    """Share of the oracle's gain in the paper's world, mean ± standard deviation over seeds."""
    from bench.quality.race.records import load

    races = load(RESULTS)
    rows = {
        "default": ("race_paper_d2_x1", "hyperzero"),
        "default, a tenth of the traffic": ("race_paper_d2_x0.1", "hyperzero"),
        "`TunerConfig.paper()`": ("race_paper_d2_x1", "hyperzero_paper_own"),
        "`TunerConfig.paper()`, ten times the traffic": (
            "race_paper_d2_x10",
            "hyperzero_paper_own",
        ),
        "scikit-optimize, penalised": ("race_paper_d2_x1", "skopt"),
        "scikit-optimize, unconstrained": ("race_paper_d2_x1", "skopt_unconstrained"),
    }
    lines = [
        "| | seeds | hour 10 | hour 20 | hour 30 | violation at hour 30 | worst seed, hour 30 |",
        "|" + " --- |" * 7,
    ]
    for label, (file, contender) in rows.items():
        race = races.get(file)
        if race is None or contender not in race.runs:
            continue
        share = 100 * race.column(contender, "gain") / race.column(contender, "oracle_gain")
        cells = [f"{s.mean():.1f} ± {s.std(ddof=1):.1f} %" for s in share[:, [10, 20, 30]].T]
        violation = race.column(contender, "violation")[:, 30].mean()
        lines.append(
            f"| {label} | {len(share)} | {' | '.join(cells)} | {violation:.4f} "
            f"| {share[:, 30].min():.1f} % |"
        )
    gains = 100 * races["race_paper_d2_x1"].column("hyperzero", "oracle_gain")[:, 0]
    lines += [
        "",
        "The first seeds of the paper's list, each with a world of its own; the oracle's gain over "
        f"the base is {gains.mean():.2f} ± {gains.std(ddof=1):.2f} %.",
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
    """Against peers where the guardrail binds, on equal traffic and equal deltas."""
    from bench.quality.race.records import load, load_limits
    from bench.quality.race.table import table

    limits = load_limits(RESULTS)
    parts = []
    for stem, one in load(RESULTS).items():
        if stem.startswith("race_guardrail"):
            parts += [f"{one.title}:", "", table(one, limits.get(one.title)), ""]
    return "\n".join(parts[:-1])


def ablation() -> str:
    """Ours with one lever off at a time."""
    from bench.quality.race.records import load
    from bench.quality.race.table import ablation

    return ablation(load(RESULTS)["race_guardrail_d2_x1"])


def speed() -> str:
    """How fast: every question of bench/speed."""
    from bench.speed.table import machine, table

    return f"{table(RESULTS)}\n\n{machine(RESULTS)}"


def safety(name: str) -> Callable[[], str]:
    """A table of bench/reliability, by the module that measures it."""

    def draw() -> str:
        module = importlib.import_module(f"bench.reliability.{name}")
        drawn: str = module.table()
        return drawn

    return draw


def transfer() -> str:
    """Transfer against a cold start, among related and among misleading sources."""
    from bench.transfer.table import transfer_tables

    return transfer_tables(RESULTS)


def privacy() -> str:
    """The gain kept over epsilon."""
    from bench.transfer.privacy import table

    return table()


def worlds() -> str:
    """Where it is hard in other ways: the same table, other worlds, hour 30."""
    from bench.quality.race.records import load

    lines = [
        "| world | contender | worlds | hour 20 | hour 30 | violating | exposed violation |",
        "|" + " --- |" * 7,
    ]
    races = load(RESULTS)
    for world, says in WORLDS.items():
        one = races.get(f"race_{world}_d2_x1")
        for name in one.contenders() if one is not None else []:
            score = 100 * one.column(name, "score").mean(0)
            lines.append(
                f"| {says} | {name} | {len(one.runs[name])} "
                f"| {score[20]:.1f} % | {score[30]:.1f} % "
                f"| {100 * one.violating(name, 30):.0f} % "
                f"| {100 * one.column(name, 'exposed_violation').mean():.3f} % |"
            )
            says = ""
    return "\n".join(lines)


def reliability() -> str:
    """Coverage of true deltas all over the space, and P(feasible) against the truth."""
    records = json.loads((RESULTS / "reliability.json").read_text())
    lines = [
        "| world | hour | 95 % intervals of gain cover | of guard | P(feasible) above 0.9: said | "
        "truly feasible |",
        "|" + " --- |" * 6,
    ]
    kinds = sorted({(r["dims"], -r["traffic"], r["hour"]) for r in records})
    for dims, traffic, hour in kinds:
        part = [
            r for r in records if (r["dims"], -r["traffic"], r["hour"]) == (dims, traffic, hour)
        ]
        gain, guard = (
            100 * statistics.mean(r["covered"][name] for r in part) for name in ("gain", "guard")
        )
        num, said, true = (sum(r[name][-1] for r in part) for name in ("num", "said", "true"))
        lines.append(
            f"| d = {dims}, traffic x {-traffic:g}, {len(part)} worlds | {hour} | {gain:.1f} % "
            f"| {guard:.1f} % | {said / max(1, num):.3f} | {true / max(1, num):.3f} |"
        )
    return "\n".join(lines)


WORLDS = {
    "drift": "the lift turns by 0.02 radians an hour",
    "tails": "Pareto tails of index 2.5",
    "neural": "a neural objective over two gains",
    "five": "two gains, three guardrails",
    "infeasible": "nothing is feasible, the base included (score: stays with it)",
    "replay": "lifts on real noise",
}

TABLES: dict[str, Callable[[], str]] = {
    "appendix-a": appendix_a,
    "race": race,
    "ablation": ablation,
    "worlds": worlds,
    "calibration": calibration,
    "reliability": reliability,
    "peeking": safety("peeking"),
    "drift": safety("drift_alarms"),
    "kills": safety("kills"),
    "fuzz": safety("fuzz"),
    "load": safety("load"),
    "year": safety("year"),
    "transfer": transfer,
    "privacy": privacy,
    "speed": speed,
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
