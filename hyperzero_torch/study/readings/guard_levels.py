"""Guardrails on the level of a single metric, and levels of the control that are far from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ...problem.problem import Problem

#: Code of the reason, as journals store it. It never changes.
FAR = "far from its guardrail"
# A control that breaks a guardrail by this factor has another unit than the bound.
_BROKEN = 10.0
# A bound that is about so many times the control's level: a percentage for a fraction.
_HUNDRED, _ABOUT = 100.0, 1.5


class LevelBound(NamedTuple):
    """A guardrail ``level >= bound`` or ``level <= bound`` by its name."""

    name: str
    bound: float
    is_upper: bool


def bounds(problem: Problem, metric: str) -> Iterator[LevelBound]:
    """The guardrails that bound the level of this metric alone, other than by 0."""
    index = problem.metrics.index(metric)
    for term in problem.level_constraints(metric):
        at = torch.zeros(3, problem.num_metrics, dtype=torch.float64)
        at[:, index] = torch.tensor([0.0, 1.0, 2.0])
        at_0, at_1, at_2 = term(torch.zeros_like(at), at).tolist()
        slope = at_1 - at_0
        if slope == 0 or abs(at_2 - at_1 - slope) > 1e-9 * abs(slope):
            continue
        bound = -at_0 / slope
        if bound != 0:
            yield LevelBound(term.name, bound, slope < 0)


def is_broken_by_far(bound: LevelBound, level: float) -> bool:
    """Whether the control breaks the guardrail tenfold, which no guardrail is set to."""
    ratio = level / bound.bound
    if bound.bound < 0:
        return False
    return ratio >= _BROKEN if bound.is_upper else ratio <= 1 / _BROKEN


def is_kept_by_a_hundred(bound: LevelBound, level: float) -> bool:
    """Whether the bound is about a hundred times away, on the side on which it cannot break."""
    if bound.bound <= 0 or level <= 0:
        return False
    ratio = bound.bound / level if bound.is_upper else level / bound.bound
    return _HUNDRED / _ABOUT <= ratio <= _HUNDRED * _ABOUT
