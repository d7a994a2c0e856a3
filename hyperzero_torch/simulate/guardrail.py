"""A world where the guardrail binds: the best objective violates the guardrail.

    maximise  gain     subject to  guard >= -0.1 %          both deltas, within +-5 %

In Appendix A objective and constraint increase together, so it cannot test constraints. Here every
guardrail is drawn with a negative correlation to the objective, and worlds are drawn until the
unconstrained optimum violates by at least half a point while a gain of at least two points is
feasible. The base is feasible. Difficulties can be switched on: more dimensions, little traffic,
more metrics, a drifting lift, heavy tails, a neural objective, no feasible point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..problem.problem import Constraint, Problem
from ..problem.space import Float, SearchSpace
from ..study.plan import Plan
from .environment import Delivery, Environment
from .synthetic import DAY, SIGMA, Surface, daily_curves, deliver, noisy_moments, start_round

_MAX_LIFT = 0.05
_AGAINST = 0.6  # correlation of a guardrail's surface with minus the objective's
_LENGTHSCALE = 0.4  # in two dimensions; it scales with the root of the dimension, as distances do
_LEAST_BREACH, _LEAST_GAIN = 0.005, 0.02
_MAX_TRIES = 1000
# Heavy tails: one draw in a thousand adds a Pareto value; together these double the variance.
_TAIL_PROBABILITY, _TAIL_INDEX = 1e-3, 2.5
_TAIL_SCALE = SIGMA / math.sqrt(_TAIL_PROBABILITY * _TAIL_INDEX / (_TAIL_INDEX - 2))


class GuardrailWorld(Environment):
    """Smooth random lifts, a guardrail that binds, and the noise of the paper's world.

    Args:
        seed: of the surfaces, the daily curves, the noise and the delays.
        dims: parameters, each in [0, 1].
        traffic: scale of the 50,000 draws an hour, whose relative noise is about 0.9.
        delay: least delay of a reading in rounds; |N(0, 1)| rounded is added, drawn for each arm.
        num_gains: metrics that the objective averages.
        num_guardrails: metrics with a guardrail each.
        objective: ``"linear"``, or ``"neural"``: a small saturating network over the gains.
        drift: radians a round by which each lift turns towards another surface.
        heavy_tails: give the first metric Pareto tails of index 2.5.
        feasible: False sets every guardrail above what any theta reaches.
    Raises:
        ConfigError: a count below one, a traffic or delay below zero, or no such world.
    """

    name = "guardrail"

    def __init__(
        self,
        seed: int = 0,
        dims: int = 2,
        *,
        traffic: float = 1.0,
        delay: int = 3,
        num_gains: int = 1,
        num_guardrails: int = 1,
        objective: Literal["linear", "neural"] = "linear",
        drift: float = 0.0,
        heavy_tails: bool = False,
        feasible: bool = True,
    ) -> None:
        if min(dims, num_gains, num_guardrails) < 1 or traffic <= 0 or delay < 0:
            raise ConfigError(
                "dims, num_gains and num_guardrails must be at least 1, traffic above 0 and delay "
                f"at least 0, got {dims}, {num_gains}, {num_guardrails}, {traffic} and {delay}"
            )
        self.seed, self.delay, self.drift, self.heavy_tails = seed, delay, drift, heavy_tails
        self.draws_per_round = 50_000 * traffic
        self._num_gains = num_gains
        generator = torch.Generator().manual_seed(seed)
        self.levels = daily_curves(generator, num_gains + num_guardrails)
        gains = _names("gain", num_gains)
        guards = _names("guard", num_guardrails)
        space = SearchSpace([Float(f"w_{i + 1}", 0.0, 1.0) for i in range(dims)])
        neural = _Saturating(num_gains, generator) if objective == "neural" else None
        average = " + ".join(f"{1 / num_gains:g} * {name}" for name in gains)
        average = gains[0] if num_gains == 1 else average
        bound = "-0.1%" if feasible else f"{2 * _MAX_LIFT:.0%}"
        constraints = [
            Constraint(f"{name} >= {bound}", may_exclude_base=not feasible) for name in guards
        ]
        self._later: Lifts | None = None
        for _ in range(_MAX_TRIES):
            base = self._draw_base(generator, dims)
            self._base = base.unsqueeze(0)
            self._now = self._draw_lifts(generator, dims, num_guardrails)
            super().__init__(
                Problem(
                    space=space,
                    base=dict(zip(space.names, base.tolist())),
                    metrics=[*gains, *guards],
                    objective=average if neural is None else neural,
                    constraints=constraints,
                )
            )
            if self._is_fit(feasible):
                break
        else:
            raise ConfigError(
                f"no world of seed {seed} has a binding guardrail and something to gain in "
                f"{_MAX_TRIES} tries; take fewer guardrails or another seed"
            )
        if drift:
            self._later = self._draw_lifts(generator, dims, num_guardrails)

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the base: ``(n, params)`` to ``(n, metrics)``; at round 0 by default."""
        now = self._now(theta)
        if self._later is None or not round:
            return now
        angle = self.drift * round
        return math.cos(angle) * now + math.sin(angle) * self._later(theta)

    def serve(self, plan: Plan) -> list[Delivery]:
        """Every arm's sample mean and variance."""
        generator, count = start_round(plan, self.seed, self.draws_per_round)
        lift = self.true_delta(plan.theta, plan.round)
        mu = self.levels[plan.round % DAY] * (1 + lift)
        mean, var = noisy_moments(mu, count, generator)
        if self.heavy_tails:
            add, square = _tails(count, generator)
            mean[:, 0] += add - _TAIL_PROBABILITY * _TAIL_SCALE * _TAIL_INDEX / (_TAIL_INDEX - 1)
            var[:, 0] += square - add.square()
        return deliver(plan, count, mean, var, self.delay, generator)

    def _draw_base(self, generator: torch.Generator, dims: int) -> Tensor:
        """The base's parameters; a world with a special base draws its own."""
        return 0.2 + 0.6 * torch.rand(dims, dtype=torch.float64, generator=generator)

    def _draw_lifts(self, generator: torch.Generator, dims: int, num_guardrails: int) -> Lifts:
        """The lifts of a world; families of worlds with other surfaces draw their own."""
        lengthscale = _LENGTHSCALE * math.sqrt(dims / 2)
        num = self._num_gains + num_guardrails
        surfaces = [Surface(generator, dims, lengthscale) for _ in range(num)]
        return Lifts(surfaces, self._base, self._num_gains)

    def _is_fit(self, feasible: bool) -> bool:
        truth = self.truth(self.truth_problem.space.sobol(2048, seed=0))
        scale = self._now.largest / _MAX_LIFT
        if not feasible:
            return float(truth.gain.max()) >= scale * _LEAST_GAIN
        best = truth.gain[truth.violation <= 0]
        breach = float(truth.violation[truth.gain.argmax()])
        least = _LEAST_GAIN / math.sqrt(self._num_gains * self.truth_problem.num_constraints)
        return (
            len(best) > 0 and float(best.max()) >= scale * least and breach >= scale * _LEAST_BREACH
        )


