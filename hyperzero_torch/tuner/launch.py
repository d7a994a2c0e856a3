"""A launch under way: its stage is tested by the readings since it began, and served.

Each guardrail, and the objective against the base, has a confidence sequence per stage over all
readings since the launch began; those of the time before chose the candidate, and would flatter it.
With ``a = alpha / (stages x tests)`` for each, a candidate that breaks nothing is sent back by them
with probability ``alpha`` at most, over all stages, guardrails and looks; and a stage is left
although a guardrail is broken by more than the tolerance with probability ``alpha`` at most.

    go back    an upper bound of a slack is below 0, or the candidate is stopped for another reason
    launch     every guardrail's lower bound is at least -tolerance / (share of the next stage)
    hold       anything else: undecided, or readings that are missing, absurd or of the wrong users

A sequence is tightest where its width is that tolerance, which is fixed before the launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..problem.problem import Problem
from ..study import split
from ..study.history import CONTROL, History
from ..study.journal import Decision, Planned
from ..study.journal.launch_trace import LaunchDecided, LaunchPlan, LaunchTest, Verdict
from ..study.journal.trace import PlanTrace, Stopped
from ..study.launch_state import Launch
from ..study.silence import describe, silences
from .context import RoundContext
from .guardrails import levels_settled
from .launch_evidence import (
    Measured,
    measure,
    next_share,
    rounds_needed,
    safe,
    tests_of,
)
from .launch_words import sentence
from .model import ModelState
from .oversight import Oversight, towards_control

# Reasons of a hold that every launch has, and that the journal need not hold.
_USUAL = ("waiting", "complete")


class Review(NamedTuple):
    """The verdict on a launch.

    ``launch`` is its state after the verdict, ``share`` the candidate's in the next plan.
    ``rounds_left`` of the stage are expected at the present traffic; None where nothing says so.
    """

    verdict: Verdict
    reason: str
    launch: Launch
    share: float
    decisions: list[Decision]
    tests: tuple[LaunchTest, ...]
    rounds_left: int | None


def review_launch(
    state: ModelState, context: RoundContext, oversight: Oversight | None
) -> Review | None:
    """Test the launch that is under way; None where there is none. It changes nothing.

    Args:
        state: the study's evidence.
        context: the round that is planned; its history has the stops of this round.
        oversight: what the plan has to take into account; None to look without planning.
    """
    launch = context.history.status.launch
    if launch is None:
        return None
    measured = measure(state, context, launch)
    margin = launch.tolerance / next_share(launch)
    alpha = launch.alpha / (len(launch.stages) * len(measured.slack))
    tests = tests_of(state.problem, measured, alpha, margin)
    verdict, code, why, worst = _decide(state, context, launch, tests, margin)
    stage = launch.stage + (verdict == "launch")
    left = None
    if verdict == "hold":
        left = _rounds_left(context.history, launch, measured, tests, alpha, margin, code)
    share = 0.0 if verdict == "go back" else launch.share(stage)
    if verdict == "complete":
        share = 1.0
    words = sentence(
        state.problem, launch, verdict, share, measured, tests, worst, why, left, margin
    )
    decisions: list[Decision] = []
    if verdict != "hold" or code not in (*launch.held, *_USUAL):
        decisions = _decisions(context, launch, words, verdict, code, stage, share, tests, worst)
    branch = context.history.branch()
    branch.extend(decisions)
    after = branch.status.launches[-1]
    if oversight is not None and launch.candidate in oversight.capped:
        share = min(share, launch.share(0))  # a guardrail that nobody sees: as at the beginning
    return Review(verdict, words, after, share, decisions, tests, left)


def plan_launch(
    state: ModelState,
    context: RoundContext,
    oversight: Oversight,
    review: Review,
    trigger: str | None,
) -> Planned:
    """The plan that serves a launch; the control alone where it has gone back."""
    candidate, shares = review.launch.candidate, (1.0 - review.share, review.share)
    served = None
    if review.share > 0:
        served = LaunchPlan(
            candidate=candidate,
            stage=review.launch.stage,
            complete=review.launch.outcome == "complete",
        )
    planned: tuple[float, ...] = (1.0,)
    if served is not None:
        planned = shares if served.complete else towards_control(shares, oversight.treated)
    trace = PlanTrace(
        num_tested=int(state.bucket.tested.sum()),
        notes=(*oversight.notes, review.reason),
        launch=served,
    )
    arms = (CONTROL, candidate)[: len(planned)]
    return Planned(
        round=context.round,
        candidates=arms,
        slots=(0, context.config.num_draws)[: len(planned)],
        shares=planned,
        trigger=trigger,
        details=trace.stored(),
    )


def _decide(
    state: ModelState,
    context: RoundContext,
    launch: Launch,
    tests: tuple[LaunchTest, ...],
    margin: float,
) -> tuple[Verdict, str, str, LaunchTest | None]:
    """The verdict, the reason of a hold in a word, a sentence, and the test that broke."""
    history, problem = context.history, state.problem
    if launch.candidate in history.status.stopped:
        return "go back", "", _why_stopped(history, launch.candidate), None
    settled = levels_settled(state, context.config).tolist()
    firm = {name for name, is_firm in zip(problem.constraint_names, settled) if is_firm}
    broken = [t for t in tests if t.upper < 0 and (t.is_objective or t.name in firm)]
    if broken:  # a guardrail first: the candidate is stopped for it
        return "go back", "", "", min(broken, key=lambda test: (test.is_objective, test.upper))
    if launch.outcome == "complete":
        return "hold", "complete", "it is complete; 'hyperzero promote' goes on with it", None
    for code, reason in _amiss(state, context, launch):
        return "hold", code, reason, None
    reported = _rounds_of_stage(history, problem, launch)
    if reported < launch.least_rounds:
        waiting = f"{reported} of {launch.least_rounds} rounds of this stage have reported"
        return "hold", "waiting", waiting, None
    if not safe(problem, tests, margin):
        return "hold", "undecided", "", None
    if not launch.is_last_stage:
        return "launch", "", "", None
    kept = context.round - 1 - launch.stage_after
    if kept < launch.keep_holdback:
        left = launch.keep_holdback - kept
        return "hold", "holdback", f"the base keeps its holdback for {left} more rounds", None
    return "complete", "", "", None


def _amiss(state: ModelState, context: RoundContext, launch: Launch) -> Iterator[tuple[str, str]]:
    """What forbids to go on, whatever the estimates are: a word and a sentence each."""
    history, config, used = context.history, context.config, state.problem.used_metrics
    arms = {CONTROL, launch.candidate}
    for silence in silences(history):
        is_of_use = silence.metric is None or bool(used[silence.metric])
        if is_of_use and (not silence.candidates or arms & set(silence.candidates)):
            yield "missing", describe(silence, history.metrics)
    comparison = split.compare(history, config.srm_alpha)
    if comparison.is_alarm:
        yield "users", "users do not follow the planned shares (sample ratio mismatch)"
    day = (history.last_round or 0) - config.rounds_per_day
    hours = [h.round for h in comparison.hours if h.round > max(launch.started, day)]
    if hours:
        yield "users", f"the users of rounds {hours[-8:]} do not fit the planned shares"
    doubted = sorted(
        {
            cell.round
            for cell in history.quarantined
            if cell.round > launch.started and cell.candidate in arms and bool(used[cell.metric])
        }
    )
    if doubted:
        yield (
            "absurd",
            (
                f"readings of rounds {doubted[-8:]} are set aside; accept them with 'hyperzero "
                "readings accept', or send them corrected with a higher revision"
            ),
        )


def _why_stopped(history: History, candidate: int) -> str:
    """Why a candidate is not served; the latest decision that names it."""
    for decision in reversed(history.decisions):
        named = getattr(decision.trace, "candidates", ())
        if isinstance(named, tuple) and candidate in named:
            return decision.reason
    return f"candidate {candidate} is stopped"


def _rounds_of_stage(history: History, problem: Problem, launch: Launch) -> int:
    """Rounds of the present stage whose two arms have reported all metrics that are used."""
    used = problem.used_metrics.numpy()
    excluded = history.status.excluded_rounds
    num = 0
    for round_, table in history.tables.items():
        row = table.row.get(launch.candidate)
        if round_ > launch.stage_after and row is not None and round_ not in excluded:
            num += bool((table.counted("count")[[0, row]][:, used] > 0).all())
    return num


def _rounds_left(
    history: History,
    launch: Launch,
    measured: Measured,
    tests: tuple[LaunchTest, ...],
    alpha: float,
    margin: float,
    code: str,
) -> int | None:
    """Rounds until the stage can be left, if the estimates stay as they are."""
    if code not in ("undecided", "waiting"):
        return None
    num_guarded = max(1, len(measured.slack) - 1)
    slack = measured.slack[:num_guarded].nan_to_num(0.0)
    information = measured.spread[:num_guarded].square().reciprocal().nan_to_num(0.0, posinf=0.0)
    return rounds_needed(slack, information, measured.per_round[:num_guarded], alpha, margin)


def _decisions(
    context: RoundContext,
    launch: Launch,
    words: str,
    verdict: Verdict,
    code: str,
    stage: int,
    share: float,
    tests: tuple[LaunchTest, ...],
    worst: LaunchTest | None,
) -> list[Decision]:
    decisions = []
    since = [r for r in context.history.tables if r > launch.started]
    if worst is not None and not worst.is_objective:
        trace = Stopped(
            candidates=(launch.candidate,),
            constraint=worst.name,
            slack_upper=worst.upper,
            alpha=launch.alpha,
            num_rounds=len(since),
        )
        reason = (
            f"Stopped: candidate {launch.candidate} breaks {worst.name!r} by at least "
            f"{-100 * worst.upper:.3f} points in its launch ({100 * (1 - launch.alpha):.4g} % "
            "confidence over all stages and looks); it is not served again"
        )
        decisions.append(Decision.of(context.round, reason, trace))
    decided = LaunchDecided(
        candidate=launch.candidate,
        verdict=verdict,
        stage=stage,
        share=share,
        code=code,
        tests=tests,
        num_rounds=len(since),
    )
    return [*decisions, Decision.of(context.round, words, decided)]
