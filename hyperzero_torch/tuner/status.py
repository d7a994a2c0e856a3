"""The status of a study as plain JSON values: ``hyperzero status --json``, and the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..study import lacking
from ..study import launch as launches
from ..study.exposure import exposure_facts
from ..study.findings import findings
from ..study.health import Card, cards
from ..study.history import History
from ..study.journal import Decision
from ..study.journal.sql import SqlJournal
from ..study.journal.times import planned_at
from ..study.journal.trace import CHANGES, Remark
from ..study.messages import MESSAGES
from ..study.planning import RECENT, Planning
from .horizon import Resolution, card_of
from .tuner import Tuner
from .verdict import Verdict, by_the_clock

_MAX_REMARKS = 10  # that a status shows
_REMARK_ROUNDS = 24  # how far back


def planning_of(tuner: Tuner) -> Card | None:
    """Whether rounds are planned in time, now; None where the journal knows no times.

    A study that went on as another one is planned no more.
    """
    history, journal = tuner.history, tuner.journal
    last = history.last_round
    if last is None or launches.goes_on(history) or not isinstance(journal, SqlJournal):
        return None
    times = planned_at(journal, tuner.study.name, last - RECENT)
    planning = Planning.of(times, tuner.config.rounds_per_day)
    return None if planning is None else planning.card(datetime.now(UTC))


class Standing(NamedTuple):
    """How a study stands now: the verdict, the cards of health, and what can be resolved."""

    verdict: Verdict
    health: tuple[Card, ...]
    resolution: Resolution


def standing_of(tuner: Tuner) -> Standing:
    """How a study stands now. A study that went on as another one has no horizon to reach."""
    now = datetime.now(UTC)
    health, config = cards(tuner.study.sync(), tuner.config), tuner.config
    verdict, planning = tuner.verdict(health, now), planning_of(tuner)
    facts = tuner.resolution(now)
    if not launches.goes_on(tuner.history):
        health = (*health, card_of(facts, config.horizon, now))
    health = (*health, *([planning] if planning else []))
    return Standing(by_the_clock(verdict, planning), health, facts)


def facts_of(tuner: Tuner) -> dict[str, Any]:
    """The status as plain JSON values."""
    verdict, health, facts = standing_of(tuner)
    history = tuner.history
    return (
        {
            "study": tuner.study.name,
            "last_round": history.last_round,
            "experiment_share": tuner.config.experiment_share,
            "candidates": max(0, history.num_candidates - 1),
            "in_flight": history.num_in_flight,
            "stopped": sorted(history.status.stopped),
            "compacted": sum(len(block.rounds) for block in history.compacted),
            "readmitted": sorted(history.status.readmitted.keys() - history.status.stopped),
            "quarantined": len(history.quarantined),
            "launch": launches.facts(history),
            "set_aside": {str(r): why for r, why in sorted(history.status.excluded_rounds.items())},
        }
        | switches_of(history)
        | _missing(history)
        | {
            "exposure": exposure_facts(history, tuner.config),
            "horizon": facts.to_dict(),
            "verdict": verdict.to_dict(),
            "health": [card.to_dict() for card in health],
            "findings": [finding.to_dict() for finding in findings(history)],
            "rounds": rounds_of(history),
        }
    )


def remarks_of(history: History) -> list[Decision]:
    """The latest remarks of the journal, oldest first; decisions are shown elsewhere."""
    last = history.last_round or 0
    recent = [
        d
        for d in history.decisions
        if d.kind not in CHANGES
        and d.round > last - _REMARK_ROUNDS
        and isinstance(d.trace, Remark)
        and "origin" not in d.trace.facts
        and d.kind != MESSAGES
    ]
    return recent[-_MAX_REMARKS:]


def rounds_of(history: History) -> list[dict[str, Any]]:
    """A row for each planned round, oldest first."""
    return [
        {
            "round": number,
            "arms": len(planned.candidates) - 1,
            "control_share": planned.shares[0],
            "waiting": history.tables[number].num_waiting if number in history.tables else 0,
        }
        for number, planned in sorted(history.plans.items())
    ]


def _missing(history: History) -> dict[str, Any]:
    """What is missing."""
    before = 0 if history.last_round is None else history.last_round
    without = lacking.without_control(history, before)
    return {
        "without_rows": lacking.without_rows(history, before),
        "without_control": {str(r): list(names) for r, names in without.items()},
        "remarks": [
            {"round": d.round, "kind": d.kind, "reason": d.reason} for d in remarks_of(history)
        ],
    }


def switches_of(history: History) -> dict[str, Any]:
    """The mode, the pins, and what waits for approval."""
    switches = history.status.switches
    waiting = switches.waiting
    return {
        "mode": switches.mode,
        "mode_by": switches.by or None,
        "mode_reason": switches.why or None,
        "pinned": {str(c): pin.share for c, pin in switches.pins.items()},
        "waiting_for_approval": None if waiting is None else waiting.plain(),
    }
