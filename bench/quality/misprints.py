"""The effect of the misprints in Eq. 3.2 of the paper, each alone and all together.

    python -m bench.quality.misprints [--draws 1000000]

A treatment and a control whose users' coefficient of variation is 0.9, as in the paper, and a true
lift of 1 %; the control has four times the arm's users, as under the square-root rule with sixteen
arms. In each of a million experiments the sample means are drawn from their normal distribution,
the sample variances from their scaled chi-square distribution, and every formula is evaluated.
Reported are the mean error of the delta in points, with its standard error; the claimed variance
over the true variance of the mean; and the coverage of the 95 % intervals.

Writes bench/results/misprints.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperzero_torch.stats import delta, moments

RESULTS = Path(__file__).parents[1] / "results" / "misprints.json"
VARIATION, LIFT, LEVEL = 0.9, 0.01, 3.0
SIZES = ((25, 100), (250, 1000), (2500, 10_000))  # users of the arm and of the control
Z = 1.959963984540054
_ALL = ("minus one", "group size", "swapped sizes", "sign")
FORMULAS = {
    "ours": (),
    "no correction at all": ("uncorrected",),
    "sign of the second-order term": ("sign",),
    "no division by the group size": ("group size",),
    "swapped group sizes": ("swapped sizes",),
    "no -1": ("minus one",),
    "as printed": _ALL,
}

Sample = tuple[np.ndarray, np.ndarray]
Formula = Callable[[int, Sample, int, Sample], Sample]


def draw(rng: np.random.Generator, users: int, mean: float, draws: int) -> Sample:
    """Sample means and sample variances of ``users`` normal users, ``(draws,)`` each."""
    std = VARIATION * mean
    means = mean + std / np.sqrt(users) * rng.standard_normal(draws)
    return means, std**2 * rng.chisquare(users - 1, draws) / (users - 1)


def ours(n: int, treatment: Sample, n0: int, control: Sample) -> Sample:
    """The package's estimate."""
    sides = (
        moments.from_sample(torch.tensor(users), *(torch.from_numpy(t)[:, None] for t in sample))
        for users, sample in ((n, treatment), (n0, control))
    )
    estimate = delta.ratio(*sides)
    return estimate.mean.flatten().numpy(), estimate.var.flatten().numpy()


def formula(*slips: str) -> Formula:
    """Eq. 3.2 with these misprints, and otherwise correct."""

    def estimate(n: int, treatment: Sample, n0: int, control: Sample) -> Sample:
        (x, vx), (y, vy) = treatment, control
        term = vy / y**2 / (1 if "group size" in slips else n0)
        sign = 0 if "uncorrected" in slips else (1 if "sign" in slips else -1)
        mean = x / y * (1 + sign * term) - (0 if "minus one" in slips else 1)
        a, b = (n0, n) if "swapped sizes" in slips else (n, n0)
        return mean, vx / (a * y**2) + x**2 * vy / (b * y**4)

    return estimate


def measure(draws: int, seed: int = 0) -> list[dict[str, Any]]:
    """One record per formula and pair of sizes."""
    records = []
    for n, n0 in SIZES:
        rng = np.random.default_rng([seed, n])
        treatment = draw(rng, n, LEVEL * (1 + LIFT), draws)
        control = draw(rng, n0, LEVEL, draws)
        for name, slips in FORMULAS.items():
            estimate = ours if name == "ours" else formula(*slips)
            mean, var = estimate(n, treatment, n0, control)
            covered = np.abs(mean - LIFT) < Z * np.sqrt(var)
            records.append(
                {
                    "formula": name,
                    "users": n,
                    "control_users": n0,
                    "draws": draws,
                    "bias": float(mean.mean() - LIFT),
                    "bias_std": float(mean.std() / np.sqrt(draws)),
                    "claimed_over_true_var": float(var.mean() / mean.var()),
                    "covered": float(covered.mean()),
                }
            )
    return records


def table(path: Path = RESULTS) -> str:
    """The records as Markdown."""
    records = json.loads(path.read_text())["records"]
    lines = [
        "| Eq. 3.2 | users, of them in the control | error of the delta, points | variance claimed "
        "over the true one | 95 % intervals that cover |",
        "|" + " --- |" * 5,
    ]
    previous = ""
    for name in FORMULAS:
        for r in (r for r in records if r["formula"] == name):
            label = "" if name == previous else (f"**{name}**" if name == "ours" else name)
            previous = name
            total = r["users"] + r["control_users"]
            lines.append(
                f"| {label} | {total:,}, {r['control_users']:,} "
                f"| {100 * r['bias']:+.3f} ± {100 * r['bias_std']:.3f} "
                f"| {r['claimed_over_true_var']:.2f} | {100 * r['covered']:.1f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10**6)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = {
        "variation": VARIATION,
        "lift": LIFT,
        "records": measure(options.draws),
    }
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(options.results))


if __name__ == "__main__":
    main()
