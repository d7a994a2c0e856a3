"""Meta-features of a domain, computed from its readings alone.

Names are ``kind:metric``, or ``kind`` for features of traffic. What the readings do not determine
(a trend from one day, a rhythm from half a day) is left out. Magnitudes are natural logarithms, so
a difference of 0.1 is about 10 % in any unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..study.history import History
from . import checks


class Kind(NamedTuple):
    """The meaning of a kind of feature, its ``unit``, and its usual ``spread``.

    ``spread`` is a typical difference of two ordinary domains, used until many domains are known;
    see ``similarity``.
    """

    meaning: str
    unit: str
    spread: float


KINDS: Mapping[str, Kind] = {
    "level": Kind("engagement: the control's mean per user and round", "log of its unit", 1.0),
    "trend": Kind("trajectory: change of the control's level", "fraction per day", 0.03),
    "users": Kind("traffic: users per round, over all arms", "log of users", 1.5),
    "growth": Kind("trajectory: change of the users per round", "fraction per day", 0.03),
    "peak_to_trough": Kind("daily rhythm: most over fewest users by hour", "log of a ratio", 0.5),
    "rhythm_sin": Kind("daily rhythm: first harmonic of users, sine", "fraction of mean", 0.5),
    "rhythm_cos": Kind("daily rhythm: first harmonic of users, cosine", "fraction of mean", 0.5),
    "level_rhythm": Kind("daily rhythm: amplitude of the level", "fraction of mean", 0.1),
    "thin": Kind("sparsity: arm-rounds known to worse than 10 %", "share of them", 0.3),
    "noise": Kind("noise of one user: variance over squared level", "log of a ratio", 1.0),
    "dispersion": Kind("noise beyond independent users, as a factor", "log of a ratio", 0.5),
}

#: An arm in a round is thin if the relative standard error of its mean is above this.
THIN = 0.1


class _Rows(NamedTuple):
    """Arms of all rounds that count: the first two ``(rows,)``, the others ``(rows, metrics)``."""

    round: NDArray[np.int64]
    control: NDArray[np.bool_]
    users: NDArray[np.float64]
    mean: NDArray[np.float64]
    var: NDArray[np.float64]


def of(
    history: History,
    rounds_per_day: int,
    dispersion: Tensor | None = None,
    extra: Mapping[str, float | Callable[[History], float]] | None = None,
    rounds: Collection[int] | None = None,
) -> dict[str, float]:
    """A domain's meta-features from its readings; see ``KINDS`` for meanings and units.

    Rhythms are comparable between domains whose round 0 is at the same hour of the day.

    Args:
        history: of the study; excluded rounds and compacted readings do not count.
        rounds_per_day: period of the daily rhythm; 1 if there is none.
        dispersion: ``(metrics,)`` of the study's bucket, at least 1; None if it is not known.
        extra: features of your own, finite numbers or functions of the history; they override.
        rounds: rounds whose readings are used; all by default.
    Returns:
        Floats by name, sorted; empty before the first readings.
    Raises:
        ConfigError: a feature of your own is not a finite number or cannot be computed; not a
            history; or less than one round per day.
    """
    flaws = checks.Flaws("these settings of meta-features")
    if not isinstance(history, History):
        got = type(history).__name__
        flaws.add(f"expected a study's history, such as tuner.history, got {got}")
    checks.whole(flaws, "rounds_per_day (24 if rounds are hours)", rounds_per_day, 1)
    flaws.throw()
    added = _extra(history, {} if extra is None else extra)
    rows = _rows(history, rounds)
    computed: dict[str, float] = {}
    if len(rows.round):
        computed |= _traffic(rows, rounds_per_day)
        for i, metric in enumerate(history.metrics):
            own = _metric(rows, i, rounds_per_day)
            if dispersion is not None:
                own["dispersion"] = math.log(float(dispersion[i]))
            computed |= {f"{kind}:{metric}": value for kind, value in own.items()}
    computed = {name: value for name, value in computed.items() if math.isfinite(value)}
    return dict(sorted((computed | added).items()))


def _extra(history: History, extra: Any) -> dict[str, float]:
    """A user's own features; functions are called."""
    added = extra
    if isinstance(extra, Mapping):
        added = {n: _called(n, v, history) if callable(v) else v for n, v in extra.items()}
    flaws = checks.Flaws("extra meta-features")
    values = checks.floats(flaws, "extra", added)
    flaws.throw()
    return values


def _called(name: str, function: Callable[[History], Any], history: History) -> Any:
    try:
        return function(history)
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(
            f"the meta-feature {name!r} could not be computed: {type(error).__name__}: {error}; "
            "fix its function, or leave it out of extra"
        ) from error


def spread_of(name: str) -> float | None:
    """The usual spread of a built-in feature; None for a user's own."""
    kind = KINDS.get(name.partition(":")[0])
    return None if kind is None else kind.spread


def renamed(features: Mapping[str, float], metrics: Mapping[str, str]) -> dict[str, float]:
    """Features by the target's names of the metrics; ``metrics`` maps the source's to them."""
    result: dict[str, float] = {}
    for name, value in features.items():
        kind, mark, metric = name.partition(":")
        result[f"{kind}:{metrics.get(metric, metric)}" if mark and kind in KINDS else name] = value
    return result


