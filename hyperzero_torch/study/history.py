"""The state of a study, computed from its journal: candidates, plans, readings, decisions.

Nothing here computes statistics. Entries that contradict earlier ones are refused. Two processes
that have read the same entries hold the same history, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import JournalCorruptError, JournalError
from . import misfits, quarantine
from .config.tuner import upcast
from .cube import moved
from .decisions import StudyStatus
from .idle import IdleRounds
from .journal import (
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from .journal.base import kind_of, values_of
from .journal.goals_trace import GoalsChanged
from .journal.launch_trace import Carried
from .journal.quarantine_trace import Quarantined, ReadingsAccepted, Readmitted
from .journal.record import NewerTraceError, TraceError
from .journal.trace import HyperparametersTrace, RolledBack
from .quarantine import Cell, Doubt
from .round_table import RoundTable

CONTROL = 0


def history_of(header: StudyHeader) -> History:
    """The history of a study before its first entry."""
    problem = header.problem
    return History(len(problem.get("parameters", ())), problem.get("metrics", ()))


class History:
    """The state of a study after all its entries, applied in order.

    For every candidate, ``times_served`` counts the plans that contain it, and ``idle`` the rounds
    of draws since it was added or last won a draw. ``status`` is the effect of all decisions.

    ``num_messages`` counts messages of readings. ``has_news`` is true when a message came after the
    last plan. ``warm_start`` holds the hyperparameters of the latest plan before the last message.
    ``tables`` holds the readings of each planned round, except rounds that were ``compacted``;
    ``quarantined`` the readings among them that are not believed, with the reason. ``goals`` holds
    the changes of goals, oldest first. ``carried`` is the evidence of the study that this one
    succeeds.

    Args:
        num_params: number of parameters in theta.
        metrics: names of the metrics.
    """

    def __init__(self, num_params: int, metrics: Sequence[str]) -> None:
        self.num_params = num_params
        self.metrics = tuple(metrics)
        self.num_entries = 0
        self.config: Mapping[str, Any] = {}
        self.candidates: list[CandidateAdded] = []
        self.plans: dict[int, Planned] = {}
        self.tables: dict[int, RoundTable] = {}
        self.compacted: list[Compacted] = []
        self.carried: Carried | None = None
        self.triggers: dict[str, int] = {}
        self.decisions: list[Decision] = []
        self.goals: list[GoalsChanged] = []
        self.times_served: list[int] = []
        self.idle = IdleRounds()
        self.status = StudyStatus()
        self.quarantined: dict[Cell, Doubt] = {}
        self.num_messages = 0
        self.has_news = False
        self.warm_start: HyperparametersTrace | None = None
        self._last_fit: HyperparametersTrace | None = None
        self._ids: dict[tuple[float, ...], int] = {}
        self._last_round: int | None = None
        self._theta = torch.empty(0, num_params, dtype=torch.float64)

    @property
    def num_candidates(self) -> int:
        """Number of all candidates ever added, the control included."""
        return len(self.candidates)

    @property
    def theta(self) -> Tensor:
        """``(candidates, params)``, float64; row 0 is the base."""
        new = [tuple(entry.theta) for entry in self.candidates[len(self._theta) :]]
        if new:
            self._theta = torch.cat([self._theta, torch.tensor(new, dtype=torch.float64)])
        return self._theta.clone()

    @property
    def last_round(self) -> int | None:
        """The latest planned round."""
        return self._last_round

    @property
    def next_round(self) -> int:
        """The round that follows the last one, also that of an earlier study."""
        last = self.last_round
        if last is None and self.carried is not None:
            last = self.carried.round
        return 0 if last is None else last + 1

    @property
    def first_round(self) -> int | None:
        """The first round, also that of an earlier study; None before any plan."""
        if self.carried is not None:
            return self.carried.first_round
        return min(self.plans, default=None)

    @property
    def last_fit(self) -> HyperparametersTrace | None:
        """The hyperparameters of the latest fit."""
        return self._last_fit

    @property
    def last_plan(self) -> Planned | None:
        """The plan of the latest planned round."""
        last = self.last_round
        return None if last is None else self.plans[last]

    @property
    def num_in_flight(self) -> int:
        """Number of planned arms, over all rounds, without any reading yet."""
        return sum(table.num_waiting for table in self.tables.values())

    def find(self, theta: Sequence[float]) -> int | None:
        """The candidate with exactly this theta."""
        return self._ids.get(tuple(theta))

    def branch(self) -> History:
        """A copy to which a planner adds entries; this history does not change."""
        other = copy.copy(self)
        for name in ("candidates", "compacted", "decisions", "goals", "times_served"):
            setattr(other, name, list(getattr(self, name)))
        other.idle = self.idle.copy()
        other._ids = dict(self._ids)
        other.status = self.status.copy()
        return other

    def extend(self, entries: Iterable[Entry]) -> None:
        """Apply entries, in order.

        Raises:
            JournalCorruptError: an entry contradicts an earlier one, or its trace is damaged.
            JournalError: a newer package wrote the trace of an entry.
        """
        for entry in entries:
            try:
                self._fold(entry)
            except TraceError as error:
                raise self._unreadable(entry, error) from None
            self.num_entries += 1

    def _fold(self, entry: Entry) -> None:
        match entry:
            case Configured():
                self.config = upcast(entry.config)
            case CandidateAdded():
                if entry.candidate != len(self.candidates) or len(entry.theta) != self.num_params:
                    raise self._corrupt(
                        f"candidate {entry.candidate} with {len(entry.theta)} parameters is added, "
                        f"expected candidate {len(self.candidates)} with {self.num_params}"
                    )
                self.candidates.append(entry)
                self.times_served.append(0)
                self.idle.add()
                self._ids.setdefault(tuple(entry.theta), entry.candidate)
            case Planned():
                self._fold_plan(entry)
            case ReadingsReceived():
                self._fold_readings(entry)
            case Decision():
                self._fold_decision(entry)
            case Compacted():
                self._fold_compacted(entry)

    def _fold_decision(self, entry: Decision) -> None:
        try:
            self.status.fold(
                entry, len(self.candidates), len(self.metrics), self.plans.__contains__
            )
        except TraceError:
            raise
        except ValueError as error:
            raise self._corrupt(f"decision {entry.kind!r}: {error}") from None
        self.decisions.append(entry)
        match entry.trace:
            case Quarantined() | ReadingsAccepted() as trace:
                self._fold_judgement(trace, entry.reason)
            case Readmitted(candidates=candidates):
                for candidate in candidates:
                    self.idle.reset(candidate)
            case GoalsChanged() as trace:
                self._fold_goals(trace)
            case Carried() as trace:
                self._fold_carried(trace)
        if isinstance(entry.trace, RolledBack):
            # All candidates compete again, and the next fit starts where the fit of then started.
            self.idle.reset_all()
            self._refuse(misfits.of_fit(entry.trace.hyperparameters, len(self.metrics)))
            self.warm_start = self._last_fit = entry.trace.hyperparameters

    def _fold_goals(self, trace: GoalsChanged) -> None:
        # What idled under the earlier goals may win under these.
        self.idle.reset_all()
        self.goals.append(trace)
        try:
            self.warm_start = moved(self.warm_start, trace.cube)
            self._last_fit = moved(self._last_fit, trace.cube)
        except IndexError:
            raise self._corrupt("a change of goals names coordinates that do not exist") from None

    def _fold_carried(self, trace: Carried) -> None:
        self._refuse(misfits.of_carried(trace, len(self.plans), self.num_candidates))
        self._refuse(misfits.of_evidence(trace.evidence, self.num_candidates, len(self.metrics)))
        self.carried = trace
        self.times_served = list(trace.served)
        if trace.hyperparameters is not None:
            fit = HyperparametersTrace.read(trace.hyperparameters)
            self._refuse(misfits.of_fit(fit, len(self.metrics)))
            self.warm_start = self._last_fit = fit

    def _fold_judgement(self, trace: Quarantined | ReadingsAccepted, reason: str) -> None:
        try:
            quarantine.fold(self.quarantined, self.tables, len(self.metrics), trace, reason)
        except ValueError as error:
            raise self._corrupt(f"a judgement of readings: {error}") from None

    def _fold_compacted(self, entry: Compacted) -> None:
        without_table = [r for r in entry.rounds if r not in self.tables]
        if without_table or not entry.rounds:
            raise self._corrupt(
                f"it compacts rounds {without_table}, which were not planned or were compacted "
                "before"
            )
        self._refuse(misfits.of_evidence(entry.evidence, self.num_candidates, len(self.metrics)))
        self.compacted.append(entry)
        for round_ in entry.rounds:
            del self.tables[round_]
        compacted = set(entry.rounds)
        for cell in [c for c in self.quarantined if c.round in compacted]:
            del self.quarantined[cell]

    def _fold_plan(self, plan: Planned) -> None:
        is_planned = plan.round in self.plans
        self._refuse(misfits.of_plan(plan, self._unknown(plan.candidates), is_planned))
        trace, crowded_out = plan.trace, plan.trace.crowded_out
        self._refuse(misfits.of_trace(trace, self.num_candidates, len(self.metrics)))
        self.plans[plan.round] = plan
        self._last_round = max(plan.round, self._last_round or 0)
        index = len(self.plans) - 1
        self.tables[plan.round] = RoundTable(plan.candidates, len(self.metrics), index)
        self.has_news = False
        self.status.switches = self.status.switches.planned(trace.held)
        if trace.hyperparameters is not None:
            self._last_fit = trace.hyperparameters
        if plan.trigger is not None:
            self.triggers[plan.trigger] = plan.round
        if crowded_out is not None:  # stored where draws were made
            self.idle.pass_round()
        for candidate in plan.candidates:
            self.times_served[candidate] += 1
        for candidate in (*plan.candidates, *(crowded_out or ())):
            self.idle.reset(candidate)
            self.status.retired.discard(candidate)

    def _fold_readings(self, entry: ReadingsReceived) -> None:
        # The start of a fit changes only with new readings. So a fit is a function of the messages
        # before it, and not of how often a plan was asked for.
        self.num_messages += 1
        self.has_news = True
        self.warm_start = self._last_fit
        columns = {name: np.array(values) for name, values in values_of(entry).items()}
        numbers = np.stack([columns[name] for name in ("count", "mean", "var")])
        if not np.isfinite(numbers).all() or (numbers[[0, 2]] < 0).any():
            raise self._corrupt(
                "readings hold a count, mean or var that is not finite or is negative"
            )
        for round_ in np.unique(columns["round"]).tolist():
            rows = columns["round"] == round_
            table = self.tables.get(round_)
            candidates = columns["candidate"][rows].tolist()
            metric = columns["metric"][rows]
            is_metric = (metric >= 0) & (metric < len(self.metrics))
            if table is None or not is_metric.all() or any(c not in table.row for c in candidates):
                raise self._corrupt(f"readings of round {round_} of arms or metrics not planned")
            if self.quarantined:  # a new revision is judged anew
                for candidate, m in zip(candidates, metric.tolist()):
                    self.quarantined.pop(Cell(round_, candidate, m), None)
            taken = {name: v[rows] for name, v in columns.items()}
            table.take(self.num_entries + 1, metric, taken, len(self.plans) - 1 - table.index)

    def _unknown(self, candidates: Iterable[int]) -> list[int]:
        return [c for c in candidates if not 0 <= c < len(self.candidates)]

    def _unreadable(self, entry: Entry, error: TraceError) -> JournalError:
        kind = f"{entry.kind!r} decision" if isinstance(entry, Decision) else kind_of(entry)
        name = f"entry {self.num_entries + 1}: the trace of a {kind} entry"
        if isinstance(error, NewerTraceError):
            return JournalError(f"{name} cannot be read: {error}")
        return JournalCorruptError(
            f"{name} is damaged ({error}); restore the journal from a backup"
        )

    def _refuse(self, reason: str | None) -> None:
        if reason is not None:
            raise self._corrupt(reason)

    def _corrupt(self, what: str) -> JournalCorruptError:
        return JournalCorruptError(
            f"the journal contradicts itself at entry {self.num_entries + 1}: {what}; "
            "restore it from a backup"
        )
