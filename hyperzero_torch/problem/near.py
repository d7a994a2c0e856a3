"""The part of a search space around the base, for studies that start near it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from .parameters import Choice
from .problem import Problem
from .space import SearchSpace

# From this radius on a Choice takes its other options; there is no smaller step to them.
_OPTIONS_FROM = 0.5
# Rounding of a coordinate at the region's bound.
_TOLERANCE = 1e-9
_MAX_HALVINGS = 30


class NearSpace(SearchSpace):
    """A space of the same unit cube whose points lie within a radius of the base.

    A point of it lies, in every dimension, at most the fraction ``radius`` of the way from the base
    to the bound. A Choice keeps the base's option while the radius is below one half. All samples
    and snapped points lie within; coordinates mean the same as in the whole space.

    Args:
        space: the whole space.
        base: ``(params,)`` the base's theta.
        radius: in (0, 1]; 1 is the whole space.
    """

    def __init__(self, space: SearchSpace, base: Tensor, radius: float) -> None:
        super().__init__(space.parameters, space.constraints)
        self.radius = radius
        self.base_x = space.to_unit(base)
        kinds = zip(space.parameters, space.widths)
        fixed = [
            isinstance(p, Choice) and radius < _OPTIONS_FROM for p, w in kinds for _ in range(w)
        ]
        free = [
            isinstance(p, Choice) for p, w in zip(space.parameters, space.widths) for _ in range(w)
        ]
        self._is_fixed = torch.tensor(fixed)
        scale = torch.where(torch.tensor(free), 1.0, torch.full((len(free),), radius))
        scale = torch.where(self._is_fixed, 0.0, scale.double())
        self._scale = scale
        self.low = self.base_x * (1 - self._scale)
        self.high = self.base_x + (1 - self.base_x) * self._scale

    def within(self, x: Tensor) -> Tensor:
        """Where points ``(..., dims)`` lie within the radius, bool ``(...)``."""
        low, high = self.low.to(x) - _TOLERANCE, self.high.to(x) + _TOLERANCE
        return ((x >= low) & (x <= high)).all(-1)

    def snap(self, x: Tensor) -> Tensor:
        """The nearest servable point within the radius, or one between it and the base."""
        base = self.base_x.to(x)
        snapped = super().snap(x.maximum(self.low.to(x)).minimum(self.high.to(x)))
        outside = ~self.within(snapped)
        # Rounding, or a constraint on theta, may have moved a point out: it goes towards the base.
        for halving in range(_MAX_HALVINGS):
            if not bool(outside.any()):
                return snapped
            part = 0.5 ** (halving + 1) if halving + 1 < _MAX_HALVINGS else 0.0
            closer = super().snap(base + part * (x[outside] - base))
            snapped = snapped.clone()
            snapped[outside] = closer
            outside = ~self.within(snapped)
        return snapped

    def uniform(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the whole space, each moved towards the base."""
        return self._moved(super().uniform(num, generator))

    def sobol(self, num: int, seed: int) -> Tensor:
        """Points of the whole space's sequence, each moved towards the base."""
        return self._moved(super().sobol(num, seed))

    def grid(self, num: int) -> Tensor:
        """The whole space's grid, each point moved towards the base; equal points stand once."""
        points: Tensor = torch.unique(self._moved(super().grid(num)), dim=0)
        return points

    def _moved(self, x: Tensor) -> Tensor:
        base, scale = self.base_x.to(x), self._scale.to(x)
        return self.snap(base + scale * (x - base))


def near_base(problem: Problem, radius: float) -> Problem:
    """The same problem over the part of its space within a radius of the base."""
    near = copy.copy(problem)
    near.space = NearSpace(problem.space, problem.base_theta, radius)
    return near
