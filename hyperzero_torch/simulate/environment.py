"""What a simulated platform is: it serves plans, reports late, and knows the truth.

A world's randomness is a function of (its seed, the round), so serving the same plan again gives
the same readings: a study that was killed can be run again against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..study.plan import Plan
from ..study.readings import Readings
from ..thompson.local_search import local_search

# The oracle's search: clouds of these widths around the best points so far.
_CLOUDS = (0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.005, 0.002, 0.001)
_NUM_ELITE = 32


class Delivery(NamedTuple):
    """A message on its way: ``readings`` that the tuner can have from round ``due`` on."""

    due: int
    readings: Readings


class Truth(NamedTuple):
    """What nobody sees in life. ``delta (n, metrics)``, ``gain (n,)``, ``violation (n,)``.

    ``gain`` is (f(theta) - f(base)) / |f(base)| (Eq. 4.1), or f(theta) - f(base) where f(base) = 0,
    as it is for objectives on deltas; ``violation`` is the largest lack of slack, 0 where feasible.
    """

    delta: Tensor
    gain: Tensor
    violation: Tensor


class Oracle(NamedTuple):
    """The best feasible theta of a world, ``(params,)``, and its gain."""

    theta: Tensor
    gain: float


class Environment(ABC):
    """A world: implement ``serve`` and ``true_delta``; the rest follows.

    Args:
        problem: what is tuned, with the true ``base_levels`` where terms see levels (it is what
            ``truth`` is computed with).
        known_levels: base levels as the platform knows them, ``(metrics,)``; None where it does
            not, and the tuner has to take them from the control's readings.
    """

    name: str

    def __init__(self, problem: Problem, known_levels: Tensor | None = None) -> None:
        self.truth_problem = problem
        #: What a tuner may know.
        self.problem = (
            problem.without_base_levels()
            if known_levels is None
            else problem.with_base_levels(known_levels)
        )

    @abstractmethod
    def serve(self, plan: Plan) -> list[Delivery]:
        """Serve a plan for its round; the messages that it causes, in any order."""

    @abstractmethod
    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the base, ``(n, params)`` to ``(n, metrics)``.

        In a world that drifts it is that of ``round``; in others ``round`` means nothing.
        """

    def truth(self, theta: Tensor, round: int | None = None) -> Truth:
        """Gain and violation of ``(n, params)``, in a drifting world at ``round``."""
        delta = self.true_delta(theta, round)
        utility, slack = self.truth_problem.evaluate(delta)
        base, _ = self.truth_problem.evaluate(torch.zeros_like(delta[:1]))
        unit = base.abs() if float(base.abs()) > 1e-9 else torch.ones_like(base)
        gain = (utility - base) / unit
        violation = (-slack).amax(-1).clamp_min(0) if slack.shape[-1] else torch.zeros_like(gain)
        return Truth(delta, gain, violation)

    def oracle(self, num_samples: int = 40_000, round: int | None = None) -> Oracle:
        """The best feasible theta among Sobol points, then among finer clouds around the best.

        Where no point is feasible it is the base, whose gain is 0.
        """
        space = self.truth_problem.space
        base = space.to_unit(self.truth_problem.base_theta.unsqueeze(0))

        def best_rows(x: Tensor) -> tuple[Tensor, Tensor]:
            truth = self.truth(space.from_unit(x), round)
            gain = torch.where(truth.violation <= 0, truth.gain, -torch.inf)
            gain = torch.where((x == base).all(-1), 0.0, gain)
            best = gain.unsqueeze(0).topk(min(_NUM_ELITE, len(x)))
            return best.indices, best.values

        generator = torch.Generator().manual_seed(0)
        x = torch.cat([base, space.sobol(num_samples, seed=0)])
        best, gains = local_search(space, x, best_rows, num_samples // 10, generator, _CLOUDS)
        return Oracle(space.from_unit(best[0, 0]), float(gains[0, 0]))
