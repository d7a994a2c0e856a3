"""What a person should look at: each finding of a study, and what to do about it.

A check is a function from a history to findings; ``CHECKS`` lists them in the order in which
``hyperzero doctor`` shows them. To add one, write a function and put it into the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

from . import lacking, split
from .config import TunerConfig
from .history import CONTROL, History
from .journal.base import Decision
from .journal.missing_trace import Withdrawn
from .journal.trace import DriftFound, Stopped
from .launch import goes_on
from .silence import describe, silences

_MAX_LISTED = 12


@dataclass(frozen=True)
class Finding:
    """One thing that is amiss.

    Args:
        what: a sentence.
        where: the rounds, candidates or metrics that it is about.
        advice: what to do.
    """

    what: str
    where: str
    advice: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


_RESUME = "'hyperzero resume' when the reason has passed"


Check: TypeAlias = Callable[[History], list[Finding]]


def findings(history: History) -> list[Finding]:
    """All findings of a study, by the checks in their order."""
    return [finding for check in CHECKS for finding in check(history)]


def switched(history: History) -> list[Finding]:
    """A study that is paused or withdrawn, or whose plan waits for approval."""
    switches = history.status.switches
    sentence = switches.in_words()
    if sentence is None:
        return []
    is_waiting = switches.mode == "running"
    advice = "'hyperzero approve', by somebody other than the proposer" if is_waiting else _RESUME
    return [Finding(f"the study is {sentence}", "all rounds until then", advice)]


def missing_readings(history: History) -> list[Finding]:
    """Metrics and arms that do not report, and readings that are cut off altogether."""
    amiss = []
    for silence in silences(history, is_running=True):
        if silence.metric is None and not silence.candidates:
            where, advice = f"since round {silence.since}", (
                "check that the platform serves the plans and logs exposures, and that the job "
                "that reads the warehouse runs; traffic goes back to the control meanwhile"
            )  # fmt: skip
        elif not silence.candidates:
            where, advice = f"since round {silence.since}", (
                "compare the metric's name in the study file with that in the query or the events, "
                "and check that it is still logged"
            )  # fmt: skip
        elif silence.candidates == (CONTROL,):
            where, advice = f"candidate {CONTROL}", (
                "check that the control's users are exposed and logged under candidate 0"
            )  # fmt: skip
        else:
            where, advice = _listed("candidates", silence.candidates), (
                "check these arms on the platform: they may crash before they log the metric; they "
                "get a newcomer's traffic at most"
            )  # fmt: skip
        amiss.append(Finding(describe(silence, history.metrics), where, advice))
    return amiss


def rounds_with_gaps(history: History) -> list[Finding]:
    """Rounds without a single row, and rounds whose arms report and whose control does not."""
    before = 0 if history.last_round is None else history.last_round
    lost, headless = lacking.without_rows(history, before), lacking.without_control(history, before)
    amiss = []
    if lost:
        amiss.append(
            Finding(
                f"{len(lost)} earlier rounds have no readings, though later rounds have",
                _listed("rounds", lost),
                "send them late, under their round; rounds that were never served need nothing",
            )
        )
    if headless:
        amiss.append(
            Finding(
                f"{len(headless)} rounds have readings of arms and none of the control",
                _listed("rounds", headless),
                "send the control's rows (candidate 0); without them these rounds say nothing",
            )
        )
    return amiss


def sample_ratio(history: History, comparison: split.Split | None = None) -> list[Finding]:
    """Users that do not fit the planned shares; ``comparison`` saves its being made again."""
    if comparison is None:
        comparison = split.compare(history, TunerConfig(**history.config).srm_alpha)
    amiss = []
    if comparison.hours:
        rounds = [hour.round for hour in comparison.hours]
        worst = min(comparison.hours, key=lambda hour: hour.p_value)
        amiss.append(
            Finding(
                f"sample ratio mismatch in {len(rounds)} of {comparison.num_hours} rounds; the "
                f"clearest is round {worst.round} (p = {worst.p_value:.2g}), where candidate "
                f"{worst.candidate} has {worst.counted:,.0f} users of {worst.expected:,.0f}",
                _listed("rounds", rounds),
                "find out where users are lost or counted twice; exclude the rounds with "
                "'hyperzero set-aside' until then",
            )
        )
    if comparison.is_alarm:
        amiss.append(
            Finding(
                "sample ratio mismatch over all hours: users do not follow the planned shares (log "
                f"e-value {comparison.log_e_value:.1f}, needed {comparison.needed:.1f})",
                _listed("candidates", [loss.candidate for loss in comparison.losses]) or "all arms",
                "check that every plan is served from its first minute, that users are assigned "
                "anew each round, and that counts are users",
            )
        )
    return amiss


def candidates_out_of_service(history: History) -> list[Finding]:
    """Candidates that were stopped for harm, or withdrawn because they lose users."""
    amiss = []
    out = history.status.stopped - history.status.outside
    harmful = sorted(
        {
            c
            for d in history.decisions
            if isinstance(d.trace, Stopped)
            for c in d.trace.candidates
            if c in out
        }
    )
    if harmful:
        amiss.append(
            Finding(
                f"{len(harmful)} candidates were stopped because they break a guardrail",
                _listed("candidates", harmful),
                "nothing, if the guardrail and its readings are right (the journal and the report "
                "have the reasons); otherwise 'hyperzero let-back'",
            )
        )
    for decision in history.decisions:
        if isinstance(decision.trace, Withdrawn) and out.issuperset(decision.trace.candidates):
            advice = "look for crashes of this arm, or for exposures that are not logged"
            where = _listed("candidates", decision.trace.candidates)
            amiss.append(Finding(decision.reason, f"{where}, round {decision.round}", advice))
    return amiss


def launches(history: History) -> list[Finding]:
    """A launch that went back or waits for a person, and a study that goes on as another."""
    status = history.status
    if status.promoted is not None:
        return [Finding(goes_on(history), f"study {status.promoted.successor}", "go on there")]
    if not status.launches or status.launches[-1].outcome in ("aborted", "rolled back"):
        return []
    launch = status.launches[-1]
    advice = {
        "gone back": "look for what it broke; launch another one, or go on exploring",
        "complete": "'hyperzero promote' makes it the base, and the study goes on",
    }.get(launch.outcome, _HELD.get(next(iter(sorted(launch.held - {"undecided"})), ""), ""))
    where = f"candidate {launch.candidate}, stage {launch.stage + 1} of {len(launch.stages)}"
    return [Finding(launch.reason, where, advice)] if advice else []


#: What to do about a launch that is held, by the reason in a word.
_HELD = {
    "missing": "check that the control and the candidate report every metric; then it goes on",
    "users": "find out where users are lost; it goes on a day after the last such hour",
    "absurd": "accept the readings, or send them corrected with a higher revision",
}


def excluded_rounds(history: History) -> list[Finding]:
    """Rounds that are excluded from the evidence, by reason."""
    by_reason: dict[str, list[int]] = {}
    for round_, reason in sorted(history.status.excluded_rounds.items()):
        by_reason.setdefault(reason, []).append(round_)
    advice = "'hyperzero set-aside --undo' lets them count again"
    return [
        Finding(f"excluded: {reason}", _listed("rounds", rounds), advice)
        for reason, rounds in by_reason.items()
    ]


def doubted_readings(history: History) -> list[Finding]:
    """Readings that are set aside until a person accepts them, by reason."""
    by_reason: dict[str, set[int]] = {}
    for cell, doubt in history.quarantined.items():
        by_reason.setdefault(doubt.reason, set()).add(cell.round)
    advice = "'hyperzero readings list' shows them, 'hyperzero readings accept' lets them count"
    return [
        Finding(reason, _listed("rounds", rounds), advice) for reason, rounds in by_reason.items()
    ]


def drift_alarms(history: History) -> list[Finding]:
    """Drift that was noticed."""
    return [
        Finding(
            decision.reason,
            f"round {decision.round}",
            "look for what changed on the platform then; newer hours outweigh the older ones",
        )
        for decision in history.decisions
        if isinstance(decision.trace, DriftFound)
    ]


def fallbacks(history: History) -> list[Finding]:
    """Remarks on the last plan, and what the last day's live rounds noted."""
    plan = history.last_plan
    if plan is None:
        return []
    amiss = []
    if plan.trace.why_not is not None and history.num_messages:
        amiss.append(
            Finding(
                f"traffic is split evenly: {plan.trace.why_not}",
                f"round {plan.round}",
                "send readings of the control and of every metric that the objective and the "
                "guardrails use",
            )
        )
    amiss += [
        Finding(
            decision.reason,
            f"round {decision.round}",
            "correct the surrogate, or take another one in the next study",
        )
        for decision in not_fitted(history)
        if decision.kind == FALLBACK
    ]
    recent: dict[tuple[str, str], int] = {}
    for decision in history.decisions:
        if decision.kind in _FAULTS and decision.round >= plan.round - _RECENT:
            recent[decision.kind, decision.reason] = decision.round
    amiss += [
        Finding(f"{kind}: {reason}", f"round {round_}", _FAULTS[kind])
        for (kind, reason), round_ in recent.items()
    ]
    return amiss


