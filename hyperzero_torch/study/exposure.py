"""What the plans of a study were expected to expose users to: harm spent, and harm left."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .config import TunerConfig
from .config.exposure import HarmBudget
from .history import History


class HarmLeft(NamedTuple):
    """The harm that a round may still do, in points times users, and the users it is for."""

    left: float
    users: float


def harm_left(history: History, budget: HarmBudget, rounds_per_day: int, round: int) -> HarmLeft:
    """What is left of a budget for a round that is not planned yet."""
    limits = [] if budget.per_round is None else [budget.per_round]
    if budget.per_day is not None:
        limits.append(budget.per_day - harm_spent(history, round - rounds_per_day + 1))
    users = max(budget.users_per_round, _most_users(history, rounds_per_day))
    return HarmLeft(max(0.0, min(limits)), users)


def harm_spent(history: History, since: int) -> float:
    """Expected harm of the plans from a round on, as it was when they were made."""
    plans = (plan for r, plan in history.plans.items() if r >= since)
    exposures = (plan.trace.exposure for plan in plans)
    return sum(e.harm for e in exposures if e is not None and e.harm is not None)


def exposure_facts(history: History, config: TunerConfig) -> dict[str, float | None]:
    """The exposure of the last plan and day, as ``status`` and metrics show it; None if unknown.

    Shares and violations (points) are averages over the users who take part, harm is points times
    users.
    """
    last = history.last_round
    if last is None:
        return {}
    latest = history.plans[last].trace.exposure
    day = [p.trace.exposure for r, p in history.plans.items() if r > last - config.rounds_per_day]
    violations = [e.violation for e in day if e is not None and e.violation is not None]
    facts: dict[str, float | None] = {
        "untested_share": None if latest is None else latest.untested,
        "risky_share": None if latest is None else latest.risky,
        "expected_violation": None if latest is None else latest.violation,
        "expected_violation_day": sum(violations) / len(violations) if violations else None,
    }
    budget = config.harm_budget
    if budget is not None:
        facts["harm_spent_day"] = harm_spent(history, last - config.rounds_per_day + 1)
        facts["harm_left"] = harm_left(history, budget, config.rounds_per_day, last + 1).left
    return facts


def _most_users(history: History, rounds_per_day: int) -> float:
    """The most users that readings of the latest day counted in a round."""
    latest = sorted(history.tables)[-rounds_per_day:]
    counts = (np.nansum(history.tables[r].counted("count"), axis=0) for r in latest)
    return max((float(count.max(initial=0.0)) for count in counts), default=0.0)
