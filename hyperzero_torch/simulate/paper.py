"""The synthetic world of the paper's Appendix A, with its constants.

    mu_i(theta; t) = (1 + 0.1 d_i(theta)) W_i(t)        X_i ~ N(mu_i, 0.6^2)
    maximise  0.296 X_1 + 1.165 X_2     subject to  0.149 X_1 + 0.703 X_2 >= 0.6036   (on levels)

The paper draws the surfaces d_i, with values in [0, 1], and the daily curves W_i at random and does
not publish them. Here they follow from the seed: smooth random surfaces scaled to exactly [0, 1],
and curves with periods of a day and half a day in opposite phases, averaging 0.67, the level at
which the constraint cuts the square in two. Surfaces are drawn until the best feasible gain over
the base lies between 4.5 and 6 %: the paper reports 4.95 %, and a base near the optimum would leave
nothing to tune.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..problem.space import Float, SearchSpace
from ..study.plan import Plan
from .environment import Delivery, Environment
from .synthetic import DAY, SIGMA, Surface, daily_curves, deliver, noisy_moments, start_round

#: The seeds over which the paper averages.
PAPER_SEEDS = (
    42, 40, 22, 35, 0, 1, 130, 3, 131, 5, 4, 135, 145, 146, 148, 149, 61, 151, 21, 28, 156, 29,
    33, 163, 165, 41, 171, 172, 43, 46, 180, 52, 182, 82, 183, 185, 187, 150, 189, 193, 66, 197,
    83, 84, 85, 98, 99, 110, 111, 126,
)  # fmt: skip

_MAX_LIFT = 0.1
_LENGTHSCALE = 0.3
_BASE = {"theta_1": 0.011, "theta_2": 0.985}
_BEST_GAIN = (0.045, 0.06)
_MAX_TRIES = 1000


class PaperWorld(Environment):
    """Appendix A of HYPERZERO (KDD'25).

    Args:
        seed: of the surfaces, the daily curves, the noise and the delays.
        slots: traffic slots an hour, the control's included.
        draws_per_slot: metric draws per slot.
        delay: least delay of a reading in rounds; |N(0, 1)| rounded is added, drawn for each arm.
        known_days: days before the study over which the platform has measured its control at a
            tenth of the traffic, and so knows the base levels up to noise; 0 for none.
    """

    name = "paper"

    def __init__(
        self,
        seed: int = 0,
        slots: int = 1000,
        draws_per_slot: float = 50,
        delay: int = 3,
        known_days: int = 7,
    ) -> None:
        self.seed = seed
        self.draws_per_round = slots * draws_per_slot
        self.delay = delay
        generator = torch.Generator().manual_seed(seed)
        self.levels = daily_curves(generator)  # (24, metrics)
        problem = Problem(
            space=SearchSpace([Float("theta_1", 0.0, 1.0), Float("theta_2", 0.0, 1.0)]),
            base=_BASE,
            metrics=["x1", "x2"],
            objective="0.296 * level(x1) + 1.165 * level(x2)",
            constraints=["0.149 * level(x1) + 0.703 * level(x2) >= 0.6036"],
        )
        for _ in range(_MAX_TRIES):
            self._surfaces = [_Scaled(generator) for _ in range(2)]
            true = self.levels.mean(0) * (1 + self.effect(problem.base_theta.unsqueeze(0)))[0]
            self.truth_problem = problem.with_base_levels(true)
            if _BEST_GAIN[0] <= self.oracle(num_samples=2000).gain <= _BEST_GAIN[1]:
                break
        known_levels = None
        if known_days:
            draws = 0.1 * self.draws_per_round * DAY * known_days
            noise = torch.randn(2, dtype=torch.float64, generator=generator)
            known_levels = true + noise * SIGMA / math.sqrt(draws)
        super().__init__(problem.with_base_levels(true), known_levels)

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the base: ``(n, 2)`` to ``(n, metrics)``."""
        base = self.truth_problem.base_theta.unsqueeze(0)
        return (1 + self.effect(theta)) / (1 + self.effect(base)) - 1

    def serve(self, plan: Plan) -> list[Delivery]:
        """Every arm's sample mean and variance, drawn from their exact distributions."""
        generator, count = start_round(plan, self.seed, self.draws_per_round)
        mu = self.levels[plan.round % DAY] * (1 + self.effect(plan.theta))
        mean, var = noisy_moments(mu, count, generator)
        return deliver(plan, count, mean, var, self.delay, generator)

    def effect(self, theta: Tensor) -> Tensor:
        """0.1 d_i(theta), ``(n, metrics)``."""
        return _MAX_LIFT * torch.stack([surface(theta) for surface in self._surfaces], dim=-1)


class _Scaled:
    """A smooth random surface on the unit square, scaled to exactly [0, 1] on a fine grid."""

    def __init__(self, generator: torch.Generator) -> None:
        self.surface = Surface(generator, 2, _LENGTHSCALE)
        axis = torch.linspace(0, 1, 101, dtype=torch.float64)
        values = self.surface(torch.cartesian_prod(axis, axis))
        self.low, self.range = float(values.min()), float(values.max() - values.min())

    def __call__(self, theta: Tensor) -> Tensor:
        return (self.surface(theta) - self.low) / self.range
