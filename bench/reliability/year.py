"""A year of hourly rounds in one study: how do round time and journal size grow?

    python -m bench.reliability.year [--rounds 8760] [--keep 2016] [--every-round]

The world with a binding guardrail is served hour by hour, readings three hours late, into a SQLite
journal; every week readings older than ``--keep`` rounds are compacted. At the end of some weeks
the tuner plans a dozen rounds, in its default configuration, and their processor time (tell and
ask, without the world) is measured on one thread. The rounds between are filled without the tuner,
so that the year takes minutes: as many arms and new candidates as the tuner would plan, each served
for two days, then retired. With ``--every-round`` the tuner plans all rounds (a night). At the end
the study is resumed, which reads the whole journal. Writes bench/results/year.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate.guardrail import GuardrailWorld
from hyperzero_torch.study.evidence.active_set import competing
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Decision, Entry, Planned

RESULTS = Path(__file__).parents[1] / "results" / "year.json"
WEEK = 168
PLANNED = 12  # rounds that the tuner plans at the end of a week that is measured
WARM_UP = 4  # the first of these recompute blocks and are not counted
SHOWN = (2, 3, 4, 8, 13, 26, 39, 52)
BIRTHS, SERVED_FOR = 4, 45  # new candidates a round, and rounds for which each is served: 180 arms


def measure(
    rounds: int, keep: int, folder: Path, changes: dict[str, Any], every: bool = False
) -> dict[str, Any]:
    world = GuardrailWorld(0)
    url = f"sqlite:///{folder / 'study.db'}"
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**changes), url)
    mail: dict[int, list[hz.Readings]] = defaultdict(list)
    weeks: list[dict[str, Any]] = []
    seconds: list[float] = []
    measured = {*SHOWN, rounds / WEEK}
    for round_ in range(rounds):
        week = min((w for w in measured if round_ < w * WEEK), default=rounds / WEEK)
        thinks = every or round_ < PLANNED or round_ >= week * WEEK - PLANNED
        start = time.process_time()
        if mail[round_]:
            tuner.tell(mail.pop(round_))
        plan = tuner.ask(round_) if thinks else fill(tuner, round_)
        if thinks:
            seconds.append(time.process_time() - start)
        for delivery in world.serve(plan):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
        if (round_ + 1) % WEEK == 0:
            tuner.study.compact(keep)
        if round_ + 1 == round(week * WEEK):
            weeks.append(_week(tuner, folder, seconds[-PLANNED + WARM_UP :]) | {"round": round_})
            print({k: round(v, 3) for k, v in weeks[-1].items()}, flush=True)
    start = time.process_time()
    again = hz.Tuner.resume(url, problem=world.problem)
    same = again.recommend() == tuner.recommend()
    opened = time.process_time() - start
    record = {"keep": keep, "every_round": every, "config": changes}
    return record | {"weeks": weeks, "open": opened, "same": same}


def fill(tuner: hz.Tuner, round_: int) -> hz.Plan:
    """Plan a round without the tuner: new candidates, and all recent ones."""

    def think(history: History) -> tuple[list[Entry], None]:
        space, first = tuner.problem.space, history.num_candidates
        theta = space.from_unit(space.sobol(BIRTHS, seed=round_))
        named = zip(theta.tolist(), space.to_parameters(theta))
        births = [
            CandidateAdded(first + i, round_, "proposal", tuple(row), values)
            for i, (row, values) in enumerate(named)
            if history.find(row) is None
        ]
        last = first + len(births)
        arms = range(max(1, last - BIRTHS * SERVED_FOR), last)
        share = 0.7 / len(arms)
        fitted = history.last_plan.details.get("hyperparameters") if history.last_plan else None
        plan = Planned(
            round_,
            (0, *arms),
            (0, *[1] * len(arms)),
            (1 - share * len(arms), *[share] * len(arms)),
            None,
            {"crowded_out": [], "hyperparameters": fitted},
        )
        gone = [c for c in competing(history, tuner.config) if c < arms.start]
        retired = [Decision(round_, "retired", "served for long", {"candidates": gone})]
        return [*births, plan, *(retired if gone else [])], None

    tuner.study.append(think)
    return tuner.ask(round_)


def _week(tuner: hz.Tuner, folder: Path, seconds: list[float]) -> dict[str, float]:
    plan = tuner.history.last_plan
    assert plan is not None
    return {
        "median": median(seconds),
        "slowest": max(seconds),
        "arms": len(plan.candidates) - 1,
        "born": tuner.history.num_candidates - 1,
        "competing": len(competing(tuner.history, tuner.config)),
        "fitted": len(tuner.surrogate().x),
        "mib": sum(f.stat().st_size for f in folder.iterdir()) / 2**20,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8760)
    parser.add_argument("--keep", type=int, default=2016)
    parser.add_argument("--every-round", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--changes", type=json.loads, default={}, help="of TunerConfig, as JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", hz.TunerWarning)
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(
            options.rounds, options.keep, Path(scratch), options.changes, options.every_round
        )
    options.results.write_text(json.dumps(results, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """The year week by week, and what became of the journal."""
    record = json.loads(results.read_text())
    weeks = record["weeks"]
    lines = [
        "| by round | median round | slowest | arms | candidates added | active | fitted "
        "| journal | memory |",
        "|" + " --- |" * 9,
    ]
    lines += [
        f"| {w['round'] + 1:,} | {w['median']:.2f} s | {w['slowest']:.2f} s | {w['arms']} "
        f"| {w['born']:,} | {w['competing']} | {w['fitted']} | {w['mib']:.0f} MiB "
        f"| {w['gib']:.1f} GiB |"
        for w in weeks
    ]
    growth = weeks[-1]["median"] / weeks[0]["median"]
    lines.append(
        f"\nThe last round of the year takes {growth:.2f} times one of the first weeks. Readings "
        f"of the latest {record['keep']:,} rounds are kept, older ones compacted. Opening the "
        f"study anew, with the whole journal, takes {record['open']:.0f} s and recommends "
        f"{'the same' if record['same'] else 'something else'}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
