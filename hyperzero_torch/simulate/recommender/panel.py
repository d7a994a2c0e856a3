"""Expected metrics under any theta: a panel of requests, and the best theta on it."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...runtime.randomness import random
from ...study.plan import Plan
from ..environment import Delivery, Environment, Oracle
from .audience import CLICK, FOLLOW, HIDE, SHARE, WATCH, Audience
from .feed import examination, top

_OUTCOMES = [WATCH, CLICK, SHARE, FOLLOW, HIDE]  # the outcome that each metric sums
_MOST_CACHED = 200_000  # thetas whose expectation is kept
_COARSE, _MOST_SAMPLES = 4096, 500  # requests and Sobol points of the oracle's search
_CLOSE, _NUM_CLOSE = (0.02, 0.005), 50  # clouds that are evaluated on the whole panel
_CPU = torch.device("cpu")


class Panel:
    """A fixed sample of requests, and their expected metrics under any theta.

    Users, slates and rankers' noise are the same for every theta and in every round; users are
    drawn systematically in proportion to their expected requests. Tastes are those of ``round``.
    Takes about 1.8 KB a request with slates of 50.
    """

    def __init__(self, audience: Audience, round: int, num_requests: int, shown: int) -> None:
        generator = random(audience.seed, 0, "panel", _CPU)
        edges = audience.demand.double().cumsum(0)
        offset = torch.rand(1, dtype=torch.float64, generator=generator)
        ticks = (torch.arange(num_requests, dtype=torch.float64) + offset) / num_requests
        user = torch.searchsorted(edges, ticks * edges[-1]).clamp_max(audience.num_users - 1)
        requests = audience.retrieve(user, generator)
        parts = []
        for rows, slate, predicted, affinity in audience.ranked(requests, round, generator):
            expected = audience.respond(user[rows], slate, affinity)
            expected[[SHARE, FOLLOW, WATCH]] *= expected[CLICK]
            parts.append((predicted, expected[_OUTCOMES]))
        self._predicted, self._expected = (torch.cat(both, dim=1) for both in zip(*parts))
        self._looks = examination(shown)

    def by_request(self, theta: Tensor) -> Tensor:
        """Expected metrics of each request under ``theta (params,)``, ``(requests, metrics)``."""
        places = top(self._predicted, theta.unsqueeze(0), len(self._looks))
        shown = self._expected.gather(2, places.expand(len(self._expected), -1, -1))
        return (shown @ self._looks).T.double()

    def part(self, num_requests: int) -> Panel:
        """About ``num_requests`` of its requests, evenly spread."""
        other = copy.copy(self)
        step = max(1, self._predicted.shape[1] // num_requests)
        other._predicted = self._predicted[:, ::step].contiguous()
        other._expected = self._expected[:, ::step].contiguous()
        return other


class PanelTruth(Environment):
    """The lifts on one panel, as a world without traffic; each theta is computed once."""

    name = "panel"

    def __init__(self, problem: Problem, panel: Panel) -> None:
        super().__init__(problem)
        self.panel = panel
        self._totals: dict[tuple[float, ...], Tensor] = {}

    def serve(self, plan: Plan) -> list[Delivery]:
        """No messages: a panel has no traffic."""
        return []

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """``(n, params)`` to ``(n, metrics)``; the panel has its own round."""
        base = self._total(self.problem.base_theta)
        rows = [self._total(row) for row in theta.to(torch.float64)]
        return torch.stack(rows) / base - 1 if rows else base.new_empty(0, len(base))

    def error(self, theta: Tensor) -> Tensor:
        """Standard error of ``true_delta``, ``(n, params)`` to ``(n, metrics)``.

        The delta method for a ratio of two means over the same requests.
        """
        control = self.panel.by_request(self.problem.base_theta)
        errors = control.new_empty(len(theta), control.shape[1])
        for row, error in zip(theta.to(torch.float64), errors):
            mine = self.panel.by_request(row)
            ratio = mine.mean(0) / control.mean(0)
            spread = (mine - ratio * control).std(0)
            error.copy_(spread / control.mean(0) / math.sqrt(len(mine)))
        return errors

    def oracle(self, num_samples: int = _MOST_SAMPLES, round: int | None = None) -> Oracle:
        """The best feasible theta: searched on a part of the panel, then on all of it.

        Ranking a panel takes milliseconds a theta, so at most 500 samples are drawn at first.
        """
        part = PanelTruth(self.problem, self.panel.part(_COARSE))
        coarse = Environment.oracle(part, min(num_samples, _MOST_SAMPLES))
        space, generator = self.problem.space, torch.Generator().manual_seed(0)
        # The base is feasible, so at least one point is.
        theta = torch.stack([self.problem.base_theta, coarse.theta])
        centre = coarse.theta
        for width in _CLOSE:
            noise = torch.randn(_NUM_CLOSE, space.num_dims, dtype=theta.dtype, generator=generator)
            near = (space.to_unit(centre) + width * noise).clamp(0, 1)
            theta = torch.cat([theta, space.from_unit(space.snap(near))])
            truth = self.truth(theta)
            gain = torch.where(truth.violation <= 0, truth.gain, -torch.inf)
            centre = theta[gain.argmax()]
        return Oracle(centre, float(gain.max()))

    def _total(self, theta: Tensor) -> Tensor:
        key = tuple(theta.tolist())
        if key not in self._totals:
            if len(self._totals) >= _MOST_CACHED:
                self._totals.clear()
            self._totals[key] = self.panel.by_request(theta).mean(0)
        return self._totals[key]
