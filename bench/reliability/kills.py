"""Is anything lost when the loop is killed? ``kill -9`` at random instants, over and over.

    python -m bench.reliability.kills [--kills 200]

A study runs hourly rounds on SQLite and a flagd file, with late and revised readings. A child
process is killed at a random instant and another one continues, until the study is finished; then
the next study begins. Each finished study is compared with one that was never killed: the plans
must be the same bit for bit, and every reading must be there once. Writes bench/results/kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.live import FlagdUpdater
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.loop import Collected, Loop
from hyperzero_torch.simulate import GuardrailWorld

RESULTS = Path(__file__).parents[1] / "results" / "kills.json"
CONFIG = hz.TunerConfig(num_draws=100, num_samples=128, num_proposals=2, initial_candidates=16)
HOUR, START = 3600.0, 1_000_000 * 3600.0
MOST_SECONDS = 1.2  # until a child is killed, at most


class Warehouse:
    """Readings of the world when they are due; a function of the journal."""

    def __init__(self, tuner: hz.Tuner, world: GuardrailWorld) -> None:
        self.tuner, self.world = tuner, world

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Collected:
        due = [
            delivery.readings
            for round_ in sorted(planned)
            for delivery in self.world.serve(self.tuner.ask(round_))
            if delivery.due <= as_of
        ]
        return Collected(hz.Readings.concat(due) if due else None)


def work(folder: Path, rounds: int, world: GuardrailWorld, seed: int) -> None:
    """Continue the study until it has this number of rounds."""
    warnings.simplefilter("ignore")
    journal = f"sqlite:///{folder / 'study.db'}"
    tuner = hz.Tuner(world.problem, CONFIG, journal, "feed", seed)
    last = tuner.history.last_round
    clock = SimulatedClock(START + HOUR * (last or 0))
    loop = Loop(tuner, FlagdUpdater(folder / "flags.json"), Warehouse(tuner, world), clock, HOUR)
    for done in loop.run():
        if done.round >= rounds - 1:
            return


def killed_runs(
    folder: Path, rounds: int, world: GuardrailWorld, seed: int, dice: random.Random
) -> int:
    """Start children until the study is finished; return how many were killed.

    A child lives longer if the last one made no progress, so that slow machines finish too.
    """
    killed, patience, written = 0, MOST_SECONDS, -1
    while True:
        child = os.fork()
        if child == 0:
            try:
                work(folder, rounds, world, seed)
                os._exit(0)
            except BaseException as error:  # a child must never return into the parent's code
                print(f"{type(error).__name__}: {error}", flush=True)
                os._exit(1)
        time.sleep(dice.uniform(0.0, patience))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit("a child failed before it was killed")
            return killed
        killed += 1
        size = sum(p.stat().st_size for p in folder.glob("study.db*"))
        patience = MOST_SECONDS if size > written else 1.2 * patience
        written = max(size, written)


def facts(folder: Path, world: GuardrailWorld) -> dict[str, Any]:
    """A study's plans and readings, for comparison."""
    tuner = hz.Tuner.resume(f"sqlite:///{folder / 'study.db'}", "feed", problem=world.problem)
    entries = tuner.journal.read("feed")
    received = [e for e in entries if type(e).__name__ == "ReadingsReceived"]
    keys = [
        key
        for e in received
        for key in zip(e.round, e.candidate, e.metric, e.revision, e.count, e.mean, e.var)
    ]
    # The epoch is drawn when flags are first served, and names this one journal.
    epoch = tuner.study.epoch().epoch
    flags = json.loads((folder / "flags.json").read_text().replace(epoch, "epoch"))
    plans = {r: (p.candidates, p.slots, p.shares) for r, p in tuner.history.plans.items()}
    births = [(b.theta, b.origin) for b in tuner.history.candidates]
    return {"plans": plans, "births": births, "readings": Counter(keys), "flags": flags}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10, help="of each study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    dice = random.Random(options.seed)
    total = lost = doubled = other_plans = studies = readings = 0
    while total < options.kills:
        seed = options.seed + studies
        world = GuardrailWorld(seed, 2)  # once: the children inherit it
        with tempfile.TemporaryDirectory() as scratch:
            killed, whole = Path(scratch) / "killed", Path(scratch) / "whole"
            killed.mkdir(), whole.mkdir()
            child = os.fork()  # the parent keeps its threads to itself
            if child == 0:
                work(whole, options.rounds, world, seed)
                os._exit(0)
            os.waitpid(child, 0)
            total += killed_runs(killed, options.rounds, world, seed, dice)
            actual, expected = facts(killed, world), facts(whole, world)
        studies += 1
        readings += sum(expected["readings"].values())
        lost += sum((expected["readings"] - actual["readings"]).values())
        doubled += sum((actual["readings"] - expected["readings"]).values())
        other_plans += sum(actual["plans"].get(r) != p for r, p in expected["plans"].items())
        other_plans += (
            actual["births"] != expected["births"] or actual["flags"] != expected["flags"]
        )
        print(f"{total} kills, {studies} studies: {lost} lost, {doubled} doubled, "
              f"{other_plans} other plans", flush=True)  # fmt: skip
    results = {
        "kills": total,
        "studies": studies,
        "rounds": studies * options.rounds,
        "readings": readings,
        "lost": lost,
        "doubled": doubled,
        "other_plans": other_plans,
    }
    options.results.write_text(json.dumps(results, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """The table's one row."""
    record = json.loads(results.read_text())
    return "\n".join(
        [
            "| `kill -9` | rounds | readings | lost | doubled | plans that differ |",
            "|" + " --- |" * 6,
            f"| {record['kills']} in {record['studies']} studies | {record['rounds']} "
            f"| {record['readings']:,} | {record['lost']} | {record['doubled']} "
            f"| {record['other_plans']} |",
        ]
    )


if __name__ == "__main__":
    main()
