"""Several studies side by side on a Ray cluster of one machine, then Ray Tune with our searcher.

    pip install 'hyperzero-torch[ray]'
    python examples/ray_studies.py            # four studies at once
    python examples/ray_studies.py --tune     # and: which caution suits this traffic best?

Each study is a task of the cluster with its own journal. If a worker is lost, its task is restarted
and continues where the journal ends. On a real cluster use a database that all machines can reach
(``postgresql://...``) instead of files.
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

MAX_VIOLATION = 0.002  # of the guardrail, averaged over traffic


def study(name: str, seed: int, journal: str, rounds: int) -> dict[str, Any]:
    """Tune one recommender; returns plain values, as tasks of Ray do."""
    torch.set_num_threads(1)  # the cluster allocates the cores
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
    """Run every study as a task; Ray runs as many at once as there are cores."""
    task = ray.remote(num_cpus=1, max_retries=3)(study)
    waiting = []
    for seed in seeds:
        name = f"feed_{seed}"
        waiting.append(task.remote(name, seed, f"sqlite:///{folder / name}.db", rounds))
    return ray.get(waiting)


def trial(config: dict[str, Any]) -> dict[str, float]:
    """The score of a caution: the mean over two worlds, with the variance of that mean."""
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
    """Ray Tune with ``HyperZeroSearch``: the best score with a small exposed violation."""
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
                at_most={"violation": MAX_VIOLATION},
                variances={"score": "score_var"},
                seed=0,
                num_startup=4,
            ),
            reuse_actors=True,  # a process per place, not per trial
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
        for result in side_by_side(Path(folder), list(range(options.studies)), options.rounds):
            print(
                ", ".join(
                    f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in result.items()
                )
            )
        if options.tune:
            show(tune_the_tuner(Path(folder), options.trials, options.rounds))
    ray.shutdown()


def show(results: tune.ResultGrid) -> None:
    """Print every trial, and the best one within the bound."""
    kept = []
    for result in results:
        config = f"caution {result.config['caution']:.3g}, {result.config['num_draws']} draws"
        if result.error:
            print(f"trial with {config} failed: {result.error}")
            continue
        score, violation = result.metrics["score"], result.metrics["violation"]
        print(f"trial with {config}: score {score:.3g}, violation {violation:.3g}")
        if violation <= MAX_VIOLATION:
            kept.append((score, config))
    print(f"best: {max(kept)[1]}" if kept else f"no violation is at most {MAX_VIOLATION}")


if __name__ == "__main__":
    main()
