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
from .traffic import max_control_share, shares


class Allocation(NamedTuple):
    """Shares, the control's first, which sum to 1; and the exposure that is expected of them."""

    shares: tuple[float, ...]
    exposure: ExposureTrace | None


def allocate(
    state: ModelState, context: RoundContext, oversight: Oversight, arms: Tensor, slots: Tensor
) -> Allocation:
    """Divide the traffic among a round's arms, under all limits.

    Args:
        state: the evidence, and the posterior where there is one.
        context: the round that is planned.
        oversight: what missing readings demand.
        arms: ``(A,)`` candidate ids, without the control.
        slots: ``(A,)``, positive.
    """
    config, history = context.config, context.history
    last, alike = _last_shares(history), _arm_similarity(state, context, arms)
    most = max_control_share(config, context.age)
    bounds = limits(state, context, arms, oversight.capped)
    planned = shares(arms, slots, last, config, alike, most, bounds)
    planned = within_budget(planned, bounds, state.problem, context)
    planned = towards_control(planned, oversight.treated)
    if not bounds.groups:
        return Allocation(planned, None)
    unlimited = shares(arms, slots, last, config, alike, most)
    return Allocation(planned, _exposure(planned, unlimited, bounds, state, context))


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
    hyperparameters = None if state.posterior is None else state.posterior.hyperparameters
    return similarity(state.problem.space.to_unit(context.history.theta[arms]), hyperparameters)


def _last_shares(history: History) -> dict[int, float]:
    """Share by candidate in the last plan; empty before the first."""
    last = history.last_plan
    return {} if last is None else dict(zip(last.candidates, last.shares))
