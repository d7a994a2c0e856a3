"""Checks of a message of readings against a study, and the rows of it that are new.

Readings are checked on their own in ``readings/checks.py``. Here they are compared with the plans
of the study and with the readings that it has received before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ReadingsError
from .history import History
from .journal import ReadingsReceived
from .readings import MAX_ROWS_NAMED, Readings

_VALUES = ("count", "mean", "var")
_SAME = 1e-9  # relative difference below which a value is the same


def new_rows(history: History, readings: Readings) -> ReadingsReceived | None:
    """The rows of a message that are new; None where the study has received all of them.

    A row with a higher revision replaces the earlier one. The same row again, or an older revision,
    changes nothing. Values that differ by rounding only are the same: a query that adds in parallel
    gives other last digits every time.

    Raises:
        ReadingsError: unknown rounds, arms or metrics, or a revision that was received with other
            values. Every offending row is named, up to a limit.
    """
    metric = readings.metric_index(history.metrics)
    received = _received(history, readings, metric)
    differs = (received["revision"] == readings.revision) & ~_is_same(received, readings)
    _refuse(
        readings,
        differs,
        lambda i: (
            f"round {readings.round[i]}, candidate {readings.candidate[i]}, metric "
            f"{history.metrics[metric[i]]!r}, revision {readings.revision[i]} was received with "
            f"{_digits(*(received[name][i] for name in _VALUES))}, and now has "
            f"{_digits(*(getattr(readings, name)[i] for name in _VALUES))}; send corrected values "
            "with a higher revision"
        ),
    )
    is_new = readings.revision > received["revision"]
    if not is_new.any():
        return None
    # The order of ``ReadingsReceived``: of several revisions of one row the highest comes last.
    columns = {
        "round": readings.round,
        "candidate": readings.candidate,
        "metric": metric,
        "revision": readings.revision,
        "count": readings.count,
        "mean": readings.mean,
        "var": readings.var,
    }
    keys = [columns[name] for name in ("revision", "metric", "candidate", "round")]
    order = np.array([i for i in np.lexsort(keys) if is_new[i]])
    return ReadingsReceived(**{name: tuple(v[order].tolist()) for name, v in columns.items()})


def _is_same(received: dict[str, NDArray[Any]], readings: Readings) -> NDArray[np.bool_]:
    """Where values are equal up to the rounding of a sum, within 1e-9 relative.

    The rounding of a mean is relative to the values that are added, so also to their standard
    deviation. The variance of equal values is 0 or what is left of their mean's rounding.
    """
    mean = np.maximum(np.abs(received["mean"]), np.abs(readings.mean))
    var = np.maximum(received["var"], readings.var)
    with np.errstate(over="ignore", invalid="ignore"):
        tolerance = {
            "count": _SAME * np.maximum(received["count"], readings.count),
            "mean": _SAME * np.maximum(mean, np.sqrt(var)),
            "var": np.maximum(_SAME * var, (_SAME * mean) ** 2),
        }
        is_same = np.ones(len(readings), dtype=bool)
        for name, limit in tolerance.items():
            is_same &= np.abs(received[name] - getattr(readings, name)) <= limit
    return is_same


def _digits(count: float, mean: float, var: float) -> str:
    """Values with all their digits, so that two that differ never print the same."""
    return f"count {float(count)!r}, mean {float(mean)!r}, var {float(var)!r}"


def _received(
    history: History, readings: Readings, metric: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """What the study has received for each row of a message: NaN, and revision -1, where nothing.

    Refuses rows of rounds or arms that were not planned.
    """
    num = len(readings)
    received: dict[str, NDArray[Any]] = {name: np.full(num, np.nan) for name in _VALUES}
    received["revision"] = np.full(num, -1, dtype=np.int64)
    row = np.full(num, -1, dtype=np.int64)
    for round_ in np.unique(readings.round).tolist():
        table = history.tables.get(round_)
        if table is None:
            continue
        here = np.flatnonzero(readings.round == round_)
        row[here] = [table.row.get(c, -1) for c in readings.candidate[here].tolist()]
        planned = here[row[here] >= 0]
        for name, values in received.items():
            values[planned] = getattr(table, name)[row[planned], metric[planned]]
    _refuse(readings, row < 0, lambda i: _not_planned(history, readings, i))
    return received


def _not_planned(history: History, readings: Readings, i: int) -> str:
    """Why no plan has the round and arm of row ``i``."""
    round_, candidate = int(readings.round[i]), readings.candidate[i]
    if round_ not in history.plans:
        last = history.last_round
        planned = "no round was planned yet" if last is None else f"the last is {last}"
        return f"unknown round {round_}: it was never planned, {planned}"
    if candidate >= history.num_candidates:
        return f"unknown candidate {candidate}: the bucket has 0 to {history.num_candidates - 1}"
    if round_ not in history.tables:
        return (
            f"round {round_} was compacted into evidence, its readings are final; compact "
            "rounds later to take readings that are as late"
        )
    arms: Sequence[int] = history.plans[round_].candidates
    shown = f"{list(arms[:12])}{' ...' if len(arms) > 12 else ''}"
    return f"candidate {candidate} was not an arm of round {round_}; its arms were {shown}"


def _refuse(readings: Readings, mask: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
    bad = np.flatnonzero(mask).tolist()
    if bad:
        rows = [f"{readings.where(i)}: {reason(i)}" for i in bad[:MAX_ROWS_NAMED]]
        raise ReadingsError("readings are refused, none was recorded:", rows, len(bad))
