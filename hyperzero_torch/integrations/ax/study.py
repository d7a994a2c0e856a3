"""An Ax experiment as a study of ours: trials become rounds, arms candidates, data readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from ax.core.arm import Arm
from ax.core.batch_trial import BatchTrial
from ax.core.data import Data
from ax.core.experiment import Experiment

from ...errors import SpaceError
from ...study.config import TunerConfig
from ...study.history import CONTROL, History
from ...study.journal import Configured, Entry, MemoryJournal, Planned, StudyHeader
from ...tuner.candidates import add_candidates, initial_design
from ...tuner.tuner import Tuner
from ..axes import Axis
from .problem import axes_of, problem_of
from .readings import check_control, check_signs, readings_of

if TYPE_CHECKING:
    from ax.core.base_trial import BaseTrial

_SINGLE_ARM_ROUND = 0  # shared by all single-arm trials; batches follow


class AxStudy(NamedTuple):
    """An experiment as a study of ours: ``tuner`` has its history, ``rounds`` its trials.

    ``rounds`` maps a round to the indices of its trials; ``num_arms`` counts arms over all trials.
    """

    tuner: Tuner
    axes: tuple[Axis, ...]
    constants: dict[str, Any]
    rounds: dict[int, list[int]]
    num_arms: int

    @property
    def num_reported(self) -> int:
        """Number of candidates with data on any metric, whether or not the status quo has any."""
        reported: set[int] = set()
        for table in self.tuner.history.tables.values():
            reported |= set(table.candidates[(table.revision >= 0).any(axis=1)].tolist())
        return len(reported - {CONTROL})

    def parameters(self, theta: Sequence[float]) -> dict[str, Any]:
        """A row of theta as Ax's parameters."""
        return {axis.name: axis.value(t) for axis, t in zip(self.axes, theta)} | self.constants

    def theta(self, parameters: Mapping[str, Any]) -> list[float]:
        """Ax's parameters as a row of theta; an invalid value is a ``SpaceError``."""
        return [axis.theta(parameters.get(axis.name)) for axis in self.axes]

    def num_unknown(self, parameters: Sequence[Mapping[str, Any]]) -> int:
        """How many of these have not been in a trial yet."""
        candidates = [self.tuner.history.find(self.theta(p)) for p in parameters]
        return sum(c is None or not self.tuner.history.times_served[c] for c in candidates)


def fold(experiment: Experiment, data: Data, config: TunerConfig, seed: int = 0) -> AxStudy:
    """An Ax experiment as a study of ours.

    Each batch is a round, in which arms are compared with the status quo of the same batch. All
    single-arm trials form one round: each is compared with the pooled trials of the status quo,
    whenever these ran.

    Args:
        experiment: with a status quo, and a single objective.
        data: its data. Missing data count as unknown while they may still arrive.
        config: how to tune.
        seed: of all randomness.
    Raises:
        ProblemError: no status quo, several objectives, unsupported constraints or parameters; the
            message names what is supported.
        ReadingsError: trials are over, and their data lack a metric that the problem needs,
            standard errors, or the status quo.
    Warns:
        TunerWarning: some rounds give no deltas, as the status quo has no data.
    """
    axes, constants = axes_of(experiment.search_space)
    problem = problem_of(experiment, axes)
    births = initial_design(problem, config, seed)
    candidates = {birth.theta: birth.candidate for birth in births}
    num_arms = 0
    arms: dict[str, int] = {experiment.status_quo.name: CONTROL}
    rounds: dict[int, list[int]] = {}
    plans: dict[int, dict[int, float]] = {}
    for index, trial in sorted(experiment.trials.items()):
        num_arms += len(trial.arms)
        if trial.status.is_failed or trial.status.is_abandoned:
            continue
        round_ = 1 + index if isinstance(trial, BatchTrial) else _SINGLE_ARM_ROUND
        for arm, weight in _weights(trial).items():
            if arm.name not in arms:
                try:
                    row = [axis.theta(arm.parameters.get(axis.name)) for axis in axes]
                    problem.space.check(torch.tensor(row, dtype=torch.float64))
                except (SpaceError, TypeError):  # outside the space: it is no candidate
                    continue
                arms[arm.name] = candidates.setdefault(tuple(row), len(candidates))
            plan = plans.setdefault(round_, {})
            plan[arms[arm.name]] = plan.get(arms[arm.name], 0.0) + weight
        rounds.setdefault(round_, []).append(index)
    entries: list[Entry] = [Configured(config.model_dump(mode="json"))]
    rows = [row for row, candidate in candidates.items() if candidate >= len(births)]
    theta = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(axes))
    history = History(len(axes), problem.metrics)
    history.extend(births)
    entries += [*births, *add_candidates(problem, theta, history, 0, "ax")]
    entries += [_planned(round_, plan) for round_, plan in sorted(plans.items())]
    journal = MemoryJournal()
    journal.create(StudyHeader(experiment.name, seed, problem.spec()), entries)
    tuner = Tuner(problem, journal=journal, study=experiment.name)
    readings = {
        round_: reported
        for round_, trials in sorted(rounds.items())
        if (reported := readings_of(round_, trials, data, problem.metrics, arms)) is not None
    }
    check_control(experiment, data, readings, rounds, problem.metrics)
    for reported in readings.values():
        check_signs(experiment, reported)
        tuner.tell(reported)
    return AxStudy(tuner, tuple(axes), constants, rounds, num_arms)


def _weights(trial: BaseTrial) -> Mapping[Arm, float]:
    """A trial's arms, each with its share of the trial's traffic."""
    if isinstance(trial, BatchTrial):
        return {arm: float(weight) for arm, weight in trial.normalized_arm_weights().items()}
    return dict.fromkeys(trial.arms, 1.0)


def _planned(round_: int, weights: Mapping[int, float]) -> Planned:
    """A trial as a plan of ours; every plan has the control, with share 0 if it was not served."""
    total = sum(weights.values())
    candidates = sorted({CONTROL, *weights})
    shares = tuple(weights.get(c, 0.0) / total for c in candidates)
    slots = tuple(0 if c == CONTROL else 1 for c in candidates)
    return Planned(round_, tuple(candidates), slots, shares)
