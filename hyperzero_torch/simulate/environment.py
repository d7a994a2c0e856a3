"""A simulated platform: it serves plans, reports late, and knows the true effects.

A world's randomness is a function of its seed and the round, so serving the same plan again gives
the same readings, and an interrupted study can be run again against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem.problem import Problem
from ..study.plan import Plan
from ..study.readings import Readings
from ..thompson.local_search import local_search

# The oracle's search: clouds of these widths around the best points so far.
_CLOUDS = (0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.005, 0.002, 0.001)
_NUM_ELITE = 32
_BLOCK = 2048  # points whose true deltas are computed together: a world's features fit the cache


class Delivery(NamedTuple):
    """A message in transit: ``readings`` that the tuner receives from round ``due`` on."""

    due: int
    readings: Readings


class Truth(NamedTuple):
    """True effects: ``delta (n, metrics)``, ``gain (n,)``, ``violation (n,)``.

    ``gain`` is (f(theta) - f(base)) / |f(base)| (Eq. 4.1), or f(theta) - f(base) where f(base) = 0,
    as for objectives on deltas; ``violation`` is the largest negative slack, 0 where feasible.
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
        problem: the problem from which ``truth`` is computed, with the true ``base_levels`` where
            terms see levels.
        known_levels: base levels as the platform knows them, ``(metrics,)``; None where it does
            not, and the tuner estimates them from the control's readings.
    """

    name: str

    def __init__(self, problem: Problem, known_levels: Tensor | None = None) -> None:
        self.truth_problem = problem
        #: The problem as a tuner sees it.
        self.problem = problem.with_base_levels(known_levels)

    @abstractmethod
    def serve(self, plan: Plan) -> list[Delivery]:
        """Serve a plan for its round and return the resulting messages, in any order."""

    @abstractmethod
    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the base, ``(n, params)`` to ``(n, metrics)``.

        In a world that drifts it is that of ``round``; other worlds ignore ``round``.
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
            parts = range(0, len(x), _BLOCK)
            truths = [self.truth(space.from_unit(x[i : i + _BLOCK]), round) for i in parts]
            truth = Truth(*map(torch.cat, zip(*truths)))
            gain = torch.where(truth.violation <= 0, truth.gain, -torch.inf)
            gain = torch.where((x == base).all(-1), 0.0, gain)
            best = gain.unsqueeze(0).topk(min(_NUM_ELITE, len(x)))
            return best.indices, best.values

        generator = torch.Generator().manual_seed(0)
        x = torch.cat([base, space.sobol(num_samples, seed=0)])
        best, gains = local_search(space, x, best_rows, num_samples // 10, generator, _CLOUDS)
        return Oracle(space.from_unit(best[0, 0]), float(gains[0, 0]))


def check_range(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse, by a ``ConfigError``, an argument of a world that is no number in these bounds."""
    kind = "a whole number" if whole else "a number"
    number = isinstance(value, int | np.integer) if whole else isinstance(value, int | float)
    if isinstance(value, bool) or not number or not low <= value <= high:
        raise ConfigError(f"{name} must be {kind} from {low:g} to {high:g}, got {value!r}")
