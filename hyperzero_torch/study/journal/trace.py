"""Typed records of the reasons for plans and decisions.

A journal stores them as plain JSON in ``Planned.details`` and ``Decision.details``. All other code
reads them through ``Planned.trace`` and ``Decision.trace``, and writes them with ``Record.stored``
and ``Decision.of``. ``record.py`` has what all records share.

The aliases of fields are the stored names, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, FiniteFloat, StrictInt

from .epoch_trace import CHAIN, CHAIN_SIGNED, EPOCH, ChainBegun, ChainSigned, EpochBegun
from .goals_trace import GOALS_KINDS, GoalsChanged
from .launch_trace import (
    LAUNCH_KINDS,
    Carried,
    LaunchAborted,
    LaunchDecided,
    LaunchPlan,
    LaunchStarted,
    Promoted,
)
from .missing_trace import (
    MISSING,
    SAMPLE_RATIO,
    USERS,
    WITHDRAWN,
    ReadingsMissing,
    SampleRatioMismatch,
    UsersCounted,
    Withdrawn,
)
from .quarantine_trace import KINDS_OF_3, Quarantined, ReadingsAccepted, Readmitted
from .record import (
    VERSION,
    VERSION_KEY,
    ByMetric,
    Candidates,
    DecisionTrace,
    NewerTraceError,
    Record,
    TraceError,
    newer,
)
from .source_trace import (
    KINDS_OF_6,
    OVERRULED,
    RELEASED,
    SOURCE,
    SOURCE_REFUSED,
    PrivateRelease,
    SourceAdded,
    SourceRefused,
    SourcesOverridden,
    SourceWithdrawn,
)
from .surrogate_trace import SURROGATE_KINDS, SurrogateChosen
from .switch_trace import (
    SWITCHES,
    AllWithdrawn,
    ApprovalNeeded,
    Approved,
    Paused,
    Pinned,
    Resumed,
    StoppedByHand,
    Unpinned,
)

#: Kinds of decisions that change the state of a study; all other kinds are remarks.
RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK = (
    "retired",
    "stopped",
    "set aside",
    "reinstated",
    "drift",
    "rolled back",
)
#: A change in the use of other domains: a remark.
TRANSFER = "transfer"
# Kinds that came with versions 3 to 6 of the records.
_LATER_KINDS = KINDS_OF_3 | GOALS_KINDS | LAUNCH_KINDS | SWITCHES | SURROGATE_KINDS | KINDS_OF_6
CHANGES = _LATER_KINDS | frozenset(
    {RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK, SOURCE, OVERRULED, WITHDRAWN}
)


class HyperparametersTrace(Record):
    """A kernel's hyperparameters: ``lengthscale (metrics, dims)``, the others ``(metrics,)``."""

    lengthscale: tuple[tuple[FiniteFloat, ...], ...]
    outputscale: tuple[FiniteFloat, ...]
    constant: tuple[FiniteFloat, ...]


class DetectorTrace(Record):
    """The state of the drift detector after a plan, and the next round that it compares.

    ``detector`` holds a row of log statistics per metric, None where there is none yet. ``memory``
    holds the sums of each candidate that is still served.
    """

    next_round: int = Field(alias="next")
    detector: tuple[tuple[float | None, ...], ...]
    num_rounds: tuple[float, ...]
    memory: Mapping[int, ByMetric]


class SourceWeighed(Record):
    """The estimates about one source in a fit, by metric.

    ``log_bayes_factor`` for using it, in nats; ``similarity``, its estimated correlation with this
    study; its ``weight``; its ``agreement`` with the other sources. ``likeness`` is the similarity
    of the domains' features now, ``initial_similarity`` when the source was first weighed.
    """

    log_bayes_factor: ByMetric | None = Field(None, alias="nats")
    similarity: ByMetric | None = None
    weight: ByMetric = ()
    agreement: ByMetric | None = None
    likeness: float | None = None
    initial_similarity: float | None = Field(None, alias="staked")


class HeldOutTrace(Record):
    """Log density of a metric's left-out evidence in nats, with the sources and without."""

    transferred: float
    cold: float


class RiskTrace(Record):
    """P(gain > 0 and feasible) of a new candidate, and the minimum that was required."""

    prob: float
    needed: float


class TransferTrace(Record):
    """The use of other domains in a round.

    ``metrics`` are those for which sources are used. It is None where the study had no evidence to
    weigh them; ``seeds`` then counts the candidates that sources suggested.
    """

    used: bool
    reason: str = ""
    metrics: tuple[str, ...] | None = None
    log_e_value: float | None = Field(None, alias="wealth")
    needed: float | None = None
    together: ByMetric | None = None
    target_share: ByMetric | None = None
    target_weight: ByMetric | None = None
    sources: Mapping[str, SourceWeighed] = {}
    silent: Mapping[str, tuple[str, ...]] = {}
    held_out: Mapping[str, HeldOutTrace] = {}
    parameters: Mapping[str, ByMetric] = {}
    screened: Mapping[int, RiskTrace] = {}
    refused: int = 0
    seeds: int | None = None
    candidates: Candidates = ()
    agreement: float | None = None
    prob_success: ByMetric | None = None
    needed_prob: ByMetric | None = None