def not_fitted(history: History) -> list[Decision]:
    """Remarks that the last plan does not rest on a fit of the study's surrogate."""
    plan = history.last_plan
    if plan is None or plan.trace.why_not is not None:  # nothing was fitted
        return []
    return [d for d in history.decisions if d.round == plan.round and d.kind in (FALLBACK, "fit")]


#: Kind of the remark that the default model took the place of the study's.
FALLBACK = "fallback"
_RECENT = 24
#: Kinds of remarks that name a fault, with what to do.
_FAULTS = {
    "infeasible": "no candidate meets all guardrails; check their bounds, or wait for evidence",
    "fit": "wait for more evidence; if it stays, compare the report's calibration",
    "undefined": "make the objective finite for every delta that can occur",
    "warehouse": "check the source of the readings",
    "platform": "check the platform; it keeps serving its last plan",
    "refused": "correct the readings, with a higher revision where rows were recorded",
    "events": "check the events and files that are named",
    "omitted": "check the metric's name and its events",
    "journal": "check the journal's database",
    "error": "the log has the traceback",
    "planning": "the log has the traceback",
}


def _listed(name: str, numbers: object) -> str:
    ids = sorted(numbers)  # type: ignore[call-overload]
    if not ids:
        return ""
    more = len(ids) - _MAX_LISTED
    rest = f" and {more} more" if more > 0 else ""
    return f"{name} {', '.join(map(str, ids[:_MAX_LISTED]))}{rest}"


#: All checks, in the order in which their findings are shown.
CHECKS: list[Check] = [
    switched,
    missing_readings,
    rounds_with_gaps,
    sample_ratio,
    candidates_out_of_service,
    launches,
    excluded_rounds,
    doubted_readings,
    drift_alarms,
    fallbacks,
]
