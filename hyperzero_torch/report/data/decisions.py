"""What was decided, by whomever, as plain rows: the latest, as far as they fit on a page."""

from __future__ import annotations

from ...study.decisions import (
    ASIDE,
    CHANGES,
    DRIFT,
    REINSTATED,
    RETIRED,
    ROLLED_BACK,
    STOPPED,
)
from ...study.history import CONTROL
from ...study.journal import Decision
from .facts import Facts
from .tables import Table, name_of, table

MOST_ROWS = 60
_NAMED = 8  # candidates or rounds that are listed one by one


def ended(facts: Facts) -> Table:
    """Candidates that compete no longer: stopped and withdrawn ones first, then the latest."""
    standing, belief = facts.history.status, facts.belief
    last: dict[int, Decision] = {}
    stopped_by: dict[int, Decision] = {}
    for decision in facts.history.decisions:
        if decision.kind in (STOPPED, ROLLED_BACK, RETIRED):
            for candidate in decision.details.get("candidates", ()):
                last[candidate] = decision
                if decision.kind != RETIRED:
                    stopped_by.setdefault(candidate, decision)
    gone = {c: stopped_by[c] for c in standing.stopped if c in stopped_by}
    gone |= {c: last[c] for c in standing.retired - standing.stopped if c in last}
    order = sorted(gone, key=lambda c: (c not in standing.stopped, -gone[c].round, c))
    gain = facts.gain(belief.mean)
    return table(
        [
            ("candidate", "candidate", "text"),
            ("what", "what", "text"),
            ("round", "in round", "whole"),
            ("rounds", "rounds with evidence", "whole"),
            ("gain", "believed gain", "signed"),
            ("prob", "P(feasible)", "prob"),
            ("reason", "reason", "text"),
        ],
        [
            (
                name_of(c),
                "withdrawn" if gone[c].kind == ROLLED_BACK else gone[c].kind,
                gone[c].round,
                int(facts.bucket.num_rounds[c]),
                float(gain[c]),
                float(belief.prob_feasible[c]) if belief.mean[c].isfinite() else None,
                gone[c].reason,
            )
            for c in order
            if c != CONTROL
        ],
    )


def suspects(facts: Facts) -> Table:
    """Rounds whose readings do not count, and those that were let back, with the reasons."""
    rows = []
    for decision in facts.history.decisions:
        if decision.kind in (ASIDE, REINSTATED, ROLLED_BACK):
            rounds = list(decision.details.get("rounds", ()))
            still = [r for r in rounds if r in facts.history.status.excluded_rounds]
            rows.append(
                (
                    ", ".join(_ranges(rounds)) or "none",
                    decision.kind,
                    decision.round,
                    ", ".join(_ranges(still)) or "none",
                    decision.reason,
                )
            )
    return table(
        [
            ("rounds", "rounds", "text"),
            ("what", "what", "text"),
            ("round", "decided in round", "whole"),
            ("still", "set aside today", "text"),
            ("reason", "reason", "text"),
        ],
        rows[::-1],
    )


def turns(facts: Facts) -> Table:
    """Alarms of drift and roll-backs, the latest first."""
    rows = []
    for decision in facts.history.decisions:
        details = decision.details
        if decision.kind == DRIFT:
            names = [facts.problem.metrics[m] for m in details["metrics"]]
            what = f"{details['factor']:g} of the precision is kept before {details['before']}"
            rows.append((decision.round, "drift", ", ".join(names), what, decision.reason))
        elif decision.kind == ROLLED_BACK:
            num = len(details.get("rounds", ()))
            what = f"{num} rounds set aside, {len(details.get('candidates', ()))} withdrawn"
            target = f"to round {details['to_round']}"
            rows.append((decision.round, "rolled back", target, what, decision.reason))
    return table(
        [
            ("round", "in round", "whole"),
            ("what", "what", "text"),
            ("where", "metrics, or target", "text"),
            ("effect", "what follows", "text"),
            ("reason", "reason", "text"),
        ],
        rows[::-1],
    )


def remarks(facts: Facts) -> Table:
    """All other entries of the audit trail, the latest first."""
    said = [d for d in facts.history.decisions if d.kind not in CHANGES]
    return table(
        [
            ("round", "in round", "whole"),
            ("kind", "about", "text"),
            ("reason", "remark", "text"),
        ],
        [(d.round, d.kind, d.reason) for d in reversed(said)],
    )


def head(rows: Table) -> Table:
    """As many rows as fit on a page."""
    return rows._replace(rows=rows.rows[:MOST_ROWS])


def cut(rows: Table) -> str:
    """What is left out, in words."""
    num = len(rows.rows)
    return "" if num <= MOST_ROWS else f" The first {MOST_ROWS} of {num} are listed."


def _ranges(rounds: list[int]) -> list[str]:
    """Whole numbers with runs written as one; the rest counted where there are many."""
    runs: list[list[int]] = []
    for r in sorted(rounds):
        if runs and r == runs[-1][1] + 1:
            runs[-1][1] = r
        else:
            runs.append([r, r])
    said = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    rest = len(said) - _NAMED
    return said if rest <= 0 else [*said[:_NAMED], f"and {rest} more"]
