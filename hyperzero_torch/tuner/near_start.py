"""A start near the base: candidates come from around it, further as the guardrails prove to hold.

The radius grows by a quarter where the posterior expects a part of the points beyond it to keep
every guardrail. It never shrinks: what lies within was allowed by the evidence of its time, and
what proves harmful is limited and stopped one by one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..problem.near import NearSpace, near_base
from ..problem.problem import Problem
from ..study.history import History
from .context import RoundContext
from .limits import prospect
from .model import Fitted, ModelState

_GROWTH = 1.25
# The radius grows where at least this part of the points beyond it hold with this probability.
_PART, _PROB_FEASIBLE = 0.25, 0.75
_NUM_POINTS = 512
_NUM_FEW = 64


class Scope(NamedTuple):
    """The state to plan from, whose problem may be over a part of the space, and its radius."""

    state: ModelState
    radius: float | None


def scope(state: ModelState, context: RoundContext) -> Scope:
    """The part of the space that new candidates come from in this round; None for all of it."""
    config, history = context.config, context.history
    if config.start == "everywhere":
        return Scope(state, None)
    radius = _last_radius(history) or config.start_radius
    if isinstance(state, Fitted) and radius < 1 and _may_grow(state, radius):
        radius = min(1.0, radius * _GROWTH)
    problem = near_base(state.problem, radius)
    while radius < 1 and _holds_only_the_base(problem):  # a Choice, or an Int of few values
        radius = min(1.0, radius * _GROWTH)
        problem = near_base(state.problem, radius)
    return Scope(replace(state, problem=problem), radius)


def _last_radius(history: History) -> float | None:
    """That of the latest plan with one: launches and held rounds have none."""
    radii = (plan.trace.radius for plan in reversed(history.plans.values()))
    return next((radius for radius in radii if radius is not None), None)


def _holds_only_the_base(problem: Problem) -> bool:
    space = problem.space
    points = space.from_unit(space.sobol(_NUM_FEW, seed=0))
    return bool((points == problem.base_theta).all())


def _may_grow(state: Fitted, radius: float) -> bool:
    """Whether enough of the points beyond the radius are expected to keep every guardrail."""
    problem = state.problem
    space, base = problem.space, problem.base_theta
    points = NearSpace(space, base, min(1.0, radius * _GROWTH)).sobol(_NUM_POINTS, seed=0)
    beyond = points[~NearSpace(space, base, radius).within(points)]
    if not len(beyond):
        return True
    holds = prospect(state, beyond).prob_feasible >= _PROB_FEASIBLE
    return float(holds.double().mean()) >= _PART
