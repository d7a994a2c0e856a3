"""A node for Ax's generation strategies: ``GenerationStrategy(nodes=[HyperZeroNode()])``.

Each time it is asked, the node folds the experiment into a study of ours: the status quo is the
control, arms are candidates, a batch trial is a round, and means with their standard errors are
readings, from which come deltas, evidence and the next plan. What it says is a function of the
experiment and the seed, so whatever stores an Ax experiment stores this study.

Trials of a single arm, as Ax's ``Client`` makes them, are compared as if they were one round: with
the pooled trials of the status quo (``client.attach_baseline``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..births import born, first_bucket
from ..config import TunerConfig
from ..errors import MissingExtraError, ProblemError, ReadingsError, RoundError, SpaceError
from ..history import CONTROL, History
from ..journal import Configured, Entry, MemoryJournal, Planned, StudyHeader
from ..randomness import random
from ..readings import Readings
from ..thompson import propose
from ..tuner import Tuner
from .search import Axis

try:
    from ax.core.arm import Arm
    from ax.core.batch_trial import BatchTrial
    from ax.core.data import Data
    from ax.core.experiment import Experiment
    from ax.core.generator_run import GeneratorRun
    from ax.generation_strategy.external_generation_node import ExternalGenerationNode

    from .ax_problem import axes_of, problem_of
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ax", "ax-platform", "ax") from error

if TYPE_CHECKING:
    from ax.core.base_trial import BaseTrial

_SINGLES = 0  # the round that trials of a single arm share; batches follow
# Users that the best known arm of a round stands for, where Ax is told no numbers of users.
_USERS = 1e6
#: Few rounds, each long: levels are averaged over all, and verification is reached after four.
AX_CONFIG = TunerConfig(rounds_per_day=4, initial_candidates=32)


class HyperZeroNode(ExternalGenerationNode):  # type: ignore[misc]  # untyped
    """Plans Ax's trials: arms with weights, repeated as long as they are worth their traffic.

    A batch is one round's plan, the status quo among its arms with the control's share. A trial of
    a single arm is one draw of Algorithm 3.

    Args:
        name: of the node.
        config: how to tune; by default ``AX_CONFIG``.
        seed: of all randomness.
        num_startup: arms with data before single-arm trials follow the surrogate; until then they
            are Sobol points.
        include_status_quo: leave it out where whoever makes the trials adds it, with weight 1.
        transition_criteria: Ax's, where other nodes follow.
    """

    def __init__(
        self,
        name: str = "HyperZero",
        config: TunerConfig | None = None,
        *,
        seed: int = 0,
        num_startup: int = 8,
        include_status_quo: bool = True,
        transition_criteria: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            name=name, should_deduplicate=False, transition_criteria=transition_criteria
        )
        self.config = config or AX_CONFIG
        self.seed = seed
        self.num_startup = num_startup
        self.include_status_quo = include_status_quo
        self._study: AxStudy | None = None

    @property
    def study(self) -> AxStudy:
        """The experiment as it was last folded."""
        if self._study is None:
            raise RoundError(f"node {self.name!r} has seen no experiment yet; generate from it")
        return self._study

    def update_generator_state(self, experiment: Experiment, data: Data) -> None:
        """Fold the experiment."""
        self._seen = (experiment, data)
        self._study = fold(experiment, data, self.config, self.seed)

    def get_next_candidate(self, pending_parameters: list[dict[str, Any]]) -> dict[str, Any]:
        """One arm: a draw of its own for each that is pending."""
        study, tuner = self.study, self.study.tuner
        number = 1 + study.num_arms + study.num_unknown(pending_parameters)
        space, bucket = tuner.problem.space, tuner.bucket()
        try:
            posterior = tuner.surrogate()
        except RoundError:  # nothing to fit yet
            posterior = None
        if posterior is None or int(bucket.tested.sum()) < self.num_startup:
            scramble = random(self.seed, 0, "startup", torch.device("cpu")).initial_seed()
            x = space.sobol(number, scramble % 2**31)[-1:]
        else:
            problem = tuner.problem
            if problem.base_levels is None and bucket.base_levels is not None:
                problem = problem.with_base_levels(bucket.base_levels)
            generator = random(self.seed, number, "search", torch.device("cpu"))
            numbers = (self.config.num_samples, 1)
            x = propose(
                posterior, problem, *numbers, generator, num_starts=self.config.num_starts
            ).x
        return study.parameters(space.from_unit(x)[0].tolist())

    def _gen(
        self,
        experiment: Experiment,
        data: Data | None = None,
        n: int | None = None,
        pending_observations: Any = None,
        **generator_gen_kwargs: Any,
    ) -> GeneratorRun:
        """A plan as a generator run; a single arm where ``n`` is 1."""
        if generator_gen_kwargs.get("fixed_features") is not None:
            raise ProblemError(
                "HyperZeroNode cannot hold some parameters fixed for one trial; make them "
                "FixedParameters of the search space"
            )
        if n == 1 or self._generator_spec_to_gen_from is not None:
            return super()._gen(experiment, data, n, pending_observations)
        study = self.study
        if n is not None and n != study.tuner.config.max_arms:
            config = self.config.model_copy(update={"max_arms": n})
            self._study = study = fold(*self._seen, config, self.seed)
        coming = 1 + len(experiment.trials)  # the round of the next trial, as ``fold`` counts
        last = study.tuner.history.last_round
        plan = study.tuner.ask(coming if last is None else max(coming, 1 + last))
        first = 0 if self.include_status_quo else 1
        return GeneratorRun(
            arms=[Arm(parameters=study.parameters(row)) for row in plan.theta[first:].tolist()],
            # In units of the control's share: Ax gives a status quo that it loads weight 1.
            weights=[share / plan.control_share for share in plan.shares[first:]],
            generator_key=self.name,
            gen_metadata={"round": plan.round, "control_share": plan.control_share},
        )


class AxStudy(NamedTuple):
    """An experiment as a study of ours: ``tuner`` has its history, ``rounds`` its trials.

    ``rounds`` maps a round to the indices of its trials; ``num_arms`` counts arms over all trials.
    """

    tuner: Tuner
    axes: tuple[Axis, ...]
    constants: dict[str, Any]
    rounds: dict[int, list[int]]
    num_arms: int

    def parameters(self, theta: Sequence[float]) -> dict[str, Any]:
        """A row of theta as Ax's parameters."""
        return {axis.name: axis.value(t) for axis, t in zip(self.axes, theta)} | self.constants

    def num_unknown(self, parameters: Sequence[Mapping[str, Any]]) -> int:
        """How many of these were in no trial yet."""
        rows = ([axis.theta(p.get(axis.name)) for axis in self.axes] for p in parameters)
        found = [self.tuner.history.find(row) for row in rows]
        return sum(c is None or not self.tuner.history.times_served[c] for c in found)


