"""What a study exposes users to, with the limits of the default and without them.

    python -m bench.quality.exposure [--worlds 100] [--workers 2] [--only guardrail_d2]

Without limits means 1 for ``max_untested_share``, ``max_untested_total``, ``max_risky_total`` and
``max_risk``, which is how plans were made before the limits existed. Each world is run once with
and once without, with the same seeds. Runs that the file already has are skipped. Four kinds of
worlds:

``value_model``: the simulated recommender, hours 0 to 6, a tenth of all users taking part.
``base_best``: a guardrail world moved so that no theta is better than the base; 30 hours.
``guardrail_d2`` and ``_d4``: worlds of the race's family, 31 hours, all users taking part. The
limits were chosen on smaller seeds than these.
``replay``: recorded A/B tests, 48 rounds; plans that serve a candidate above the cap of untested
ones before any reading of it has arrived.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hyperzero_torch as hz
from bench.processes import single_threaded_pool
from hyperzero_torch.simulate import Environment, GuardrailWorld, ReplayWorld
from hyperzero_torch.simulate.recommender.world import ValueModelWorld
from hyperzero_torch.study.history import CONTROL
from hyperzero_torch.study.plan import Plan

from .race.judge import TOLERANCE

RESULT = Path(__file__).parents[1] / "results" / "exposure.jsonl"
_LIMITS = ("max_untested_share", "max_untested_total", "max_risky_total", "max_risk")
UNLIMITED = dict.fromkeys(_LIMITS, 1.0)
CAP = hz.TunerConfig().max_untested_share
VARIANTS: dict[str, dict[str, Any]] = {"limits": {}, "no_limits": UNLIMITED}
ROUNDS = {"value_model": 7, "base_best": 30, "guardrail_d2": 31, "guardrail_d4": 31, "replay": 48}
#: Seeds of these worlds begin there, of the others at 0.
FIRST = {"guardrail_d2": 1000, "guardrail_d4": 1000}
#: Worlds of each kind, at most; the recommender and the replay take longer.
WORLDS = {"value_model": 20, "base_best": 40, "guardrail_d2": 100, "guardrail_d4": 100, "replay": 5}


class BaseBestWorld(GuardrailWorld):
    """A guardrail world whose base is the theta with the largest gain."""

    name = "base_best"

    def __init__(self, seed: int) -> None:
        super().__init__(seed, dims=2)
        points = self.truth_problem.space.sobol(4096, seed=0)
        best = points[super().true_delta(points)[:, 0].argmax()]
        self._at_best = super().true_delta(best.unsqueeze(0))
        problem = self.truth_problem
        Environment.__init__(
            self,
            hz.Problem(
                space=problem.space,
                base=dict(zip(problem.space.names, best.tolist())),
                metrics=problem.metrics,
                objective="gain",
                constraints=["guard >= -0.1%"],
            ),
        )

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the new base."""
        lift = super().true_delta(theta, round)
        return lift if not hasattr(self, "_at_best") else (1 + lift) / (1 + self._at_best) - 1


def world_of(kind: str, seed: int) -> Environment:
    """A world of a kind."""
    if kind == "value_model":
        return ValueModelWorld(seed)
    if kind == "base_best":
        return BaseBestWorld(seed)
    if kind == "replay":
        return ReplayWorld(seed=seed)
    return GuardrailWorld(seed, dims=int(kind[-1]))


def study(job: tuple[str, int, str]) -> dict[str, Any]:
    """One study: exposure by round, and the score of its last recommendation."""
    import logging
    import warnings

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    kind, seed, variant = job
    world = world_of(kind, seed)
    part = 0.1 if kind == "value_model" else 1.0
    config = hz.TunerConfig(experiment_share=part, **VARIANTS[variant])
    tuner = hz.Tuner(world.problem, config, seed=seed)
    rows = list(_play(tuner, world, ROUNDS[kind]))
    columns = {name: [round(row[name], 8) for row in rows] for name in rows[0]}
    best = tuner.recommend("lcb")
    theta = world.truth_problem.space.theta(best.parameters).unsqueeze(0)
    truth, oracle = world.truth(theta, ROUNDS[kind] - 1), world.oracle()
    is_safe = float(truth.violation) <= TOLERANCE
    score = float(truth.gain) / oracle.gain if is_safe and oracle.gain > 0 else 0.0
    return {"kind": kind, "seed": seed, "variant": variant, "score": score, **columns}


