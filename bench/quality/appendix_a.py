"""How much of the oracle's gain is found by hour 10, 20 and 30 of the paper's world?

    python -m bench.quality.appendix_a [--seeds 20] [--traffic 1.0]

Runs the default configuration and ``TunerConfig.paper()`` on the first seeds of the paper's list,
each seed with a world of its own, and writes one JSON record per run to bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
HOURS = (10, 20, 30)


def one(config: str, seed: int, traffic: float) -> dict:
    """One study: what was recommended when each of the hours began, and its true worth."""
    import torch

    import hyperzero_torch as hz
    from hyperzero_torch.simulate import PaperWorld, run

    torch.set_num_threads(1)
    world = PaperWorld(seed=seed, draws_per_slot=50 * traffic)
    oracle = world.oracle()
    chosen = hz.TunerConfig.paper() if config == "paper" else hz.TunerConfig()
    tuner = hz.Tuner(world.problem, chosen, seed=seed)
    start = time.perf_counter()
    records = list(run(tuner, world, max(HOURS) + 1))
    seconds = time.perf_counter() - start
    return {
        "config": config,
        "seed": seed,
        "traffic": traffic,
        "oracle_gain": oracle.gain,
        "seconds": seconds,
        "gain": [r.gain for r in records],
        "violation": [r.violation for r in records],
        "candidate": [r.recommendation.candidate_id for r in records],
        "prob_feasible": [r.recommendation.prob_feasible for r in records],
        "exposed_violation": [r.exposed_violation for r in records],
        "num_arms": [r.num_arms for r in records],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many of the paper's 50 seeds")
    parser.add_argument("--traffic", type=float, default=1.0, help="scale of the traffic")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    from hyperzero_torch.simulate import PAPER_SEEDS

    jobs = [
        (config, seed, options.traffic)
        for seed in PAPER_SEEDS[: options.seeds]
        for config in ("default", "paper")
    ]
    records = []
    with ProcessPoolExecutor(options.workers) as pool:
        for done in as_completed([pool.submit(one, *job) for job in jobs]):
            record = done.result()
            records.append(record)
            found = "  ".join(
                f"hour {h}: {record['gain'][h] / record['oracle_gain']:5.1%}" for h in HOURS
            )
            print(
                f"{len(records):3d}/{len(jobs)} {record['config']:8} seed {record['seed']:3d}  "
                f"{found}  violation {record['violation'][-1]:.4f}  {record['seconds']:.0f} s",
                flush=True,
            )
    records.sort(key=lambda r: (r["config"], r["seed"]))
    suffix = "" if options.traffic == 1 else f"_traffic_{options.traffic:g}"
    path = RESULTS / f"appendix_a{suffix}.json"
    machine = {
        "python": platform.python_version(),
        "torch": version("torch"),
        "gpytorch": version("gpytorch"),
        "cores": os.cpu_count(),
        "threads_per_run": 1,
    }
    path.write_text(json.dumps({"machine": machine, "records": records}, indent=1) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}; redraw with: python -m bench.tables")


if __name__ == "__main__":
    main()
