"""Redraw the tables of the documentation from the raw numbers under bench/results.

    python -m bench.tables [--check]

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in README.md or in one page under
docs/. With ``--check`` nothing is written; the exit code is 1 where a page differs.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def headline() -> str:
    """The README's few results, each beside what it is compared with."""
    from bench.quality.race.records import load

    races = load(RESULTS)
    paper, guardrail = races["race_paper_d2_x1"], races["race_guardrail_d2_x1"]

    def oracle_share(contender: str) -> str:
        share = paper.column(contender, "gain") / paper.column(contender, "oracle_gain")
        return f"{100 * share[:, 30].mean():.1f} %"

    def score(contender: str) -> str:
        return f"{100 * guardrail.column(contender, 'score')[:, 30].mean():.1f} %"

    def exposed(contender: str) -> str:
        return f"{100 * guardrail.column(contender, 'exposed_violation').mean():.3f} %"

    peers = {"ax_default": "Ax", "qlognei": "BoTorch qLogNEI", "optuna_tpe": "Optuna TPE"}
    calibrated = json.loads((RESULTS / "calibration.json").read_text())["next_delta"].values()
    looks = json.loads((RESULTS / "peeking.json").read_text())
    kills = json.loads((RESULTS / "kills.json").read_text())

    def span(values: Iterable[float]) -> str:
        percent = sorted(100 * value for value in values)
        return f"{percent[0]:.1f} to {percent[-1]:.1f} %"

    rows = [
        (
            "share of the best possible gain after 30 hours, the paper's simulation",
            oracle_share("hyperzero"),
            f"{oracle_share('hyperzero_paper_own')} with the paper's own algorithms",
        ),
        (
            "the same where a guardrail excludes the best point (run twice)",
            f"{score('hyperzero')} and {score('hyperzero_again')}",
            ", ".join(f"{label} {score(name)}" for name, label in peers.items()),
        ),
        (
            "guardrail violation, averaged over all traffic of those 30 hours",
            f"{exposed('hyperzero')} and {exposed('hyperzero_again')}",
            ", ".join(f"{label} {exposed(name)}" for name, label in peers.items()),
        ),
        (
            "deltas inside their 95 % intervals, 38 real A/B tests",
            span(row["covered"] for row in calibrated),
            f"{span(row['covered_formula'] for row in calibrated)} with the textbook formula",
        ),
        (
            f"false alarms in {looks['looks']} looks at a harmless arm, at most "
            f"{100 * looks['alpha']:g} % allowed",
            span(row["sequence"] for row in looks["type_one"]),
            f"{span(row['fixed'] for row in looks['type_one'])} with an ordinary test",
        ),
        (
            f"readings lost or doubled, plans changed, after {kills['kills']} times `kill -9`",
            f"{kills['lost'] + kills['doubled']}, {kills['other_plans']}",
            "runs that were not killed",
        ),
    ]
    lines = ["| measured | HyperZero Torch | compared with |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


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
    for name, row in metrics.items():
        lines.append(
            f"| {name} | {row['predictions']} | {100 * row['covered_formula']:.1f} % "
            f"| {100 * row['covered']:.1f} % | {row['robust_std_formula']:.2f} "
            f"| {row['robust_std']:.2f} |"
        )
    return "\n".join(lines)


def race() -> str:
    """Against peers where the guardrail binds, on equal traffic and equal deltas."""
    from bench.quality.race.records import load, load_limits
    from bench.quality.race.table import table

    limits = load_limits(RESULTS)
    parts = []
    for stem, race in load(RESULTS).items():
        if stem.startswith("race_guardrail"):
            parts += [f"{race.title}:", "", table(race, limits.get(race.title)), ""]
    return "\n".join(parts[:-1])


def ablation() -> str:
    """The default with one feature off at a time."""
    from bench.quality.race.records import load
    from bench.quality.race.table import ablation

    return ablation(load(RESULTS)["race_guardrail_d2_x1"])


def speed() -> str:
    """Speed: every question of bench/speed."""
    from bench.speed.table import machine, table

    return f"{table(RESULTS)}\n\n{machine(RESULTS)}"


def table_of(module: str) -> Callable[[], str]:
    """The table of the module that measures it, by the module's name under ``bench``."""

    def draw() -> str:
        drawn: str = importlib.import_module(f"bench.{module}").table()
        return drawn

    return draw


def transfer() -> str:
    """Transfer against a cold start, among related and among misleading sources."""
    from bench.transfer.table import transfer_tables

    return transfer_tables(RESULTS)


def worlds() -> str:
    """Other difficulties: the same table, other worlds, hour 30."""
    from bench.quality.race.records import load

    lines = [
        "| world | contender | worlds | hour 20 | hour 30 | violating | exposed violation |",
        "|" + " --- |" * 7,
    ]
    races = load(RESULTS)
    for world, description in WORLDS.items():
        race = races.get(f"race_{world}_d2_x1")
        for number, name in enumerate(race.contenders() if race is not None else []):
            score = 100 * race.column(name, "score").mean(0)
            lines.append(
                f"| {'' if number else description} | {name} | {len(race.runs[name])} "
                f"| {score[20]:.1f} % | {score[30]:.1f} % "
                f"| {100 * race.violating(name, 30):.0f} % "
                f"| {100 * race.column(name, 'exposed_violation').mean():.3f} % |"
            )
    return "\n".join(lines)


def reliability() -> str:
    """Coverage of true deltas all over the space, and P(feasible) against the truth."""
    records = json.loads((RESULTS / "reliability.json").read_text())
    lines = [
        "| world | hour | 95 % intervals of gain cover | of guard | mean P(feasible) where above "
        "0.9 | of these truly feasible |",
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
        num, predicted, true = (sum(r[name][-1] for r in part) for name in ("num", "said", "true"))
        lines.append(
            f"| d = {dims}, traffic x {-traffic:g}, {len(part)} worlds | {hour} | {gain:.1f} % "
            f"| {guard:.1f} % | {predicted / max(1, num):.3f} | {true / max(1, num):.3f} |"
        )
    return "\n".join(lines)


WORLDS = {
    "drift": "the lift turns by 0.02 radians an hour",
    "tails": "Pareto tails of index 2.5",
    "neural": "a neural objective over two gains",
    "five": "two gains, three guardrails",
    "infeasible": "no theta is feasible, not even the base (score: share that keeps the base)",
    "replay": "lifts on real noise",
}

TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "appendix-a": appendix_a,
    "race": race,
    "ablation": ablation,
    "worlds": worlds,
    "unseen": table_of("quality.race.unseen"),
    "misprints": table_of("quality.misprints"),
    "calibration": calibration,
    "reliability": reliability,
    "peeking": table_of("reliability.peeking"),
    "harms": table_of("reliability.harms"),
    "thin": table_of("reliability.thin"),
    "still": table_of("reliability.still_worlds"),
    "drift": table_of("reliability.drift_alarms"),
    "set_aside": table_of("reliability.set_aside"),
    "exposure": table_of("quality.exposure"),
    "launches": table_of("quality.launches"),
    "kills": table_of("reliability.kills"),
    "simulate": table_of("reliability.simulate"),
    "fuzz": table_of("reliability.fuzz"),
    "load": table_of("reliability.load"),
    "year": table_of("reliability.year"),
    "transfer": transfer,
    "privacy": table_of("transfer.privacy"),
    "speed": speed,
    "price": table_of("device.price"),
    "registers": table_of("device.registers"),
    "imports": table_of("speed.import_time"),
    "serve": table_of("speed.serve"),
    "asks": table_of("speed.asks"),
    "subset": table_of("speed.subset"),
    "surrogates": table_of("quality.surrogates"),
    "surrogates-speed": table_of("speed.surrogates"),
}


def main() -> None:
    paths = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    pages = {path: path.read_text() for path in paths}
    redrawn = dict(pages)
    for name, draw in TABLES.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        places = [path for path, text in redrawn.items() if pattern.search(text)]
        if len(places) != 1:
            sys.exit(f"the table {name!r} needs one place in README.md or docs/, found {places}")
        drawn = draw()
        redrawn[places[0]] = pattern.sub(
            lambda m, drawn=drawn: f"{m[1]}{drawn}\n{m[2]}", redrawn[places[0]]
        )
        print(drawn)
    changed = [path for path in pages if redrawn[path] != pages[path]]
    if "--check" in sys.argv[1:]:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in changed)
        sys.exit(f"these pages differ from the raw numbers: {names}" if changed else 0)
    for path in changed:
        path.write_text(redrawn[path])


if __name__ == "__main__":
    main()
