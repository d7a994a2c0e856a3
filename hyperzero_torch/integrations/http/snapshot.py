"""How a study stands, for the page: computed once for each change, and shown to everybody."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ...study import launch as launches
from ...study.authors import author_of
from ...study.config.horizon import Horizon
from ...study.health import Card, cards
from ...study.history import CONTROL, History
from ...study.journal.times import Times
from ...study.planning import Planning
from ...study.serving import why_control_alone
from ...tuner.guardrails import certified_safe
from ...tuner.horizon import Resolution, card_of
from ...tuner.recommend import Recommendation, recommend
from ...tuner.tuner import Tuner
from ...tuner.verdict import NOT_STARTED, Verdict, at_horizon, by_the_clock, verdict_on

_MOST_ARMS, _MOST_ROUNDS, _MOST_LINES = 60, 48, 5
_CHART_ROUNDS, _MOST_RECENT = 168, 8


@dataclass(frozen=True)
class Part:
    """A part of the traffic."""

    name: str
    share: float
    arms: int


@dataclass(frozen=True)
class ArmRow:
    """An arm of the last plan."""

    candidate: int
    group: str
    share: float
    gain: float | None
    prob_feasible: float | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class RoundRow:
    """A planned round."""

    number: int
    planned: str
    arms: int
    control_share: float
    waiting: int
    excluded: str


@dataclass(frozen=True)
class DecisionRow:
    """A decision or a remark of the journal."""

    number: int
    at: str
    round: int
    kind: str
    reason: str
    by: str


@dataclass(frozen=True)
class Line:
    """The share of the draws that a candidate won, by round: an estimate of P(best)."""

    candidate: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Snapshot:
    """How a study stands after ``version`` entries of its journal."""

    key: str
    name: str
    version: int
    verdict: Verdict
    health: tuple[Card, ...]
    mode: str
    held: str
    waits: bool
    launch: tuple[str, ...]
    launch_runs: bool
    launch_complete: bool
    last_round: int | None
    planned: str
    served: str
    experiment_share: float
    horizon: Horizon
    num_candidates: int
    num_decisions: int
    num_set_aside: int
    stopped: tuple[int, ...]
    pins: Mapping[int, float]
    traffic: tuple[Part, ...] = ()
    arms: tuple[ArmRow, ...] = ()
    rounds: tuple[RoundRow, ...] = ()
    chart_rounds: tuple[int, ...] = ()
    lines: tuple[Line, ...] = ()
    recent: tuple[DecisionRow, ...] = ()
    planning: Planning | None = None
    resolution: Resolution | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def state(self) -> str:
        """The worse of the verdict and the health cards: PASS, WATCH or ACT."""
        states = [self.verdict.state, *(card.state for card in self.health)]
        return next((state for state in ("ACT", "WATCH") if state in states), "PASS")

    def at(self, now: datetime, lease: Card | None = None) -> Snapshot:
        """With the verdict and the health as they are at a time.

        Nothing may have been planned since, and the horizon or the lease may have passed.

        Args:
            now: the time.
            lease: the card of what the platform serves; None where no platform is known.
        """
        verdict, health = self.verdict, self.health
        if self.resolution is not None:
            verdict = at_horizon(verdict, self.horizon, now)
            health = (*health, card_of(self.resolution, self.horizon, now))
        if self.planning is not None:
            card = self.planning.card(now)
            verdict, health = by_the_clock(verdict, card), (*health, card)
        if lease is not None:
            is_planned = all(card.name != "Planning" or card.state == "PASS" for card in health)
            verdict = by_the_clock(verdict, lease) if is_planned else verdict
            health = (*health, lease)
        return replace(self, verdict=verdict, health=health)


def take(tuner: Tuner, key: str, times: Times) -> Snapshot:
    """How a study stands.

    Args:
        tuner: of the study, which has read its journal.
        key: its name in addresses.
        times: of its entries.
    """
    begin = time.monotonic()
    dates = times.planned
    history, config = tuner.history, tuner.config
    health = cards(history, config)
    switches = history.status.switches
    verdict = NOT_STARTED
    parts: tuple[Part, ...] = ()
    arms: tuple[ArmRow, ...] = ()
    if history.last_plan is not None:
        verdict, parts, arms = _with_model(tuner, health)
    chart, lines = _best_over_time(history)
    last = history.last_round
    launch = history.status.launch
    goes_on = launches.goes_on(history)
    return Snapshot(
        key=key,
        name=tuner.study.name,
        version=history.num_entries,
        verdict=verdict,
        health=health,
        mode=switches.mode,
        held=switches.in_words() or "",
        waits=switches.waiting is not None,
        launch=tuple(launches.in_words(history)),
        launch_runs=launch is not None,
        launch_complete=launch is not None and launch.outcome == "complete",
        last_round=last,
        planned="" if last is None else dates.get(last, ""),
        served=_served(history),
        experiment_share=config.experiment_share,
        horizon=config.horizon,
        num_candidates=max(0, history.num_candidates - 1),
        num_decisions=len(history.decisions),
        num_set_aside=len(history.quarantined),
        stopped=tuple(sorted(history.status.stopped)),
        pins={candidate: pin.share for candidate, pin in switches.pins.items()},
        traffic=parts,
        arms=arms,
        rounds=_rounds(history, dates),
        chart_rounds=chart,
        lines=lines,
        planning=None if goes_on else Planning.of(times.planned, config.rounds_per_day),
        resolution=None if goes_on else tuner.resolution(),
        recent=tuple(decision_rows(history, times)[:_MOST_RECENT]),
        seconds=time.monotonic() - begin,
    )


def decision_rows(
    history: History, times: Times, kind: str = "", words: str = "", skip: int = 0, limit: int = 100
) -> list[DecisionRow]:
    """Decisions and remarks, newest first.

    Args:
        history: of the study.
        times: of its entries.
        kind: only these; "" for all.
        words: only those whose reason or author has this text, in upper or lower case.
        skip: so many of them are left out.
        limit: no more.
    """
    rows: list[DecisionRow] = []
    wanted = words.casefold()
    for number in range(len(history.decisions) - 1, -1, -1):
        decision = history.decisions[number]
        by = author_of(decision) or ""
        if kind and decision.kind != kind:
            continue
        if wanted and wanted not in f"{decision.reason} {by}".casefold():
            continue
        if skip:
            skip -= 1
            continue
        at = times.decided[number] if number < len(times.decided) else ""
        text = (decision.round, decision.kind, decision.reason, by)
        rows.append(DecisionRow(number + 1, at, *text))
        if len(rows) == limit:
            break
    return rows


def _served(history: History) -> str:
    if history.last_round is None:
        return "nothing is planned yet"
    why_not = why_control_alone(history)
    if why_not is not None:
        return f"the control alone: {why_not}"
    return f"the plan of round {history.last_round}"


def _with_model(
    tuner: Tuner, health: Sequence[Card]
) -> tuple[Verdict, tuple[Part, ...], tuple[ArmRow, ...]]:
    """The verdict, and the last plan's arms in their groups."""
    history, config = tuner.history, tuner.config
    state, belief = tuner.belief()
    plan = history.plans[history.last_round or 0]
    stopped = history.status.stopped
    best = recommend(state, config, belief, "lcb", plan.shares, stopped)
    verdict = verdict_on(history, config, health, best, tuner.problem)
    certified = certified_safe(state, config)
    base = float(belief.mean[CONTROL])
    scale = abs(base) or 1.0
    rows = []
    for candidate, share in zip(plan.candidates, plan.shares):
        is_proven = certified is not None and bool(certified[candidate])
        mean = float(belief.mean[candidate])
        gain = (mean - base) / scale
        rows.append(
            ArmRow(
                candidate=candidate,
                group=_group(candidate, best, is_proven),
                share=share,
                gain=gain if gain == gain and candidate != CONTROL else None,
                prob_feasible=float(belief.prob_feasible[candidate]) if mean == mean else None,
                parameters=history.candidates[candidate].parameters,
            )
        )
    parts = tuple(
        Part(name, sum(own), len(own))
        for name in ("control", "recommended", "proven", "exploring")
        if (own := [row.share for row in rows if row.group == name])
    )
    order = sorted(rows, key=lambda row: (row.candidate != CONTROL, -row.share))
    return verdict, parts, tuple(order[:_MOST_ARMS])


