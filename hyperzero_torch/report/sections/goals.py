"""The section on goals that were changed while the study ran: what held when."""

from __future__ import annotations

from ...study.journal.goals_trace import Goals, GoalsChanged
from ..data.decisions import omitted
from ..data.facts import Facts
from ..data.tables import Table, from_rows
from .blocks import Section, latest_first


def changed_goals(facts: Facts) -> list[Section]:
    """None where the goals are those that the study began with."""
    if not facts.history.goals:
        return []
    rows = _rows(facts)
    lead = (
        f"The goals were changed {len(facts.history.goals)} times; the plots by round mark the "
        "first round under new goals. Estimates of gain, slack and P(feasible) on this page, of "
        f"earlier rounds too, are by the present goals. Explanations of a round ('hyperzero "
        f"explain') are by the goals of then.{omitted(rows)}"
    )
    return [Section("goals", "Goals", [lead, latest_first("Which goals held when", rows)])]


def _rows(facts: Facts) -> Table:
    decisions = [d for d in facts.history.decisions if isinstance(d.trace, GoalsChanged)]
    changes = facts.history.goals
    first = [0, *(0 if c.last_round is None else c.last_round + 1 for c in changes)]
    goals = [changes[0].before, *(c.after for c in changes)]
    rows = []
    for i in reversed(range(len(goals))):
        last = None if i == len(changes) else first[i + 1] - 1
        terms = (goals[i].problem["objective"], ", ".join(goals[i].problem["constraints"]))
        why = ("", "", "")
        if i:
            change = changes[i - 1]
            why = (change.by, "; ".join(change.differences), decisions[i - 1].reason)
        rows.append((_rounds(first[i], last), *terms, _bounds(goals[i]), *why))
    return from_rows(
        [
            ("rounds", "rounds", "text"),
            ("objective", "objective", "text"),
            ("guardrails", "guardrails", "text"),
            ("bounds", "bounds", "text"),
            ("by", "changed by", "text"),
            ("what", "what changed", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )


def _rounds(first: int, last: int | None) -> str:
    if last is None:
        return f"from {first} on"
    return "none" if last < first else f"{first} to {last}"


def _bounds(goals: Goals) -> str:
    parts = [
        f"{p['name']} in {p['options']}"
        if p["kind"] == "choice"
        else f"{p['name']} in [{p['low']:g}, {p['high']:g}]"
        for p in goals.problem["parameters"]
    ]
    return ", ".join([*parts, *goals.problem.get("theta_constraints", ())])
