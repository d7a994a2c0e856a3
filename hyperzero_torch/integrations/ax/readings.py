"""What an Ax experiment's data say of each round, as readings of ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtraError, ReadingsError, TunerWarning
from ...study.history import CONTROL
from ...study.readings import Readings

try:
    from ax.core.base_trial import BaseTrial
    from ax.core.data import Data
    from ax.core.experiment import Experiment
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ax", "ax-platform", "ax") from error

# Users that the best known arm of a round stands for, where Ax is told no numbers of users.
_USERS = 1e6
# Ax's JSON keeps ten decimals of a number. One less hides how it breaks ties, and twelve digits
# hide that its reader errs in the last of sixteen.
_DECIMALS = 10
_DIGITS = 12
_COARSE = 1e-5  # standard errors that nine decimals tell to four digits


def readings_of(
    round_: int,
    trials: Sequence[int],
    data: Data,
    metrics: Sequence[str],
    arms: Mapping[str, int],
) -> Readings | None:
    """What has been observed in a round; None where nothing has.

    A metric that an arm has no data on, or only NaN, is unknown of that arm.

    Args:
        round_: of ours.
        trials: indices of the trials it is made of.
        data: of the experiment.
        metrics: signatures of those that the problem needs.
        arms: candidates by names of arms.
    Raises:
        ReadingsError: a mean without a standard error.
    """
    frame = data.df
    frame = frame[frame["trial_index"].isin(trials) & frame["arm_name"].isin(arms.keys())]
    frame = frame[frame["metric_signature"].isin(metrics) & frame["mean"].notna()]
    if not len(frame):
        return None
    columns: dict[str, list[Any]] = {
        name: [] for name in ("round", "candidate", "metric", "count", "mean", "var")
    }
    for name in metrics:
        rows = frame[frame["metric_signature"] == name]
        mean, sem = rows["mean"].to_numpy(float), rows["sem"].to_numpy(float)
        if not (np.isfinite(sem) & (sem >= 0)).all():
            raise ReadingsError(
                f"{name!r} has no standard errors >= 0 in trials {list(trials)}; attach data as "
                "(mean, sem): without standard errors nobody can tell luck from gain"
            )
        if not np.isfinite(mean).all():
            raise ReadingsError(
                f"{name!r} has infinite means in trials {list(trials)}; attach finite ones, and "
                "none where a metric is not known"
            )
        mean, sem = _as_stored(mean, sem)
        users = _users(rows["n"].to_numpy(float) if "n" in rows else None, sem)
        ids = np.array([arms[arm] for arm in rows["arm_name"]])
        for candidate in np.unique(ids):
            mine = ids == candidate
            count = users[mine].sum()
            columns["round"].append(round_)
            columns["candidate"].append(int(candidate))
            columns["metric"].append(name)
            columns["count"].append(float(count))
            columns["mean"].append(float((users * mean)[mine].sum() / count))
            # The squared error of the pooled mean, as the variance of a single user.
            squares = ((users * sem)[mine] ** 2).sum() / count**2
            columns["var"].append(float(squares * count))
    _check_control(trials, columns)
    return Readings.from_frame(columns)


def _as_stored(
    mean: NDArray[np.float64], sem: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a file of Ax's would bring back too, where the error hides the difference.

    So an experiment that was stored and loaded is planned for as the one in memory, bit for bit.
    """
    coarse = [round(s, _DECIMALS) >= _COARSE for s in sem.tolist()]
    values = (zip(column.tolist(), coarse) for column in (mean, sem))
    mean_, sem_ = ([_stored(v) if c else v for v, c in column] for column in values)
    return np.array(mean_, dtype=float), np.array(sem_, dtype=float)


def _stored(value: float) -> float:
    kept = round(value, _DECIMALS)
    size = math.floor(math.log10(abs(kept))) if kept else 0
    return round(kept, min(_DECIMALS - 1, _DIGITS - 1 - size))


