"""The health of a study in a few cards: PASS, WATCH or ACT, each with a sentence and what to do.

They rest on the checks of ``findings.py`` and are computed from the journal alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from . import findings, lacking, split
from .config import TunerConfig
from .exposure import harm_spent
from .history import History
from .journal.surrogate_trace import SurrogateChosen
from .journal.trace import DriftFound
from .silence import Awaited, Silence, awaited, describe, silences

State: TypeAlias = Literal["PASS", "WATCH", "ACT"]

_NEARLY_SPENT = 0.9  # part of a harm budget
_NOT_SERVED = "platform"  # kind of the remark that a plan was not taken


@dataclass(frozen=True)
class Card:
    """One part of a study's health.

    Args:
        name: of the part.
        state: PASS, WATCH (nothing to do yet) or ACT (a person has to do something).
        sentence: what was seen.
        advice: what to do; empty where nothing.
    """

    name: str
    state: State
    sentence: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def cards(history: History, config: TunerConfig) -> tuple[Card, ...]:
    """All cards, in the order in which they are shown."""
    silent = silences(history, is_running=True)
    return (
        _freshness(history, silent),
        _metrics(history, silent),
        _sample_ratio(history, config),
        _drift(history, config),
        _surrogate(history),
        _quarantine(history),
        _serving(history),
        _harm(history, config),
    )


def is_cut_off(silence: Silence) -> bool:
    """Whether nothing at all arrives."""
    return silence.metric is None and not silence.candidates


def _freshness(history: History, silent: Sequence[Silence]) -> Card:
    name = "Data freshness"
    for silence in filter(is_cut_off, silent):
        advice = "check that the plans are served, and that the job that reads the warehouse runs"
        return Card(name, "ACT", describe(silence, history.metrics), advice)
    last = 0 if history.last_round is None else history.last_round
    gaps = lacking.without_rows(history, last)
    if gaps:
        sentence = f"{len(gaps)} earlier rounds have no readings, though later rounds have"
        return Card(name, "WATCH", sentence, "send them late, under their round")
    newest = max((r for r, table in history.tables.items() if table.arrivals.any), default=None)
    if newest is None:
        return Card(name, "PASS", "no readings yet, and none is late")
    return Card(name, "PASS", f"the newest readings are of round {newest}")


def _metrics(history: History, silent: Sequence[Silence]) -> Card:
    name = "Missing metrics"
    missing = [silence for silence in silent if not is_cut_off(silence)]
    if not missing:
        return _awaited(name, awaited(history))
    whole = [silence for silence in missing if not silence.candidates]
    shown = (whole or missing)[0]
    state: State = "ACT" if whole or shown.candidates == (0,) else "WATCH"
    more = f"; {len(missing) - 1} more" if len(missing) > 1 else ""
    advice = "check that it is still logged" if whole else "check these arms on the platform"
    return Card(name, state, describe(shown, history.metrics) + more, advice)


def _awaited(name: str, newest: Awaited | None) -> Card:
    """Where nothing is later than usual: what the newest round with readings still lacks."""
    if newest is None:
        return Card(name, "PASS", "no readings yet, and none is late")
    lacks = [f"no arm reports {metric!r}" for metric in newest.metrics]
    if newest.num_silent:
        lacks.append(f"{newest.num_silent} of {newest.num_arms} arms lack readings")
    if not lacks:
        return Card(name, "PASS", f"every metric and every arm reports, up to round {newest.round}")
    sentence = f"of round {newest.round} {' and '.join(lacks)} so far"
    if newest.num_silent > newest.num_arms / 2 and not newest.comes_later:
        return Card(name, "WATCH", sentence, "check that the rows of all arms are sent")
    return Card(name, "PASS", f"{sentence}, which is not late")


def _sample_ratio(history: History, config: TunerConfig) -> Card:
    name = "Sample ratio"
    comparison = split.compare(history, config.srm_alpha)
    amiss = findings.sample_ratio(history, comparison)
    if comparison.is_alarm:
        return Card(name, "ACT", amiss[-1].what, amiss[-1].advice)
    if comparison.hours:
        return Card(name, "WATCH", amiss[0].what, amiss[0].advice)
    if config.srm_alpha is None:
        return Card(name, "PASS", "not compared: srm_alpha is None")
    return Card(name, "PASS", f"users fit the shares in {comparison.num_hours} rounds")


def _drift(history: History, config: TunerConfig) -> Card:
    last = 0 if history.last_round is None else history.last_round
    alarms = [d for d in history.decisions if isinstance(d.trace, DriftFound)]
    recent = [d for d in alarms if d.round > last - config.rounds_per_day]
    if recent:
        advice = "look for what changed on the platform then"
        return Card("Drift", "WATCH", f"round {recent[-1].round}: {recent[-1].reason}", advice)
    sentence = f"{len(alarms)} alarms, none in the last day" if alarms else "none was noticed"
    return Card("Drift", "PASS", sentence)


def _surrogate(history: History) -> Card:
    name, amiss = "Surrogate", findings.not_fitted(history)
    if amiss:
        advice = "'hyperzero models' compares surrogates; the report shows how well this one fits"
        return Card(name, "WATCH", amiss[-1].reason, advice)
    traces = (d.trace for d in history.decisions)
    chosen = next((trace for trace in traces if isinstance(trace, SurrogateChosen)), None)
    if chosen is not None and chosen.caveat is not None:
        advice = "take another surrogate in the next study ('hyperzero models' compares them)"
        return Card(name, "WATCH", f"{chosen.text} is {chosen.caveat}", advice)
    plan = history.last_plan
    if plan is None or plan.trace.why_not is not None:
        return Card(name, "PASS", "the last plan needed no fit")
    return Card(name, "PASS", "the last plan rests on a fit of it")


def _quarantine(history: History) -> Card:
    num = len(history.quarantined)
    if not num:
        return Card("Quarantine", "PASS", "no readings are set aside")
    advice = "'hyperzero readings list' shows them; accept them, or send them corrected"
    which = "1 reading is" if num == 1 else f"{num} readings are"
    return Card("Quarantine", "ACT", f"{which} set aside as absurd", advice)


def _serving(history: History) -> Card:
    last = history.last_round
    refused = [d for d in history.decisions if d.kind == _NOT_SERVED and d.round == last]
    if refused:
        advice = "check the platform; after its lease the plan before gives way to the control"
        return Card("Serving", "ACT", refused[-1].reason, advice)
    return Card("Serving", "PASS", "no failure to serve the last plan is journaled")


def _harm(history: History, config: TunerConfig) -> Card:
    name, budget, last = "Harm budget", config.harm_budget, history.last_round
    if budget is None or budget.per_day is None or last is None:
        what = "no budget a day is set" if budget is None or budget.per_day is None else "unspent"
        return Card(name, "PASS", what)
    spent = harm_spent(history, last - config.rounds_per_day + 1) / budget.per_day
    sentence = f"{spent:.0%} of the day's budget is spent"
    if spent >= 1:
        return Card(name, "ACT", sentence, "raise it, or wait: untested candidates get no traffic")
    return Card(name, "WATCH" if spent >= _NEARLY_SPENT else "PASS", sentence)