def fold(experiment: Experiment, data: Data, config: TunerConfig, seed: int = 0) -> AxStudy:
    """An Ax experiment as a study of ours.

    Args:
        experiment: with a status quo, and a single objective.
        data: its data.
        config: how to tune.
        seed: of all randomness.
    Raises:
        ProblemError: no status quo, several objectives, constraints or parameters that cannot be
            carried; names what is supported.
        ReadingsError: data without a metric, or without standard errors, that the problem needs; a
            batch without the status quo.
    """
    axes, constants = axes_of(experiment.search_space)
    problem = problem_of(experiment, axes)
    births = first_bucket(problem, config, seed)
    known = {born.theta: born.candidate for born in births}
    num_arms = 0
    arms: dict[str, int] = {experiment.status_quo.name: CONTROL}
    rounds: dict[int, list[int]] = {}
    plans: dict[int, dict[int, float]] = {}
    for index, trial in sorted(experiment.trials.items()):
        num_arms += len(trial.arms)
        if trial.status.is_failed or trial.status.is_abandoned:
            continue
        round_ = 1 + index if isinstance(trial, BatchTrial) else _SINGLES
        for arm, weight in _weights(trial).items():
            if arm.name not in arms:
                try:
                    row = [axis.theta(arm.parameters.get(axis.name)) for axis in axes]
                    problem.space.check(torch.tensor(row, dtype=torch.float64))
                except (SpaceError, TypeError):  # served once, and not to be proposed
                    continue
                arms[arm.name] = known.setdefault(tuple(row), len(known))
            plan = plans.setdefault(round_, {})
            plan[arms[arm.name]] = plan.get(arms[arm.name], 0.0) + weight
        rounds.setdefault(round_, []).append(index)
    entries: list[Entry] = [Configured(config.model_dump(mode="json"))]
    rows = [row for row, candidate in known.items() if candidate >= len(births)]
    theta = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(axes))
    history = History(len(axes), problem.metrics)
    history.extend(births)
    entries += [*births, *born(problem, theta, history, 0, "ax")]
    entries += [_planned(round_, plan) for round_, plan in sorted(plans.items())]
    journal = MemoryJournal()
    journal.create(StudyHeader(experiment.name, seed, problem.spec()), entries)
    tuner = Tuner(problem, journal=journal, study=experiment.name)
    for round_, indices in sorted(rounds.items()):
        readings = _readings(round_, indices, data, problem.metrics, arms)
        if readings is None:
            continue
        if round_ != _SINGLES and CONTROL not in readings.candidate:
            raise ReadingsError(
                f"trial {indices[0]} has data and none of the status quo, so there are no deltas; "
                "serve it in every batch: trial.add_status_quo_arm(weight)"
            )
        _check_signs(experiment, readings)
        tuner.tell(readings)
    return AxStudy(tuner, tuple(axes), constants, rounds, num_arms)