def _play(tuner: hz.Tuner, world: Environment, rounds: int) -> Iterator[dict[str, float]]:
    """By round: exposure over all users, and candidates above the cap without readings."""
    mail: dict[int, list[hz.Readings]] = {}
    measured: set[int] = {CONTROL}
    for round_ in range(rounds):
        for readings in mail.pop(round_, []):
            tuner.tell(readings)
            measured.update(readings.candidate.tolist())
        plan = tuner.ask(round_)
        yield _row(world, plan, measured)
        for due, readings in world.serve(plan):
            mail.setdefault(max(due, round_ + 1), []).append(readings)


def _row(world: Environment, plan: Plan, measured: set[int]) -> dict[str, float]:
    shares = torch.tensor(plan.shares, dtype=torch.float64)
    over_all = shares * plan.experiment_share
    truth = world.truth(plan.theta, plan.round)
    above = [s > CAP + 1e-9 for c, s in zip(plan.candidate_ids, plan.shares) if c not in measured]
    return {
        "violation": float((over_all * truth.violation).sum()),
        "loss": float(-(over_all * truth.gain).sum()),
        "above": float(sum(above)),
        "unmeasured": math.fsum(
            s for c, s in zip(plan.candidate_ids, plan.shares) if c not in measured
        ),
    }


def rows_of(path: Path = RESULT) -> list[dict[str, Any]]:
    """All studies so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path = RESULT) -> str:
    """Exposure with limits and without, and the paired difference of the scores."""
    lines = [
        "| world | studies | exposed violation, with limits | without | share to candidates "
        "without readings | without | score at the end | without | paired difference (95 %) |",
        "|" + " --- |" * 9,
    ]
    rows = rows_of(path)
    for kind in ROUNDS:
        by = {
            v: {r["seed"]: r for r in rows if r["kind"] == kind and r["variant"] == v}
            for v in VARIANTS
        }
        seeds = sorted(by["limits"].keys() & by["no_limits"].keys())
        if not seeds:
            continue

        def column(variant: str, name: str) -> Tensor:
            values = [by[variant][seed][name] for seed in seeds]  # noqa: B023
            return torch.tensor(values, dtype=torch.float64)

        exposed = [f"{100 * column(v, 'violation').mean():.3f} %" for v in VARIANTS]
        unknown = [f"{100 * column(v, 'unmeasured').mean():.1f} %" for v in VARIANTS]
        score = [f"{column(v, 'score').mean():.3f}" for v in VARIANTS]
        gap = column("limits", "score") - column("no_limits", "score")
        half = 1.96 * float(gap.std()) / math.sqrt(len(gap)) if len(gap) > 1 else math.nan
        cells = [kind, str(len(seeds)), *exposed, *unknown, *score]
        lines.append(f"| {' | '.join(cells)} | {float(gap.mean()):+.3f} ± {half:.3f} |")
    lines += ["", *_other(rows)]
    return "\n".join(lines)


def _other(rows: list[dict[str, Any]]) -> list[str]:
    """The objective lost where the base is best, and plans above the cap in the replay."""
    lines = []
    for variant, label in (("limits", "with limits"), ("no_limits", "without")):
        lost = [sum(r["loss"]) for r in rows if (r["kind"], r["variant"]) == ("base_best", variant)]
        above = [sum(r["above"]) for r in rows if (r["kind"], r["variant"]) == ("replay", variant)]
        if not (lost and above):
            continue
        mean = sum(lost) / len(lost)
        lines.append(
            f"- {label}: where the base is best, 30 hours lose {100 * mean:.1f} % of one hour's "
            f"objective ({10 * mean:.2f} % over all users where a tenth takes part); in the replay "
            f"{sum(above) / len(above):.1f} plans and candidates a study are above the cap without "
            "a reading"
        )
    return lines


def main() -> None:
    """Run what is missing, print it as it comes, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--worlds", type=int, default=100, help="of each kind, at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=ROUNDS)
    options = parser.parse_args()
    done = {(r["kind"], r["seed"], r["variant"]) for r in rows_of()}
    jobs = [
        (kind, FIRST.get(kind, 0) + number, variant)
        for number in range(options.worlds)
        for kind in ROUNDS
        for variant in VARIANTS
        if number < WORLDS[kind] and kind in (options.only or ROUNDS)
    ]
    jobs = [job for job in jobs if job not in done]
    with single_threaded_pool(options.workers) as pool, RESULT.open("a") as file:
        for num, row in enumerate(pool.map(study, jobs), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            exposed = 100 * sum(row["violation"]) / len(row["violation"])
            head = f"{num}/{len(jobs)} {row['kind']} seed {row['seed']} {row['variant']}"
            print(f"{head}: exposed {exposed:.3f} %, score {row['score']:.2f}", flush=True)
    print(table())


if __name__ == "__main__":
    main()
