"""Typed records of the reasons for plans and decisions.

A journal stores them as plain JSON in ``Planned.details`` and ``Decision.details``. All other code
reads them through ``Planned.trace`` and ``Decision.trace``, and writes them with ``Record.stored``
and ``Decision.of``. ``_upcast`` converts records of earlier versions; version 1 stored no version.

The aliases of fields are the stored names, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, ValidationError

#: Version of the records that this package writes.
VERSION = 2
#: Under this key a record stores its version; a remark must not use it.
VERSION_KEY = "trace_version"

#: Kinds of decisions that change the state of a study; all other kinds are remarks.
RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK = (
    "retired",
    "stopped",
    "set aside",
    "reinstated",
    "drift",
    "rolled back",
)
#: Kinds about other domains: a source, an expert's override, and (a remark) a change in their use.
SOURCE, OVERRULED, TRANSFER = "source", "overruled", "transfer"
#: An arm that is not served again because it loses users, and remarks on readings: those that are
#: missing, users that do not fit the planned shares, and the users of a round without readings.
WITHDRAWN, MISSING, SAMPLE_RATIO, USERS = "withdrawn", "missing", "sample ratio", "users counted"
CHANGES = frozenset(
    {RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK, SOURCE, OVERRULED, WITHDRAWN}
)

Candidates: TypeAlias = tuple[StrictInt, ...]
ByMetric: TypeAlias = tuple[float, ...]


class TraceError(ValueError):
    """Stored details are not a record that this package can read."""


class NewerTraceError(TraceError):
    """A later version of the package wrote the record."""


class Record(BaseModel):
    """Values that a journal stores; ``read`` is the inverse of ``stored``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def read(cls, details: Mapping[str, Any]) -> Any:
        """The record with these stored values, of this or an earlier version.

        Raises:
            TraceError: the values are not a record, or one of a later version.
        """
        values = _upcast(details)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TraceError(f"{where or cls.__name__}: {first['msg']}") from None

    def stored(self) -> dict[str, Any]:
        """Plain JSON values under the stored names; fields at their defaults are omitted."""
        return self.plain() | {VERSION_KEY: VERSION}

    def plain(self) -> dict[str, Any]:
        """The same values without the version."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


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


class PlanTrace(Record):
    """The reasons for a plan.

    ``why_not`` is why no posterior was used; the fields from ``fit_succeeded`` on are set where one
    was. The next fit starts from ``hyperparameters``. ``crowded_out`` are candidates that won draws
    but had no place among the arms. ``notes`` say what was amiss when the plan was made.
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


class DecisionTrace(Record):
    """The facts of a decision; ``kind`` is its name in the journal."""

    kind: ClassVar[str]


class Retired(DecisionTrace):
    """Candidates that draws do not consider until they are served again."""

    kind = RETIRED
    candidates: Candidates = ()


class Stopped(DecisionTrace):
    """Candidates that break a guardrail and are never served again."""

    kind = STOPPED
    candidates: Candidates = ()
    constraint: str | None = None
    slack_upper: float | None = None
    alpha: float | None = None
    num_rounds: int | None = None


class Withdrawn(DecisionTrace):
    """Arms that lose users, hour after hour, and are not served again.

    ``log_e_value`` in nats, and the ``needed`` one; users that the shares of ``num_rounds`` rounds
    predict, and those that were counted.
    """

    kind = WITHDRAWN
    candidates: Candidates
    log_e_value: float
    needed: float
    expected: float
    counted: float
    num_rounds: StrictInt


class ReadingsMissing(DecisionTrace):
    """Readings that are missing longer than usual: of a metric, or of all where it is None.

    ``candidates`` are the arms that do not report while others do; empty where none does.
    """

    kind = MISSING
    metric: StrictInt | None
    candidates: Candidates = ()
    since: StrictInt
    last: StrictInt
    never: bool = False


class SampleRatioMismatch(DecisionTrace):
    """Users that do not fit the planned shares: of one round, or over all where it is None."""

    kind = SAMPLE_RATIO
    in_round: StrictInt | None
    p_value: float | None = None
    log_e_value: float | None = None
    candidates: Candidates = ()


class UsersCounted(DecisionTrace):
    """The users of a round whose readings were left out because of its split."""

    kind = USERS
    round: StrictInt
    candidates: Candidates
    users: tuple[FiniteFloat, ...]


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


class DriftFound(DecisionTrace):
    """Evidence on these metrics from before a round keeps ``factor`` of its precision."""

    kind = DRIFT
    metrics: Candidates
    before: StrictInt
    factor: float = Field(gt=0, le=1)


class SourceAdded(DecisionTrace):
    """The evidence of another domain, and its fingerprint."""

    kind = SOURCE
    source: Mapping[str, Any]
    fingerprint: str


class SourcesOverridden(DecisionTrace):
    """An expert's rules for sources; the latest are in force."""

    kind = OVERRULED
    pin: Mapping[str, Any]
    forbid: tuple[Any, ...]
    discount: Any
    reason: str = Field("", alias="why")


class TransferChanged(TransferTrace):
    """A change in the use of other domains."""

    kind: ClassVar[str] = TRANSFER


class Remark(Record):
    """The facts of a remark, in any form."""

    facts: Mapping[str, Any] = {}


_ONCE_FREE = frozenset({TRANSFER, WITHDRAWN, MISSING, SAMPLE_RATIO, USERS})
_BY_KIND: dict[str, type[Record]] = {
    record.kind: record
    for record in (
        *(Retired, Stopped, RoundsExcluded, RoundsReinstated, RolledBack, DriftFound),
        *(SourceAdded, SourcesOverridden, TransferChanged),
        *(Withdrawn, ReadingsMissing, SampleRatioMismatch, UsersCounted),
    )
}


def decision_trace(kind: str, details: Mapping[str, Any]) -> Record:
    """The facts of a decision of this kind; those of a remark are taken as they are.

    Raises:
        TraceError: the details are no such record, or one of a later version.
    """
    record = _BY_KIND.get(kind)
    if record is None:
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
        raise _newer(version)  # a kind of decision that this version does not know
    return Remark.model_construct(facts=details)


def _upcast(details: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values of this or an earlier version, as values of this version.

    Version 1 stored the same names, without a version.
    """
    values = dict(details)
    version = values.pop(VERSION_KEY, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TraceError(f"its version is {version!r:.20}, expected a whole number")
    if version > VERSION:
        raise _newer(version)
    return values


def _newer(version: int) -> NewerTraceError:
    return NewerTraceError(
        f"its trace is of version {version}, this package reads versions 1 to {VERSION}; "
        "use the version of hyperzero-torch that wrote it"
    )