def _group(candidate: int, best: Recommendation, is_proven: bool) -> str:
    if candidate == CONTROL:
        return "control"
    if candidate == best.candidate_id:
        return "recommended"
    return "proven" if is_proven else "exploring"


def _rounds(history: History, dates: Mapping[int, str]) -> tuple[RoundRow, ...]:
    """The latest rounds, newest first."""
    numbers = sorted(history.plans, reverse=True)[:_MOST_ROUNDS]
    excluded = history.status.excluded_rounds
    return tuple(
        RoundRow(
            number=number,
            planned=dates.get(number, ""),
            arms=len(history.plans[number].candidates) - 1,
            control_share=history.plans[number].shares[0],
            waiting=history.tables[number].num_waiting if number in history.tables else 0,
            excluded=excluded.get(number, ""),
        )
        for number in numbers
    )


def _best_over_time(history: History) -> tuple[tuple[int, ...], tuple[Line, ...]]:
    """The share of the draws won in each of the latest rounds, of those that won the most lately.

    Candidates win draws by being the best feasible in a draw of the model, so this is P(best) as it
    was estimated then. Rounds without draws, as those of a pause, are left out.
    """
    numbers = [
        number
        for number in sorted(history.plans)[-_CHART_ROUNDS:]
        if history.plans[number].trace.held is None and any(history.plans[number].slots)
    ]
    if len(numbers) < 2:
        return (), ()
    won: dict[int, list[float]] = {}
    for place, number in enumerate(numbers):
        plan = history.plans[number]
        total = sum(plan.slots)
        for candidate, slots in zip(plan.candidates, plan.slots):
            if candidate != CONTROL and slots:
                won.setdefault(candidate, [0.0] * len(numbers))[place] = slots / total
    leading = sorted(won, key=lambda c: (-sum(won[c][-24:]), c))[:_MOST_LINES]
    return tuple(numbers), tuple(Line(c, tuple(won[c])) for c in leading)
