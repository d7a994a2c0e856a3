"""False alarms of drift in whole studies: nothing changes, and the default configuration tunes.

    python -m bench.reliability.still_worlds [--worlds 16] [--thin 2] [--rounds 30] [--workers 2]

Guardrail worlds in four dimensions whose lifts stay as they are, at three levels of traffic. The
daily curve of each metric is stretched until its lowest hour is a sixth of its mean: at a tenth of
the traffic an arm then has a few dozen users whose mean is mostly noise, and the control's error
is what all arms have in common.

The same worlds with thin metrics: users convert, and conversions are worth what
``bench.reliability.thin`` draws, with its rhythm and with 0.5 to 100 conversions an hour among a
third of the users. Writes bench/results/still_worlds.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.simulate.environment import Delivery
from hyperzero_torch.study.plan import Plan

from .thin import CONVERSIONS, FAMILIES, USERS, readings, traffic

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


class ThinWorld(GuardrailWorld):
    """A stationary world of conversions, each metric with its own."""

    def __init__(self, number: int, family: str, conversions: float) -> None:
        super().__init__(SEED + number, 4, delay=1)
        self.family, self.conversions = family, conversions

    def serve(self, plan: Plan) -> list[Delivery]:
        """Every arm's sample mean and variance, a round late."""
        rng = np.random.default_rng([self.seed, plan.round])
        lift = self.true_delta(plan.theta).numpy()
        flow = traffic(24)[plan.round % 24]
        users = np.array(plan.shares)[:, None] * np.full(lift.shape, USERS * flow)
        rate = self.conversions / (USERS / 3) * (1 + lift)
        sample = readings(self.family, users, rate, rng)
        return [Delivery(plan.round + 1, hz.Readings(plan.round, plan.candidate_ids, *sample))]


def study(job: tuple[int, float | tuple[str, float], int]) -> dict[str, Any]:
    """One study: its alarms of drift, and the candidates it stopped."""
    number, kind, rounds = job
    torch.set_num_threads(1)
    world = ThinWorld(number, *kind) if isinstance(kind, tuple) else make_world(number, kind)
    tuner = hz.Tuner(world.problem, seed=number)
    waiting: list[Any] = []
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for round_ in range(rounds):
            waiting += world.serve(tuner.ask())
            due = [d.readings for d in waiting if d.due <= round_ + 1]
            waiting = [d for d in waiting if d.due > round_ + 1]
            tuner.tell(due)
    stopped = list(tuner.stopped)
    slack = world.truth(tuner.bucket().theta[stopped]).violation if stopped else torch.zeros(0)
    return {
        "world": number,
        "kind": kind,
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
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results["studies"]:
        groups.setdefault(_label(row["kind"]), []).append(row)
    for label, rows in groups.items():
        alarms = sum(len(row["alarms"]) for row in rows)
        total = {n: sum(r[n] for r in rows) for n in ("rounds", "candidates", "stopped")}
        lines.append(
            f"| {label} | {len(rows)} | {total['rounds']:,} | {alarms} | "
            f"{total['candidates']:,} | {total['stopped']} | "
            f"{sum(r['harmless_stopped'] for r in rows)} |"
        )
    return "\n".join(lines)


def _label(kind: float | list[Any]) -> str:
    """Thin metrics of all rates are one row."""
    return f"{kind[0]}, thin" if isinstance(kind, list) else f"traffic {kind:g}"


def main() -> None:
    """Run all studies, and print them as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--worlds", type=int, default=16)
    parser.add_argument("--thin", type=int, default=2, help="worlds of each family and rate")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    kinds = [(t, n) for t in TRAFFIC for n in range(arguments.worlds)]
    cells = itertools.product(FAMILIES, CONVERSIONS, range(arguments.thin))
    kinds += [((family, conversions), n) for family, conversions, n in cells]
    jobs = [(n, kind, arguments.rounds) for kind, n in kinds]
    rows = []
    with ProcessPoolExecutor(arguments.workers) as workers:
        for row in workers.map(study, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
    RESULT.write_text(json.dumps({"lowest": LOWEST, "studies": rows}, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
