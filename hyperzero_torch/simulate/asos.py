"""Recorded control streams: the ASOS A/B tests, from cumulative records to interval moments.

Per experiment, variant and metric the file holds cumulative users, their mean and their sample
variance up to a time. The moments of the interval between two times are the difference,

    interval[t] = subtract(cumulative[t], cumulative[t - 1])        (cumulative[-1] is empty)

which is not a clean sample: returning users add value to old counts, so some intervals have no new
user or a negative variance, and a null record makes two intervals unusable. Each such cell has a
status with the reason, and none is repaired.

Source: C. H. B. Liu, A. Cardoso, P. Couturier, E. J. McCoy, "Datasets for Online Controlled
    Experiments", NeurIPS 2021 Datasets and Benchmarks, DOI 10.17605/OSF.IO/64JSB, CC BY 4.0;
    a fixed half of the experiments, recompressed.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..stats import delta
from ..stats import moments as mo

LICENCE = (
    "ASOS Digital Experiments Dataset, CC BY 4.0: C. H. B. Liu, A. Cardoso, P. Couturier, "
    'E. J. McCoy, "Datasets for Online Controlled Experiments", NeurIPS 2021, '
    "DOI 10.17605/OSF.IO/64JSB (a fixed half of the experiments, recompressed)"
)
# 234 of its 246 steps are 12 h and 10 are a day, it has all four metrics, and it tests the handling
# of 13 intervals without users and 4 to 36 negative variances per metric.
DEFAULT_EXPERIMENT = "2c8a04"
# With fewer intervals a pooled delta is too uncertain to centre residuals on.
MIN_INTERVALS = 10
# Standard deviation of a normal variable over its median absolute deviation.
MAD_TO_STD = 1.4826022185056018

_CONTROL, _TREATMENT = ("count_c", "mean_c", "variance_c"), ("count_t", "mean_t", "variance_t")
_VALUES = ("time_since_start", *_CONTROL, *_TREATMENT)
_KEYS = ("experiment_id", "variant_id", "metric_id")
_BUNDLED = "asos_ab_tests.csv.gz"

# (variant, metric) of one experiment to its rows, each in the order of ``_VALUES``.
_Rows: TypeAlias = dict[tuple[str, str], list[list[float]]]


class Status(StrEnum):
    """Whether a cell of an interval can be used, or the reason why not."""

    USABLE = "usable"
    NO_USERS = "no new users"
    FEWER_USERS = "fewer users than before"
    ONE_USER = "a single new user"
    VAR_NULL = "variance null"
    VAR_NEGATIVE = "variance negative"
    VAR_ZERO = "variance zero"
    MEAN_NULL = "mean null"
    MEAN_NOT_POSITIVE = "mean not positive"


class Streams(NamedTuple):
    """One experiment as recorded: cumulative moments.

    ``days (times,)`` since the start, ascending; ``moments`` has fields
    ``(times, groups, metrics)`` in the metrics' units. Group 0 is the control, group ``i`` the
    treatment ``variants[i - 1]``. A null in the file is a NaN here.
    """

    experiment: str
    variants: tuple[str, ...]
    metrics: tuple[str, ...]
    days: Tensor
    moments: mo.Moments


class Intervals(NamedTuple):
    """Moments between the times of a stream.

    ``days (intervals,)`` is each interval's length; ``moments`` has fields
    ``(intervals, groups, metrics)`` and may hold NaN and negative ``m2``: ``status``, of the same
    shape, says which cells are usable. The first interval spans all that the first record covers,
    often several days.
    """

    days: Tensor
    moments: mo.Moments
    status: NDArray[np.object_]

    @property
    def usable(self) -> Tensor:
        """``(intervals, groups, metrics)``, true where the status is ``Status.USABLE``."""
        return torch.from_numpy((self.status == Status.USABLE).astype(bool))


class Experiment(NamedTuple):
    """A row of the list. ``steps`` maps a length in days to the number of such intervals."""

    id: str
    num_intervals: int
    num_variants: int
    steps: dict[float, int]
    metrics: tuple[str, ...]


def load(experiment: str | None = None, path: str | Path | None = None) -> Streams:
    """The cumulative streams of one experiment.

    Args:
        experiment: an id of ``experiments()``; by default ``DEFAULT_EXPERIMENT``.
        path: another file of the same columns, CSV or gzipped CSV; by default the bundled one.
    Raises:
        InputError: no such experiment (the message names those in the file), or another kind of
            file.
    """
    streams = _read(_key(path))
    name = DEFAULT_EXPERIMENT if experiment is None else experiment
    if name not in streams:
        raise InputError(
            f"no experiment {name!r} in {path or _BUNDLED}; it has {', '.join(sorted(streams))}"
        )
    return streams[name]


def experiments(path: str | Path | None = None) -> list[Experiment]:
    """Every experiment of a file, by id, with the metrics that the control ever has usable.

    Raises:
        InputError: another kind of file.
    """
    rows = []
    for name, streams in sorted(_read(_key(path)).items()):
        parts = intervals(streams)
        usable = parts.usable[:, 0].any(0).tolist()
        metrics = tuple(metric for metric, ok in zip(streams.metrics, usable) if ok)
        rows.append(Experiment(name, len(parts.days), len(streams.variants), steps(parts), metrics))
    return rows


def steps(parts: Intervals) -> dict[float, int]:
    """How many intervals have each length in days, the most frequent length first."""
    # Rounded because the file writes 1.5000000000000002 for a day and a half.
    return dict(Counter(round(day, 6) for day in parts.days.tolist()).most_common())


def intervals(streams: Streams) -> Intervals:
    """Subtract each record from the next: as many intervals as there are records."""
    before = mo.Moments(*(torch.cat([torch.zeros_like(f[:1]), f[:-1]]) for f in streams.moments))
    between = mo.subtract(streams.moments, before)
    days = torch.diff(streams.days, prepend=streams.days.new_zeros(1))
    return Intervals(days, between, _status(between))


def tally(status: NDArray[np.object_]) -> dict[Status, int]:
    """Count each status in any part of ``Intervals.status``; absent ones are left out.

    ``tally(parts.status[:, 0, 1])`` counts the control's for the second metric.
    """
    counts = Counter(status.reshape(-1).tolist())
    return {reason: counts[reason] for reason in Status if counts[reason]}


def residuals(path: str | Path | None = None) -> Mapping[str, NDArray[np.float64]]:
    """Excess noise of real interval deltas, in units of the formula's standard deviation.

        r = (delta[t] - pooled) / sqrt(var[t])        pooled = sum(delta / var) / sum(1 / var)

    for every treatment stream of every experiment with at least ``MIN_INTERVALS`` usable intervals
    (usable in both groups), pooled per metric and centred by the median. For i.i.d. users they
    would be standard normal; here their robust standard deviation is 1.2 to 1.7 and some reach 50,
    because users return and effects drift. All are finite, and none is capped.

    Returns:
        From metric to its residuals, one sorted vector each, not writable.
    Raises:
        InputError: another kind of file.
    """
    return _residuals(_key(path))


def robust_std(values: NDArray[np.float64]) -> float:
    """The scaled median absolute deviation, which heavy tails hardly affect."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


