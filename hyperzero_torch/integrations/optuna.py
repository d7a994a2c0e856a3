"""A sampler for Optuna: ``optuna.create_study(sampler=HyperZeroSampler())``.

    trial.set_constraint("latency", latency - 0.2)      # <= 0 is feasible, as everywhere in Optuna
    trial.set_user_attr("variance", 0.04)               # of the value, if it is known

Values may be noisy: an unknown variance is estimated from all trials. If a trial's variance is
invalid (negative, infinite, not a number, for an unknown constraint), finishing the trial raises an
error once; the study can continue, and treats that variance as unknown.
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import (
    ConfigError,
    MissingExtraError,
    ProblemError,
    ReadingsError,
    TunerWarning,
)
from ..runtime.randomness import random
from .axes import Axis, choice_axis, number, number_axis, whole_number
from .search import Search, Trials

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.search_space import intersection_search_space
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.optuna", "optuna", "optuna") from error

if TYPE_CHECKING:
    from optuna.study import Study

VARIANCE = "variance"
"""The user attribute with a trial's noise: the variance of its value, or a mapping from ``"value"``
and names of constraints to variances. NaN means unknown."""


class HyperZeroSampler(BaseSampler):  # type: ignore[misc]  # an optional package is Any here
    """Thompson sampling of an exact Gaussian process, with constraints and known noise.

    Parameters that all finished trials share are sampled together. Parameters that only some trials
    have (conditional spaces), or whose range changes, are sampled by the independent sampler, as
    Optuna defines it. A sample is a function of the seed, the finished trials, the trial's number
    and the parameter's name, so a resumed study continues as if it had not stopped. (Another
    ``independent_sampler`` has a state of its own.) Parallel trials get different draws.

    An infinite constraint counts as a large value on its side of zero; a missing one, or NaN (which
    only Optuna's older storages hold), counts as not observed.

    Args:
        seed: of all randomness; drawn at random if None.
        n_startup_trials: finished trials before the surrogate is used; Sobol points until then.
        num_samples: random points of the space at which each draw is evaluated.
        num_starts: how many of these are refined by gradient ascent along the draw.
        independent_sampler: for parameters that are not sampled together; uniform by default.
        warn_independent_sampling: log each use of it, except in a study's first trials.
    Raises:
        ConfigError: an invalid argument.
        ProblemError: when a trial begins in a study with several objectives.
        ReadingsError: when a trial finishes whose variance is invalid.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        num_samples: int = 1024,
        num_starts: int = 4,
        independent_sampler: BaseSampler | None = None,
        warn_independent_sampling: bool = True,
    ) -> None:
        self._numbers = (
            whole_number("n_startup_trials", n_startup_trials, 0),
            whole_number("num_samples", num_samples, 1),
            whole_number("num_starts", num_starts, 0),
        )
        self._seed = secrets.randbits(62) if seed is None else whole_number("seed", seed, 0)
        if independent_sampler is not None and not isinstance(independent_sampler, BaseSampler):
            raise ConfigError(
                "independent_sampler is one of Optuna's samplers, such as "
                f"optuna.samplers.TPESampler(seed=0), got {independent_sampler!r}"
            )
        if not isinstance(warn_independent_sampling, bool):
            raise ConfigError(
                f"warn_independent_sampling is True or False, got {warn_independent_sampling!r}"
            )
        self._independent = independent_sampler
        self._warn = warn_independent_sampling

    def reseed_rng(self) -> None:
        """Draw a new seed; Optuna calls this in each process that works on a study."""
        self._seed = secrets.randbits(62)
        if self._independent is not None:
            self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share and that can vary."""
        common = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: d for name, d in common.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of ``search_space``, sampled together."""
        _check_single(study)
        fixed = {name: _only_value(d) for name, d in search_space.items() if d.single()}
        axes = [_axis(name, d) for name, d in search_space.items() if not d.single()]
        if not axes:
            return fixed
        search = Search(axes, *self._numbers)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trials = _trials(study, [t for t in finished if _within(t, search_space)], search)
        return fixed | search.next(trials, self._seed, trial.number)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One parameter that is not sampled together with the others."""
        _check_single(study)
        sampler = self._independent or self._uniform(trial.number, param_name)
        if self._warn and trial.number >= max(1, self._numbers[0]):
            optuna.logging.get_logger(__name__).warning(
                f"parameter {param_name!r} of trial {trial.number} is sampled by "
                f"{type(sampler).__name__}: not every finished trial has it with this "
                "range. HyperZeroSampler(warn_independent_sampling=False) turns this message off."
            )
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Refuse several objectives, by a ``ProblemError``, before anything is sampled."""
        _check_single(study)
        if self._independent is not None:
            self._independent.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Refuse an invalid variance, by a ``ReadingsError``, in the process that set it."""
        if self._independent is not None:
            self._independent.after_trial(study, trial, state, values)
        if state == TrialState.COMPLETE:
            _variances(trial)

    def _uniform(self, number: int, name: str) -> BaseSampler:
        """A sampler for one parameter of one trial, independent of earlier samples."""
        generator = random(self._seed, number, f"independent/{name!a}", torch.device("cpu"))
        return RandomSampler(seed=generator.initial_seed() % 2**32)


def _check_single(study: Study) -> None:
    if len(study.directions) > 1:
        raise ProblemError(
            f"HyperZeroSampler tunes one objective, the study has {len(study.directions)}; make "
            "one of them the objective and set bounds on the others with trial.set_constraint, or "
            "take optuna.samplers.GPSampler"
        )


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    match distribution:
        case CategoricalDistribution():
            return choice_axis(name, distribution.choices)
        case FloatDistribution() | IntDistribution():
            low, high, step = distribution.low, distribution.high, distribution.step
            return number_axis(name, low, high, log=distribution.log, step=step)
    raise ProblemError(
        f"parameter {name!r} has a {type(distribution).__name__}; supported are "
        "FloatDistribution, IntDistribution and CategoricalDistribution"
    )


def _only_value(distribution: Any) -> Any:
    """The value of a distribution that has only one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low


