"""An Ax experiment's data as readings of ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ax.core.data import Data
from ax.core.experiment import Experiment
from numpy.typing import NDArray

from ...errors import ReadingsError, TunerWarning
from ...study.history import CONTROL
from ...study.readings import Readings

# Users attributed to the most precise arm of a round if Ax has no numbers of users.
_USERS = 1e6
# Ax's JSON keeps ten decimals of a number. We round to one decimal less, so that its rounding of
# ties does not matter, and to twelve digits, because its reader errs in the last of sixteen.
_DECIMALS = 10
_DIGITS = 12
_COLUMNS = ("round", "candidate", "metric", "count", "mean", "var")
_COARSE = 1e-5  # nine decimals give standard errors from here on at least four digits


def readings_of(
    round_: int,
    trials: Sequence[int],
    data: Data,
    metrics: Sequence[str],
    arms: Mapping[str, int],
) -> Readings | None:
    """The readings of a round of our study; None if there are no data of its trials.

    A metric on which an arm has no data, or only NaN, is unknown for that arm. ``metrics`` are the
    signatures of those that the problem needs, ``arms`` maps names of arms to candidates.

    Raises:
        ReadingsError: a mean that is infinite, has no standard error, or is the status quo's and 0.
    """
    frame = data.df
    frame = frame[frame["trial_index"].isin(trials) & frame["arm_name"].isin(arms.keys())]
    frame = frame[frame["metric_signature"].isin(metrics) & frame["mean"].notna()]
    if not len(frame):
        return None
    records: list[tuple[Any, ...]] = []
    for name in metrics:
        rows = frame[frame["metric_signature"] == name]
        mean, sem = rows["mean"].to_numpy(float), rows["sem"].to_numpy(float)
        if not (np.isfinite(sem) & (sem >= 0)).all():
            raise ReadingsError(
                f"{name!r} has no standard errors >= 0 in trials {list(trials)}; attach data as "
                "(mean, sem): without standard errors noise cannot be distinguished from gain"
            )
        if not np.isfinite(mean).all():
            raise ReadingsError(
                f"{name!r} has infinite means in trials {list(trials)}; attach finite ones, and "
                "none if a metric is unknown"
            )
        mean, sem = _as_stored(mean, sem)
        users = _users(rows["n"].to_numpy(float) if "n" in rows else None, sem)
        ids = np.array([arms[arm] for arm in rows["arm_name"]])
        for candidate in np.unique(ids):
            mine = ids == candidate
            count = users[mine].sum()
            pooled = float((users * mean)[mine].sum() / count)
            if candidate == CONTROL and pooled == 0:
                raise ReadingsError(
                    f"the status quo's mean of {name!r} in trials {list(trials)} is 0, and no "
                    "change relative to 0 exists; supported are metrics whose status quo differs "
                    "from 0"
                )
            # The squared error of the pooled mean, as the variance of a single user.
            squares = ((users * sem)[mine] ** 2).sum() / count**2
            records.append(
                (round_, int(candidate), name, float(count), pooled, float(squares * count))
            )
    return Readings.from_frame(dict(zip(_COLUMNS, map(list, zip(*records)))))


def _as_stored(
    mean: NDArray[np.float64], sem: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Round to what Ax's files preserve, unless a standard error is too small for that.

    A stored and loaded experiment then gives the same plan as the one in memory, bit for bit.
    """
    coarse = [round(s, _DECIMALS) >= _COARSE for s in sem.tolist()]
    values = (zip(column.tolist(), coarse) for column in (mean, sem))
    mean_, sem_ = ([_stored(v) if c else v for v, c in column] for column in values)
    return np.array(mean_, dtype=float), np.array(sem_, dtype=float)


def _stored(value: float) -> float:
    kept = round(value, _DECIMALS)
    size = math.floor(math.log10(abs(kept))) if kept else 0
    return round(kept, min(_DECIMALS - 1, _DIGITS - 1 - size))