def _status(between: mo.Moments) -> NDArray[np.object_]:
    """The first reason that applies, causes before their consequences."""
    count, mean, var = (f.numpy() for f in (between.count, between.mean, between.var))
    reasons = {
        Status.NO_USERS: count == 0,
        Status.FEWER_USERS: count < 0,
        Status.ONE_USER: count == 1,
        Status.MEAN_NULL: ~np.isfinite(mean) | ~np.isfinite(count),
        Status.VAR_NULL: ~np.isfinite(var),
        Status.VAR_NEGATIVE: var < 0,
        Status.VAR_ZERO: var == 0,
        Status.MEAN_NOT_POSITIVE: mean <= 0,
    }
    status = np.full(count.shape, Status.USABLE, dtype=object)
    for reason, holds in reversed(reasons.items()):
        status[holds] = reason
    return status


@lru_cache(maxsize=4)
def _residuals(key: str) -> Mapping[str, NDArray[np.float64]]:
    pooled: dict[str, list[Tensor]] = defaultdict(list)
    for streams in _read(key).values():
        parts = intervals(streams)
        control = mo.Moments(*(f[:, :1] for f in parts.moments))
        treatment = mo.Moments(*(f[:, 1:] for f in parts.moments))
        lift, var = delta.ratio(treatment, control)
        usable = parts.usable[:, :1] & parts.usable[:, 1:] & (var > 0)  # a NaN is not above 0
        weight = torch.where(usable, 1 / var, 0.0)
        mean = (weight * lift.nan_to_num()).sum(0) / weight.sum(0)
        standard = (lift - mean) / var.sqrt()
        for m, metric in enumerate(streams.metrics):
            for v in range(len(streams.variants)):
                chosen = usable[:, v, m]
                if int(chosen.sum()) >= MIN_INTERVALS:
                    pooled[metric].append(standard[chosen, v, m])
    result = {}
    for metric, streams_of_it in sorted(pooled.items()):
        values: NDArray[np.float64] = np.sort(torch.cat(streams_of_it).numpy())
        values = values - np.median(values)
        values.setflags(write=False)  # shared by all callers through the cache
        result[metric] = values
    return result