def _weights(trial: BaseTrial) -> Mapping[Arm, float]:
    """A trial's arms, each with its share of the trial's traffic."""
    if isinstance(trial, BatchTrial):
        return {arm: float(weight) for arm, weight in trial.normalized_arm_weights().items()}
    return dict.fromkeys(trial.arms, 1.0)


def _planned(round_: int, weights: Mapping[int, float]) -> Planned:
    """A trial as a plan of ours; the control is in every plan, served or not."""
    total = sum(weights.values())
    candidates = sorted({CONTROL, *weights})
    shares = tuple(weights.get(c, 0.0) / total for c in candidates)
    slots = tuple(0 if c == CONTROL else 1 for c in candidates)
    return Planned(round_, tuple(candidates), slots, shares)


def _readings(
    round_: int,
    trials: Sequence[int],
    data: Data,
    metrics: Sequence[str],
    arms: Mapping[str, int],
) -> Readings | None:
    """What has been observed in a round; None where nothing has."""
    frame = data.df
    frame = frame[frame["trial_index"].isin(trials) & frame["arm_name"].isin(arms.keys())]
    if not len(frame):
        return None
    missing = [name for name in metrics if not (frame["metric_signature"] == name).any()]
    if missing:
        raise ReadingsError(
            f"trials {list(trials)} have no data on {missing}, which the optimization config "
            f"needs; they have {sorted(frame['metric_signature'].unique())}"
        )
    columns: dict[str, list[Any]] = {
        name: [] for name in ("round", "candidate", "metric", "count", "mean", "var")
    }
    for name in metrics:
        rows = frame[frame["metric_signature"] == name]
        mean, sem = rows["mean"].to_numpy(float), rows["sem"].to_numpy(float)
        if not np.isfinite(sem).all():
            raise ReadingsError(
                f"{name!r} has no standard errors in trials {list(trials)}; attach data as "
                "(mean, sem): without them nobody can tell luck from gain"
            )
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
    return Readings.from_frame(columns)


def _check_signs(experiment: Experiment, readings: Readings) -> None:
    """Ax's relative bounds are on changes by the status quo's size, our deltas are on ratios."""
    constraints = experiment.optimization_config.outcome_constraints
    relative = {name for c in constraints if c.relative for name, _ in c.metric_weights}
    columns = (readings.candidate.tolist(), readings.metric.tolist(), readings.mean.tolist())
    for candidate, metric, mean in zip(*columns):
        if candidate == CONTROL and metric in relative and mean < 0:
            raise ReadingsError(
                f"{metric!r} has a relative bound and a status quo of {mean:g}, below 0; "
                "supported are relative bounds on positive metrics, and absolute bounds"
            )


def _users(given: np.ndarray[Any, Any] | None, sem: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Users behind each mean; where Ax is told none, as many as its precision is worth."""
    if given is not None and np.isfinite(given).all() and (given >= 2).all():
        return given
    least = sem[sem > 0].min() if (sem > 0).any() else math.inf
    worth = np.where(sem > 0, np.square(least / np.where(sem > 0, sem, 1.0)), 1.0)
    return np.asarray(np.maximum(2.0, np.round(_USERS * worth)))
