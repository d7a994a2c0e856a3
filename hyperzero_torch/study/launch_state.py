"""Where a launch stands, as the decisions of the journal leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from .journal import Decision
from .journal.launch_trace import LaunchAborted, LaunchDecided, LaunchStarted
from .journal.trace import RolledBack

Outcome: TypeAlias = Literal["under way", "complete", "gone back", "aborted", "rolled back"]


@dataclass(frozen=True)
class Launch:
    """A launch. ``stage`` counts from 0, and is served since the round after ``stage_after``.

    ``started`` is the last round that was planned before the launch: only readings of later rounds
    are evidence for it. ``held`` are the reasons for which this stage was held so far; ``reason``
    is that of the latest decision.
    """

    candidate: int
    stages: tuple[float, ...]
    holdback: float
    keep_holdback: int
    tolerance: float
    alpha: float
    least_rounds: int
    started: int
    who: str
    reason: str
    stage: int = 0
    stage_after: int = 0
    held: frozenset[str] = frozenset()
    outcome: Outcome = "under way"

    @property
    def is_served(self) -> bool:
        """Whether plans serve the candidate, and exploration rests."""
        return self.outcome in ("under way", "complete")

    @property
    def is_last_stage(self) -> bool:
        """Whether no stage follows."""
        return self.stage == len(self.stages) - 1

    def share(self, stage: int | None = None) -> float:
        """The candidate's share of all users in a stage, by default the present one."""
        if self.outcome == "complete":
            return 1.0
        return min(self.stages[self.stage if stage is None else stage], 1.0 - self.holdback)


def fold(launches: Sequence[Launch], entry: Decision) -> tuple[Launch, ...]:
    """The launches after a decision.

    Raises:
        ValueError: it contradicts the decisions before it.
    """
    match entry.trace:
        case LaunchStarted() as trace:
            if launches and launches[-1].is_served:
                raise ValueError("a launch starts while another one is under way")
            return (*launches, _started(trace, entry))
        case LaunchDecided() as trace:
            launch = _latest(launches, trace.candidate)
            if not 0 <= trace.stage < len(launch.stages):
                raise ValueError(f"stage {trace.stage} of {len(launch.stages)}")
            return (*launches[:-1], _decided(launch, trace, entry))
        case LaunchAborted(candidate=candidate):
            launch = _latest(launches, candidate)
            return (*launches[:-1], replace(launch, outcome="aborted", reason=entry.reason))
        case RolledBack() if launches and launches[-1].is_served:
            return (
                *launches[:-1],
                replace(launches[-1], outcome="rolled back", reason=entry.reason),
            )
    return tuple(launches)


def _latest(launches: Sequence[Launch], candidate: int) -> Launch:
    if not launches or not launches[-1].is_served or launches[-1].candidate != candidate:
        raise ValueError(f"no launch of candidate {candidate} is under way")
    return launches[-1]


def _started(trace: LaunchStarted, entry: Decision) -> Launch:
    if not trace.stages:
        raise ValueError("a launch has no stage")
    return Launch(
        candidate=trace.candidate,
        stages=trace.stages,
        holdback=trace.holdback,
        keep_holdback=trace.keep_holdback,
        tolerance=trace.tolerance,
        alpha=trace.alpha,
        least_rounds=trace.least_rounds,
        started=entry.round,
        who=trace.who,
        reason=entry.reason,
        stage_after=entry.round,
    )


def _decided(launch: Launch, trace: LaunchDecided, entry: Decision) -> Launch:
    if trace.verdict == "hold":
        return replace(launch, held=launch.held | {trace.code}, reason=entry.reason)
    if trace.verdict == "launch":
        # The decision is made as its round is planned: the round belongs to the new stage.
        return replace(
            launch,
            stage=trace.stage,
            stage_after=entry.round - 1,
            held=frozenset(),
            reason=entry.reason,
        )
    outcome: Outcome = "complete" if trace.verdict == "complete" else "gone back"
    return replace(launch, outcome=outcome, reason=entry.reason)
