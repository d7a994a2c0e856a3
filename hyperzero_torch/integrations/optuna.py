"""A sampler for Optuna: ``optuna.create_study(sampler=HyperZeroSampler())``.

    trial.set_constraint("latency", latency - 0.2)      # <= 0 is feasible, as everywhere in Optuna
    trial.set_user_attr("variance", 0.04)               # of the value, where it is known

The value may be noisy: where nobody gives its variance, one is estimated from all trials. Where
one is given that is none (negative, infinite, no number, for an unknown constraint), the trial ends
with an error, once; the study can go on, and takes it as not given.
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
from .axes import Axis, choice_axis, number, number_axis
from .search import Search, Tried

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
and names of constraints to variances. NaN is not known."""


class HyperZeroSampler(BaseSampler):  # type: ignore[misc]  # an optional package is Any here
    """Thompson sampling of an exact Gaussian process, with constraints and known noise.

    Parameters that every finished trial has in common are sampled together; those that only some
    trials have (conditional spaces) or whose range changes by the independent sampler, by
    Optuna's own rules. What is sampled is a function of the seed, the finished trials, the trial's
    number and the parameter's name, so a study that is resumed goes on as it would have. (Another
    ``independent_sampler`` has a state of its own.) Trials that run side by side get draws of
    their own.

    A constraint that is infinite counts as far on its side of zero, one that is NaN (which only
    Optuna's older storages hold) or missing as not observed.

    Args:
        seed: of all randomness; drawn anew where it is None.
        n_startup_trials: finished trials before the surrogate speaks; until then Sobol points.
        num_samples: random points of the space among which a draw's best are found.
        num_starts: of these, how many are moved uphill along the draw.
        independent_sampler: for parameters that are not sampled together; uniform by default.
        warn_independent_sampling: log it, except in a study's first trials.
    Raises:
        ConfigError: a seed or numbers that cannot be, or a sampler that is none of Optuna's.
        ProblemError: when a trial begins in a study with several objectives.
        ReadingsError: when a trial finishes whose variance is no variance.
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
        least = {"n_startup_trials": 0, "num_samples": 1, "num_starts": 0, "seed": 0}
        given = (n_startup_trials, num_samples, num_starts, 0 if seed is None else seed)
        for name, value in zip(least, given):
            if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
                raise ConfigError(f"{name} is a whole number >= {least[name]}, got {value!r}")
        if independent_sampler is not None and not isinstance(independent_sampler, BaseSampler):
            raise ConfigError(
                "independent_sampler is one of Optuna's samplers, such as "
                f"optuna.samplers.TPESampler(seed=0), got {independent_sampler!r}"
            )
        if not isinstance(warn_independent_sampling, bool):
            raise ConfigError(
                f"warn_independent_sampling is True or False, got {warn_independent_sampling!r}"
            )
        self._seed = secrets.randbits(62) if seed is None else seed
        self._numbers = (n_startup_trials, num_samples, num_starts)
        self._independent = independent_sampler
        self._warn = warn_independent_sampling

    def reseed_rng(self) -> None:
        """Draw another seed, as Optuna asks of each process that works on a study."""
        self._seed = secrets.randbits(62)
        if self._independent is not None:
            self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What all finished trials have in common and can vary."""
        common = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: d for name, d in common.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of ``search_space``, together."""
        _check_single(study)
        fixed = {name: _only(d) for name, d in search_space.items() if d.single()}
        axes = [_axis(name, d) for name, d in search_space.items() if not d.single()]
        if not axes:
            return fixed
        search = Search(axes, *self._numbers)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trials = [t for t in finished if _fits(t, search_space)]
        return fixed | search.next(_tried(study, trials, search), self._seed, trial.number)

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
                "range. HyperZeroSampler(warn_independent_sampling=False) says so no longer."
            )
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Refuses several objectives before anything is sampled.

        Raises:
            ProblemError: the study has several.
        """
        _check_single(study)
        if self._independent is not None:
            self._independent.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Refuses a variance that is none while whoever set it still looks on.

        Raises:
            ReadingsError: the trial's variance cannot be.
        """
        if self._independent is not None:
            self._independent.after_trial(study, trial, state, values)
        if state == TrialState.COMPLETE:
            _variances(trial)

    def _uniform(self, number: int, name: str) -> BaseSampler:
        """A sampler for one parameter of one trial, whatever was sampled before."""
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


def _only(distribution: BaseDistribution) -> Any:
    """The one value of a distribution that has no other."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low


def _fits(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> bool:
    """Whether a trial has all these parameters, within these ranges."""
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


def _tried(study: Study, trials: Sequence[FrozenTrial], search: Search) -> Tried:
    """Finished trials as rows: the value first, then minus each constraint."""
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    keys = list(dict.fromkeys(key for trial in trials for key in trial.constraints))
    theta, values, variances = [], [], []
    for trial in trials:
        assert trial.value is not None  # a single objective's finished trial
        constraints, noise = trial.constraints, _usable_variances(trial)
        theta.append(search.theta(trial.params))
        values.append([sign * trial.value, *(_slack(constraints.get(key)) for key in keys)])
        variances.append([noise.get("value", math.nan), *(noise.get(k, math.nan) for k in keys)])
    shape = (len(trials), 1 + len(keys))
    return Tried(
        torch.tensor(theta, dtype=torch.float64).reshape(len(trials), len(search.axes)),
        torch.tensor(values, dtype=torch.float64).reshape(shape),
        torch.tensor(variances, dtype=torch.float64).reshape(shape),
    )


def _slack(constraint: Any) -> float:
    """NaN where it was not observed."""
    value = number(constraint)
    return math.nan if value is None else -value


def _usable_variances(trial: FrozenTrial) -> dict[str, float]:
    """Nobody can mend a finished trial, and a study must not end with it."""
    try:
        return _variances(trial)
    except ReadingsError as error:
        warnings.warn(f"{error}; it counts as not known", TunerWarning, stacklevel=2)
        return {}


def _variances(trial: FrozenTrial) -> dict[str, float]:
    """The variances that a trial comes with.

    Raises:
        ReadingsError: one that is none, or of a constraint that the trial does not have.
    """
    given = trial.user_attrs.get(VARIANCE)
    if given is None:
        return {}
    named = dict(given) if isinstance(given, Mapping) else {"value": given}
    found = {name: number(value) for name, value in named.items()}
    known = {name: value for name, value in found.items() if value is not None}
    fitting = len(known) == len(named) and set(named) <= {"value", *trial.constraints}
    if not fitting or any(value < 0 or value == math.inf for value in known.values()):
        raise ReadingsError(
            f"the user attribute {VARIANCE!r} of trial {trial.number} must be a number >= 0, or "
            f"map 'value' and constraints {list(trial.constraints)} to such numbers, got {given!r}"
        )
    return known
