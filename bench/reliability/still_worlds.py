"""False alarms of drift in whole studies: nothing changes, and the default configuration tunes.

    python -m bench.reliability.still_worlds [--worlds 24] [--rounds 30] [--workers 2]

Guardrail worlds in four dimensions whose lifts stay as they are, at three levels of traffic. The
daily curve of each metric is stretched until its lowest hour is a sixth of its mean: at a tenth of
the traffic an arm then has a few dozen users whose mean is mostly noise, and the control's error
is what all arms have in common. Writes bench/results/still_worlds.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld

BENCH = Path(__file__).parents[1]
RESULT = BENCH / "results" / "still_worlds.json"
TRAFFIC = (1.0, 0.1, 0.01)
LOWEST = 1 / 6  # of the mean level
SEED = 1000  # worlds of the other benchmarks have smaller seeds


def make_world(number: int, traffic: float) -> GuardrailWorld:
    """A stationary world with deep nights."""
    world = GuardrailWorld(SEED + number, 4, traffic=traffic, delay=1)
    mean = world.levels.mean(0)
    depth = (mean - LOWEST * mean) / (mean - world.levels.amin(0))
    world.levels = mean + depth * (world.levels - mean)
    return world


def study(job: tuple[int, float, int]) -> dict[str, Any]:
    """One study: its alarms of drift, and the candidates it stopped."""
    number, traffic, rounds = job
    torch.set_num_threads(1)
    world = make_world(number, traffic)
    tuner = hz.Tuner(world.problem, seed=number)
    waiting: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        for round_ in range(rounds):
            waiting += world.serve(tuner.ask())
            due = [d.readings for d in waiting if d.due <= round_ + 1]
            waiting = [d for d in waiting if d.due > round_ + 1]
            tuner.tell(due)
    stopped = list(tuner.stopped)
    slack = world.truth(tuner.bucket().theta[stopped]).violation if stopped else torch.zeros(0)
    return {
        "world": number,
        "traffic": traffic,
        "rounds": rounds,
        "alarms": [d.round for d in tuner.decisions if d.kind == "drift"],
        "stopped": len(stopped),
        "harmless_stopped": int((slack <= 0).sum()),
        "candidates": tuner.history.num_candidates,
    }


def table(path: Path = RESULT) -> str:
    """Alarms and stops by traffic."""
    results = json.loads(path.read_text())
    lines = [
        "| nothing changes, default configuration | studies | rounds | alarms of drift | "
        "candidates | stopped | of these harmless |",
        "|" + " --- |" * 7,
    ]
    for traffic in TRAFFIC:
        rows = [row for row in results["studies"] if row["traffic"] == traffic]
        alarms = sum(len(row["alarms"]) for row in rows)
        total = {n: sum(r[n] for r in rows) for n in ("rounds", "candidates", "stopped")}
        lines.append(
            f"| traffic {traffic:g} | {len(rows)} | {total['rounds']:,} | {alarms} | "
            f"{total['candidates']:,} | {total['stopped']} | "
            f"{sum(r['harmless_stopped'] for r in rows)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all studies, and print them as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [(n, t, arguments.rounds) for t in TRAFFIC for n in range(arguments.worlds)]
    rows = []
    with ProcessPoolExecutor(arguments.workers) as workers:
        for row in workers.map(study, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
    RESULT.write_text(json.dumps({"lowest": LOWEST, "studies": rows}, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
