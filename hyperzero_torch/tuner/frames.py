"""What a study holds as data frames, for notebooks: pandas, or Polars where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from ..problem.problem import Problem
from ..problem.space import Value
from ..study.authors import author_of
from ..study.evidence.bucket import Bucket
from ..study.history import History
from ..study.journal.times import Times
from .beliefs import Belief

FrameOf: TypeAlias = Literal["candidates", "rounds", "readings", "decisions"]
Backend: TypeAlias = Literal["pandas", "polars"]


class Column(NamedTuple):
    """A column: an array of numbers or truth values, or a list of texts, None where there is no."""

    name: str
    values: NDArray[Any] | list[str | None]


def check_kind(what: str) -> FrameOf:
    """The kind of a frame.

    Raises:
        ConfigError: there is no such frame.
    """
    kinds: tuple[FrameOf, ...] = get_args(FrameOf)
    for kind in kinds:
        if what == kind:
            return kind
    raise ConfigError(f"a frame is one of {', '.join(kinds)}, got {what!r:.60}")


def package_of(backend: str) -> ModuleType:
    """pandas or Polars, imported.

    Raises:
        ConfigError: another name.
        MissingExtraError: it is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"backend is 'pandas' or 'polars', got {backend!r:.60}")
    try:
        if backend == "polars":
            import polars

            package: ModuleType = polars
        else:
            import pandas

            package = pandas
    except ImportError:
        raise MissingExtraError("a data frame", backend, "frames") from None
    return package


def as_frame(columns: Sequence[Column], package: ModuleType) -> Any:
    """A data frame of this package."""
    if package.__name__ == "polars":
        series = [
            package.Series(c.name, c.values, package.String if isinstance(c.values, list) else None)
            for c in columns
        ]
        return package.DataFrame(series)
    arrays = {
        # An array of objects would become texts with NaN for what is missing.
        c.name: package.Series(c.values, dtype=object) if isinstance(c.values, list) else c.values
        for c in columns
    }
    return package.DataFrame(arrays)


def candidates(
    problem: Problem, history: History, bucket: Bucket | None, belief: Belief | None
) -> list[Column]:
    """A row for each candidate: where it comes from, its parameters, evidence and estimates.

    Names of parameters and metrics stand behind a dot, so that they collide with nothing.
    """
    added, status = history.candidates, history.status
    num = len(added)
    columns = [
        Column("candidate", np.arange(num)),
        Column("origin", [entry.origin for entry in added]),
        Column("added_in_round", _whole([entry.round for entry in added])),
        Column("rounds_served", _whole(history.times_served)),
        Column("is_stopped", np.array([c in status.stopped for c in range(num)], dtype=bool)),
    ]
    columns += [
        Column(f"parameter.{name}", _values([entry.parameters[name] for entry in added]))
        for name in problem.space.names
    ]
    unknown = torch.full((num, problem.num_metrics), torch.nan, dtype=torch.float64)
    none = unknown[:, 0]
    rounds = torch.zeros(num) if bucket is None else bucket.num_rounds
    columns += [
        Column("rounds_with_evidence", rounds.numpy().astype(np.int64)),
        Column("objective_mean", _numbers(none if belief is None else belief.mean)),
        Column("objective_lcb", _numbers(none if belief is None else belief.lcb)),
        Column("objective_ucb", _numbers(none if belief is None else belief.ucb)),
        Column("prob_feasible", _numbers(none if belief is None else _known(belief))),
    ]
    fields = {
        "mean": unknown if bucket is None else bucket.mean,
        "var": unknown if bucket is None else bucket.var,
        "weight": torch.zeros_like(unknown) if bucket is None else bucket.weight,
        "posterior_mean": unknown if belief is None else belief.delta_mean,
        "posterior_var": unknown if belief is None else belief.delta_var,
    }
    columns += [
        Column(f"{field}.{metric}", _numbers(values[:, m]))
        for m, metric in enumerate(problem.metrics)
        for field, values in fields.items()
    ]
    return columns


