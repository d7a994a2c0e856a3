"""What `status` says of exposure: untested candidates, expected violation, the harm budget."""

from __future__ import annotations

from ..study.config import TunerConfig
from ..study.exposure import exposure_facts
from ..study.history import History
from .output import show


def show_exposure(history: History, config: TunerConfig) -> None:
    """One line on what users are exposed to, and one on the budget where there is one."""
    facts = exposure_facts(history, config)
    untested, risky = facts.get("untested_share"), facts.get("risky_share")
    if untested is None or risky is None:
        return
    line = f"exposure: {untested:.1%} of the last plan to candidates without own evidence"
    if risky:
        line += f", {risky:.1%} to candidates more likely to break a guardrail than not"
    now, day = facts["expected_violation"], facts["expected_violation_day"]
    if now is not None and day is not None:
        line += f"; expected violation {now:.3g} points, {day:.3g} over the last day"
    show(line)
    budget, left = config.harm_budget, facts.get("harm_left")
    if budget is None or left is None:
        return
    spent = facts["harm_spent_day"]
    limits = [f"{budget.per_round:,.4g} a round"] if budget.per_round else []
    limits += [f"{budget.per_day:,.4g} a day"] if budget.per_day else []
    color = "" if left else "yellow"
    show(
        f"harm budget: {' and '.join(limits)} (points times users); {spent:,.4g} spent in the last "
        f"day, {left:,.4g} left for the next round",
        color,
    )
