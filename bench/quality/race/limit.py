"""The expected score of somebody who knows the best theta and only has to prove it.

    python -m bench.quality.race.limit

In a guardrail world, one theta gets half of all traffic and the control the other half from the
first hour on. It is recommended where P(feasible and better than the base) >= 0.9, as by the tuner,
and here by its own readings alone. For every theta the probability of this is an integral of one
dimension, since the errors of two metrics are independent. The expected score is maximised over
theta for each hour: among Sobol points, among clouds around the best, and around the oracle.

A contender that has to search with the same traffic will hardly score higher. It is possible:
neighbours share evidence, and a single theta has no neighbours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperzero_torch.simulate.synthetic import DAY, SIGMA
from hyperzero_torch.thompson.local_search import local_search

from .judge import TOLERANCE
from .records import HOURS
from .run import RESULTS
from .worlds import SIBLINGS, WORLDS

#: World, parameters and scale of the traffic.
KINDS = (
    *(
        ("guardrail", d, x)
        for d, x in ((2, 1.0), (2, 0.1), (2, 0.01), (4, 1.0), (4, 0.1), (8, 1.0))
    ),
    *((name, d, 1.0) for name in SIBLINGS for d in (2, 4)),
)
_GUARDRAIL = 0.001
_PROBABILITY = 0.9
_LEAST = NormalDist().inv_cdf(_PROBABILITY)
_CLOUDS = (0.1, 0.05, 0.02, 0.01, 0.005)
_NUM_SOBOL, _NUM_CLOUD, _NUM_ELITE = 8192, 2048, 16
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(96))


def chance(gain: Tensor, slack: Tensor) -> Tensor:
    """Probability that a theta is recommended, for true values in units of their standard errors.

    With the measured gain ``u ~ N(gain, 1)`` and the measured slack ``v ~ N(slack, 1)`` it is where
    ``Phi(u) Phi(v) >= 0.9``: ``u`` exceeds the 0.9 quantile, and ``v`` what ``u`` leaves for it.
    """
    low = (gain - 8).clamp_min(_LEAST)
    u = low.unsqueeze(-1) + 8 * (1 + _NODES)  # 16 standard errors, by Gauss and Legendre
    density = (-0.5 * (u - gain.unsqueeze(-1)).square()).exp() / (2 * torch.pi) ** 0.5
    needed = torch.special.ndtri((_PROBABILITY / torch.special.ndtr(u)).clamp_max(1.0))
    passed = torch.special.ndtr(slack.unsqueeze(-1) - needed)
    value: Tensor = 8 * (density * passed * _WEIGHTS).sum(-1)
    return value


def score(world: Any, hour: int) -> float:
    """The expected score at an hour, in a ``GuardrailWorld`` or a sibling."""
    space = world.truth_problem.space
    rounds = range(max(0, hour - world.delay))  # readings that have arrived when the hour begins
    level = torch.stack([world.levels[r % DAY] for r in rounds]) / SIGMA
    precision = level.square().sum(0) * world.draws_per_round / 4
    per_gain, per_guard = precision.sqrt().unbind()

    def best_rows(x: Tensor) -> tuple[Tensor, Tensor]:
        gain, guard = world.true_delta(space.from_unit(x)).unbind(-1)
        proved = chance(gain * per_gain, (guard + _GUARDRAIL) * per_guard)
        worth = torch.where(guard + _GUARDRAIL >= -TOLERANCE, gain * proved, 0.0)
        best = worth.unsqueeze(0).topk(_NUM_ELITE)
        return best.indices, best.values

    oracle = world.oracle()
    x = torch.cat([space.to_unit(oracle.theta).unsqueeze(0), space.sobol(_NUM_SOBOL, seed=1)])
    generator = torch.Generator().manual_seed(0)
    _, worth = local_search(space, x, best_rows, _NUM_CLOUD, generator, _CLOUDS)
    return float(worth[0, 0]) / oracle.gain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    scores = {}
    for name, dims, traffic in KINDS:
        worlds = [WORLDS[name](seed, dims, traffic) for seed in range(options.worlds)]
        title = f"{name}, d = {dims}, traffic x {traffic:g}"
        scores[title] = {
            str(hour): sum(score(w, hour) for w in worlds) / len(worlds) for hour in HOURS
        }
        print(title, {key: round(value, 3) for key, value in scores[title].items()}, flush=True)
    (options.results / "limit.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
