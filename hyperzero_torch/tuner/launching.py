"""Starting a launch and looking at it: what ``Tuner.launch`` and ``hyperzero launch`` show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..errors import LaunchError
from ..problem.space import Value
from ..study import launch as launches
from ..study.history import CONTROL
from ..study.journal import Decision
from ..study.launch import LaunchTerms
from ..study.launch_state import Launch
from .context import RoundContext
from .guardrails import certified_safe
from .launch import review_launch
from .launch_evidence import MOST_ROUNDS, measure, next_share, rounds_needed, slacks_at
from .model import ModelState


@dataclass(frozen=True)
class LaunchReport:
    """A launch: planned, under way, or over.

    Args:
        candidate: who is launched.
        parameters: its theta.
        outcome: "planned", "under way", "complete", "gone back", "aborted" or "rolled back".
        verdict: "launch", "hold", "go back" or "complete", as the next plan would decide; None
            where none is under way.
        reason: the verdict in a sentence with its numbers, or the reason of its end.
        stage: number of the present stage, from 1.
        stages: the candidate's share of all users in each.
        share: its share in the next plan.
        holdback: the least share of the base, until the launch is complete.
        proven: whether the candidate was proven safe by its own readings before.
        rounds: expected rounds of each stage at present traffic while it is planned; of the present
            stage while it is under way; None where nothing says so.
        who: who started it.
    """

    candidate: int
    parameters: dict[str, Value]
    outcome: str
    verdict: str | None
    reason: str
    stage: int
    stages: tuple[float, ...]
    share: float
    holdback: float
    proven: bool | None
    rounds: tuple[int | None, ...]
    who: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def begin(
    state: ModelState,
    context: RoundContext,
    candidate: int,
    terms: LaunchTerms,
    unproven: bool,
    who: str,
    reason: str,
) -> tuple[Decision, LaunchReport]:
    """The decision that starts a launch, and what is to be expected of it.

    Raises:
        LaunchError: the candidate cannot be launched; see ``study.launch.start``.
    """
    history = context.history
    proven = certified_safe(state, context.config)
    num = len(state.bucket.theta)
    is_proven = proven is not None and 0 <= candidate < num and bool(proven[candidate])
    decision = launches.start(history, candidate, terms, is_proven, unproven, who, reason)
    branch = history.branch()
    branch.extend([decision])
    launch = branch.status.launches[-1]
    report = LaunchReport(
        candidate=candidate,
        parameters=dict(history.candidates[candidate].parameters),
        outcome="planned",
        verdict="launch",
        reason=decision.reason,
        stage=1,
        stages=terms.stages,
        share=launch.share(),
        holdback=terms.holdback,
        proven=is_proven,
        rounds=tuple(_expected(state, context, launch)),
        who=who,
    )
    return decision, report


def chosen(candidate: int | None, recommended: int, reason: str) -> int:
    """The candidate that is named, or else the recommended one.

    Raises:
        LaunchError: none is named, and the base is recommended.
    """
    if candidate is not None:
        return candidate
    if recommended == CONTROL:
        raise LaunchError(f"there is nothing to launch: {reason}; or name a candidate")
    return recommended


def look(state: ModelState, context: RoundContext) -> LaunchReport | None:
    """The latest launch as it stands; None where there was none."""
    history = context.history
    if not history.status.launches:
        return None
    launch = history.status.launches[-1]
    review = review_launch(state, context, None)
    return LaunchReport(
        candidate=launch.candidate,
        parameters=dict(history.candidates[launch.candidate].parameters),
        outcome=launch.outcome,
        verdict=None if review is None else review.verdict,
        reason=launch.reason if review is None else review.reason,
        stage=launch.stage + 1,
        stages=launch.stages,
        share=0.0 if review is None else review.share,
        holdback=launch.holdback,
        proven=None,
        rounds=(None if review is None else review.rounds_left,),
        who=launch.who,
    )


def _expected(state: ModelState, context: RoundContext, launch: Launch) -> list[int | None]:
    """Rounds of each stage if the candidate is as it was measured so far."""
    measured = measure(state, context, launch)
    num_guarded = max(1, len(measured.slack) - 1)
    own = _own_slack(state, launch, num_guarded)
    alpha = launch.alpha / (len(launch.stages) * len(measured.slack))
    information = torch.zeros(num_guarded, dtype=torch.float64)
    expected: list[int | None] = []
    for stage in range(len(launch.stages)):
        at = replace(launch, stage=stage)
        per_round = measure(state, context, at).per_round[:num_guarded]
        margin = launch.tolerance / next_share(at)
        num = rounds_needed(own, information, per_round, alpha, margin)
        expected.append(None if num is None else max(num, launch.least_rounds))
        information = information + (num or MOST_ROUNDS) / per_round
    return expected


def _own_slack(state: ModelState, launch: Launch, num_guarded: int) -> torch.Tensor:
    """The guardrails' slacks by the candidate's own evidence; 0 where there is none."""
    mean = state.bucket.mean[launch.candidate]
    return slacks_at(state.problem, mean)[:num_guarded].nan_to_num(0.0)
