"""The harm budget: expected violation times users, and the traffic that it allows.

A round's expected harm is the sum over arms of users times the expected violation in points. It is
kept below the budget by a price: an arm's share is divided by 1 + price x violation, with the least
price that keeps the budget. What is taken from arms goes to the control.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..problem.problem import Problem
from ..study.config.exposure import HarmBudget, base_violation
from ..study.history import History
from .context import RoundContext
from .limits import Limits

_BISECTIONS = 60
_LARGEST_PRICE = 1e12


class Harm(NamedTuple):
    """What a study may do: the harm left for this round, and the users it is for."""

    left: float
    users: float


def harm_left(history: History, budget: HarmBudget, rounds_per_day: int, round: int) -> Harm:
    """What is left of a budget for a round, in points times users."""
    limits = [] if budget.per_round is None else [budget.per_round]
    if budget.per_day is not None:
        limits.append(budget.per_day - harm_spent(history, round - rounds_per_day + 1))
    users = max(budget.users_per_round, _users_seen(history, rounds_per_day))
    return Harm(max(0.0, min(limits)), users)


def harm_spent(history: History, since: int) -> float:
    """Expected harm of the plans from a round on, as they were made."""
    plans = (plan for r, plan in history.plans.items() if r >= since)
    exposures = (plan.trace.exposure for plan in plans)
    return sum(e.harm for e in exposures if e is not None and e.harm is not None)


def priced(shares: Tensor, violation: Tensor, most: float) -> Tensor:
    """Shares ``(A,)`` whose expected violation is at most ``most``, by the least price.

    Args:
        shares: as they would be without a budget.
        violation: ``(A,)`` expected violation of each arm.
        most: of the sum of shares times violations; at or below 0 only arms without any remain.
    """
    if float(shares @ violation) <= most:
        return shares
    if most <= 0:
        return torch.where(violation > 0, 0.0, shares)
    low, high = 0.0, 1.0
    while float((shares / (1 + high * violation)) @ violation) > most and high < _LARGEST_PRICE:
        high *= 2
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        if float((shares / (1 + price * violation)) @ violation) > most:
            low = price
        else:
            high = price
    within = shares / (1 + high * violation)
    total = float(within @ violation)
    if total > most:  # beyond the largest price, or by rounding
        within = torch.where(violation > 0, within * (most / total), within)
    return within


def within_budget(
    shares: tuple[float, ...], limits: Limits, problem: Problem, context: RoundContext
) -> tuple[float, ...]:
    """Shares, the control's first, within the study's budget; they sum to 1."""
    budget = context.config.harm_budget
    if budget is None or limits.prospect is None:
        # Without a budget, or before the base's levels are known and harm can be estimated.
        return shares if budget is None else (1.0, *(0.0 for _ in shares[1:]))
    left, users = harm_left(context.history, budget, context.config.rounds_per_day, context.round)
    own = 100 * base_violation(problem)
    # Traffic that an arm loses goes to the control, whose own violation is the same for all users.
    excess = (100 * limits.prospect.violation - own).clamp_min(0)
    treated = torch.tensor(shares[1:], dtype=torch.float64)
    kept = priced(treated, excess, left / users - own)
    if torch.equal(kept, treated):
        return shares
    return (1.0 - float(kept.sum()), *kept.tolist())


def _users_seen(history: History, rounds_per_day: int) -> float:
    """The most users that readings of the latest day counted in a round."""
    latest = sorted(history.tables)[-rounds_per_day:]
    counts = (np.nansum(history.tables[r].counted("count"), axis=0) for r in latest)
    return max((float(count.max(initial=0.0)) for count in counts), default=0.0)
