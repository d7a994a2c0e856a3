"""How soon harmful arms are stopped in whole studies, in the default configuration.

    python -m bench.reliability.harms [--worlds 4] [--rounds 24] [--workers 2]

The guarded metric falls by 10, 20 or 50 %: in one piece beyond a plane through the space ("cliff",
elsewhere nothing changes), or more and more with the distance from the base ("slope", so that all
arms differ). The guardrail is ``metric >= -5 %``. Users convert (5 %) or spend (lognormal), with a
rhythm of 8 : 1 in traffic, and readings arrive an hour late.

Each study is run as it is, and once more believing every variance from the first hour on. The
default first waits for something that confirms a metric's variances, since a standard deviation
sent as the variance would stop harmless arms. Of the harmful arms of the first plan: the round in
which each is stopped. Writes bench/results/harms.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hyperzero_torch as hz
from bench.processes import single_threaded_pool
from hyperzero_torch.tuner import guardrails

from .thin import traffic

BENCH = Path(__file__).parents[1]
RESULT = BENCH / "results" / "harms.json"
FAMILIES = ("converts", "spends")
SHAPES = ("cliff", "slope")
BASE = 0.3
BOUND = -0.05
HARMS = (0.1, 0.2, 0.5)
USERS = 2_000_000  # an hour, in all arms
HARMFUL = 0.3  # part of the space
VARIANTS = ("default", "believed at once")
LATE = 1  # rounds


def problem_of() -> hz.Problem:
    """Two parameters, and a guardrail on the only metric."""
    space = hz.SearchSpace([hz.Float("x", 0, 1), hz.Float("y", 0, 1)])
    return hz.Problem(space, {"x": BASE, "y": BASE}, ["metric"], "metric", ["metric >= -5%"])


def mean_and_var(family: str, lift: np.ndarray, users: np.ndarray, seed: list[int]) -> Any:
    """Sample means and variances of arms, by the distribution of sums of many users."""
    rng = np.random.default_rng(seed)
    if family == "converts":
        mean = rng.binomial(users.astype(int), 0.05 * (1 + lift)) / users
        return mean, mean * (1 - mean) * users / (users - 1)
    sigma2 = np.expm1(1.0)  # of a lognormal value with mean 1
    mean = (1 + lift) * (1 + rng.normal(size=users.shape) * np.sqrt(sigma2 / users))
    kurtosis = np.exp(4) + 2 * np.exp(3) + 3 * np.exp(2) - 6
    noise = rng.normal(size=users.shape) * np.sqrt(kurtosis / users)
    return mean, sigma2 * (1 + lift) ** 2 * np.maximum(1 + noise, 0.2)


def lift_of(shape: str, harm: float, seed: int) -> Callable[[torch.Tensor], np.ndarray]:
    """True lift of the metric over theta; 0 at the base."""
    normal = np.random.default_rng(seed).normal(size=2)
    normal /= np.linalg.norm(normal)
    far = np.quantile(np.random.default_rng(0).random((4096, 2)) @ normal, 1 - HARMFUL)
    at_base = BASE * normal.sum()

    def cliff(theta: torch.Tensor) -> np.ndarray:
        beyond = theta.numpy() @ normal > max(far, at_base + 0.05)
        return np.where(beyond, -harm, 0.0)

    def slope(theta: torch.Tensor) -> np.ndarray:
        distance = np.linalg.norm(theta.numpy() - BASE, axis=1)
        return -harm * distance / 0.7

    return cliff if shape == "cliff" else slope


def study(job: tuple[str, str, float, int, str, int]) -> dict[str, Any]:
    """One study: the round of each stop among the first plan's harmful arms."""
    shape, family, harm, number, variant, rounds = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    believed = guardrails.variance_factors
    if variant != "default":
        guardrails.variance_factors = lambda history: torch.ones(1, dtype=torch.float64)
    lift = lift_of(shape, harm, number)
    try:
        tuner = hz.Tuner(problem_of(), seed=number)
        flow, waiting, exposed = traffic(rounds), [], []
        for round_ in range(rounds):
            plan = tuner.ask()
            shares, effect = np.array(plan.shares), lift(plan.theta)
            exposed.append(float(shares[effect < BOUND].sum()))
            users = np.maximum((USERS * flow[round_] * shares).round(), 2)
            mean, var = mean_and_var(family, effect, users, [number, round_])
            waiting.append(
                hz.Readings(round_, plan.candidate_ids, users, mean[:, None], var[:, None])
            )
            if len(waiting) > LATE:
                tuner.tell(waiting.pop(0))
        tuner.ask()
        stops = {
            c: d.round for d in tuner.decisions if d.kind == "stopped" for c in d.trace.candidates
        }
        first = tuner.history.plans[0].candidates
        theta = tuner.bucket().theta
        is_harmful = lift(theta) < BOUND
    finally:
        guardrails.variance_factors = believed
    return {
        "shape": shape,
        "family": family,
        "harm": harm,
        "world": number,
        "variant": variant,
        "rounds": rounds,
        "stopped_in": [stops.get(c) for c in first if is_harmful[c]],
        "harmless_stopped": sum(not is_harmful[c] for c in stops),
        "candidates": len(theta),
        "exposed": exposed,
    }


def table(path: Path = RESULT) -> str:
    """Stops of harmful arms, and their traffic, by harm."""
    studies = json.loads(path.read_text())["studies"]
    rounds = studies[0]["rounds"]
    lines = [
        f"| lift | users | at most | harmful arms | stopped in {rounds} rounds: default | believed "
        "at once | median round of those | believed at once | stopped later by the default, or not "
        "| traffic of harmful arms | harmless arms stopped |",
        "|" + " --- |" * 11,
    ]
    for shape, family, harm in itertools.product(SHAPES, FAMILIES, HARMS):
        rows = [r for r in studies if (r["shape"], r["family"], r["harm"]) == (shape, family, harm)]
        stops = {
            variant: [s for r in rows if r["variant"] == variant for s in r["stopped_in"]]
            for variant in VARIANTS
        }
        default, believed = stops.values()
        later = sum((d or math.inf) > (b or math.inf) for d, b in zip(default, believed))
        usual = [r for r in rows if r["variant"] == VARIANTS[0]]
        share = 100 * np.mean([r["exposed"] for r in usual])
        harmless = sum(r["harmless_stopped"] for r in rows)
        cells = [str(len(default))]
        cells += [str(sum(s is not None for s in column)) for column in (default, believed)]
        cells += [_median(column) for column in (default, believed)]
        cells += [str(later), f"{share:.2f} %", str(harmless)]
        lines.append(f"| {shape} | {family} | {-100 * harm:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def _median(stops: list[int | None]) -> str:
    rounds = [s for s in stops if s is not None]
    return f"{np.median(rounds):g}" if rounds else "-"


def main() -> None:
    """Run all studies, and print them as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [
        (*cell, arguments.rounds)
        for cell in itertools.product(SHAPES, FAMILIES, HARMS, range(arguments.worlds), VARIANTS)
    ]
    rows = []
    with single_threaded_pool(arguments.workers) as pool:
        for row in pool.map(study, jobs):
            rows.append(row)
            print(json.dumps(row | {"exposed": None}), flush=True)
    RESULT.write_text(json.dumps({"studies": rows}, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
