"""The verdict on a study in one sentence: launch, keep running, or what has to be repaired first.

The report, ``hyperzero status`` and notebooks show the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from ..problem.problem import Problem
from ..study import launch as launches
from ..study.config import TunerConfig
from ..study.config.horizon import Horizon
from ..study.health import Card, State, is_cut_off
from ..study.history import CONTROL, History
from ..study.horizon import has_passed, shown
from ..study.silence import silences
from .recommend import Recommendation

Action: TypeAlias = Literal["start", "repair", "decide", "launch", "keep running", "go on"]

_ZERO = 1e-9  # an objective whose base is smaller has no relative gain


@dataclass(frozen=True)
class Verdict:
    """What holds for a study, and what to do next.

    Args:
        action: in a word: ``"start"``, ``"repair"`` the data, ``"decide"`` on what waits for a
            person, ``"launch"``, ``"keep running"``, or ``"go on"`` with the next study.
        state: PASS where nothing is to be done, WATCH, or ACT.
        sentence: the verdict.
        why: the reason.
        next_step: what to do; empty where nothing.
        candidate: that the sentence is about; None where there is none.
    """

    action: Action
    state: State
    sentence: str
    why: str = ""
    next_step: str = ""
    candidate: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


#: Of a study without a plan.
NOT_STARTED = Verdict("start", "WATCH", "No round is planned yet", next_step="make the first plan")


def verdict_on(
    history: History,
    config: TunerConfig,
    health: Sequence[Card],
    best: Recommendation,
    problem: Problem,
) -> Verdict:
    """The verdict on a study. What blocks a decision comes before the decision.

    Args:
        history: of the study.
        config: in force.
        health: its cards.
        best: the recommendation; its estimates are NaN where there is no model.
        problem: of the study.
    """
    successor = launches.goes_on(history)
    if successor:
        return Verdict("go on", "PASS", "This study is complete", successor, "go on there")
    held = history.status.switches.in_words()
    if held is not None:
        step = "approve" if history.status.switches.mode == "running" else "resume"
        return Verdict("decide", "ACT", f"The study is {held}", next_step=f"'hyperzero {step}'")
    broken = [card for card in health if card.state == "ACT"]
    if broken:
        return _repair(history, broken)
    launch = launches.in_words(history)
    if launch and history.status.launches[-1].outcome not in ("aborted", "rolled back"):
        return Verdict("decide", "WATCH", f"A launch: {launch[0]}", "; ".join(launch[1:]))
    if math.isnan(best.objective_mean):
        return Verdict("keep running", "WATCH", "Keep running: there are no estimates yet")
    if best.candidate_id != CONTROL:
        return _recommended(best, bool(problem.num_constraints))
    return _running(best, config)


def by_the_clock(verdict: Verdict, card: Card | None) -> Verdict:
    """The verdict where a card says that rounds are no longer planned, or no plan is served.

    What waits for a person, and a study that went on as another one, come first.
    """
    if card is None or card.state != "ACT" or verdict.action in ("decide", "go on"):
        return verdict
    sentence = card.sentence[:1].upper() + card.sentence[1:]
    return Verdict("repair", "ACT", sentence, f"before: {verdict.sentence}", card.advice)


def at_horizon(verdict: Verdict, horizon: Horizon, now: datetime | None = None) -> Verdict:
    """The verdict where the horizon is a date that has passed; the action stays.

    What has to be repaired, what waits for a person, and a study that is complete come first.
    """
    if not isinstance(horizon, datetime) or not has_passed(horizon, now):
        return verdict
    passed = f"The horizon passed on {shown(horizon)}"
    if verdict.action == "launch":
        return replace(verdict, sentence=f"{passed}. {verdict.sentence}")
    if verdict.action != "keep running":
        return verdict
    return replace(
        verdict,
        state="ACT",
        sentence=f"{passed}: decide, or name a later one",
        why=": ".join(text for text in (verdict.sentence, verdict.why) if text),
        next_step="launch, keep the base, or set traffic.horizon",
    )


def _repair(history: History, broken: Sequence[Card]) -> Verdict:
    first = broken[0]
    reasons = [f"{card.name}: {card.sentence}" for card in broken]
    sentence = reasons[0]
    for silence in silences(history, is_running=True):
        whole = silence.metric is not None and not silence.candidates
        if is_cut_off(silence) or whole:
            what = "Readings" if silence.metric is None else (
                f"Readings of {history.metrics[silence.metric]}"
            )  # fmt: skip
            when = "have never arrived" if silence.never else f"stopped in round {silence.since}"
            sentence = f"{what} {when}: check the pipeline"
            break
    why = "; ".join(reason for reason in reasons if reason != sentence)
    return Verdict("repair", "ACT", sentence, why, first.advice)


def _recommended(best: Recommendation, has_guardrails: bool) -> Verdict:
    who = f"Candidate {best.candidate_id} is better by {_gain(best)}"
    if not has_guardrails:
        sentence = f"{who}, and there are no guardrails: launch"
    elif best.proven:
        sentence = f"{who} and proven safe: launch"
    elif best.proven is None:
        sentence = f"{who} and meets all guardrails with {100 * best.prob_feasible:.0f} %: launch"
    else:
        sentence = (
            f"{who} and probably safe ({100 * best.prob_feasible:.0f} %), not yet proven: keep "
            "running until it is, or launch in stages"
        )
        return Verdict("keep running", "WATCH", sentence, best.reason, candidate=best.candidate_id)
    return Verdict("launch", "ACT", sentence, best.reason, "'hyperzero launch'", best.candidate_id)


def _running(best: Recommendation, config: TunerConfig) -> Verdict:
    if best.leader is None:
        sentence = "Keep running: no candidate is expected to beat the base yet"
        return Verdict("keep running", "PASS", sentence, best.reason)
    if best.rounds_to_decide is None:
        sentence = "Keep running: at the present traffic no decision is in sight"
        return Verdict("keep running", "WATCH", sentence, best.reason, candidate=best.leader)
    if best.rounds_to_decide == 0:
        sentence = (
            "Keep the base: all candidates so far are clearly infeasible or no better, also "
            f"candidate {best.leader}, the most promising"
        )
        return Verdict("keep running", "PASS", sentence, best.reason, candidate=best.leader)
    hours = best.rounds_to_decide * 24 / config.rounds_per_day
    return Verdict(
        "keep running",
        "PASS",
        f"Keep running, about {_duration(hours)}",
        f"then it is clear whether candidate {best.leader} is feasible and better than the base",
        candidate=best.leader,
    )


def _duration(hours: float) -> str:
    if hours < 1.5:
        return "1 hour"
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def _gain(best: Recommendation) -> str:
    """The gain over the base with its interval, in percent."""
    base = best.objective_base
    scale = 100 / (abs(base) if abs(base) > _ZERO else 1.0)
    bounds = (best.objective_mean, best.objective_lcb, best.objective_ucb)
    mean, low, high = (scale * (value - base) for value in bounds)
    digits = 1 if abs(mean) >= 1 else 2
    return f"{mean:.{digits}f} % [{low:.{digits}f}, {high:.{digits}f}]"
