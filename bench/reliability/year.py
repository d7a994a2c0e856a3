"""A year of hourly rounds on one study: does a round take longer, and how large is the journal?

    python -m bench.reliability.year [--rounds 8760] [--keep 2016]

The world with a binding guardrail is served hour by hour, readings three hours late, into a SQLite
journal; every week readings older than ``--keep`` rounds are compacted. Per week: the processor's
seconds of a median and of a slow round (tell and ask; the world is not counted), arms, candidates
ever born, those competing and fitted, the journal's size, and the process's memory. One thread, so
that other work on the machine matters little. At the end the study is opened anew, which folds the
whole journal. Writes bench/results/year.json.
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
from statistics import median, quantiles
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate.guardrail import GuardrailWorld
from hyperzero_torch.view import competing

RESULTS = Path(__file__).parents[1] / "results" / "year.json"
WEEK = 168


def measure(rounds: int, keep: int, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    world = GuardrailWorld(0)
    url = f"sqlite:///{folder / 'study.db'}"
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**changes), url)
    mail: dict[int, list[hz.Readings]] = defaultdict(list)
    weeks: list[dict[str, Any]] = []
    seconds: list[float] = []
    oracle = world.oracle().gain
    for round_ in range(rounds):
        start = time.process_time()
        if mail[round_]:
            tuner.tell(mail.pop(round_))
        plan = tuner.ask(round_)
        seconds.append(time.process_time() - start)
        for delivery in world.serve(plan):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
        if (round_ + 1) % WEEK == 0 or round_ + 1 == rounds:
            compaction = time.process_time()
            tuner.compact(keep)
            compaction = time.process_time() - compaction
            weeks.append(_told(tuner, folder, seconds) | {"round": round_, "compact": compaction})
            best = tuner.recommend()
            truth = world.truth(world.truth_problem.space.theta(best.parameters).unsqueeze(0))
            feasible = float(truth.violation) <= 0.001
            weeks[-1]["score"] = float(truth.gain) / oracle if feasible else 0.0
            print({k: round(v, 3) for k, v in weeks[-1].items()}, flush=True)
            seconds = []
    start = time.process_time()
    again = hz.Tuner.resume(url, problem=world.problem)
    same = again.recommend() == tuner.recommend()
    opened = time.process_time() - start
    return {"keep": keep, "weeks": weeks, "open": opened, "same": same, "config": changes}


def _told(tuner: hz.Tuner, folder: Path, seconds: list[float]) -> dict[str, float]:
    plan = tuner.history.last_plan
    assert plan is not None
    return {
        "median": median(seconds),
        "slow": quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0],
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
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--changes", type=json.loads, default={}, help="of TunerConfig, as JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", hz.TunerWarning)
    with tempfile.TemporaryDirectory() as scratch:
        told = measure(options.rounds, options.keep, Path(scratch), options.changes)
    options.results.write_text(json.dumps(told, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """Some weeks of the year, and what became of them."""
    told = json.loads(results.read_text())
    weeks = told["weeks"]
    shown = sorted({i for i in (1, 3, 7, 12, 25, 38, 51, len(weeks) - 1) if i < len(weeks)})
    lines = [
        "| by round | median round | slowest twentieth | arms | candidates born | competing "
        "| fitted | journal | memory | of the oracle's gain |",
        "|" + " --- |" * 10,
    ]
    lines += [
        f"| {w['round'] + 1:,} | {w['median']:.2f} s | {w['slow']:.2f} s | {w['arms']} "
        f"| {w['born']:,} | {w['competing']} | {w['fitted']} | {w['mib']:.0f} MiB "
        f"| {w['gib']:.1f} GiB | {w['score']:.0%} |"
        for w in (weeks[i] for i in shown)
    ]
    growth = weeks[-1]["median"] / weeks[1]["median"]
    lines.append(
        f"\nThe last week's median round takes {growth:.2f} times the second week's. Readings of "
        f"the latest {told['keep']:,} rounds are kept, older ones compacted. Opening the study "
        f"anew, with the whole journal, takes {told['open']:.0f} s and recommends "
        f"{'the same' if told['same'] else 'something else'}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
