"""The section on readings that are set aside, and on stopped candidates that were let back in."""

from __future__ import annotations

from ...study.journal.quarantine_trace import Quarantined, ReadingsAccepted, Readmitted
from ..data.decisions import omitted, ranges
from ..data.facts import Facts
from ..data.tables import Table, from_rows
from .blocks import Section, latest_first


def quarantine(facts: Facts) -> list[Section]:
    """None where no reading was ever set aside and no candidate let back in."""
    rows = _rows(facts)
    if not rows.rows:
        return []
    num, status = len(facts.history.quarantined), facts.history.status
    back = sorted(status.readmitted.keys() - status.stopped)
    lead = (
        f"{num} readings are set aside today: they are in the journal and do not count until they "
        "are accepted (hyperzero readings accept) or replaced by a higher revision. "
    )
    if back:
        lead += f"Candidates that were stopped and let back in: {', '.join(ranges(back))}. "
    table = latest_first("Readings set aside or accepted, and candidates let back in", rows)
    title = "Readings set aside, candidates let back in"
    return [Section("quarantine", title, [lead + omitted(rows), table])]


def _rows(facts: Facts) -> Table:
    rows = []
    for decision in reversed(facts.history.decisions):
        match decision.trace:
            case Quarantined() as trace:
                where, num = facts.problem.metrics[trace.metric], len(trace.rounds)
                listed = f"rounds {', '.join(ranges(sorted({*trace.rounds})))}"
            case ReadingsAccepted() as trace:
                names = sorted({facts.problem.metrics[m] for m in trace.metrics})
                where, num = ", ".join(names), len(trace.rounds)
                listed = f"rounds {', '.join(ranges(sorted({*trace.rounds})))}"
            case Readmitted(candidates=candidates):
                where, num = "", len(candidates)
                listed = f"candidates {', '.join(ranges(candidates))}"
            case _:
                continue
        rows.append((decision.round, decision.kind, where, num, listed, decision.reason))
    return from_rows(
        [
            ("round", "in round", "whole"),
            ("decision", "decision", "text"),
            ("metric", "metric", "text"),
            ("num", "number", "whole"),
            ("which", "which", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )
