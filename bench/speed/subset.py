"""What it costs to fit hyperparameters to a subset of many candidates.

    python -m bench.speed.subset [--candidates 5000] [--worlds 4]

A guardrail world (d = 4, 4 metrics) is read once at each of many random points. One model takes its
hyperparameters from ``MOST_FITTED`` of them, the other from all, by a fit that starts from those of
the first as well; both are conditioned on all. Each
predicts the readings of the next hour, at 1,000 points of its own. The difference of the log
densities per reading, in nats, is written to bench/results/subset.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.surrogate import fit as fitting

RESULT = Path(__file__).parents[1] / "results" / "subset.json"
#: The loss that is allowed, in nats a reading.
WANTED = 1e-3
_NEXT = 1000
_STD = 0.015  # of one hour's delta: that of an arm with a hundredth of the world's traffic


def measure(seed: int, candidates: int) -> dict[str, Any]:
    """One world: seconds of both fits, and the mean log density of a reading under each."""
    world = GuardrailWorld(seed, 4, num_gains=2, num_guardrails=2)
    generator = torch.Generator().manual_seed(seed)
    space = world.truth_problem.space
    x = space.uniform(candidates + _NEXT, generator)
    true = world.true_delta(space.from_unit(x))
    mean = true + _STD * torch.randn(true.shape, dtype=torch.float64, generator=generator)
    var = torch.full_like(mean, _STD**2)
    row: dict[str, Any] = {"seed": seed, "candidates": candidates}
    known = None
    for name, most in (("subset", fitting.MOST_FITTED), ("all", candidates)):
        with mock.patch.object(fitting, "MOST_FITTED", most):
            start = time.perf_counter()
            posterior = hz.Surrogate(known).fit(x[:candidates], mean[:candidates], var[:candidates])
            row[f"{name}_seconds"] = round(time.perf_counter() - start, 2)
        known = posterior.hyperparameters
        centre, spread = posterior.marginal(x[candidates:])
        total = spread + _STD**2
        density = -0.5 * ((mean[candidates:] - centre).square() / total + total.log())
        row[name] = float(density.mean()) - 0.5 * math.log(2 * math.pi)
    return row


def table(path: Path = RESULT) -> str:
    """The loss per reading, and the seconds of both fits."""
    rows = json.loads(path.read_text())
    loss = torch.tensor([row["all"] - row["subset"] for row in rows], dtype=torch.float64)
    seconds = {
        name: sum(row[f"{name}_seconds"] for row in rows) / len(rows) for name in ("all", "subset")
    }
    return (
        "| candidates | worlds | loss of log density, nats a reading: mean | largest | allowed "
        "| fit to all, from there | with the subset |\n|" + " ---: |" * 7 + "\n"
        f"| {rows[0]['candidates']:,} | {len(rows)} | {float(loss.mean()):.1e} | "
        f"{float(loss.max()):.1e} | {WANTED:g} | {seconds['all']:.0f} s | "
        f"{seconds['subset']:.1f} s |"
    )


def main() -> None:
    """Measure each world, keep the rows, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--candidates", type=int, default=5000)
    parser.add_argument("--worlds", type=int, default=4)
    options = parser.parse_args()
    rows = []
    for seed in range(options.worlds):
        rows.append(measure(seed, options.candidates))
        print(rows[-1], flush=True)
        RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