def check_signs(experiment: Experiment, readings: Readings) -> None:
    """Ax's relative bounds divide by the status quo's absolute value, our deltas by its value.

    Raises:
        ReadingsError: a relative bound on a metric whose status quo is below 0.
    """
    constraints = experiment.optimization_config.outcome_constraints
    relative = {name for c in constraints if c.relative for name, _ in c.metric_weights}
    control = readings.candidate == CONTROL
    for metric, mean in zip(readings.metric[control].tolist(), readings.mean[control].tolist()):
        if metric in relative and mean < 0:
            raise ReadingsError(
                f"{metric!r} has a relative bound and a status quo of {mean:g}, below 0; "
                "supported are relative bounds on positive metrics, and absolute bounds"
            )


def _users(given: NDArray[Any] | None, sem: NDArray[Any]) -> NDArray[Any]:
    """Users behind each mean; if Ax has none, in proportion to its precision."""
    if given is not None and np.isfinite(given).all() and (given >= 2).all():
        return given
    least = sem[sem > 0].min() if (sem > 0).any() else math.inf
    precision = np.where(sem > 0, np.square(least / np.where(sem > 0, sem, 1.0)), 1.0)
    return np.asarray(np.maximum(2.0, np.round(_USERS * precision)))


def check_control(
    experiment: Experiment,
    data: Data,
    readings: Mapping[int, Readings],
    rounds: Mapping[int, Sequence[int]],
    metrics: Sequence[str],
) -> None:
    """Check that the status quo has data in each round, metric by metric: deltas need them.

    Data that may still arrive do not count as missing: see ``_may_arrive``. ``readings`` has the
    rounds with data, ``rounds`` the indices of every round's trials.

    Raises:
        ReadingsError: no trial has data on a metric, or arms have data and the status quo has none
            in any of their rounds, and none can arrive.
    Warns:
        TunerWarning: some rounds give no deltas of some metric, as the status quo has no data.
    """
    unknown: list[str] = []
    without_control: list[str] = []
    lost: dict[int, list[str]] = {}
    for name in metrics:
        control = {r for r, rows in readings.items() if _has(rows, name, of_control=True)}
        arms = {r for r, rows in readings.items() if _has(rows, name, of_control=False)}
        waiting = {r for r, trials in rounds.items() if _may_arrive(experiment, trials, name)}
        if readings and not waiting and not arms & control and (arms or not control):
            (without_control if arms else unknown).append(name)
        for r in set(readings) - control - waiting:
            lost.setdefault(r, []).append(name)
    if unknown:
        raise ReadingsError(
            f"no trial has data on {unknown}, which the optimization config needs; there are data "
            f"on {sorted(data.df['metric_signature'].unique())}. Attach them, name the metrics as "
            "the optimization config does, or leave trials running until their data are complete"
        )
    base = experiment.status_quo
    indices = sorted({i for r in lost for i in rounds[r]})
    trials = [i for i in indices if {a.name for a in experiment.trials[i].arms} - {base.name}]
    if without_control:
        raise ReadingsError(
            f"arms of trials {trials} have data on {without_control}, and none of the status quo "
            "are in the same round, so there are no deltas. In a batch add it: "
            "trial.add_status_quo_arm(weight). For single-arm trials complete one of the status "
            f"quo: client.attach_trial({dict(base.parameters)}, arm_name={base.name!r})"
        )
    if lost:
        names = sorted({name for missing in lost.values() for name in missing})
        warnings.warn(
            f"trials {trials} give no deltas of {names}: they are over, and the status quo has no "
            "data on these metrics there",
            TunerWarning,
            stacklevel=2,
        )


def _has(readings: Readings, metric: str, *, of_control: bool) -> bool:
    is_control = readings.candidate == CONTROL
    return bool(((readings.metric == metric) & (is_control == of_control)).any())


def _may_arrive(experiment: Experiment, trials: Sequence[int], signature: str) -> bool:
    """Whether the status quo's data on a metric may still arrive for one of these trials.

    True for a trial that is not over, and for metrics whose class says that their data arrive
    after a trial (``period_of_new_data_after_trial_completion``).
    """
    late = any(
        metric.signature == signature and metric.period_of_new_data_after_trial_completion()
        for metric in experiment.metrics.values()
    )
    return any(
        experiment.status_quo.name in {arm.name for arm in trial.arms}
        and (late or not trial.status.is_terminal)
        for trial in (experiment.trials[index] for index in trials)
    )
