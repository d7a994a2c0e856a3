"""Parts of synthetic worlds: smooth surfaces, daily curves, noisy arms, late messages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..study.plan import Plan
from ..study.readings import Readings
from .environment import Delivery

DAY = 24
MEAN_LEVEL = 0.67  # of the paper's metrics, averaged over the day
SIGMA = 0.6  # their standard deviation between users

_FEATURES = 256


class Surface:
    """A smooth random function on the unit cube.

    A draw from a Gaussian process with a squared-exponential kernel, by 256 random Fourier
    features.
    """

    def __init__(self, generator: torch.Generator, dims: int, lengthscale: float) -> None:
        shape = (_FEATURES, dims)
        self.omega = torch.randn(*shape, dtype=torch.float64, generator=generator) / lengthscale
        self.phase = torch.rand(_FEATURES, dtype=torch.float64, generator=generator) * 2 * math.pi
        self.weight = torch.randn(_FEATURES, dtype=torch.float64, generator=generator)

    def __call__(self, x: Tensor) -> Tensor:
        """``(n, dims)`` to ``(n,)``; its standard deviation over many draws is 1."""
        value: Tensor = (x @ self.omega.T + self.phase).cos() @ self.weight
        return value * math.sqrt(2 / _FEATURES)


def daily_curves(generator: torch.Generator, num_metrics: int = 2) -> Tensor:
    """``(24, metrics)``, positive, averaging 0.67 each; neighbours have opposite phases."""
    hour = torch.arange(DAY, dtype=torch.float64)
    phase = torch.rand(2, dtype=torch.float64, generator=generator) * 2 * math.pi
    day = (2 * math.pi * hour / DAY + phase[0]).cos()
    half = (4 * math.pi * hour / DAY + phase[1]).cos()
    swing = 0.35 * day + 0.1 * half
    sign = [1.0 if m % 2 == 0 else -1.0 for m in range(num_metrics)]
    return MEAN_LEVEL * torch.stack([1 + s * swing for s in sign], dim=-1)


def start_round(plan: Plan, seed: int, draws_per_round: float) -> tuple[torch.Generator, Tensor]:
    """The generator of a round, and the draws of each arm ``(arms,)``.

    ``draws_per_round`` are those of all users, of whom the plan's experiment has a part.
    The generator is seeded from the round alone, so the same plan gives the same readings again.
    """
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + plan.round)
    share = torch.tensor(plan.shares, dtype=torch.float64)
    return generator, (share * (draws_per_round * plan.experiment_share)).round()


def noisy_moments(mu: Tensor, count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample mean and variance of ``count (arms,)`` normal draws around ``mu (arms, metrics)``."""
    normal = torch.randn(mu.shape, dtype=torch.float64, generator=generator)
    freedom = (count - 1).clamp_min(1).unsqueeze(-1)
    # chi-square / freedom by the Wilson-Hilferty cube, exact enough at any freedom here
    cube = 2 / (9 * freedom)
    z = torch.randn(mu.shape, dtype=torch.float64, generator=generator)
    var = SIGMA**2 * (1 - cube + z * cube.sqrt()).clamp_min(0) ** 3
    mean = mu + normal * SIGMA / count.clamp_min(1).sqrt().unsqueeze(-1)
    return mean, var


def deliver(
    plan: Plan, count: Tensor, mean: Tensor, var: Tensor, delay: int, generator: torch.Generator
) -> list[Delivery]:
    """Each arm's readings, late by ``delay`` rounds plus |N(0, 1)| rounded, drawn for each arm."""
    late = torch.randn(len(plan), dtype=torch.float64, generator=generator).abs().round()
    due = (plan.round + delay + late).long()
    deliveries = []
    for when in sorted(set(due.tolist())):
        arms = ((due == when) & (count >= 1)).nonzero().squeeze(-1)
        if len(arms):
            ids = torch.tensor(plan.candidate_ids)[arms]
            deliveries.append(
                Delivery(when, Readings(plan.round, ids, count[arms], mean[arms], var[arms]))
            )
    return deliveries