def harmonic(values: NDArray[np.float64], period: int) -> tuple[float, float]:
    """Sine and cosine part of the first harmonic, over the mean; ``values (period,)``.

    Source: the discrete Fourier transform at frequency one.
    """
    angle = 2 * np.pi * np.arange(period) / period
    mean = values.mean()
    return (
        float(2 * (values * np.sin(angle)).mean() / mean),
        float(2 * (values * np.cos(angle)).mean() / mean),
    )


def daily_slope(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    rounds: NDArray[np.int64],
    rounds_per_day: int,
) -> float:
    """Relative change per day of a positive series, adjusted for the hour of the day.

    The slope of log(values) on time with an intercept for each hour of the day, by weighted least
    squares, shrunk towards 0 by its standard error, so that a slope within its noise is 0. NaN if
    it is not determined.

    Args:
        values: ``(rounds,)``, positive.
        weight: ``(rounds,)``, inverse variances up to a factor, positive.
        rounds: ``(rounds,)`` their numbers.
    Source: the Frisch-Waugh theorem; the positive-part shrinkage of Efron and Morris (1973).
    """
    phase = rounds % rounds_per_day

    def centred(column: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(phase, weight, rounds_per_day)
        mean = np.bincount(phase, weight * column, rounds_per_day) / np.where(total > 0, total, 1)
        return column - mean[phase]

    days = centred(rounds / rounds_per_day)
    level = centred(np.log(values))
    information = float((weight * days**2).sum())
    freedom = len(values) - len(np.unique(phase)) - 1
    if freedom < 1 or information <= 1e-12 * float(weight.sum()):
        return math.nan
    slope = float((weight * days * level).sum()) / information
    error = float((weight * (level - slope * days) ** 2).sum()) / freedom / information
    return slope * max(0.0, 1 - error / slope**2) if slope else 0.0


def _rows(history: History, rounds: Collection[int] | None) -> _Rows:
    chosen = sorted(history.tables if rounds is None else rounds)
    kept = [(r, history.tables[r]) for r in chosen if r not in history.status.excluded_rounds]
    width = len(history.metrics)

    def stack(name: str) -> NDArray[np.float64]:
        parts = [np.asarray(t.counted(name)) for _, t in kept]
        return np.concatenate(parts) if parts else np.empty((0, width))

    sizes = [len(t.candidates) for _, t in kept]
    candidates = [t.candidates for _, t in kept]
    first = np.concatenate(candidates) == 0 if candidates else np.empty(0, dtype=bool)
    rounds_of_rows = np.repeat(np.array([r for r, _ in kept], dtype=np.int64), sizes)
    rows = _Rows(rounds_of_rows, first, stack("count"), stack("mean"), stack("var"))
    reported = (rows.users > 0).any(axis=1)
    round_, control, users, mean, var = rows
    return _Rows(
        round_[reported], control[reported], users[reported], mean[reported], var[reported]
    )


def _by_hour(
    values: NDArray[np.float64], weight: NDArray[np.float64], hour: NDArray[np.int64], period: int
) -> NDArray[np.float64] | None:
    """Weighted mean by hour of the day; None unless every hour occurs."""
    total = np.bincount(hour, weight, period)
    if not (total > 0).all():
        return None
    return np.bincount(hour, weight * values, period) / total


def _traffic(rows: _Rows, period: int) -> dict[str, float]:
    rounds, slot = np.unique(rows.round, return_inverse=True)
    # Metrics may count different users; the largest count is the traffic.
    widest = np.where(rows.users > 0, rows.users, 0.0).max(axis=1)
    users = np.bincount(slot, widest).astype(np.float64)
    values = {"users": math.log(users.mean())}
    values["growth"] = daily_slope(users, np.ones_like(users), rounds, period)
    hours = _by_hour(users, np.ones_like(users), rounds % period, period)
    if period > 1 and hours is not None:
        values["peak_to_trough"] = math.log(hours.max() / hours.min())
        values["rhythm_sin"], values["rhythm_cos"] = harmonic(hours, period)
    return values


def _metric(rows: _Rows, i: int, period: int) -> dict[str, float]:
    count, mean, var = rows.users[:, i], rows.mean[:, i], rows.var[:, i]
    valid = (count > 1) & np.isfinite(mean) & np.isfinite(var)
    control = valid & rows.control
    values: dict[str, float] = {}
    if not control.any():
        return values
    users, level, hour = count[control], mean[control], rows.round[control] % period
    hours = _by_hour(level, users, hour, period)
    average = float((users * level).sum() / users.sum()) if hours is None else float(hours.mean())
    if not average > 0:  # relative features need a positive level
        return values
    values["level"] = math.log(average)
    if period > 1 and hours is not None:
        values["level_rhythm"] = math.hypot(*harmonic(hours, period))
    if (level > 0).all():
        values["trend"] = daily_slope(level, users, rows.round[control], period)
    freedom = (count - 1)[valid]
    spread = float((freedom * var[valid]).sum() / freedom.sum())
    if spread > 0:
        values["noise"] = math.log(spread / average**2)
    values["thin"] = float((np.sqrt(var / count)[valid] > THIN * average).mean())
    return values