def _check_control(trials: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> None:
    for candidate, metric, mean in zip(columns["candidate"], columns["metric"], columns["mean"]):
        if candidate == CONTROL and mean == 0:
            raise ReadingsError(
                f"the status quo's mean of {metric!r} in trials {list(trials)} is 0, and no change "
                "relative to 0 exists; supported are metrics whose status quo differs from 0"
            )


def check_signs(experiment: Experiment, readings: Readings) -> None:
    """Ax's relative bounds are on changes by the status quo's size, our deltas are on ratios.

    Raises:
        ReadingsError: a relative bound on a metric whose status quo is below 0.
    """
    constraints = experiment.optimization_config.outcome_constraints
    relative = {name for c in constraints if c.relative for name, _ in c.metric_weights}
    columns = (readings.candidate.tolist(), readings.metric.tolist(), readings.mean.tolist())
    for candidate, metric, mean in zip(*columns):
        if candidate == CONTROL and metric in relative and mean < 0:
            raise ReadingsError(
                f"{metric!r} has a relative bound and a status quo of {mean:g}, below 0; "
                "supported are relative bounds on positive metrics, and absolute bounds"
            )


def _users(given: NDArray[Any] | None, sem: NDArray[Any]) -> NDArray[Any]:
    """Users behind each mean; where Ax is told none, as many as its precision is worth."""
    if given is not None and np.isfinite(given).all() and (given >= 2).all():
        return given
    least = sem[sem > 0].min() if (sem > 0).any() else math.inf
    worth = np.where(sem > 0, np.square(least / np.where(sem > 0, sem, 1.0)), 1.0)
    return np.asarray(np.maximum(2.0, np.round(_USERS * worth)))


def check_control(
    experiment: Experiment,
    data: Data,
    readings: Mapping[int, Readings],
    rounds: Mapping[int, Sequence[int]],
    metrics: Sequence[str],
) -> None:
    """Deltas need the status quo's data of the same round, metric by metric.

    What may yet arrive is waited for: see ``_may_come``.

    Args:
        experiment: with a status quo.
        data: its data.
        readings: by round, of those with any.
        rounds: indices of every round's trials.
        metrics: signatures of those that the problem needs.
    Raises:
        ReadingsError: nobody has data on a metric, or arms have and the status quo has none in any
            of their rounds, and none is to come.
    Warns:
        TunerWarning: some rounds say nothing of some metric for want of the status quo's data.
    """
    unknown: list[str] = []
    blind: list[str] = []
    lost: dict[int, list[str]] = {}
    for name in metrics:
        control = {r for r, told in readings.items() if _has(told, name, of_control=True)}
        arms = {r for r, told in readings.items() if _has(told, name, of_control=False)}
        to_come = {r for r, trials in rounds.items() if _may_come(experiment, trials, name)}
        if readings and not to_come and not arms & control and (arms or not control):
            (blind if arms else unknown).append(name)
        for r in set(readings) - control - to_come:
            lost.setdefault(r, []).append(name)
    if unknown:
        raise ReadingsError(
            f"no trial has data on {unknown}, which the optimization config needs; there are data "
            f"on {sorted(data.df['metric_signature'].unique())}. Attach them, name the metrics as "
            "the optimization config does, or leave trials running until their data are complete"
        )
    base = experiment.status_quo
    told = {i for r in lost for i in rounds[r]}
    trials = [i for i in sorted(told) if {a.name for a in experiment.trials[i].arms} - {base.name}]
    if blind:
        raise ReadingsError(
            f"arms of trials {trials} have data on {blind} and there are none of the status quo "
            "beside them, so there are no deltas. In a batch serve it: "
            "trial.add_status_quo_arm(weight). For trials of a single arm complete one of it with "
            f"data: client.attach_trial({dict(base.parameters)}, arm_name={base.name!r})"
        )
    if lost:
        names = sorted({name for found in lost.values() for name in found})
        warnings.warn(
            f"trials {trials} are left out as to {names}: they are over, the status quo has no "
            "data on it there, and without these there are no deltas",
            TunerWarning,
            stacklevel=2,
        )


def _has(readings: Readings, metric: str, *, of_control: bool) -> bool:
    is_control = readings.candidate == CONTROL
    return bool(((readings.metric == metric) & (is_control == of_control)).any())


def _may_come(experiment: Experiment, trials: Sequence[int], signature: str) -> bool:
    """Whether the status quo's data on a metric may yet arrive for one of these trials.

    So it is for a trial that is not over, and for metrics whose class says that their data arrive
    after a trial (``period_of_new_data_after_trial_completion``).
    """
    late = any(
        metric.signature == signature and metric.period_of_new_data_after_trial_completion()
        for metric in experiment.metrics.values()
    )
    for index in trials:
        trial: BaseTrial = experiment.trials[index]
        served = experiment.status_quo.name in {arm.name for arm in trial.arms}
        if served and (late or not trial.status.is_terminal):
            return True
    return False
