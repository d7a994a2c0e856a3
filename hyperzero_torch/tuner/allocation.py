"""From arms and slots to the shares of a plan, and what these are expected to expose users to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..study.config.exposure import base_violation
from ..study.exposure import harm_left
from ..study.history import History
from ..study.journal.trace import ExposureTrace
from ..surrogate import similarity
from .context import RoundContext
from .harm_budget import within_budget
from .limits import Limits, limits
from .model import ModelState
from .oversight import Oversight, towards_control
from .switches import Shares, with_pins
from .traffic import max_control_share, shares


class Allocation(NamedTuple):
    """Candidates of a plan without the control, their slots, and the shares, the control's first.

    Shares sum to 1. ``exposure`` is what is expected of them; None where nothing is limited.
    """

    arms: list[int]
    slots: list[int]
    shares: tuple[float, ...]
    exposure: ExposureTrace | None


def allocate(
    state: ModelState,
    context: RoundContext,
    oversight: Oversight,
    arms: Tensor,
    slots: Tensor,
    votes: Tensor,
) -> Allocation:
    """Divide the traffic among a round's arms, under all limits.

    Candidates that a person has pinned get the pinned share, which only the harm budget and missing
    readings lower.

    Args:
        state: the evidence, and the posterior where there is one.
        context: the round that is planned.
        oversight: what missing readings demand.
        arms: ``(A,)`` candidate ids, without the control and those that are pinned.
        slots: ``(A,)``, positive.
        votes: slots that each candidate won, ``(candidates,)``.
    """
    config, history = context.config, context.history
    pins = history.status.switches.pins
    last, correlation = _last_shares(history), _arm_similarity(state, context, arms)
    most = max_control_share(config, context.age)
    bounds = limits(state, context, arms, slots, oversight.capped)
    divided = shares(arms, slots, last, config, correlation, most, bounds)
    planned = with_pins(Shares(arms, slots, divided), pins, votes)
    if pins:
        bounds = limits(state, context, planned.arms, planned.slots, {})
    kept = within_budget(planned.shares, bounds, state.problem, context)
    kept = towards_control(kept, oversight.treated)
    exposure = None
    if bounds.groups:
        free = Shares(arms, slots, shares(arms, slots, last, config, correlation, most))
        unlimited = with_pins(free, pins, votes).shares
        exposure = _exposure(kept, unlimited, bounds, state, context)
    return Allocation(planned.arms.tolist(), planned.slots.tolist(), kept, exposure)


def _exposure(
    planned: tuple[float, ...],
    unlimited: tuple[float, ...],
    bounds: Limits,
    state: ModelState,
    context: RoundContext,
) -> ExposureTrace:
    treated = torch.tensor(planned[1:], dtype=torch.float64)
    untested, risky = (round(float(treated[group.arms].sum()), 6) for group in bounds.groups)
    values: dict[str, float] = {}
    if bounds.prospect is not None:
        own = base_violation(state.problem)
        violation = torch.cat([torch.tensor([own]).double(), bounds.prospect.violation])
        for name, part in (("violation", planned), ("without_limits", unlimited)):
            values[name] = 100 * float(torch.tensor(part, dtype=torch.float64) @ violation)
        budget, config = context.config.harm_budget, context.config
        if budget is not None:
            left = harm_left(context.history, budget, config.rounds_per_day, context.round)
            values |= {"users": left.users, "harm": values["violation"] * left.users}
    return ExposureTrace(untested=untested, risky=risky, **values)


def _arm_similarity(state: ModelState, context: RoundContext, arms: Tensor) -> Tensor | None:
    """Prior correlation of the arms' deltas where evidence is pooled; None where it is not."""
    if context.config.evidence != "pooled":
        return None
    lengthscale = None if state.posterior is None else state.posterior.lengthscale
    return similarity(state.problem.space.to_unit(context.history.theta[arms]), lengthscale)


def _last_shares(history: History) -> dict[int, float]:
    """Share by candidate in the last plan; empty before the first."""
    last = history.last_plan
    return {} if last is None else dict(zip(last.candidates, last.shares))
