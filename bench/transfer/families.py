"""Families of related worlds with a known share of common structure, and misleading relatives.

A family's members have the guardrail world's surfaces, each ``share`` of a common one and the rest
its own: lifts of two members correlate by ``share ** 2`` over theta. The target is drawn like any
``GuardrailWorld``, so its guardrail binds; sources have bases, own parts and noise of their own.

    member_m(x) = share common_m(x) + sqrt(1 - share^2) own_m(x)

A source is the evidence of a study of its world: a first design all over the space, and a cloud of
candidates around its best point with most of the traffic. Its evidence is drawn with the variances
that hourly traffic gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hyperzero_torch import InputError
from hyperzero_torch.problem.space import SearchSpace
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.simulate.guardrail import _LENGTHSCALE, Lifts
from hyperzero_torch.simulate.synthetic import MEAN_LEVEL, SIGMA, Surface
from hyperzero_torch.transfer import Source

Kind = Literal[
    "related", "identical", "reversed", "shifted", "shuffled", "noise", "unrelated", "one_good"
]
_SHIFT = 0.4
_DESIGN, _CLOUD, _CLOUD_WIDTH = 64, 32, 0.08
_HOURS = 30


class MemberWorld(GuardrailWorld):
    """The target of a family: a guardrail world whose surfaces have a common part.

    Args:
        seed: of the family.
        dims: parameters.
        share: of the common part.
        richer: traffic of a source, times the target's.
        options: of a ``GuardrailWorld``.
    """

    def __init__(
        self, seed: int, dims: int, share: float, richer: float = 1.0, **options: Any
    ) -> None:
        self.share, self.richer = share, richer
        super().__init__(seed, dims, **options)

    def sources(self, num: int, kind: Kind = "related") -> list[Source]:
        """See ``sources``."""
        return sources(self, num, kind)

    def _draw_lifts(self, generator: torch.Generator, dims: int, num_guardrails: int) -> Lifts:
        num = self._num_gains + num_guardrails
        lengthscale = _LENGTHSCALE * math.sqrt(dims / 2)
        self.common = [Surface(generator, dims, lengthscale) for _ in range(num)]
        return member(generator, self._base, self.common, self.share, self._num_gains)


class Mixed(NamedTuple):
    """A surface of a member: the family's and its own."""

    common: Surface
    own: Surface
    share: float
    shift: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        at = x if self.shift is None else x + self.shift
        return self.share * self.common(at) + math.sqrt(1 - self.share**2) * self.own(at)


def member(
    generator: torch.Generator,
    base: Tensor,
    common: Sequence[Surface],
    share: float,
    num_gains: int,
    shift: Tensor | None = None,
) -> Lifts:
    """Lifts over theta of one member, 0 at its base; the largest of 4096 changes is 5 %."""
    dims = base.shape[1]
    lengthscale = _LENGTHSCALE * math.sqrt(dims / 2)
    own = [Surface(generator, dims, lengthscale) for _ in common]
    surfaces = [Mixed(c, o, share, shift) for c, o in zip(common, own)]
    return Lifts(surfaces, base, num_gains)


def sources(world: MemberWorld, num: int, kind: Kind = "related", seed: int = 0) -> list[Source]:
    """``num`` sources for a target; of ``one_good`` the first is related, the others are not.

    ``identical`` ones are the target itself with other readings: no source can be better.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in get_args(Kind):
        raise InputError(f"sources of a surface are {', '.join(get_args(Kind))}, got {kind!r}")
    return [_source(world, i, kind, seed) for i in range(num)]


def _source(world: MemberWorld, index: int, kind: Kind, seed: int) -> Source:
    generator = torch.Generator().manual_seed(7_919 * (world.seed + 1) + 104_729 * index + seed)
    dims = world._base.shape[1]
    space, metrics = world.truth_problem.space, world.truth_problem.metrics
    base = 0.2 + 0.6 * torch.rand(1, dims, dtype=torch.float64, generator=generator)
    bad: Kind = ("unrelated", "reversed", "shuffled", "noise", "shifted")[index % 5]  # type: ignore[assignment]
    if kind == "one_good":
        kind = "related" if index == 0 else bad
    share = 0.0 if kind == "unrelated" else world.share
    shift = torch.full((dims,), _SHIFT, dtype=torch.float64) if kind == "shifted" else None
    lifts = member(generator, base, world.common, share, world._num_gains, shift)
    if kind == "identical":
        base, lifts = world._base, world._now
    sign = -1.0 if kind == "reversed" else 1.0
    delta_at = (lambda x: 0 * lifts(x)) if kind == "noise" else (lambda x: sign * lifts(x))
    design = space.sobol(_DESIGN, seed=int(generator.initial_seed() % 2**31))
    best = _best(delta_at, space, world)
    cloud = best + _CLOUD_WIDTH * torch.randn(
        _CLOUD, dims, dtype=torch.float64, generator=generator
    )
    x = torch.cat([design, space.snap(cloud.clamp(0, 1))])
    # An hour's users on an arm, and as many hours as a study gives it: a third of the traffic on
    # the first design for five hours, the rest on the cloud.
    draws = world.richer * world.draws_per_round
    users = draws * torch.cat(
        [
            torch.full((_DESIGN,), 0.65 * 5 / _DESIGN),
            torch.full((_CLOUD,), 0.5 * (_HOURS - 5) / _CLOUD),
        ]
    )
    relative = (SIGMA / MEAN_LEVEL) ** 2
    own, control = relative / users, relative / (0.4 * _HOURS * draws)
    var = (own + control).double().unsqueeze(-1).expand(-1, len(metrics))
    mean = delta_at(x)
    mean = mean + own.sqrt().unsqueeze(-1) * torch.randn(
        mean.shape, dtype=torch.float64, generator=generator
    )
    mean = mean + control**0.5 * torch.randn(
        1, mean.shape[1], dtype=torch.float64, generator=generator
    )
    if kind == "shuffled":
        order = torch.randperm(len(mean), generator=generator)
        mean, var = mean[order], var[order]
    return Source(
        name=f"{kind}_{index}",
        parameters=space.to_parameters(space.from_unit(x)),
        metrics=metrics,
        mean=mean,
        var=var.clone(),
        base=space.to_parameters(space.from_unit(base))[0],
        shared=(control * torch.ones(len(metrics), len(x), len(x), dtype=torch.float64)),
    )


def _best(delta_at: Any, space: SearchSpace, world: MemberWorld) -> Tensor:
    x = space.sobol(4096, seed=0)
    outcome = world.truth_problem.evaluate(delta_at(space.from_unit(x)))
    utility = torch.where(outcome.feasible, outcome.utility, -torch.inf)
    return x[int(utility.argmax())]
