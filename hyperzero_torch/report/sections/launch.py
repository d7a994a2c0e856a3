"""The section on launches: every verdict with its numbers, and the promotion to the next study."""

from __future__ import annotations

from ...study.journal.launch_trace import (
    Carried,
    LaunchAborted,
    LaunchDecided,
    LaunchStarted,
    Promoted,
)
from ...study.launch import in_words
from ..data.decisions import omitted
from ..data.facts import Facts
from ..data.tables import Table, from_rows, name_of
from .blocks import Section, latest_first


def launch(facts: Facts) -> list[Section]:
    """None where nothing was launched, promoted or carried over."""
    rows = _rows(facts)
    if not rows.rows:
        return []
    lead = " ".join(in_words(facts.history))
    table = latest_first("Decisions on launches", rows)
    return [Section("launch", "Launches", [(lead + omitted(rows)).strip() or "Decisions.", table])]


def _rows(facts: Facts) -> Table:
    rows: list[tuple[object, ...]] = []
    for decision in reversed(facts.history.decisions):
        stage: int | None = None
        share: float | None = None
        match decision.trace:
            case LaunchStarted() as trace:
                candidate, verdict, who = trace.candidate, "started", trace.who
                stage, share = 1, min(trace.stages[0], 1 - trace.holdback)
            case LaunchDecided() as trace:
                candidate, verdict, who = trace.candidate, trace.verdict, ""
                stage, share = trace.stage + 1, trace.share
            case LaunchAborted() as trace:
                candidate, verdict, who = trace.candidate, "aborted", trace.who
            case Promoted() as trace:
                candidate, verdict, who = trace.candidate, "promoted", trace.who
            case Carried() as trace:
                candidate, verdict, who = trace.candidate, "evidence carried", ""
            case _:
                continue
        rows.append(
            (decision.round, name_of(candidate), verdict, stage, share, who, decision.reason)
        )
    return from_rows(
        [
            ("round", "in round", "whole"),
            ("candidate", "candidate", "text"),
            ("verdict", "decision", "text"),
            ("stage", "stage", "whole"),
            ("share", "share of all users", "prob"),
            ("who", "who", "text"),
            ("reason", "reason", "text"),
        ],
        rows,
    )
