"""A study in a few rows, for notebooks."""

from __future__ import annotations

from ..runtime.html import html_table
from .findings import findings
from .study import Study

_MOST_FINDINGS = 5


def as_html(study: Study, verdict: str) -> str:
    """The verdict on a study, where it stands, and what is amiss."""
    history, problem = study.history, study.problem
    stopped = sorted(history.status.stopped)
    rows: list[tuple[object, ...]] = [
        ("verdict", verdict),
        ("last round", "none yet" if history.last_round is None else history.last_round),
        ("candidates", max(0, history.num_candidates - 1)),
        ("arms in flight", history.num_in_flight),
        ("state", history.status.switches.in_words() or "running"),
        ("maximise", problem.objective_name),
        ("guardrails", "; ".join(problem.constraint_names) or "none"),
        ("stopped", ", ".join(map(str, stopped)) or "none"),
        ("journal", repr(study.journal)),
    ]
    amiss = [finding.what for finding in findings(history)]
    more = len(amiss) - _MOST_FINDINGS
    notes = [*amiss[:_MOST_FINDINGS], *([f"{more} more findings"] if more > 0 else [])]
    return html_table(f"Study {study.name}", [], rows, notes)
