"""Studies that are resumed, and what is refused, by whom, or counts as not known."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz

pytest.importorskip(
    "optuna", minversion="5.0", reason="needs Optuna 5: pip install 'hyperzero-torch[optuna]'"
)

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hyperzero_torch.integrations.axes import number, number_axis
from hyperzero_torch.integrations.optuna import HyperZeroSampler
from hyperzero_torch.integrations.search import Search, Trials

UNIT = FloatDistribution(0.0, 1.0)


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def a_sampler(**options):
    few = {"seed": 0, "n_startup_trials": 3, "num_samples": 16, "num_starts": 0}
    return HyperZeroSampler(**(few | {"warn_independent_sampling": False} | options))


def a_study(**options):
    return optuna.create_study(sampler=a_sampler(**options))


def conditional(trial):
    if trial.suggest_categorical("kind", ["a", "b"]) == "a":
        return trial.suggest_float("in a", 0, 1)
    return 1 + trial.suggest_float("in b", 0, 1) + trial.suggest_int("n", 1, 100, log=True)


def params(study):
    return [trial.params for trial in study.trials]


# Resumed


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_conditional_study_that_is_resumed_goes_on_as_if_it_had_not_been_interrupted(cut):
    whole = a_study()
    whole.optimize(conditional, n_trials=14)
    study = a_study()
    study.optimize(conditional, n_trials=cut)
    study.sampler = a_sampler()  # a new process
    study.optimize(conditional, n_trials=14 - cut)
    assert params(study) == params(whole)


def test_a_resumed_study_does_not_repeat_what_was_sampled_independently():
    study = optuna.create_study()
    for _ in range(20):  # each trial by a process of its own
        study.sampler = a_sampler()
        trial = study.ask()
        study.tell(trial, trial.suggest_float(f"only in {trial.number}", 0, 1))
    values = [next(iter(p.values())) for p in params(study)]
    assert len(set(values)) == 20


def test_independent_draws_are_uniform_over_trials_and_uncorrelated_over_names():
    """Means and correlation of n uniforms: standard errors (12 n)^-1/2 and n^-1/2."""
    study, n = a_study(), 2000
    sampler = study.sampler
    trials = [optuna.trial.create_trial(params={}, distributions={}, value=0.0) for _ in range(n)]
    for index, trial in enumerate(trials):
        trial.number = index
    draws = np.array(
        [[sampler.sample_independent(study, t, name, UNIT) for name in "ab"] for t in trials]
    )
    assert np.abs(draws.mean(0) - 0.5).max() < 4.5 / math.sqrt(12 * n)
    assert np.abs(draws.var(0) - 1 / 12).max() < 4.5 / math.sqrt(180 * n)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4.5 / math.sqrt(n)
    assert abs(np.corrcoef(draws[1:, 0], draws[:-1, 0])[0, 1]) < 4.5 / math.sqrt(n)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**70),
    trial_number=st.integers(0, 10**6),
    names=st.lists(st.text(st.characters(), max_size=6), min_size=2, max_size=4, unique=True),
)
def test_an_independent_draw_is_a_function_of_seed_trial_and_name(seed, trial_number, names):
    """Whatever was drawn before, and whatever a name is made of: lone surrogates too."""
    study = optuna.create_study()
    trial = optuna.trial.create_trial(params={}, distributions={}, value=0.0)
    trial.number = trial_number

    def draws(order):
        sampler = a_sampler(seed=seed)
        return {n: sampler.sample_independent(study, trial, n, UNIT) for n in order}

    forward = draws(names)
    assert draws(reversed(names)) == forward
    assert len(set(forward.values())) == len(names)
    assert all(0 <= value <= 1 for value in forward.values())
    assert draws(names[:1]) == {names[0]: forward[names[0]]}


def test_reseeding_changes_independent_draws():
    study, trial = a_study(), optuna.trial.create_trial(params={}, distributions={}, value=0.0)
    before = study.sampler.sample_independent(study, trial, "x", UNIT)
    study.sampler.reseed_rng()
    assert study.sampler.sample_independent(study, trial, "x", UNIT) != before


def test_an_independent_sampler_of_ones_own_is_asked_and_told():
    class Told(optuna.samplers.RandomSampler):
        def __init__(self):
            super().__init__(seed=0)
            self.calls = []

        def before_trial(self, study, trial):
            self.calls.append("before")

        def after_trial(self, study, trial, state, values):
            self.calls.append("after")

        def sample_independent(self, study, trial, name, distribution):
            self.calls.append(name)
            return super().sample_independent(study, trial, name, distribution)

        def reseed_rng(self):
            self.calls.append("reseed")

    sampler = Told()
    study = a_study(independent_sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    study.sampler.reseed_rng()
    assert sampler.calls == ["before", "x", "after", "reseed"]


def test_a_sampler_may_serve_several_studies():
    """Studies in memory all have the same id, so nothing may be remembered by it."""
    sampler = a_sampler()
    for name in ("x", "y"):
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda t, name=name: t.suggest_float(name, 0, 1), n_trials=4)
        assert set(sampler.infer_relative_search_space(study, study.trials[-1])) == {name}


# At construction


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seed": -1}, "seed is a whole number"),
        ({"seed": 1.5}, "seed is a whole number"),
        ({"seed": True}, "seed is a whole number"),
        ({"seed": "a"}, "seed is a whole number"),
        ({"n_startup_trials": -1}, "n_startup_trials is a whole number"),
        ({"n_startup_trials": None}, "n_startup_trials is a whole number"),
        ({"num_samples": 0}, "num_samples is a whole number"),
        ({"num_starts": 0.5}, "num_starts is a whole number"),
        ({"independent_sampler": "tpe"}, r"TPESampler\(seed=0\), got 'tpe'"),
        ({"independent_sampler": optuna.samplers.TPESampler}, "one of Optuna's samplers"),
        ({"independent_sampler": 0}, "one of Optuna's samplers"),
        ({"warn_independent_sampling": "no"}, "True or False"),
        ({"warn_independent_sampling": None}, "True or False"),
    ],
)
def test_options_that_cannot_be_are_refused(options, match):
    with pytest.raises(hz.ConfigError, match=match):
        HyperZeroSampler(**options)


# Several objectives


@pytest.mark.parametrize("values", [lambda t: (t.suggest_float("x", 0, 1), 0.0), lambda _: (1, 2)])
def test_several_objectives_are_refused_even_where_nothing_is_sampled(values):
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=a_sampler())
    with pytest.raises(hz.ProblemError, match=r"the study has 2.*set_constraint"):
        study.optimize(values, n_trials=1)
    with pytest.raises(hz.ProblemError, match="one objective"):
        study.ask({"x": UNIT})


# Noise


WRONG_NOISE = [
    -1.0,
    math.inf,
    "0.1",
    True,
    [0.1],
    1j,
    10**400,
    {"value": -1.0},
    {"value": None},
    {"latency": 0.1},
    {3: 0.1},
]


@pytest.mark.parametrize("attribute", WRONG_NOISE)
def test_a_variance_that_is_none_is_refused_at_its_trial_and_the_study_can_go_on(attribute):
    study = a_study()

    def objective(trial):
        if trial.number == 3:
            trial.set_user_attr("variance", attribute)
        return trial.suggest_float("x", 0, 1)

    with pytest.raises(hz.ReadingsError, match=r"'variance' of trial 3 must be a number >= 0"):
        study.optimize(objective, n_trials=8)
    assert len(study.trials) == 4
    with pytest.warns(hz.TunerWarning, match=r"of trial 3 .* counts as not known"):
        study.optimize(objective, n_trials=4)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 8

    unknown = a_study()
    unknown.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=8)
    assert params(study) == params(unknown)


@pytest.mark.parametrize("attribute", WRONG_NOISE)
def test_a_wrong_variance_of_a_trial_that_is_added_counts_as_not_known(attribute):
    study = a_study()
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    study.add_trial(
        optuna.create_trial(
            params={"x": 0.5},
            distributions={"x": UNIT},
            value=0.1,
            user_attrs={"variance": attribute},
        )
    )
    with pytest.warns(hz.TunerWarning, match="of trial 3"):
        assert 0 <= study.ask({"x": UNIT}).params["x"] <= 1


def test_a_failed_or_pruned_trials_variance_does_not_matter():
    study = a_study()

    def objective(trial):
        trial.set_user_attr("variance", -1.0)
        if trial.suggest_float("x", 0, 1) < 0.5:
            raise optuna.TrialPruned
        return math.nan

    study.optimize(objective, n_trials=6)
    assert TrialState.COMPLETE not in {t.state for t in study.trials}


@pytest.mark.parametrize(
    "attribute",
    [
        *[math.nan, 0, 0.1, Fraction(1, 10), np.float32(0.1), np.array(0.1), torch.tensor(0.1)],
        *[None, {}, {"value": 0.1}, {"c": 0.1}, {"value": math.nan, "c": np.float64(0.1)}],
    ],
)
def test_noise_that_is_known_unknown_or_lacking_may_be_mixed(attribute):
    study = a_study()

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("c", x - 0.5)
        if trial.number % 2:
            trial.set_user_attr("variance", attribute)
        return x

    study.optimize(objective, n_trials=7)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 7


# Constraints


@pytest.mark.parametrize("value", [math.nan, "a", None])
def test_a_constraint_that_is_no_number_is_refused_by_optuna_itself(value):
    study = a_study()

    def objective(trial):
        trial.set_constraint("c", value)
        return 1.0

    with pytest.raises((ValueError, TypeError), match=r"NaN is not allowed|supposed to be a float"):
        study.optimize(objective, n_trials=1)
    assert [t.state for t in study.trials] == [TrialState.FAIL]


def test_a_constraint_of_nan_from_an_older_storage_is_not_observed():
    """Optuna before 5 kept constraints in a list, without a check."""

    def study_with(constraint):
        study = a_study()
        for index in range(5):
            study.add_trial(
                optuna.create_trial(
                    params={"x": index / 4},
                    distributions={"x": UNIT},
                    value=float(index),
                    system_attrs={"constraints": constraint(index)},
                )
            )
        return study.ask({"x": UNIT}).params

    nan = study_with(lambda i: [math.nan if i == 2 else i - 2.5])
    assert nan == study_with(lambda i: [None if i == 2 else i - 2.5])
    assert nan == study_with(lambda i: [] if i == 2 else [i - 2.5])


@pytest.mark.parametrize("finite", [0.5, 1e-9, 0.0])
def test_what_is_infinitely_infeasible_is_never_taken_for_feasible(finite):
    """All finite constraints hold, by a little or just so; on the right side lies infinity."""
    study = a_study(num_samples=128, n_startup_trials=8)

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("c", math.inf if x > 0.5 else -finite)
        return -x

    study.optimize(objective, n_trials=24)
    later = [t.params["x"] for t in study.trials[14:]]
    assert sum(x <= 0.5 for x in later) >= 3  # at the boundary half of the draws lie beyond
    assert sum(x > 0.75 for x in later) <= 3  # where the value alone would take nearly all


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(allow_nan=False),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.floats(0.0, allow_infinity=False) | st.just(math.nan),
            st.none() | st.floats(0.0, allow_infinity=False),
        ),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 2**70),
)
def test_whatever_values_constraints_and_noise_the_next_trial_lies_in_the_space(rows, seed):
    study = a_study(seed=seed, n_startup_trials=1)
    space = {"x": UNIT, "n": IntDistribution(1, 9), "k": CategoricalDistribution((None, "a"))}
    for value, constraint, variance, of_constraint in rows:
        trial = study.ask(space)
        noise = {} if variance is None else {"value": variance}
        if constraint is not None:
            trial.set_constraint("c", constraint)
            noise |= {} if of_constraint is None else {"c": of_constraint}
        trial.set_user_attr("variance", noise)
        study.tell(trial, value)
    suggested = study.ask(space).params
    # Optuna refuses a value outside its distribution.
    optuna.trial.create_trial(value=0.0, params=suggested, distributions=space)


# What both adapters share


@settings(max_examples=400, deadline=None)
@example(low=1.0, high=0.0, log=True, step=2.0, x=0.0)
@given(
    low=st.floats() | st.integers(-(10**400), 10**400) | st.none() | st.text(max_size=2),
    high=st.floats() | st.integers(-(10**400), 10**400) | st.booleans(),
    log=st.booleans(),
    step=st.none() | st.floats() | st.integers(-2, 10**20) | st.text(max_size=2),
    x=st.floats(0, 1),
)
def test_bounds_are_refused_or_every_value_lies_within(low, high, log, step, x):
    try:
        axis = number_axis("p", low, high, log=log, step=step)
        search = Search([axis], 0, 1, 0)
    except hz.SpaceError:
        return
    theta = search.space.from_unit(torch.tensor([[x] * search.space.num_dims]).double())
    value = axis.value(float(theta[0, 0]))
    assert float(low) <= value <= float(high)
    assert search.theta({"p": value}) == pytest.approx(
        search.theta({"p": axis.value(axis.theta(value))})
    )


@settings(max_examples=200, deadline=None)
@given(st.integers() | st.floats() | st.fractions() | st.floats(width=32).map(np.float32))
def test_a_number_is_what_float_makes_of_it(value):
    assert number(value) == float(value) or math.isnan(value)


@settings(max_examples=100, deadline=None)
@given(
    st.none()
    | st.booleans()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | st.lists(st.floats())
)
def test_anything_else_is_no_number(value):
    assert number(value) is None


@settings(max_examples=30, deadline=None)
@given(
    slacks=st.lists(st.floats(-1e3, 1e3) | st.sampled_from([-math.inf, math.inf]), min_size=3),
    seed=st.integers(0, 99),
)
def test_an_infinite_slack_is_as_large_as_any_on_its_own_side_of_zero(slacks, seed):
    axis = number_axis("x", 0.0, 1.0)
    largest = max([abs(s) for s in slacks if math.isfinite(s)], default=0.0) or 1.0
    finite = [s if math.isfinite(s) else math.copysign(largest, s) for s in slacks]

    def proposal(column):
        n = len(column)
        rows = [[float(i % 3), s] for i, s in enumerate(column)]
        value = torch.tensor(rows, dtype=torch.float64)
        theta = torch.linspace(0, 1, n).double().unsqueeze(1)
        tried = Trials(theta, value, torch.full_like(value, 0.01))
        return Search([axis], 0, 8, 0).next(tried, seed, n)

    assert proposal(slacks) == proposal(finite)


def test_a_search_with_nothing_but_infinite_slacks_goes_on():
    axis = number_axis("x", 0.0, 1.0)
    value = torch.tensor([[1.0, -math.inf], [2.0, math.inf], [3.0, -math.inf]]).double()
    theta = torch.tensor([[0.1], [0.5], [0.9]]).double()
    tried = Trials(theta, value, torch.full_like(value, math.nan))
    assert 0 <= Search([axis], 0, 8, 0).next(tried, 0, 3)["x"] <= 1


def test_a_name_that_cannot_be_seen_is_refused():
    study = a_study(n_startup_trials=1)
    study.add_trial(optuna.create_trial(params={" ": 0.5}, distributions={" ": UNIT}, value=0.1))
    with pytest.raises(hz.SpaceError, match="name"):
        study.ask({" ": UNIT})
