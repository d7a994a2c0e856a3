"""Records about launches of a candidate, and about a promotion to the next study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import FiniteFloat, StrictInt

from .record import Candidates, DecisionTrace, Record

LAUNCH_STARTED, LAUNCH_DECIDED, LAUNCH_ABORTED = (
    "launch started",
    "launch decided",
    "launch aborted",
)
PROMOTED, CARRIED = "promoted", "evidence carried"
#: Kinds that version 4 brought. Before, people could write remarks of these kinds.
LAUNCH_KINDS = frozenset({LAUNCH_STARTED, LAUNCH_DECIDED, LAUNCH_ABORTED, PROMOTED, CARRIED})

#: What a launch decides: go on to the next stage, stay, return to the control, or it is complete.
Verdict: TypeAlias = Literal["launch", "hold", "go back", "complete"]


class LaunchStarted(DecisionTrace):
    """A candidate is launched in ``stages``, shares of all users; see ``study.launch``."""

    kind = LAUNCH_STARTED
    version = 4
    candidate: StrictInt
    stages: tuple[FiniteFloat, ...]
    holdback: FiniteFloat
    keep_holdback: StrictInt
    tolerance: FiniteFloat
    alpha: FiniteFloat
    least_rounds: StrictInt
    unproven: bool = False
    who: str = ""


class LaunchTest(Record):
    """A guardrail of a launched candidate: its estimated slack and its bounds.

    That of the objective is its gain over the base. The bounds hold at every look of the stage,
    each with probability ``1 - alpha``.
    """

    name: str
    slack: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat
    alpha: FiniteFloat
    is_objective: bool = False


class LaunchDecided(DecisionTrace):
    """A verdict on a launch. ``stage`` is the one that is served from this decision on.

    ``code`` is the reason of a hold in a word; ``share`` is that of the candidate.
    """

    kind = LAUNCH_DECIDED
    version = 4
    candidate: StrictInt
    verdict: Verdict
    stage: StrictInt
    share: FiniteFloat
    code: str = ""
    tests: tuple[LaunchTest, ...] = ()
    num_rounds: StrictInt = 0


class LaunchAborted(DecisionTrace):
    """A person ended a launch."""

    kind = LAUNCH_ABORTED
    version = 4
    candidate: StrictInt
    who: str = ""


class Promoted(DecisionTrace):
    """A candidate became the base of another study in the same journal, which goes on from here.

    ``base_levels`` are its levels, where the platform knows those of the base before.
    """

    kind = PROMOTED
    version = 4
    candidate: StrictInt
    successor: str
    base_levels: tuple[FiniteFloat, ...] | None = None
    unlaunched: bool = False
    who: str = ""


class Carried(DecisionTrace):
    """Evidence of an earlier study, relative to this study's base.

    ``candidate`` is the one of ``predecessor`` that is the base here, promoted after ``round``;
    ``first_round`` is the predecessor's first. ``evidence`` holds packed arrays as of a compacted
    block. ``served`` counts the rounds in which each candidate was served. The next fit starts from
    ``hyperparameters``.
    """

    kind = CARRIED
    version = 4
    predecessor: str
    candidate: StrictInt
    round: StrictInt
    first_round: StrictInt
    served: Candidates
    evidence: Mapping[str, Any]
    hyperparameters: Mapping[str, Any] | None = None


class LaunchPlan(Record):
    """The launch that a plan serves: its candidate, and the number of the stage from 0."""

    candidate: StrictInt
    stage: StrictInt
    complete: bool = False
