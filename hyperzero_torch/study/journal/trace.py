"""Typed records of why a plan or a decision is what it is.

A journal stores them as plain JSON in ``Planned.details`` and ``Decision.details``. Everybody else
reads them through ``Planned.trace`` and ``Decision.trace``, and writes them with ``planned`` and
``decided``. Records of version 1 carry no version; ``_upcast`` names what differs from today.

Field names are the field's; their aliases are the names that are stored, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

#: Version of the records that are written today.
VERSION = 2
_VERSION_KEY = "trace_version"

#: Kinds of decisions that change what a study goes by; all other kinds are remarks.
RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK = (
    "retired",
    "stopped",
    "set aside",
    "reinstated",
    "drift",
    "rolled back",
)
#: Kinds about other domains: a source, an expert's override, and (a remark) a change of use.
SOURCE, OVERRULED, TRANSFER = "source", "overruled", "transfer"
CHANGES = frozenset({RETIRED, STOPPED, ASIDE, REINSTATED, DRIFT, ROLLED_BACK, SOURCE, OVERRULED})

Candidates: TypeAlias = tuple[StrictInt, ...]
ByMetric: TypeAlias = tuple[float, ...]


class TraceError(ValueError):
    """Stored details are no record of a version that this package reads."""


class NewerTraceError(TraceError):
    """A later version of the package wrote the record."""


class Record(BaseModel):
    """Values that a journal stores; ``stored`` and ``read`` are each other's inverse."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def read(cls, details: Mapping[str, Any]) -> Any:
        """The record that ``stored`` gave, or that an earlier version wrote.

        Raises:
            TraceError: not a record, or one of a later version.
        """
        values = _upcast(details)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TraceError(f"{where or cls.__name__}: {first['msg']}") from None

    def stored(self) -> dict[str, Any]:
        """Plain JSON values under the stored names; what is unknown is left out."""
        values = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return values | {_VERSION_KEY: VERSION}


class DetectorTrace(Record):
    """The drift detector after a plan, and the next round that it compares.

    ``detector`` holds a row of log statistics per metric, None where there is none yet;
    ``memory`` the sums of each candidate that is still served.
    """

    next_round: int = Field(alias="next")
    detector: tuple[tuple[float | None, ...], ...]
    num_rounds: tuple[float, ...]
    memory: Mapping[int, ByMetric]


class SourceWeighed(Record):
    """What a fit made of one source, by metric.

    ``log_bayes_factor`` (nats) for its word, the ``similarity`` to this study that was learned
    (a correlation), its ``weight``, its ``agreement`` with the other sources, and how alike the
    domains look: now (``likeness``) and when it was first weighed (``initial_similarity``).
    """

    log_bayes_factor: ByMetric | None = Field(None, alias="nats")
    similarity: ByMetric | None = None
    weight: ByMetric = ()
    agreement: ByMetric | None = None
    likeness: float | None = None
    initial_similarity: float | None = Field(None, alias="staked")


class HeldOutTrace(Record):
    """Log density of left-out evidence of a metric with the sources and without, in nats."""

    transferred: float
    cold: float


class RiskTrace(Record):
    """P(gain > 0 and feasible) of a new candidate, and what its risk asked for."""

    prob: float
    needed: float


class TransferTrace(Record):
    """What a round made of other domains.

    ``metrics`` are those in which sources count; None where nothing was weighed, because the study
    had no evidence yet: then ``seeds`` counts the candidates that sources suggested.
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
    """Why a plan is what it is.

    ``why_not`` says why no posterior could be used; the fields from ``fit_succeeded`` on are there
    where one was. ``hyperparameters`` are where the next fit starts, ``crowded_out`` the candidates
    that won draws and had no place among the arms.
    """

    num_tested: int = 0
    why_not: str | None = Field(None, alias="why")
    fit_succeeded: bool | None = None
    num_infeasible_draws: int | None = None
    proposed: Candidates = ()
    leaders: Candidates = ()
    revived: Candidates = ()
    crowded_out: Candidates | None = None
    hyperparameters: Mapping[str, Any] | None = None
    drift: DetectorTrace | None = None
    transfer: TransferTrace | None = None


class DecisionTrace(Record):
    """The facts of a decision; ``kind`` is how the journal names it."""

    kind: ClassVar[str]


class Retired(DecisionTrace):
    """Candidates that draws no longer choose among until they are served again."""

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


class RoundsExcluded(DecisionTrace):
    """Rounds whose readings do not count."""

    kind = ASIDE
    rounds: Candidates = ()


class RoundsReinstated(DecisionTrace):
    """Excluded rounds whose readings count again."""

    kind = REINSTATED
    rounds: Candidates = ()


class RolledBack(DecisionTrace):
    """The study goes on as it was when it planned ``to_round``."""

    kind = ROLLED_BACK
    to_round: int | None = None
    rounds: Candidates = ()
    candidates: Candidates = ()
    hyperparameters: Mapping[str, Any] | None = None


class DriftFound(DecisionTrace):
    """Evidence on these metrics from before a round keeps ``factor`` of its precision."""

    kind = DRIFT
    metrics: Candidates
    before: StrictInt
    factor: float = Field(gt=0, le=1)


class SourceAdded(DecisionTrace):
    """The evidence of another domain, and the fingerprint that it was recorded under."""

    kind = SOURCE
    source: Mapping[str, Any]
    fingerprint: str


class SourcesOverridden(DecisionTrace):
    """What an expert has laid down about sources; the latest holds."""

    kind = OVERRULED
    pin: Mapping[str, Any]
    forbid: tuple[Any, ...]
    discount: Any
    reason: str = Field("", alias="why")


class TransferChanged(TransferTrace):
    """Other domains count from now on, or no longer."""

    kind: ClassVar[str] = TRANSFER


class Remark(Record):
    """Facts beside a remark, as whoever wrote it chose them."""

    facts: Mapping[str, Any] = {}


_BY_KIND: dict[str, type[Record]] = {
    record.kind: record
    for record in (
        *(Retired, Stopped, RoundsExcluded, RoundsReinstated, RolledBack, DriftFound),
        *(SourceAdded, SourcesOverridden, TransferChanged),
    )
}


def decision_trace(kind: str, details: Mapping[str, Any]) -> Record:
    """The facts of a decision of this kind; those of a remark are taken as they are.

    Raises:
        TraceError: the details are no such record.
    """
    record = _BY_KIND.get(kind)
    return Remark(facts=details) if record is None else record.read(details)


def _upcast(details: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values of any version up to today's, as today's without their version.

    Version 1 wrote the same names and no version.
    """
    values = dict(details)
    version = values.pop(_VERSION_KEY, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TraceError(f"its version is {version!r:.20}, expected a whole number")
    if version > VERSION:
        raise NewerTraceError(
            f"its trace is of version {version}, this package reads versions 1 to {VERSION}; "
            "use the version of hyperzero-torch that wrote it"
        )
    return values
