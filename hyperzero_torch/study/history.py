"""The fold over a study's journal: who is in the bucket, what was planned, what has arrived.

Nothing here computes statistics; it keeps facts, and refuses messages and entries that contradict
them. Two processes that have folded the same entries hold the same history, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import JournalCorruptError, JournalError, ReadingsError
from .decisions import StudyStatus
from .journal import (
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Planned,
    ReadingsReceived,
    unpack_array,
)
from .journal.base import kind_of, values_of
from .journal.trace import NewerTraceError, RolledBack, TraceError
from .readings import MAX_ROWS_NAMED, Readings
from .round_table import RoundTable

CONTROL = 0


class History:
    """A study's facts, folded from its entries in order.

    ``times_served`` counts, for every candidate, the plans it was in; ``idle`` the votes since it
    last won anything (or was born); ``standing`` is what decisions have changed.

    ``num_messages`` counts messages of readings, ``warm_start`` holds the hyperparameters of the
    latest plan before the last of them, ``has_news`` says that a message came after the last plan.
    ``tables`` holds what has arrived, by planned round, but for rounds that were ``compacted``.

    Args:
        num_params: width of theta.
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
        self.triggers: dict[str, int] = {}
        self.decisions: list[Decision] = []
        self.times_served: list[int] = []
        self.idle: list[int] = []
        self.status = StudyStatus()
        self.num_messages = 0
        self.has_news = False
        self.warm_start: Mapping[str, Any] | None = None
        self._last_fit: Mapping[str, Any] | None = None
        self._ids: dict[tuple[float, ...], int] = {}
        self._last_round: int | None = None
        self._theta = torch.empty(0, num_params, dtype=torch.float64)

    @property
    def num_candidates(self) -> int:
        """Candidates ever born, the control included."""
        return len(self.candidates)

    @property
    def theta(self) -> Tensor:
        """``(candidates, params)``, float64; row 0 is the base."""
        new = [tuple(birth.theta) for birth in self.candidates[len(self._theta) :]]
        if new:
            self._theta = torch.cat([self._theta, torch.tensor(new, dtype=torch.float64)])
        return self._theta.clone()

    @property
    def last_round(self) -> int | None:
        """The latest planned round."""
        return self._last_round

    @property
    def last_plan(self) -> Planned | None:
        """The plan of the latest planned round."""
        last = self.last_round
        return None if last is None else self.plans[last]

    @property
    def num_in_flight(self) -> int:
        """Arms that were planned and of which nothing has arrived yet, over all rounds."""
        return sum(table.num_waiting for table in self.tables.values())

    def find(self, theta: Sequence[float]) -> int | None:
        """The candidate with exactly this theta."""
        return self._ids.get(tuple(theta))

    def branch(self) -> History:
        """A copy on which births can be thought ahead; this one stays as it is."""
        other = copy.copy(self)
        for name in ("candidates", "compacted", "decisions", "times_served", "idle"):
            setattr(other, name, list(getattr(self, name)))
        other._ids = dict(self._ids)
        other.status = self.status.copy()
        return other

    def extend(self, entries: Iterable[Entry]) -> None:
        """Fold entries in.

        Raises:
            JournalCorruptError: an entry contradicts those before it.
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
                self.config = entry.config
            case CandidateAdded():
                if entry.candidate != len(self.candidates) or len(entry.theta) != self.num_params:
                    raise self._corrupt(
                        f"candidate {entry.candidate} with {len(entry.theta)} parameters is born "
                        f"where candidate {len(self.candidates)} with {self.num_params} is next"
                    )
                self.candidates.append(entry)
                self.times_served.append(0)
                self.idle.append(0)
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
            self.status.fold(entry, len(self.candidates), self.plans.__contains__)
        except TraceError:
            raise
        except ValueError as error:
            raise self._corrupt(f"decision {entry.kind!r}: {error}") from None
        self.decisions.append(entry)
        if isinstance(
            entry.trace, RolledBack
        ):  # fits start as they did then, and all compete again
            self.idle = [0] * len(self.idle)
            self.warm_start = self._last_fit = entry.trace.hyperparameters

    def _fold_compacted(self, entry: Compacted) -> None:
        # What has no table is not planned, or was compacted before.
        strange = [r for r in entry.rounds if r not in self.tables]
        ids = unpack_array(entry.evidence["candidate"])
        known = bool((ids < len(self.candidates)).all())
        known &= entry.evidence["mean"]["shape"][1] == len(self.metrics)
        if strange or not entry.rounds or not known:
            raise self._corrupt(
                f"rounds {strange or entry.rounds[:8]} are compacted that hold no readings, or "
                "evidence about candidates and metrics that are not there"
            )
        self.compacted.append(entry)
        for round_ in entry.rounds:
            del self.tables[round_]

    def _fold_plan(self, plan: Planned) -> None:
        unknown = [c for c in plan.candidates if not 0 <= c < len(self.candidates)]
        if plan.round in self.plans or unknown or plan.candidates[:1] != (CONTROL,):
            raise self._corrupt(
                f"a plan for round {plan.round} of candidates {plan.candidates[:8]} cannot follow "
                f"({'planned already' if plan.round in self.plans else f'unknown: {unknown}'})"
            )
        trace = plan.trace
        crowded_out = trace.crowded_out
        strangers = [c for c in crowded_out or () if not 0 <= c < len(self.candidates)]
        if strangers:
            raise self._corrupt(f"its trace names candidates that do not exist: {strangers[:8]}")
        self.plans[plan.round] = plan
        self._last_round = max(plan.round, self._last_round or 0)
        self.tables[plan.round] = RoundTable(plan.candidates, len(self.metrics))
        self.has_news = False
        if trace.hyperparameters is not None:
            self._last_fit = trace.hyperparameters
        if plan.trigger is not None:
            self.triggers[plan.trigger] = plan.round
        if crowded_out is not None:  # written where there was a vote
            self.idle = [votes + 1 for votes in self.idle]
        for candidate in plan.candidates:
            self.times_served[candidate] += 1
        for candidate in (*plan.candidates, *(crowded_out or ())):
            self.idle[candidate] = 0
            self.status.retired.discard(candidate)

    def _fold_readings(self, entry: ReadingsReceived) -> None:
        # What a fit starts from changes only when there is something new to fit, so that a fit is
        # a function of the messages before it and not of who asked how often.
        self.num_messages += 1
        self.has_news = True
        self.warm_start = self._last_fit
        columns = {name: np.array(values) for name, values in values_of(entry).items()}
        numbers = np.stack([columns[name] for name in ("count", "mean", "var")])
        if not np.isfinite(numbers).all() or (numbers[[0, 2]] < 0).any():
            raise self._corrupt("readings have a count, mean or var that was never accepted")
        for round_ in np.unique(columns["round"]).tolist():
            rows = columns["round"] == round_
            table = self.tables.get(round_)
            candidates = columns["candidate"][rows].tolist()
            known = table is not None and all(c in table.row for c in candidates)
            metric = columns["metric"][rows]
            placed = (metric >= 0) & (metric < len(self.metrics))
            if table is None or not known or not placed.all():
                raise self._corrupt(f"readings of round {round_} are of arms that it never had")
            table.take(self.num_entries + 1, metric, {name: v[rows] for name, v in columns.items()})

    def new_rows(self, readings: Readings) -> ReadingsReceived | None:
        """What of a message is news; None where all of it is known already.

        A row with a higher revision replaces; the same row again, or an older revision, changes
        nothing.

        Raises:
            ReadingsError: unknown rounds, arms or metrics, or a known revision with other values;
                every offending row is named, up to a limit.
        """
        metric = readings.metric_index(self.metrics)
        held = self._held(readings, metric)
        same = np.zeros(len(readings), dtype=bool)
        same |= held["revision"] == readings.revision
        differs = same & ~(
            (held["count"] == readings.count)
            & (held["mean"] == readings.mean)
            & (held["var"] == readings.var)
        )
        _refuse(
            readings,
            differs,
            lambda i: (
                f"round {readings.round[i]}, candidate {readings.candidate[i]}, metric "
                f"{self.metrics[metric[i]]!r}, revision {readings.revision[i]} was received with "
                f"count {held['count'][i]:g}, mean {held['mean'][i]:g}, var {held['var'][i]:g}; "
                "send corrected values with a higher revision"
            ),
        )
        news = readings.revision > held["revision"]
        if not news.any():
            return None
        # The order of ``ReadingsReceived``: of several revisions of one row the highest comes last.
        keys = (readings.revision, metric, readings.candidate, readings.round)
        order = np.array([i for i in np.lexsort(keys) if news[i]])

        def column(values: NDArray[Any]) -> tuple[Any, ...]:
            return tuple(values[order].tolist())

        return ReadingsReceived(
            round=column(readings.round),
            candidate=column(readings.candidate),
            metric=column(metric),
            revision=column(readings.revision),
            count=column(readings.count),
            mean=column(readings.mean),
            var=column(readings.var),
        )

    def _held(self, readings: Readings, metric: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """What the tables hold for each row of a message; refuses rows that have no place."""
        num = len(readings)
        held: dict[str, NDArray[Any]] = {n: np.full(num, np.nan) for n in ("count", "mean", "var")}
        held["revision"] = np.full(num, -1, dtype=np.int64)
        row = np.full(num, -1, dtype=np.int64)
        for round_ in np.unique(readings.round).tolist():
            table = self.tables.get(round_)
            if table is None:
                continue
            here = np.flatnonzero(readings.round == round_)
            row[here] = [table.row.get(c, -1) for c in readings.candidate[here].tolist()]
            placed = here[row[here] >= 0]
            for name, values in held.items():
                values[placed] = getattr(table, name)[row[placed], metric[placed]]
        _refuse(readings, row < 0, lambda i: self._no_place(int(readings.round[i]), readings, i))
        return held

    def _no_place(self, round_: int, readings: Readings, i: int) -> str:
        candidate = readings.candidate[i]
        if round_ not in self.plans:
            last = self.last_round
            known = "no round was planned yet" if last is None else f"the last is {last}"
            return f"unknown round {round_}: it was never planned, {known}"
        if candidate >= self.num_candidates:
            return f"unknown candidate {candidate}: the bucket has 0 to {self.num_candidates - 1}"
        if round_ not in self.tables:
            return (
                f"round {round_} was compacted into evidence, its readings are final; compact "
                "rounds later to take readings that are as late"
            )
        arms = list(self.plans[round_].candidates)
        shown = f"{arms[:12]}{' ...' if len(arms) > 12 else ''}"
        return f"candidate {candidate} was not an arm of round {round_}; its arms were {shown}"

    def _unreadable(self, entry: Entry, error: TraceError) -> JournalError:
        kind = f"{entry.kind!r} decision" if isinstance(entry, Decision) else kind_of(entry)
        name = f"entry {self.num_entries + 1}: the trace of a {kind} entry"
        if isinstance(error, NewerTraceError):
            return JournalError(f"{name} cannot be read: {error}")
        return JournalCorruptError(
            f"{name} is damaged ({error}); restore the journal from a backup"
        )

    def _corrupt(self, what: str) -> JournalCorruptError:
        return JournalCorruptError(
            f"the journal contradicts itself at entry {self.num_entries + 1}: {what}; "
            "restore it from a backup"
        )


def _refuse(readings: Readings, mask: NDArray[np.bool_], say: Any) -> None:
    bad = np.flatnonzero(mask).tolist()
    if bad:
        rows = [f"{readings.where(i)}: {say(i)}" for i in bad[:MAX_ROWS_NAMED]]
        raise ReadingsError("readings are refused, none was recorded:", rows, len(bad))