class ExposureTrace(Record):
    """What a plan was expected to expose users to.

    ``untested`` and ``risky`` are the shares of candidates without own evidence on the guardrails
    and of those more likely to break one than not. ``violation`` is the expected violation in
    points, averaged over the users who take part, ``harm`` the same times ``users``;
    ``without_limits`` is the violation of the shares that draws alone would have given.
    """

    untested: float = 0.0
    risky: float = 0.0
    violation: float | None = None
    without_limits: float | None = None
    users: float | None = None
    harm: float | None = None


class PlanTrace(Record):
    """The reasons for a plan.

    ``why_not`` is why no posterior was used; the fields from ``fit_succeeded`` on are set where one
    was. The next fit starts from ``hyperparameters``. ``crowded_out`` are candidates that won draws
    but had no place among the arms. ``notes`` say what was amiss when the plan was made.
    ``experiment_share`` is the part of all users that takes part. ``launch`` is set where the plan
    serves a launch, during which exploration rests. ``held`` is ``"paused"``, ``"withdrawn"`` or
    ``"waiting"`` where a switch, or a missing approval, made the plan.
    ``radius`` is the part of the space around the base that candidates came from, None for all.
    """

    num_tested: int = 0
    why_not: str | None = Field(None, alias="why")
    fit_succeeded: bool | None = None
    num_infeasible_draws: int | None = None
    proposed: Candidates = ()
    leaders: Candidates = ()
    revived: Candidates = ()
    crowded_out: Candidates | None = None
    hyperparameters: HyperparametersTrace | None = None
    drift: DetectorTrace | None = None
    transfer: TransferTrace | None = None
    notes: tuple[str, ...] = ()
    experiment_share: float = Field(1.0, gt=0, le=1)
    launch: LaunchPlan | None = None
    held: str | None = None
    exposure: ExposureTrace | None = None
    radius: float | None = None


class Retired(DecisionTrace):
    """Candidates that draws do not consider until they are served again."""

    kind = RETIRED
    candidates: Candidates = ()


class Stopped(DecisionTrace):
    """Candidates that break a guardrail and are not served until a person readmits them."""

    kind = STOPPED
    candidates: Candidates = ()
    constraint: str | None = None
    slack_upper: float | None = None
    alpha: float | None = None
    num_rounds: int | None = None


class RoundsExcluded(DecisionTrace):
    """Rounds whose readings are excluded from the evidence."""

    kind = ASIDE
    rounds: Candidates = ()


class RoundsReinstated(DecisionTrace):
    """Excluded rounds whose readings are evidence again."""

    kind = REINSTATED
    rounds: Candidates = ()


class RolledBack(DecisionTrace):
    """The study is restored to its state when it planned ``to_round``."""

    kind = ROLLED_BACK
    to_round: int | None = None
    rounds: Candidates = ()
    candidates: Candidates = ()
    hyperparameters: HyperparametersTrace | None = None
    by: str = ""


class DriftFound(DecisionTrace):
    """Evidence on these metrics from before a round keeps ``factor`` of its precision."""

    kind = DRIFT
    metrics: Candidates
    before: StrictInt
    factor: float = Field(gt=0, le=1)


class TransferChanged(TransferTrace):
    """A change in the use of other domains."""

    kind: ClassVar[str] = TRANSFER


class Remark(Record):
    """The facts of a remark, in any form."""

    facts: Mapping[str, Any] = {}


_ONCE_FREE = frozenset({TRANSFER, WITHDRAWN, MISSING, SAMPLE_RATIO, USERS, EPOCH, CHAIN}) | {
    *(SOURCE_REFUSED, RELEASED, CHAIN_SIGNED),
}
_BY_KIND: dict[str, type[Record]] = {
    record.kind: record
    for record in (
        *(Retired, Stopped, RoundsExcluded, RoundsReinstated, RolledBack, DriftFound),
        *(SourceAdded, SourcesOverridden, TransferChanged, GoalsChanged, SurrogateChosen),
        *(Quarantined, ReadingsAccepted, Readmitted),
        *(Withdrawn, ReadingsMissing, SampleRatioMismatch, UsersCounted),
        *(LaunchStarted, LaunchDecided, LaunchAborted, Promoted, Carried),
        *(Paused, Resumed, AllWithdrawn, StoppedByHand, Pinned, Unpinned),
        *(ApprovalNeeded, Approved, EpochBegun, ChainBegun, ChainSigned),
        *(SourceWithdrawn, SourceRefused, PrivateRelease),
    )
}


def decision_trace(kind: str, details: Mapping[str, Any]) -> Record:
    """The facts of a decision of this kind; those of a remark are taken as they are.

    Raises:
        TraceError: the details are no such record, or one of a later version.
    """
    record = _BY_KIND.get(kind)
    # Before a version brought its kinds, people could write remarks of them.
    if record is None or (kind in _LATER_KINDS and VERSION_KEY not in details):
        return _remark(details)
    try:
        return record.read(details)  # type: ignore[no-any-return]
    except NewerTraceError:
        raise
    except TraceError:
        # People could write remarks of these kinds before they were records.
        if kind in _ONCE_FREE and VERSION_KEY not in details:
            return _remark(details)
        raise


def _remark(details: Mapping[str, Any]) -> Remark:
    version = details.get(VERSION_KEY, 0)
    if isinstance(version, int) and version > VERSION:
        raise newer(version)  # a kind of decision that this version does not know
    return Remark.model_construct(facts=details)