class Lifts:
    """The lift of each metric over theta, 0 at the base.

    Args:
        surfaces: of the metrics, gains first; each is a function from ``(n, dims)`` to ``(n,)``.
        base: ``(1, dims)``.
        num_gains: metrics that are gains; the others are guardrails, against the gains.
        largest: of 4096 changes of each metric, a fraction.
    """

    def __init__(
        self,
        surfaces: Sequence[Callable[[Tensor], Tensor]],
        base: Tensor,
        num_gains: int,
        largest: float = _MAX_LIFT,
    ) -> None:
        self.surfaces, self.num_gains, self.largest = surfaces, num_gains, largest
        self.at_base = self._raw(base)
        cube = SearchSpace([Float(f"x_{i}", 0.0, 1.0) for i in range(base.shape[1])])
        self.scale = largest / (self._raw(cube.sobol(4096, seed=0)) - self.at_base).abs().amax(0)

    def __call__(self, theta: Tensor) -> Tensor:
        """True lifts, ``(n, dims)`` to ``(n, metrics)``."""
        return self.scale * (self._raw(theta) - self.at_base)

    def _raw(self, x: Tensor) -> Tensor:
        raw = torch.stack([surface(x) for surface in self.surfaces], dim=-1)
        gains, own = raw[:, : self.num_gains], raw[:, self.num_gains :]
        common = gains.sum(-1, keepdim=True) / math.sqrt(self.num_gains)
        guards = -_AGAINST * common + math.sqrt(1 - _AGAINST**2) * own
        return torch.cat([gains, guards], dim=-1)


class _Saturating(nn.Module):
    """A fixed random network, increasing and concave in every gain; 0 at the base."""

    weight: Tensor
    out: Tensor

    def __init__(self, num_gains: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = 16
        self.num_gains = num_gains
        shape = (num_gains, hidden)
        weight = torch.rand(shape, dtype=torch.float64, generator=generator) / num_gains
        self.register_buffer("weight", 2 * weight / _MAX_LIFT)
        out = torch.rand(hidden, dtype=torch.float64, generator=generator)
        self.register_buffer("out", _MAX_LIFT * out / out.sum())

    def forward(self, delta: Tensor) -> Tensor:
        hidden = (delta[..., : self.num_gains] @ self.weight.to(delta)).tanh()
        value: Tensor = hidden @ self.out.to(delta)
        return value


def _tails(count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Contribution of rare large values to each arm's mean and mean square, both ``(arms,)``."""
    rare = torch.poisson(count * _TAIL_PROBABILITY, generator=generator).long()
    arm = torch.repeat_interleave(torch.arange(len(count)), rare)
    uniform = torch.rand(len(arm), dtype=torch.float64, generator=generator)
    value = _TAIL_SCALE * (1 - uniform) ** (-1 / _TAIL_INDEX)
    zero, users = torch.zeros_like(count), count.clamp_min(1)
    return (
        zero.index_add(0, arm, value) / users,
        zero.index_add(0, arm, value.square()) / users,
    )


def _names(stem: str, num: int) -> list[str]:
    return [stem] if num == 1 else [f"{stem}_{i + 1}" for i in range(num)]
