"""What requests may hold, and what answers look like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

#: No round number is larger: a year of hours has 8,760.
MAX_NUMBER = 2**31 - 1


def printable(text: str) -> str:
    """A text without control characters and line breaks."""
    if not text.isprintable():
        raise ValueError("holds control characters, or a line break; write one plain sentence")
    return text


Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, strip_whitespace=True),
    AfterValidator(printable),
    Field(description="Why, in a sentence; the journal keeps it with your name."),
]
Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Value = bool | int | float | str


class Body(BaseModel):
    """A request's JSON object; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Why(Body):
    """A decision with its reason."""

    reason: Reason


class OfCandidates(Why):
    """A decision on candidates."""

    candidates: Annotated[list[Number], Field(min_length=1, max_length=1000)]


class OfCandidate(Why):
    """A decision on one candidate."""

    candidate: Number


class Accepted(Why):
    """Readings that are set aside and are right; by default all of them."""

    rounds: Annotated[list[Number], Field(min_length=1, max_length=1000)] | None = None
    candidates: Annotated[list[Number], Field(min_length=1, max_length=1000)] | None = None
    metrics: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None


class Pin(OfCandidate):
    """A fixed share of the experiment."""

    share: Annotated[float, Field(gt=0, lt=1, description="Fraction of the experiment.")]


class RollBack(Why):
    """Back to the state in which a round was planned."""

    to_round: Number


class Ask(Body):
    """Which round to plan: the next one, or ``round``, e.g. the hour's number."""

    round: Number | None = None
    allow_gap: Annotated[bool, Field(description="Plan a round far beyond the last one.")] = False


class Theta(Body):
    """Parameters to estimate the deltas at."""

    parameters: Annotated[list[dict[str, Value]], Field(min_length=1, max_length=1000)]


class Launch(Body):
    """A launch in stages of all users."""

    reason: Reason
    candidate: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None
    unproven: Annotated[bool, Field(description="Although it is not proven safe.")] = False
    dry_run: bool = False
    stages: Annotated[list[float], Field(min_length=1, max_length=50)] | None = None
    holdback: float | None = None
    keep_holdback: Annotated[int, Field(ge=0, le=MAX_NUMBER)] | None = None
    tolerance: float | None = None
    alpha: float | None = None
    least_rounds: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None


class Promotion(Why):
    """The candidate of a complete launch becomes the base of the next study."""

    candidate: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None
    name: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=200),
            AfterValidator(printable),
            Field(description="Of the next study; by default this one's, numbered."),
        ]
        | None
    ) = None
    unlaunched: Annotated[bool, Field(description="Although no launch of it is complete.")] = False


class Goals(Why):
    """The goals of the study file, as it is edited now, are put in force."""

    dry_run: bool = False


class Answer(BaseModel):
    """An answer; later versions may add keys."""

    model_config = ConfigDict(extra="allow")


class Fault(BaseModel):
    """What went wrong: the error's name, and what to do."""

    kind: str
    message: str


class Refused(BaseModel):
    """The answer to every request that is refused; nothing was changed."""

    error: Fault


class VerdictAnswer(Answer):
    """What holds, and what to do next."""

    action: str
    state: str
    sentence: str
    why: str
    next_step: str
    candidate: int | None


class StudyAnswer(Answer):
    """A study at a glance."""

    id: str
    name: str
    state: str
    sentence: str
    last_round: int | None
    mode: str | None


class StudiesAnswer(Answer):
    """All studies that are served."""

    studies: list[StudyAnswer]


class Arm(Answer):
    """Who is served what to how many."""

    candidate: int
    share: float
    parameters: dict[str, Any]


class PlanAnswer(Answer):
    """A plan, as ``hyperzero step`` writes it."""

    round: int | None
    arms: list[Arm]


class Planned(Answer):
    """A plan, and what is to be known of it."""

    plan: PlanAnswer
    warnings: list[str]


class Told(Answer):
    """What became of a message of readings."""

    rows: int
    new: int
    left_out: str
    repeated: bool
    warnings: list[str]


class Page(Answer):
    """A part of the history, oldest first; ``next`` continues it."""

    rows: list[dict[str, Any]]
    total: int
    next: int | None


class Switches(Answer):
    """The switches as they stand."""

    mode: str
    mode_by: str | None
    mode_reason: str | None
    pinned: dict[str, float]
    waiting_for_approval: dict[str, Any] | None


class Thrown(Answer):
    """A switch that was thrown: how things stand, and what is served now."""

    switches: Switches
    served: str


class Rows(Body):
    """Tidy readings."""

    rows: Annotated[list[dict[str, Any]], Field(min_length=1)]
    unknown: str = "refuse"
