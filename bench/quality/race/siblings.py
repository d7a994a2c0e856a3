"""Guardrail worlds of other kinds, on which nothing in the package is tuned.

Mechanics, noise and delays are those of ``GuardrailWorld``. One thing differs in each: surfaces,
size of the lifts, daily rhythm, or the place of the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.simulate.guardrail import (
    _LENGTHSCALE,
    _MAX_LIFT,
    Lifts,
)
from hyperzero_torch.simulate.synthetic import DAY, MEAN_LEVEL, Surface

Kind: TypeAlias = Literal["smooth", "matern", "additive", "kink"]
_FREEDOM = 3  # twice the smoothness of the Matern surfaces, which are differentiable once
_WEAKEST = 1 / 6  # a weak hour's level, over the mean of the day
_CORNER = 0.05  # of the range of each parameter


class SiblingWorld(GuardrailWorld):
    """A guardrail world that differs in one thing.

    Args:
        seed: see ``GuardrailWorld``.
        dims: parameters.
        surface: ``matern`` (rough, of smoothness 3/2), ``additive`` (parameters do not interact),
            ``kink`` (smooth, with a ridge along which the slope jumps) or ``smooth``.
        largest: lift of a metric among 4096 points, a fraction.
        weak_hours: all levels fall to a sixth of their mean at night, so most of a day's
            information comes in half of its hours.
        at_corner: the base is near a corner of the space.
        options: of a ``GuardrailWorld``.
    """

    def __init__(
        self,
        seed: int,
        dims: int = 2,
        *,
        surface: Kind = "smooth",
        largest: float = _MAX_LIFT,
        weak_hours: bool = False,
        at_corner: bool = False,
        **options: Any,
    ) -> None:
        self.surface, self.largest, self.at_corner = surface, largest, at_corner
        super().__init__(seed, dims, **options)
        if weak_hours:
            self.levels = weak_hours_of(self.levels)

    def _draw_base(self, generator: torch.Generator, dims: int) -> Tensor:
        base = super()._draw_base(generator, dims)
        return 0.5 + (0.5 - _CORNER) * (base - 0.5).sign() if self.at_corner else base

    def _draw_lifts(self, generator: torch.Generator, dims: int, num_guardrails: int) -> Lifts:
        surfaces = [
            _SURFACES[self.surface](generator, dims)
            for _ in range(self._num_gains + num_guardrails)
        ]
        return Lifts(surfaces, self._base, self._num_gains, self.largest)


def weak_hours_of(levels: Tensor) -> Tensor:
    """The day with the same phase, whose lowest level is a sixth of the mean, ``(24, metrics)``."""
    hour = torch.arange(DAY, dtype=levels.dtype)
    peak = levels[:, 0].argmax()
    swing = (2 * math.pi * (hour - peak) / DAY).cos()
    return (MEAN_LEVEL * (1 + (1 - _WEAKEST) * swing)).unsqueeze(-1).expand_as(levels).clone()


def _smooth(generator: torch.Generator, dims: int) -> Surface:
    return Surface(generator, dims, _LENGTHSCALE * math.sqrt(dims / 2))


def _matern(generator: torch.Generator, dims: int) -> Surface:
    """Frequencies of a Student t: a squared exponential's, over the root of a gamma variate."""
    surface = _smooth(generator, dims)
    normal = torch.randn(len(surface.omega), _FREEDOM, dtype=torch.float64, generator=generator)
    surface.omega /= normal.square().mean(-1, keepdim=True).sqrt()
    return surface


@dataclass(frozen=True)
class _Additive:
    parts: tuple[Surface, ...]

    def __call__(self, x: Tensor) -> Tensor:
        values = [part(x[:, [i]]) for i, part in enumerate(self.parts)]
        return torch.stack(values).sum(0) / math.sqrt(len(values))


def _additive(generator: torch.Generator, dims: int) -> _Additive:
    # In one dimension: a quarter of the range, as a sum of functions has no other detail.
    return _Additive(tuple(Surface(generator, 1, 0.25) for _ in range(dims)))


@dataclass(frozen=True)
class _Kink:
    smooth: Surface
    along: Tensor
    at: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return 0.7 * self.smooth(x) - 3 * ((x - self.at) @ self.along).abs()


def _kink(generator: torch.Generator, dims: int) -> _Kink:
    slope = torch.randn(dims, dtype=torch.float64, generator=generator)
    at = 0.3 + 0.4 * torch.rand(dims, dtype=torch.float64, generator=generator)
    return _Kink(_smooth(generator, dims), slope / slope.norm(), at)


_SURFACES: dict[Kind, Callable[[torch.Generator, int], Callable[[Tensor], Tensor]]] = {
    "smooth": _smooth,
    "matern": _matern,
    "additive": _additive,
    "kink": _kink,
}
