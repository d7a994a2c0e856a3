"""A large round: 1,000 arms x 16 metrics x 1,000,000 users in aggregator, journal and tuner.

    python -m bench.reliability.load [--users 1000000] [--arms 1000] [--metrics 16]

Exposures and events of a planned round are in Parquet files; DuckDB aggregates them, the readings
are written to a SQLite journal, and the next round is planned. The seconds of each part and the
peak memory of the process are measured. Writes bench/results/load.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import hyperzero_torch as hz
from hyperzero_torch.live import Aggregator, ParquetSource

RESULTS = Path(__file__).parents[1] / "results" / "load.json"
DIMS = 4


def write_log(folder: Path, plan: hz.Plan, users: int, metrics: list[str]) -> None:
    """One exposure per user, and one event per user and metric, scaled by the arm's lift."""
    rng = np.random.default_rng(plan.round)
    row = rng.choice(len(plan), users, p=np.array(plan.shares) / sum(plan.shares))
    candidate = np.array(plan.candidate_ids)[row]
    lift = 1 + 0.1 * plan.theta.numpy()[row, 0]
    user = np.arange(users)
    columns = {"user": user, "round": np.full(users, plan.round), "candidate": candidate}
    pq.write_table(pa.table(columns), folder / f"exposures-{plan.round}.parquet")
    for metric in metrics:
        value = rng.exponential(lift)
        events = {"user": user, "round": columns["round"], "metric": pa.array([metric] * users)}
        table = pa.table(events | {"value": value})
        pq.write_table(table, folder / f"events-{plan.round}-{metric}.parquet")


def measure(users: int, arms: int, metrics: int, rounds: int) -> dict[str, Any]:
    """Seconds of each part of each round, and the peak memory so far."""
    names = [f"m{i:02d}" for i in range(metrics)]
    space = hz.SearchSpace([hz.Float(f"theta_{i}", 0.0, 1.0) for i in range(DIMS)])
    base = {f"theta_{i}": 0.5 for i in range(DIMS)}
    problem = hz.Problem(space, base, names, names[0], [f"{names[1]} >= -20%"])
    config = hz.TunerConfig(initial_candidates=arms, max_arms=arms)
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tuner = hz.Tuner(problem, config, f"sqlite:///{folder / 'study.db'}")
        source = ParquetSource(
            folder / "exposures-*.parquet", folder / "events-*.parquet", Aggregator(names)
        )
        for round_ in range(rounds):
            laps = [time.perf_counter()]
            planned = {r: dict(zip(p.candidates, p.shares)) for r, p in tuner.history.plans.items()}
            collected = source.collect(round_, planned)
            laps.append(time.perf_counter())
            rows = 0 if collected.readings is None else tuner.tell(collected.readings)
            laps.append(time.perf_counter())
            plan = tuner.ask(round_)
            laps.append(time.perf_counter())
            parts = [b - a for a, b in itertools.pairwise(laps)]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            records.append(
                dict(zip(("aggregate", "tell", "ask"), parts))
                | {"round": round_, "rows": rows, "arms": len(plan) - 1, "gib": peak}
            )
            print({k: round(v, 2) for k, v in records[-1].items()}, flush=True)
            write_log(folder, plan, users, names)
    return {"users": users, "metrics": metrics, "rounds": records}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--arms", type=int, default=1000)
    parser.add_argument("--metrics", type=int, default=16, help="at least 2: one is guarded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if min(options.users, options.arms, options.rounds, options.metrics - 1) < 1:
        parser.error("--users, --arms and --rounds must be at least 1, --metrics at least 2")
    results = measure(options.users, options.arms, options.metrics, options.rounds)
    options.results.write_text(json.dumps(results, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """One line a round."""
    record = json.loads(results.read_text())
    lines = [
        f"| {record['users']:,} users, {record['metrics']} metrics; round | arms | readings "
        "| aggregate | record | plan | peak memory so far |",
        "|" + " --- |" * 7,
    ]
    lines += [
        f"| {r['round']} | {r['arms']:,} | {r['rows']:,} | {r['aggregate']:.1f} s "
        f"| {r['tell']:.1f} s | {r['ask']:.1f} s | {r['gib']:.1f} GiB |"
        for r in record["rounds"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
