"""Launches with a known truth: harmless candidates sent back, harmful ones caught, and how early.

    python -m bench.quality.launches [--launches 200] [--workers 1]

A candidate is launched with the default terms on a platform of a million users an hour whose two
metrics have the relative noise of the paper's world (0.9 a user). Its guardrail has a true slack
above 0 (it holds), of exactly 0 (the hardest harmless case), or below. Harm is the violation over
all users, in points times hours. Writes bench/results/launches.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Configured, Planned, ReadingsReceived
from hyperzero_torch.study.launch import LaunchTerms, start
from hyperzero_torch.tuner.model import Unfitted
from hyperzero_torch.tuner.round import plan_round

RESULT = Path(__file__).parents[1] / "results" / "launches.json"
SLACKS = (0.003, 0.0, -0.002, -0.005, -0.01, -0.03)
BOUND = -0.001  # of the guardrail
USERS, NOISE, GAIN = 1_000_000, 0.9, 0.01
ROUNDS = 150
CONFIG = hz.TunerConfig()
SPACE = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
PROBLEM = hz.Problem(SPACE, {"w": 0.5}, ["gain", "guard"], "gain", [f"guard >= {BOUND}"])


def readings(
    plan: Planned, truth: torch.Tensor, users: int, generator: torch.Generator
) -> ReadingsReceived:
    """An hour of a plan: ``truth (metrics,)`` are the candidate's deltas."""
    rows: list[tuple[Any, ...]] = []
    for candidate, share in zip(plan.candidates, plan.shares):
        count = float(round(users * share))
        if count < 2:
            continue
        noise = torch.randn(2, generator=generator, dtype=torch.float64) * NOISE / count**0.5
        level = 10 * (1 + (truth if candidate else 0.0) + noise)
        for metric in range(2):
            row = (plan.round, candidate, metric, 0, count, float(level[metric]), (10 * NOISE) ** 2)
            rows.append(row)
    return ReadingsReceived(*zip(*rows))


def rounds_of(
    slack: float, seed: int, users: int = USERS, terms: LaunchTerms | None = None
) -> Iterator[tuple[History, Planned]]:
    """One launch, round by round, until it is over; readings arrive when the next is planned."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.tensor([GAIN, BOUND + slack], dtype=torch.float64)
    history = History(1, PROBLEM.metrics)
    first = Planned(0, (0, 1), (0, 1), (0.5, 0.5))
    history.extend(
        [
            Configured(CONFIG.model_dump(mode="json")),
            CandidateAdded(0, 0, "base", (0.5,), {"w": 0.5}),
            CandidateAdded(1, 0, "initial", (0.9,), {"w": 0.9}),
            first,
        ]
    )
    # What chose the candidate says nothing of its guardrail here.
    history.extend([readings(first, torch.tensor([GAIN, 0.0]).double(), 100_000, generator)])
    history.extend([start(history, 1, terms or LaunchTerms(keep_holdback=0), True, False, "", "")])
    for round_ in range(1, ROUNDS):
        bucket = gather(history, Pooling.of(CONFIG))
        state = Unfitted(bucket, PROBLEM, torch.arange(2), {}, None, None, "not fitted here")
        history.extend(plan_round(state, CONFIG, history, round_, seed))
        plan = history.plans[round_]
        yield history, plan
        if history.status.launches[-1].outcome != "under way":
            return
        history.extend([readings(plan, truth, users, generator)])


def launch(job: tuple[float, int]) -> dict[str, Any]:
    """One launch: how it ends, in which stage and after how many rounds, and the harm done."""
    slack, seed = job
    torch.set_num_threads(1)
    past = list(rounds_of(slack, seed))
    harm = sum(100 * max(0.0, -slack) * sum(plan.shares[1:]) for _, plan in past)
    ended = past[-1][0].status.launches[-1]
    return {
        "slack": slack,
        "outcome": ended.outcome,
        "stage": ended.stage + 1,
        "rounds": len(past),
        "harm": harm,
    }


def table(path: Path = RESULT) -> str:
    """How launches end, by the true slack of the guardrail."""
    results = json.loads(path.read_text())
    lines = [
        "| true slack of the guardrail | launches | sent back | in stage (average) | complete | "
        "rounds | harm over all users, points x hours | the same if launched at once |",
        "|" + " --- |" * 8,
    ]
    for slack in SLACKS:
        rows = [row for row in results["launches"] if row["slack"] == slack]
        back = [row for row in rows if row["outcome"] == "gone back"]
        complete = sum(row["outcome"] == "complete" for row in rows)
        stage = f"{mean(row['stage'] for row in back):.1f}" if back else ""
        rounds = mean(row["rounds"] for row in rows)
        at_once = f"{100 * -slack * 24:.2f} a day" if slack < 0 else "0"
        lines.append(
            f"| {100 * slack:+.1f} points | {len(rows)} | {len(back)} ({len(back) / len(rows):.1%})"
            f" | {stage} | {complete} | {rounds:.0f} | {mean(r['harm'] for r in rows):.3f} | "
            f"{at_once} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all launches, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--launches", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    jobs = [(slack, seed) for seed in range(arguments.launches) for slack in SLACKS]
    terms, rows = LaunchTerms(keep_holdback=0).model_dump(), []
    with ProcessPoolExecutor(arguments.workers) as workers:
        for row in workers.map(launch, jobs):
            rows.append(row)
            if len(rows) % len(SLACKS) == 0:  # whoever ends it has what was done
                RESULT.write_text(json.dumps({"terms": terms, "launches": rows}) + "\n")
    print(table())


if __name__ == "__main__":
    main()
