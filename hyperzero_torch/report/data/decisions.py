"""The audit trail as tables: retired and stopped candidates, excluded rounds, drift, notes."""

from __future__ import annotations

from collections.abc import Sequence

from ...study.findings import findings
from ...study.history import CONTROL
from ...study.journal import Decision
from ...study.journal.goals_trace import GoalsChanged
from ...study.journal.missing_trace import Withdrawn
from ...study.journal.quarantine_trace import Readmitted
from ...study.journal.switch_trace import (
    ApprovalNeeded,
    Approved,
    Pinned,
    StoppedByHand,
    Switch,
    Unpinned,
)
from ...study.journal.trace import (
    CHANGES,
    DriftFound,
    Retired,
    RolledBack,
    RoundsExcluded,
    RoundsReinstated,
    Stopped,
)
from .facts import Facts
from .tables import Table, from_rows, name_of, table

MOST_ROWS = 60
_MOST_LISTED = 8  # candidates or rounds that are listed one by one


def retired_and_stopped(facts: Facts) -> Table:
    """Candidates out of use: stopped and withdrawn ones first, each group from the latest on."""
    status, belief = facts.history.status, facts.belief
    goals: Decision | None = None
    latest: dict[int, Decision] = {}
    stopped_by: dict[int, Decision] = {}
    for decision in facts.history.decisions:
        if isinstance(decision.trace, GoalsChanged):
            goals = decision
            for candidate in decision.trace.judged_anew:
                stopped_by.pop(candidate, None)
        if isinstance(decision.trace, Retired | Stopped | StoppedByHand | Withdrawn | RolledBack):
            for candidate in decision.trace.candidates:
                latest[candidate] = decision
                if not isinstance(decision.trace, Retired):
                    stopped_by.setdefault(candidate, decision)
    by = {c: stopped_by[c] for c in status.stopped if c in stopped_by}
    by |= {c: latest[c] for c in status.retired - status.stopped if c in latest}
    if goals is not None:
        by |= dict.fromkeys(status.outside, goals)
    by.pop(CONTROL, None)
    ids = sorted(by, key=lambda c: (c not in status.stopped, -by[c].round, c))
    kinds = [_status_of(by[c]) for c in ids]
    return table(
        ("candidate", "candidate", "text", map(name_of, ids)),
        ("status", "status", "text", kinds),
        ("round", "since round", "whole", [by[c].round for c in ids]),
        ("rounds", "rounds with evidence", "whole", facts.bucket.num_rounds[ids]),
        ("gain", "estimated gain", "signed", facts.gain(belief.mean[ids])),
        ("prob", "P(feasible)", "prob", facts.prob_feasible(ids)),
        ("reason", "reason", "text", [by[c].reason for c in ids]),
    )


def _status_of(decision: Decision) -> str:
    match decision.trace:
        case RolledBack():
            return "withdrawn"
        case GoalsChanged():
            return "outside the bounds"
    return decision.kind


def excluded_rounds(facts: Facts) -> Table:
    """Decisions that excluded or reinstated rounds, the latest first."""
    rows = []
    for decision in reversed(facts.history.decisions):
        trace = decision.trace
        if isinstance(trace, RoundsExcluded | RoundsReinstated | RolledBack):
            still = [r for r in trace.rounds if r in facts.history.status.excluded_rounds]
            kind = "excluded" if isinstance(trace, RoundsExcluded) else decision.kind
            rows.append(
                (_listed(trace.rounds), kind, decision.round, _listed(still), decision.reason)
            )
    return from_rows(
        [
            ("rounds", "rounds", "text"),
            ("decision", "decision", "text"),
            ("round", "decided in round", "whole"),
            ("still", "excluded today", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )


def drift_and_rollbacks(facts: Facts) -> Table:
    """Detected drift and rollbacks, the latest first."""
    rows = []
    for decision in reversed(facts.history.decisions):
        trace = decision.trace
        if isinstance(trace, DriftFound):
            event = "drift"
            where = ", ".join(facts.problem.metrics[m] for m in trace.metrics)
            kept = f"{100 * trace.factor:.3g} %"
            effect = f"evidence from before round {trace.before} keeps {kept} of its precision"
        elif isinstance(trace, RolledBack):
            event, where = "rollback", f"to round {trace.to_round}"
            withdrawn = len(trace.candidates)
            effect = f"{len(trace.rounds)} rounds excluded, {withdrawn} candidates withdrawn"
        else:
            continue
        rows.append((decision.round, event, where, effect, decision.reason))
    return from_rows(
        [
            ("round", "in round", "whole"),
            ("event", "event", "text"),
            ("where", "metrics, or target round", "text"),
            ("effect", "effect", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )


def switches(facts: Facts) -> Table:
    """Switches that people threw, and plans that waited for approval, the latest first."""
    rows = []
    for decision in reversed(facts.history.decisions):
        trace = decision.trace
        if not isinstance(trace, Switch | ApprovalNeeded | Readmitted):
            continue
        what, by = "", getattr(trace, "by", "")
        match trace:
            case Pinned(candidate=candidate, share=share):
                what = f"{name_of(candidate)} at {share:.4g}"
            case Unpinned(candidate=candidate):
                what = name_of(candidate)
            case StoppedByHand() | Approved() | Readmitted() | ApprovalNeeded():
                what = _listed(trace.candidates)
        if isinstance(trace, ApprovalNeeded):
            by = " and ".join(trace.proposers)
        rows.append((decision.round, decision.kind, what, by, decision.reason))
    return from_rows(
        [
            ("round", "in round", "whole"),
            ("switch", "switch", "text"),
            ("what", "candidates", "text"),
            ("by", "by", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )


def open_findings(facts: Facts) -> Table:
    """What is amiss today, and what to do about it: as ``hyperzero doctor`` shows it."""
    amiss = findings(facts.history)
    return table(
        ("what", "what", "text", [f.what for f in amiss]),
        ("where", "where", "text", [f.where for f in amiss]),
        ("advice", "what to do", "text", [f.advice for f in amiss]),
    )


def notes(facts: Facts) -> Table:
    """All other entries of the audit trail, the latest first."""
    decisions = [d for d in reversed(facts.history.decisions) if d.kind not in CHANGES]
    return table(
        ("round", "in round", "whole", [d.round for d in decisions]),
        ("kind", "about", "text", [d.kind for d in decisions]),
        ("reason", "note", "text", [d.reason for d in decisions]),
    )


def omitted(rows: Table) -> str:
    """A sentence on the rows beyond those shown, empty where all are."""
    num = len(rows.rows)
    return "" if num <= MOST_ROWS else f" The first {MOST_ROWS} of {num} are listed."


def _listed(rounds: Sequence[int]) -> str:
    return ", ".join(ranges(rounds)) or "none"


def ranges(rounds: Sequence[int]) -> list[str]:
    """Whole numbers with runs written as one; the rest counted where there are many."""
    runs: list[list[int]] = []
    for r in sorted(rounds):
        if runs and r == runs[-1][1] + 1:
            runs[-1][1] = r
        else:
            runs.append([r, r])
    parts = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    rest = len(parts) - _MOST_LISTED
    return parts if rest <= 0 else [*parts[:_MOST_LISTED], f"and {rest} more"]