def _within(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> bool:
    """Whether a trial has all these parameters, with values in these ranges."""
    return all(
        name in trial.params
        and type(trial.distributions[name]) is type(distribution)
        and _contains(distribution, trial.params[name])
        for name, distribution in search_space.items()
    )


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # not one of the choices
        return False


def _trials(study: Study, finished: Sequence[FrozenTrial], search: Search) -> Trials:
    """Finished trials as rows: the value to maximise, then minus each constraint."""
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    keys = list(dict.fromkeys(key for trial in finished for key in trial.constraints))
    rows = []
    for trial in finished:
        noise = _usable_variances(trial)
        slacks = [_slack(trial.constraints.get(key)) for key in keys]
        variances = [noise.get(key, math.nan) for key in ("value", *keys)]
        rows.append((search.theta(trial.params), [sign * trial.value, *slacks], variances))
    return Trials.from_rows(rows, len(search.axes), len(keys))


def _slack(constraint: Any) -> float:
    """NaN if it was not observed."""
    value = number(constraint)
    return math.nan if value is None else -value


def _usable_variances(trial: FrozenTrial) -> dict[str, float]:
    """A finished trial cannot be changed, so an invalid variance must not stop the study."""
    try:
        return _variances(trial)
    except ReadingsError as error:
        warnings.warn(f"{error}; it counts as not known", TunerWarning, stacklevel=2)
        return {}


def _variances(trial: FrozenTrial) -> dict[str, float]:
    """The variances that a trial states.

    Raises:
        ReadingsError: an invalid one, or one of a constraint that the trial does not have.
    """
    given = trial.user_attrs.get(VARIANCE)
    if given is None:
        return {}
    named = dict(given) if isinstance(given, Mapping) else {"value": given}
    variances = {name: number(value) for name, value in named.items()}
    numbers = {name: value for name, value in variances.items() if value is not None}
    valid = len(numbers) == len(named) and set(named) <= {"value", *trial.constraints}
    if not valid or any(value < 0 or value == math.inf for value in numbers.values()):
        raise ReadingsError(
            f"the user attribute {VARIANCE!r} of trial {trial.number} must be a number >= 0, or "
            f"map 'value' and constraints {list(trial.constraints)} to such numbers, got {given!r}"
        )
    return numbers
