"""Transfer raced against a cold start, in families of related worlds and among misleading sources.

    python -m bench.transfer.run --worlds 0:20 --dims 4 --traffic 4 --share 0.98 \\
        --kinds cold,related:3,related:10,reversed:3 --workers 2
    python -m bench.transfer.run --family regions --worlds 0:20
    python -m bench.transfer.run --traffic 1 --richer 10 --rounds 41    # a small domain among large

There are two families: ``surfaces``, random ones with a known share of common structure
(``families``), and ``regions`` of a living recommender (``regions``), which have 4 dimensions.
A kind is ``cold``, or what the sources are and how many: ``related:3`` (``families``). A contender
may stand before it, ``multitask/related:3``; without one it is this package. An option of the
tuner's configuration follows the kind: ``related:3@num_seeds=0``. World, oracle, rule of
recommendation and judgement are those of ``bench.quality.race``; runs that the file holds already
are skipped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parents[1] / "results"
FAMILIES = ("surfaces", "regions")


class Job(NamedTuple):
    """A run: one contender in one world with one kind of sources."""

    dims: int
    traffic: float
    share: float
    rounds: int
    kind: str
    seed: int
    family: str = "surfaces"
    richer: float = 1.0


def path_of(
    dims: int,
    traffic: float,
    share: float,
    results: Path = RESULTS,
    family: str = "surfaces",
    richer: float = 1.0,
) -> Path:
    """Where the runs of a family are kept."""
    stem = f"d{dims}" if family == "surfaces" else family
    stem = f"transfer_{stem}_x{traffic:g}_s{share:g}"
    return results / f"{stem if richer == 1 else f'{stem}_r{richer:g}'}.jsonl"


def run_job(job: Job) -> dict[str, Any]:
    """One run, as its record."""
    import logging
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    from bench.quality.race.judge import short
    from bench.quality.race.loop import race

    from .contenders import make, target

    world = target(job.family, job.seed, job.dims, job.share, job.traffic, job.richer)
    start = time.perf_counter()
    contender = make(job.kind, world, job.seed)
    columns = race(contender, world, job.rounds)
    plans = contender.tuner.history.plans
    facts = [plans[round_].details.get("transfer", {}) for round_ in range(job.rounds)]
    columns["metrics_transferred"] = [len(weighed.get("metrics", ())) for weighed in facts]
    columns["log_wealth"] = [short(weighed.get("wealth", 0.0)) for weighed in facts]
    return {**job._asdict(), "seconds_in_all": time.perf_counter() - start, **columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="surfaces")
    parser.add_argument("--dims", type=int, default=4)
    parser.add_argument("--traffic", type=float, default=4.0)
    parser.add_argument("--share", type=float, default=0.98, help="of the common surface")
    parser.add_argument("--richer", type=float, default=1.0, help="a source's traffic, in targets'")
    parser.add_argument("--worlds", default="0:20", help="seeds, first:after the last")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--kinds", default="cold,related:3,related:10")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.family == "regions" and options.dims != 4:
        parser.error(f"regions have 4 dimensions, got --dims {options.dims}")
    path = path_of(
        options.dims,
        options.traffic,
        options.share,
        options.results,
        options.family,
        options.richer,
    )
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(r["kind"], r["seed"]) for r in map(json.loads, lines) if r["rounds"] >= options.rounds}
    first, last = map(int, options.worlds.split(":"))
    jobs = [
        Job(
            options.dims,
            options.traffic,
            options.share,
            options.rounds,
            kind,
            seed,
            options.family,
            options.richer,
        )
        for seed in range(first, last)
        for kind in options.kinds.split(",")
        if (kind, seed) not in done
    ]
    print(f"{len(jobs)} runs, {len(done)} there already: {path.name}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the new processes when they import torch
    pool = ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"))
    with pool:
        running = {pool.submit(run_job, job): job for job in jobs}
        for num, finished in enumerate(as_completed(running), 1):
            job = running[finished]
            head = f"{num:3d}/{len(jobs)} {job.kind:24} seed {job.seed:3d}  "
            if (cause := finished.exception()) is not None:
                print(f"{head}failed: {type(cause).__name__}: {cause}", flush=True)
                continue
            record = finished.result()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            score = record["score"]
            at = [h for h in (5, 8, 10, 15, 20, 30) if h < len(score)]
            reached = next((h for h, s in enumerate(score) if s >= 0.9), None)
            shown = " ".join(f"{score[h]:5.2f}" for h in at)
            print(
                f"{head}90 % at {reached}, hours {at}: {shown}, "
                f"exposed {100 * sum(record['exposed_violation']) / len(score):.4f} %, "
                f"{record['seconds_in_all']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
