"""The harm budget: expected violation times users, and the traffic that it allows.

A round's expected harm is the sum over arms of users times the expected violation in points. It is
kept below the budget by a price: an arm's share is divided by 1 + price x violation, with the least
price that keeps the budget. What is taken from arms goes to the control.
"""

from __future__ import annotations

import torch

from ..problem.problem import Problem
from ..study.config.exposure import base_violation
from ..study.exposure import harm_left
from .context import RoundContext
from .limits import Limits
from .price import priced


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
