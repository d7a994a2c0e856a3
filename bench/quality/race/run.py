"""Run contenders in many worlds, one process per run, and write JSON lines.

    python -m bench.quality.race.run --world guardrail --dims 2 --traffic 1 --worlds 30 \\
        --rounds 31 --contenders random,qlognei,hyperzero --workers 2

Runs that the file already has are skipped, so a race can be stopped and started again. Options of a
contender follow its name: ``qlognei@arms=4@control_share=0.3``. Peers are optional:
``pip install -e .[peers]``.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

from bench.processes import single_threaded_pool, versions

from .registry import CONTENDERS, check
from .worlds import WORLDS

RESULTS = Path(__file__).parents[2] / "results"
_HOURS = (10, 20, 30)
_PACKAGES = ("torch", "gpytorch", "botorch", "ax-platform", "optuna", "scikit-optimize")


class Job(NamedTuple):
    """A run: one contender in one world."""

    world: str
    dims: int
    traffic: float
    rounds: int
    contender: str
    seed: int
    keep: Path | None = None


def path_of(world: str, dims: int, traffic: float, results: Path = RESULTS) -> Path:
    """The file with the runs of one kind of world."""
    return results / f"race_{world}_d{dims}_x{traffic:g}.jsonl"


def run_job(job: Job) -> dict[str, Any]:
    """The record of one run."""
    import logging
    import warnings

    import torch

    torch.set_num_threads(1)
    # Peers warn about their own deprecations and about repeated points.
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    from .loop import race
    from .registry import make

    world = WORLDS[job.world](job.seed, job.dims, job.traffic)
    contender = make(job.contender, world, job.seed)
    start = time.perf_counter()
    columns = race(contender, world, job.rounds)
    record = {
        **{name: value for name, value in job._asdict().items() if name != "keep"},
        "settings": contender.settings(),
        "versions": versions(_PACKAGES),
        "seconds_in_all": time.perf_counter() - start,
        **columns,
    }
    if job.keep is not None:
        stem = path_of(job.world, job.dims, job.traffic).stem
        path = job.keep / f"{stem}_{job.contender}_{job.seed}.pt"
        torch.save({"record": json.dumps(record), "state": contender.tuner.state_dict()}, path)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=WORLDS, default="guardrail")
    parser.add_argument("--dims", type=int, default=2)
    parser.add_argument("--traffic", type=float, default=1.0, help="scale of the traffic")
    parser.add_argument("--worlds", type=int, default=30, help="seeds 0 to worlds - 1")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="folder for whole studies, see race.rejudge")
    options = parser.parse_args()
    try:
        labels = [check(label) for label in options.contenders.split(",")]
    except ValueError as error:
        parser.error(str(error))
    path = path_of(options.world, options.dims, options.traffic, options.results)
    done = _done(path, options.rounds)
    jobs = [
        Job(options.world, options.dims, options.traffic, options.rounds, label, seed, options.keep)
        for seed in range(options.worlds)
        for label in labels
        if (label, seed) not in done
    ]
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    print(f"{len(jobs)} runs to do, {len(done)} done already: {path.name}", flush=True)
    failed = 0
    with single_threaded_pool(options.workers) as pool:
        running = {pool.submit(run_job, job): job for job in jobs}
        for num, finished in enumerate(as_completed(running), 1):
            job = running[finished]
            head = f"{num:3d}/{len(jobs)} {job.contender:20} seed {job.seed:3d}  "
            if (cause := finished.exception()) is not None:
                failed += 1
                print(f"{head}failed: {type(cause).__name__}: {cause}", flush=True)
                continue
            record = finished.result()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(head + _summary(record), flush=True)
    if failed:
        parser.exit(1, f"{failed} runs failed; start again to repeat them\n")


def _summary(record: dict[str, Any]) -> str:
    score, seconds = record["score"], record["seconds"]
    hours = [h for h in _HOURS if h < len(score)] or [len(score) - 1]
    scores = "  ".join(f"hour {h}: {score[h]:6.1%}" for h in hours)
    return (
        f"{scores}  violation {record['violation'][-1]:.4f}  "
        f"{sum(seconds) / len(seconds):.2f} s a round, {record['seconds_in_all']:.0f} s"
    )


def _done(path: Path, rounds: int) -> set[tuple[str, int]]:
    if not path.exists():
        return set()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {(r["contender"], r["seed"]) for r in records if r["rounds"] >= rounds}


if __name__ == "__main__":
    main()
