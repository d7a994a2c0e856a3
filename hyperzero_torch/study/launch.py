"""Launches: a candidate is served to more and more users, and the base keeps a holdback.

While a launch is under way exploration rests: a plan serves the control and the candidate to all
users. ``tuner/launch.py`` tests each stage. ``Tuner`` has a method for each decision here, with its
documentation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic import Field, field_validator

from ..errors import ConfigError, LaunchError
from .config.base import Config
from .history import History
from .journal import Decision
from .journal.launch_trace import LaunchAborted, LaunchStarted

#: Shares of all users that a launch passes through unless others are named.
STAGES = (0.01, 0.05, 0.25, 0.5, 1.0)


class LaunchTerms(Config):
    """What a launch is bound by."""

    stages: tuple[float, ...] = STAGES
    """The candidate's shares of all users, ascending."""
    holdback: float = Field(default=0.05, gt=0, lt=1)
    """Share of all users that keeps the base; no stage goes beyond ``1 - holdback``."""
    keep_holdback: int = Field(default=168, ge=0)
    """Rounds for which the last stage, and with it the holdback, is kept; then all get the
    candidate."""
    tolerance: float = Field(default=0.002, gt=0, lt=1)
    """A stage is left once no guardrail can be broken in the next one by more than this, averaged
    over all users: by ``tolerance`` over the next stage's share. In the guardrail's own unit, for a
    delta a fraction."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability that a harmless candidate is ever sent back, over all stages, guardrails and
    looks; and likewise that a stage is ever left although a guardrail is broken by more than the
    tolerance."""
    least_rounds: int = Field(default=2, ge=1)
    """Rounds of a stage that must have reported before it is left."""

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: tuple[float, ...]) -> tuple[float, ...]:
        """Require shares in (0, 1] that ascend."""
        if not stages or not all(0 < share <= 1 for share in stages):
            raise ConfigError(
                f"stages are shares of all users above 0 and up to 1, got {list(stages)}; for "
                "example 0.01, 0.1, 1"
            )
        if any(later <= earlier for earlier, later in pairwise(stages)):
            raise ConfigError(f"stages must ascend, got {list(stages)}")
        return stages

    def model_post_init(self, _: object) -> None:
        """Refuse stages that the holdback makes equal."""
        limited = [share for share in self.stages[:-1] if share >= 1 - self.holdback]
        if limited:
            raise ConfigError(
                f"a holdback of {self.holdback:.4g} leaves {1 - self.holdback:.4g} of the users, "
                f"and the stages {limited} before the last one reach that already; take smaller "
                "stages, or a smaller holdback"
            )


def start(
    history: History,
    candidate: int,
    terms: LaunchTerms,
    is_proven: bool,
    unproven: bool,
    who: str,
    reason: str,
) -> Decision:
    """The decision that starts a launch.

    Args:
        history: the study's facts.
        candidate: who is launched.
        terms: what the launch is bound by.
        is_proven: whether the candidate's own evidence shows that every guardrail holds.
        unproven: a person's word that it is launched although it is not proven.
        who: the person.
        reason: why this candidate, in a sentence.
    Raises:
        LaunchError: another launch is under way, the study goes on as another one, or the candidate
            cannot be launched.
    """
    check_is_open(history)
    running = history.status.launch
    if running is not None:
        raise LaunchError(
            f"candidate {running.candidate} is being launched since round {running.started} "
            f"({running.outcome}); end that launch first with 'hyperzero launch --abort', or "
            "promote the candidate once its launch is complete"
        )
    check_candidate(history, candidate)
    if not is_proven and not unproven:
        raise LaunchError(
            f"candidate {candidate} is not proven safe by its own readings; wait until "
            "'hyperzero recommend --proven' names it, or say that it is launched all the same: "
            "--unproven (in Python unproven=True)"
        )
    trace = LaunchStarted(
        candidate=candidate, **terms.model_dump(), unproven=not is_proven, who=who
    )
    first = f"{100 * min(terms.stages[0], 1 - terms.holdback):.4g} %"
    proof = "" if is_proven else ", unproven"
    by = f" by {who}" if who else ""
    text = (
        f"Launch of candidate {candidate}{proof}, started{by}: from the next round on {first} of "
        f"all users get it. {reason}"
    )
    return Decision.of(history.last_round or 0, text.strip(), trace)