def _key(path: str | Path | None) -> str:
    return "" if path is None else str(Path(path).resolve())


@lru_cache(maxsize=4)
def _read(key: str) -> dict[str, Streams]:
    """All experiments of a file (the bundled one for ""); cached, so callers must not write."""
    where = Path(key) if key else resources.files(__package__) / "data" / _BUNDLED
    try:
        raw = where.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
        rows_by_name: dict[str, _Rows] = defaultdict(lambda: defaultdict(list))
        for row in csv.DictReader(text.splitlines()):
            name, variant, metric = (row[column] for column in _KEYS)
            values = [float(row[column] or "nan") for column in _VALUES]  # a null is an empty cell
            rows_by_name[name][variant, f"metric_{metric}"].append(values)
    except (OSError, EOFError, zlib.error, KeyError, ValueError, csv.Error) as error:
        raise InputError(
            f"{key or _BUNDLED} is not a file of cumulative A/B tests ({error}); "
            f"expected CSV, gzipped or not, with the columns {', '.join(_KEYS + _VALUES)}"
        ) from None
    return {name: _assemble(name, rows) for name, rows in rows_by_name.items()}


def _assemble(name: str, rows: _Rows) -> Streams:
    """Put the rows of one experiment into tensors; refuse inconsistent ones."""
    variants = tuple(sorted({variant for variant, _ in rows}))
    metrics = tuple(sorted({metric for _, metric in rows}))
    sizes = {len(table) for table in rows.values()}
    if len(rows) < len(variants) * len(metrics) or len(sizes) > 1:
        raise InputError(f"experiment {name}: variants and metrics are not recorded equally often")
    # (variants, metrics, times, values), the times ascending
    tables = [[sorted(rows[v, m]) for m in metrics] for v in variants]
    table = torch.tensor(tables, dtype=torch.float64)
    days, control, treatment = table[..., 0], table[..., 1:4], table[..., 4:7]
    first = control[:1].expand_as(control)
    same = (control == first) | (control.isnan() & first.isnan())
    if not bool((days == days[0, 0]).all() & same.all()):
        raise InputError(f"experiment {name}: its variants do not share their times and control")
    if not bool((torch.diff(days[0, 0], prepend=days.new_zeros(1)) > 0).all()):
        raise InputError(f"experiment {name}: its times are not positive and all different")
    groups = torch.cat([control[:1], treatment]).permute(3, 2, 0, 1)  # values, times, groups, ...
    return Streams(name, variants, metrics, days[0, 0].clone(), mo.from_sample(*groups.unbind(0)))
