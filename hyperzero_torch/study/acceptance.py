"""A person's word that readings count after all, or that a stopped candidate may be served again.

``Study`` has a method for each decision, with its documentation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import ReadingsError, RoundError
from ..runtime.login import login_name
from .history import History
from .journal import Decision
from .journal.quarantine_trace import ReadingsAccepted, Readmitted
from .journal.trace import Remark
from .quarantine import UNITS, Cell


def accept(
    history: History,
    reason: str,
    rounds: Collection[int] | None = None,
    candidates: Collection[int] | None = None,
    metrics: Collection[str] | None = None,
    by: str | None = None,
) -> Decision:
    """A person's word that readings count, although they were set aside.

    Where they were set aside for the unit of their metric, the metric's later readings are not set
    aside for the same reason.

    Raises:
        ReadingsError: no reading that is set aside is among those named.
        RoundError: there is no reason.
    """
    check_reason(reason)
    unknown = set(metrics or ()) - set(history.metrics)
    if unknown:
        raise ReadingsError(
            f"unknown metrics {sorted(unknown)}; known metrics: {list(history.metrics)}"
        )
    chosen = [
        cell
        for cell in sorted(history.quarantined)
        if (rounds is None or cell.round in rounds)
        and (candidates is None or cell.candidate in candidates)
        and (metrics is None or history.metrics[cell.metric] in metrics)
    ]
    if not chosen:
        raise ReadingsError(
            f"none of the {len(history.quarantined)} readings that are set aside is among those "
            "named; 'hyperzero readings list' shows them"
        )
    doubted = {
        (c.metric, history.quarantined[c].code) for c in chosen if history.quarantined[c].is_unit
    }
    trace = ReadingsAccepted(
        rounds=[c.round for c in chosen],
        candidates=[c.candidate for c in chosen],
        metrics=[c.metric for c in chosen],
        units=sorted(doubted),
        by=by or login_name(),
    )
    right = sorted({history.metrics[m] for m, _ in doubted})
    units = f"; the unit of {right} is right" if right else ""
    count = "1 reading counts" if len(chosen) == 1 else f"{len(chosen)} readings count"
    return Decision.of(history.last_round or 0, f"{reason} ({count}{units})", trace)


def readmit(
    history: History, candidates: Sequence[int], reason: str, by: str | None = None
) -> list[Decision]:
    """Let stopped candidates be served again; see ``Study.readmit``."""
    check_reason(reason)
    numbers = sorted({int(c) for c in candidates})
    outside = [c for c in numbers if c in history.status.outside]
    if outside:
        raise RoundError(
            f"candidates {outside[:8]} lie outside the bounds that are in force, so they are not "
            "served; change the bounds to let them back in ('hyperzero goals change')"
        )
    served = [c for c in numbers if c not in history.status.stopped]
    if served or not numbers:
        raise RoundError(
            f"candidates {served[:8]} are not stopped; stopped: "
            f"{sorted(history.status.stopped) or 'none'}"
        )
    trace = Readmitted(candidates=numbers, by=by or login_name())
    return [Decision.of(history.last_round or 0, reason, trace)]


def set_aside(history: History) -> list[dict[str, Any]]:
    """Readings that are set aside, by metric and reason, as plain JSON values."""
    return [
        {
            "metric": metric,
            "code": code,
            "reason": reason,
            "readings": len(cells),
            "rounds": sorted({c.round for c in cells}),
            "candidates": sorted({c.candidate for c in cells}),
        }
        for (metric, code, reason), cells in summary(history).items()
    ]


def summary(history: History) -> dict[tuple[str, str, str], list[Cell]]:
    """Readings that are set aside, by metric, code and reason."""
    groups: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell, doubt in sorted(history.quarantined.items()):
        groups[history.metrics[cell.metric], doubt.code, doubt.reason].append(cell)
    return dict(groups)


def in_words(history: History) -> list[str]:
    """Changed goals, readings set aside and candidates that were let back in, a line each."""
    lines = []
    if history.goals:
        latest = history.goals[-1]
        first = 0 if latest.last_round is None else latest.last_round + 1
        lines.append(
            f"goals were changed {len(history.goals)} times, last by {latest.by} for rounds from "
            f"{first} on ('hyperzero goals show')"
        )
    if history.status.outside:
        lines.append(
            f"{len(history.status.outside)} of the stopped candidates only lie outside the bounds"
        )
    back = sorted(history.status.readmitted.keys() - history.status.stopped)
    if back:
        lines.append(f"stopped before and let back in: {back}")
    if history.quarantined:
        lines.append(
            f"{len(history.quarantined)} readings are set aside and do not count "
            "('hyperzero readings list' shows them all)"
        )
    return lines + [f"  {reason}" for reason in latest_reasons(history)]


def latest_reasons(history: History) -> list[str]:
    """The latest reason for each metric and code, of readings that are set aside and of remarks."""
    reasons: dict[tuple[Any, Any], str] = {
        (metric, code): reason for metric, code, reason in summary(history)
    }
    for decision in history.decisions:
        if decision.kind == UNITS and isinstance(decision.trace, Remark):
            facts = decision.trace.facts
            reasons.setdefault((facts.get("metric"), facts.get("code")), decision.reason)
    accepted = {(history.metrics[m], code) for m, code in history.status.accepted_units}
    return [reason for key, reason in reasons.items() if key not in accepted]


def check_reason(reason: str) -> None:
    """Raise ``RoundError`` unless a reason is given."""
    if not isinstance(reason, str) or not reason.strip():
        raise RoundError("give a reason, in a sentence; the journal stores it")
