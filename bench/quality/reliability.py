"""Do the posterior's intervals cover the truth, and is P(feasible) calibrated?

    python -m bench.quality.reliability [--worlds 12]

Runs the default tuner in guardrail worlds. At the start of hours 10, 20 and 30 the posterior
predicts the deltas of 512 thetas spread over the space, and the probability that each is feasible;
both are compared with the truth. Writes bench/results/reliability.json and, with matplotlib,
bench/figures/reliability.svg.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bench.processes import single_threaded_pool

BENCH = Path(__file__).parents[1]
KINDS = ((2, 1.0), (2, 0.1), (4, 1.0))
HOURS = (10, 20, 30)
NUM_BINS = 10


def run_study(job: tuple[int, float, int]) -> list[dict[str, Any]]:
    """Per hour: coverage by metric, and feasible points by bin of P(feasible)."""
    import torch

    import hyperzero_torch as hz
    from hyperzero_torch.simulate import GuardrailWorld, run

    torch.set_num_threads(1)
    dims, traffic, seed = job
    world = GuardrailWorld(seed, dims, traffic=traffic)
    space = world.problem.space
    theta = space.from_unit(space.sobol(512, seed=1))
    true = world.true_delta(theta)
    holds = world.truth_problem.evaluate(true).feasible
    tuner = hz.Tuner(world.problem, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2048, 1, 2, dtype=torch.float64, generator=generator)
    records = []
    for record in run(tuner, world, max(HOURS) + 1):
        if record.round not in HOURS:
            continue
        mean, var = tuner.posterior(theta)
        covered = ((true - mean).abs() <= 1.96 * var.sqrt()).double().mean(0)
        prob = world.problem.evaluate(mean + var.sqrt() * normal).feasible.double().mean(0)
        place = (prob * NUM_BINS).long().clamp_max(NUM_BINS - 1)
        zero = torch.zeros(NUM_BINS, dtype=torch.float64)
        records.append(
            {
                "dims": dims,
                "traffic": traffic,
                "seed": seed,
                "hour": record.round,
                "covered": dict(zip(world.problem.metrics, covered.tolist())),
                "num": zero.index_add(0, place, torch.ones_like(prob)).tolist(),
                "said": zero.index_add(0, place, prob).tolist(),
                "true": zero.index_add(0, place, holds.double()).tolist(),
            }
        )
    return records


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Share of feasible thetas against P(feasible), one line per kind of world."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "reliability"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(HOURS), sharey=True)
    for panel, hour in zip(panels, HOURS):
        panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for (dims, traffic), colour in zip(KINDS, ("black", "#E69F00", "#0072B2")):
            part = [
                r for r in records if (r["hour"], r["dims"], r["traffic"]) == (hour, dims, traffic)
            ]
            num, predicted, true = (
                np.array([r[k] for r in part]).sum(0) for k in ("num", "said", "true")
            )
            enough = num >= 30
            label = f"d = {dims}, traffic x {traffic:g}"
            panel.plot(
                predicted[enough] / num[enough],
                true[enough] / num[enough],
                ".-",
                color=colour,
                label=label,
            )
        panel.set(title=f"hour {hour}", xlabel="P(feasible)")
        panel.grid(alpha=0.2)
    panels[0].set_ylabel("share truly feasible")
    panels[0].legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    jobs = [(dims, traffic, seed) for dims, traffic in KINDS for seed in range(options.worlds)]
    records: list[dict[str, Any]] = []
    with single_threaded_pool(options.workers) as pool:
        for num, study in enumerate(pool.map(run_study, jobs), 1):
            records += study
            covered = study[-1]["covered"]
            print(f"{num:3d}/{len(jobs)} {jobs[num - 1]} hour 30 covered {covered}", flush=True)
    path = BENCH / "results" / "reliability.json"
    path.write_text(json.dumps(records) + "\n")
    print(f"wrote {path.relative_to(BENCH.parent)}; redraw the table with: python -m bench.tables")
    try:
        draw(records, BENCH / "figures" / "reliability.svg")
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is missing; pip install -e .[peers]")


if __name__ == "__main__":
    main()
