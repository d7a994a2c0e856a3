"""One unit for the slacks of all constraints: the control's value of what a constraint bounds.

A delta is a fraction of the control's level already, so a slack of a constraint on deltas is shown
as it is, in percentage points. A slack of a constraint on levels is in the metric's own unit. Over
the control's value of the bounded side it becomes a fraction of the same kind:

    watch_time >= -0.1%          slack 0.004 is 0.4 points
    level(watch_time) >= 30      slack 2, the control has 40: 5 points
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import Problem


def slack_units(problem: Problem) -> Tensor:
    """What a slack is divided by to become a fraction of the control's value, ``(constraints,)``.

    1 for constraints on deltas. NaN where the control's value is 0 or not known: such a slack stays
    in its own unit.
    """
    delta = torch.zeros(problem.num_metrics, dtype=torch.float64, device=problem.device)
    units = []
    for i, term in enumerate(problem.terms[1:]):
        needed = problem.level_metrics[1 + i]
        if not term.sees_levels:
            units.append(1.0)
        elif problem.base_levels is None or not problem.base_levels.cpu()[needed].isfinite().all():
            units.append(math.nan)
        else:
            level = problem.base_levels.to(delta)
            # A leading axis of two, as callables are promised one.
            with torch.no_grad():
                value = term.measured(delta.expand(2, -1), level.expand(2, -1))
            size = abs(float(value[0]))
            units.append(size if 0 < size < math.inf else math.nan)
    return torch.tensor(units, dtype=torch.float64)


def violation_in_words(bound: float, unit: float) -> str:
    """How far a slack lies below 0: in points, or in its own unit where ``unit`` is NaN."""
    if math.isnan(unit):
        return f"{-bound:.4g} in its own unit"
    return f"{-100 * bound / unit:.3f} points"
