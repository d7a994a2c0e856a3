"""Events of a round that people are notified of, from the loop's result and the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..study.config.monitoring import Event
from ..study.journal import Decision
from ..study.journal.launch_trace import LaunchAborted, LaunchDecided, LaunchStarted, Promoted
from ..study.journal.missing_trace import MISSING, SAMPLE_RATIO, WITHDRAWN
from ..study.journal.quarantine_trace import QUARANTINED
from ..study.journal.switch_trace import STOPPED_BY_HAND, SWITCHES
from ..study.journal.trace import ASIDE, DRIFT, ROLLED_BACK, STOPPED
from ..study.quarantine import UNITS
from .round import Round

#: Severity of an event, as PagerDuty names it.
SEVERITIES: dict[Event, str] = {
    "stopped": "warning",
    "suspect": "warning",
    "excluded": "warning",
    "drift": "warning",
    "quarantined": "warning",
    "missing": "warning",
    "not_served": "critical",
    "no_plan": "critical",
    "launch": "info",
    "switch": "info",
    "error": "error",
}
_LAUNCH = {t.kind for t in (LaunchStarted, LaunchDecided, LaunchAborted, Promoted)}
_BY_KIND: dict[str, Event] = {
    STOPPED: "stopped",
    WITHDRAWN: "stopped",
    SAMPLE_RATIO: "suspect",
    ASIDE: "excluded",
    DRIFT: "drift",
    QUARANTINED: "quarantined",
    UNITS: "quarantined",
    MISSING: "missing",
    "readings": "missing",
    ROLLED_BACK: "switch",
    "journal": "error",
    "error": "error",
    "warehouse": "error",
    **dict.fromkeys(SWITCHES, "switch"),
    **dict.fromkeys(_LAUNCH, "launch"),
    STOPPED_BY_HAND: "stopped",
}


@dataclass(frozen=True)
class Alert:
    """One event of one study.

    Args:
        event: its name in the study file.
        study: the study's name.
        round: the round that it belongs to.
        text: a sentence.
        facts: plain JSON values.
    """

    event: Event
    study: str
    round: int
    text: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same event of the same round: relays join what has one key."""
        return f"hyperzero/{self.study}/{self.event}/{self.round}"


def alerts_of(study: str, done: Round, decisions: Sequence[Decision]) -> list[Alert]:
    """The events of a round.

    Args:
        study: its name.
        done: the loop's result.
        decisions: what the journal has since the round before, of all processes.
    """
    alerts = [
        Alert(event, study, decision.round, decision.reason, {"kind": decision.kind})
        for decision in decisions
        if (event := _BY_KIND.get(decision.kind)) is not None
    ]
    why = "; ".join(done.notes) or "the log has the reason"
    if done.plan is None:
        alerts.append(Alert("no_plan", study, done.round, f"Round {done.round} has no plan: {why}"))
    elif not done.applied:
        text = f"The plan of round {done.round} is not served: {why}"
        alerts.append(Alert("not_served", study, done.round, text))
    return alerts