def abort(history: History, who: str, reason: str) -> Decision:
    """The decision that ends a launch; from the next plan on the study explores as before.

    Raises:
        LaunchError: no launch is under way, or there is no reason.
    """
    launch = history.status.launch
    if launch is None:
        raise LaunchError("no launch is under way, so there is none to abort")
    if not isinstance(reason, str) or not reason.strip():
        raise LaunchError("give a reason, in a sentence; the journal stores it")
    by = f" by {who}" if who else ""
    text = f"Launch of candidate {launch.candidate} aborted{by}: {reason}"
    trace = LaunchAborted(candidate=launch.candidate, who=who)
    return Decision.of(history.last_round or 0, text, trace)


def facts(history: History) -> dict[str, Any] | None:
    """The latest launch as plain JSON values; None where there was none."""
    status = history.status
    if not status.launches:
        return None
    launch = status.launches[-1]
    return {
        "candidate": launch.candidate,
        "outcome": launch.outcome,
        "stage": launch.stage + 1,
        "stages": list(launch.stages),
        "share": launch.share() if launch.is_served else 0.0,
        "holdback": launch.holdback,
        "since_round": launch.started,
        "who": launch.who,
        "reason": launch.reason,
    }


def in_words(history: History) -> list[str]:
    """What a person should know of the latest launch, a line each."""
    status = history.status
    if status.promoted is not None:
        return [goes_on(history)]
    if not status.launches:
        return []
    launch = status.launches[-1]
    where = f"in stage {launch.stage + 1} of {len(launch.stages)}"
    return [f"launch of candidate {launch.candidate}, {launch.outcome} {where}: {launch.reason}"]


def check_is_open(history: History) -> None:
    """Refuse a study that goes on as another one.

    Raises:
        LaunchError: a candidate was promoted.
    """
    if history.status.promoted is not None:
        raise LaunchError(goes_on(history))


def goes_on(history: History) -> str:
    """Where a study goes on whose candidate was promoted; empty where it goes on itself."""
    promoted = history.status.promoted
    if promoted is None:
        return ""
    return (
        f"candidate {promoted.candidate} was promoted after round {history.last_round}: the study "
        f"goes on as {promoted.successor!r} in the same journal (in Python tuner.successor(); "
        "commands with the same study file go on with it by themselves)"
    )


def successor_name(history: History) -> str:
    """The study that goes on with the promoted candidate; empty where none was promoted."""
    promoted = history.status.promoted
    return "" if promoted is None else promoted.successor


def check_candidate(history: History, candidate: int) -> None:
    """Refuse a candidate that no launch or promotion can be about.

    Raises:
        LaunchError: it does not exist, is the control, or is stopped.
    """
    num = history.num_candidates
    if isinstance(candidate, bool) or not isinstance(candidate, int) or not 0 < candidate < num:
        existing = f"candidates are 1 to {num - 1}" if num > 1 else "there are no candidates yet"
        raise LaunchError(f"candidate {candidate!r} cannot be launched: {existing}")
    if candidate in history.status.stopped:
        raise LaunchError(
            f"candidate {candidate} is stopped and not served; if that was wrong, let it back in "
            f"first: hyperzero candidates readmit --candidate {candidate} --reason ..."
        )


def is_over(history: History, round: int) -> bool:
    """Whether the plan of a round serves a launch that has ended since it was planned."""
    served, launch = history.plans[round].trace.launch, history.status.launch
    if served is None:
        return False
    return launch is None or launch.candidate != served.candidate
