"""Several studies side by side on a Ray cluster of one machine, then Ray Tune with our searcher.

    pip install 'hyperzero-torch[ray]'
    python examples/ray_studies.py            # four studies at once
    python examples/ray_studies.py --tune     # and: which caution suits this traffic best?

Each study is a task of the cluster with a journal of its own, so what a lost worker had done is not
lost: started again, its task goes on where the journal ends. On a real cluster name a database that
all machines reach (``postgresql://...``) instead of files.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

import hyperzero_torch as hz
from hyperzero_torch.integrations.ray import HyperZeroSearch
from hyperzero_torch.simulate import GuardrailWorld, run

MOST_VIOLATION = 0.002  # of the guardrail, by the traffic that was exposed to it


def study(name: str, seed: int, journal: str, rounds: int) -> dict[str, Any]:
    """Tune one recommender; what a task returns are plain values."""
    torch.set_num_threads(1)  # the cluster shares out the cores
    world = GuardrailWorld(seed=seed)
    tuner = hz.Tuner(world.problem, journal=journal, study=name, seed=seed)
    for hour in run(tuner, world, rounds):
        last = hour
    best = tuner.recommend()
    return {
        "study": name,
        "candidate": best.candidate_id,
        "share of the possible gain": last.gain / world.oracle().gain,
        "violation": last.violation,
        "P(feasible)": best.prob_feasible,
    }


def side_by_side(folder: Path, seeds: list[int], rounds: int) -> list[dict[str, Any]]:
    """Every study a task; Ray runs as many at once as there are cores."""
    task = ray.remote(num_cpus=1, max_retries=3)(study)
    waiting = []
    for seed in seeds:
        name = f"feed_{seed}"
        waiting.append(task.remote(name, seed, f"sqlite:///{folder / name}.db", rounds))
    return ray.get(waiting)


def trial(config: dict[str, Any]) -> dict[str, float]:
    """How well a caution does: the mean over two worlds, with the variance of that mean."""
    torch.set_num_threads(1)
    scores, violations = [], []
    for seed in (11, 12):
        world = GuardrailWorld(seed=seed, traffic=config["traffic"])
        settings = hz.TunerConfig(caution=config["caution"], num_draws=config["num_draws"])
        for hour in run(hz.Tuner(world.problem, settings, seed=seed), world, config["rounds"]):
            last = hour
        scores.append(last.gain / world.oracle(4096).gain)
        violations.append(hour.exposed_violation)
    mean = sum(scores) / 2
    return {
        "score": mean,
        "score_var": sum((s - mean) ** 2 for s in scores) / 2 + 1e-4,
        "violation": sum(violations) / 2,
    }


def tune_the_tuner(folder: Path, num_trials: int, rounds: int) -> tune.ResultGrid:
    """Ray Tune with ``HyperZeroSearch``: the best score whose exposed violation stays small."""
    tuner = tune.Tuner(
        trial,
        param_space={
            "caution": tune.uniform(0.0, 3.0),
            "num_draws": tune.choice([250, 1000]),
            "traffic": 1.0,
            "rounds": rounds,
        },
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=num_trials,
            max_concurrent_trials=2,
            search_alg=HyperZeroSearch(
                at_most={"violation": MOST_VIOLATION},
                variances={"score": "score_var"},
                seed=0,
                num_startup=4,
            ),
        ),
        run_config=tune.RunConfig(name="caution", storage_path=str(folder), verbose=0),
    )
    return tuner.fit()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        for found in side_by_side(Path(folder), list(range(options.studies)), options.rounds):
            print(
                ", ".join(
                    f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()
                )
            )
        if options.tune:
            show(tune_the_tuner(Path(folder), options.trials, options.rounds))
    ray.shutdown()


def show(results: tune.ResultGrid) -> None:
    """Every trial, and the best of those that keep the bound."""
    kept = []
    for result in results:
        config = f"caution {result.config['caution']:.3g}, {result.config['num_draws']} draws"
        if result.error:
            print(f"trial with {config} failed: {result.error}")
            continue
        score, violation = result.metrics["score"], result.metrics["violation"]
        print(f"trial with {config}: score {score:.3g}, violation {violation:.3g}")
        if violation <= MOST_VIOLATION:
            kept.append((score, config))
    print(f"best: {max(kept)[1]}" if kept else f"no violation is at most {MOST_VIOLATION}")


if __name__ == "__main__":
    main()
