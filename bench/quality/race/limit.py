"""The expected score of an oracle that knows the best theta and only has to verify it.

    python -m bench.quality.race.limit

In a guardrail world, one theta gets half of all traffic and the control the other half from the
first hour on. It is recommended as soon as P(feasible) >= 0.9 and its gain's interval lies above 0,
as for every contender. The probability of this has a closed form, and so has the expected score; it
is maximised over theta for each hour. A contender that has to search with the same traffic will
hardly score higher. (It is possible: neighbours share evidence, a single theta has no neighbours.)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import NormalDist

import torch

from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.simulate.synthetic import DAY, SIGMA

from .judge import CRITERIA, TOLERANCE
from .records import HOURS
from .run import RESULTS

KINDS = ((2, 1.0), (2, 0.1), (2, 0.01), (4, 1.0), (4, 0.1), (8, 1.0))
_GUARDRAIL = 0.001
_SAFE = NormalDist().inv_cdf(0.9)
_BETTER = {"lcb": NormalDist().inv_cdf(0.975), "mean": 0.0}


def score(world: GuardrailWorld, hour: int, criterion: str) -> float:
    """The expected score at an hour."""
    space = world.truth_problem.space
    gain, guard = world.true_delta(space.from_unit(space.sobol(8192, seed=1))).unbind(-1)
    rounds = range(max(0, hour - world.delay))  # readings that have arrived when the hour begins
    level = torch.stack([world.levels[r % DAY] for r in rounds]) / SIGMA
    precision = level.square().sum(0) * world.draws_per_round / 4
    std_gain, std_guard = precision.rsqrt().unbind()
    chance = torch.special.ndtr((guard + _GUARDRAIL) / std_guard - _SAFE)
    chance = chance * torch.special.ndtr(gain / std_gain - _BETTER[criterion])
    worth = torch.where(guard + _GUARDRAIL >= -TOLERANCE, gain * chance, 0.0)
    return float(worth.max()) / world.oracle().gain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    scores = {}
    for dims, traffic in KINDS:
        worlds = [GuardrailWorld(s, dims, traffic=traffic) for s in range(options.worlds)]
        title = f"guardrail, d = {dims}, traffic x {traffic:g}"
        scores[title] = {
            f"{hour}{suffix}": sum(score(w, hour, c) for w in worlds) / len(worlds)
            for c, suffix in CRITERIA.items()
            for hour in HOURS
        }
        print(title, {key: round(value, 3) for key, value in scores[title].items()}, flush=True)
    (options.results / "limit.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