def rounds(history: History, times: Times) -> list[Column]:
    """A row for each planned round, oldest first."""
    plans = sorted(history.plans.items())
    tables = [history.tables.get(number) for number, _ in plans]
    excluded = history.status.excluded_rounds
    users = [0.0 if t is None else float(np.nan_to_num(t.count).max(1).sum()) for t in tables]
    return [
        Column("round", _whole([number for number, _ in plans])),
        Column("planned_at", [times.planned.get(number) for number, _ in plans]),
        Column("arms", _whole([len(plan.candidates) - 1 for _, plan in plans])),
        Column("control_share", _floats([plan.shares[0] for _, plan in plans])),
        Column("experiment_share", _floats([p.trace.experiment_share for _, p in plans])),
        Column(
            "arms_without_readings", _whole([0 if t is None else t.num_waiting for t in tables])
        ),
        Column("users", _floats(users)),
        Column("is_excluded", np.array([number in excluded for number, _ in plans], dtype=bool)),
        Column("excluded_because", [excluded.get(number) for number, _ in plans]),
        Column("is_compacted", np.array([t is None for t in tables], dtype=bool)),
        Column("split_evenly_because", [plan.trace.why_not for _, plan in plans]),
    ]


def readings(history: History, _: Times) -> list[Column]:
    """A row for each reading in its latest revision, named as ``hz.Readings.from_frame`` names it.

    Readings of compacted rounds are gone. ``counts`` is False where a reading is set aside or its
    round is excluded.
    """
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("round", "candidate", "metric", "count", "mean", "var", "revision")
    }
    counts: list[NDArray[np.bool_]] = []
    for number, table in sorted(history.tables.items()):
        arm, metric = np.nonzero(table.revision >= 0)
        parts["round"].append(np.full(len(arm), number, dtype=np.int64))
        parts["candidate"].append(table.candidates[arm])
        parts["metric"].append(metric)
        for name in ("count", "mean", "var", "revision"):
            parts[name].append(getattr(table, name)[arm, metric])
        is_excluded = number in history.status.excluded_rounds
        counts.append(~table.set_aside[arm, metric] & (not is_excluded))
    whole = ("round", "candidate", "metric", "revision")
    columns = [
        Column(name, np.concatenate([np.empty(0, np.int64 if name in whole else float), *arrays]))
        for name, arrays in parts.items()
    ]
    names = [history.metrics[m] for m in columns[2].values]  # type: ignore[index]
    columns[2] = Column("metric", [*names])
    return [*columns, Column("counts", np.concatenate([np.empty(0, bool), *counts]))]


def decisions(history: History, times: Times) -> list[Column]:
    """A row for each decision and remark of the journal, oldest first."""
    entries = history.decisions
    at = [*times.decided[: len(entries)], *[None] * (len(entries) - len(times.decided))]
    return [
        Column("round", _whole([entry.round for entry in entries])),
        Column("kind", [entry.kind for entry in entries]),
        Column("reason", [entry.reason for entry in entries]),
        Column("by", [author_of(entry) for entry in entries]),
        Column("at", at),
    ]


#: The frames that need no model.
PLAIN: dict[FrameOf, Callable[[History, Times], list[Column]]] = {
    "rounds": rounds,
    "readings": readings,
    "decisions": decisions,
}


def _known(belief: Belief) -> Tensor:
    return torch.where(belief.mean.isfinite(), belief.prob_feasible, torch.nan)


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy().copy()


def _whole(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _floats(values: Sequence[float]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def _values(values: Sequence[Value]) -> NDArray[Any] | list[str | None]:
    """Values of a parameter: of one type as they are, options of several types as texts."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    if kinds == {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float}:
        return np.array(values, dtype=np.float64)
    return [str(value) for value in values]
