"""The sampler in studies; Optuna's own tests: ``test_optuna_suites``, input: ``..._input``."""

from __future__ import annotations

import functools
import logging
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "optuna", minversion="5.0", reason="needs Optuna 5: pip install 'hyperzero-torch[optuna]'"
)

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hyperzero_torch.integrations.optuna import HyperZeroSampler
from hyperzero_torch.integrations.search import with_noise


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def bowl(trial):
    """Best at (0.3, 0.1, "b"): 0."""
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 1e-3, 1e1, log=True)
    mode = trial.suggest_categorical("mode", ["a", "b", "c"])
    return (x - 0.3) ** 2 + 0.1 * (math.log10(y) + 1) ** 2 + (0 if mode == "b" else 0.3)


def run(objective, n=30, seed=0, direction="minimize", sampler=None, **options):
    few = {"num_samples": 256, "num_starts": 2}  # of what takes the time
    sampler = sampler or HyperZeroSampler(seed=seed, **(few | options))
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=n)
    return study


@functools.cache
def bowl_trials():
    """Thirty trials; a shorter study with the same seed has the first of them."""
    return run(bowl).trials


def test_it_finds_the_optimum_that_random_search_does_not():
    ours = [min(t.value for t in bowl_trials()), run(bowl, seed=1).best_value]
    random = [
        run(bowl, sampler=optuna.samplers.RandomSampler(seed=seed)).best_value for seed in range(2)
    ]
    assert max(ours) < 0.01
    assert max(ours) < 0.5 * min(random)


def test_maximising_is_minimising_the_negative():
    ups = run(lambda t: -bowl(t), direction="maximize", n=20)
    assert [t.params for t in ups.trials] == [t.params for t in bowl_trials()[:20]]


def test_the_unit_of_the_value_changes_nothing():
    small = run(lambda t: 2.0**-30 * bowl(t), n=16)
    for a, b in zip(bowl_trials()[:16], small.trials, strict=True):
        assert a.params["mode"] == b.params["mode"]
        assert a.params["x"] == pytest.approx(b.params["x"], abs=1e-4)


def test_a_study_goes_on_after_it_was_interrupted_as_if_it_had_not_been():
    """The sampler holds nothing that the study and the seed do not."""
    few = {"num_samples": 256, "num_starts": 2}
    study = optuna.create_study(sampler=HyperZeroSampler(seed=0, **few))
    study.optimize(bowl, n_trials=9)
    study.sampler = HyperZeroSampler(seed=0, **few)  # a new process
    study.optimize(bowl, n_trials=7)
    assert [t.params for t in study.trials] == [t.params for t in bowl_trials()[:16]]


def test_reseeding_gives_other_points():
    a, b = HyperZeroSampler(seed=0), HyperZeroSampler(seed=0)
    b.reseed_rng()
    params = [[t.params for t in run(bowl, n=6, sampler=s).trials] for s in (a, b)]
    assert params[0] != params[1]


def test_trials_side_by_side_get_points_of_their_own():
    study = run(bowl, n=15)
    space = study.trials[0].distributions
    waiting = [study.ask(space) for _ in range(8)]
    points = {tuple(t.params.values()) for t in waiting}
    assert len(points) == 8
    for trial in waiting:
        study.tell(trial, trial.params["x"])
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 23


def test_constraints_set_on_trials_are_kept():
    """Maximise x + y where x <= 0.4 and y <= 0.6: most later trials hold both, near the corner."""

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("x", x - 0.4)
        trial.set_constraint("y", y - 0.6)
        return x + y

    study = run(objective, n=36, direction="maximize")
    later = study.trials[18:]
    feasible = [t for t in later if max(t.constraints.values()) <= 0]
    assert len(feasible) >= 8  # on the boundary half of the draws lie on its other side
    assert max(t.value for t in feasible) > 0.95
    assert max(max(t.constraints.values()) for t in later[10:]) < 0.1


def test_a_constraint_that_only_some_trials_have_is_learnt_from_those():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 2:
            trial.set_constraint("x", x - 0.5)
        return x

    study = run(objective, n=30, direction="maximize")
    assert sum(t.params["x"] for t in study.trials[-8:]) / 8 == pytest.approx(0.5, abs=0.1)


def test_known_noise_tells_lucky_trials_from_good_ones():
    """Half the trials are exact, half pure noise: who knows which is which is not misled."""

    def objective(trial, tell):
        x = trial.suggest_float("x", 0, 1)
        noisy = trial.number % 2 == 1
        generator = torch.Generator().manual_seed(trial.number)
        luck = 3 * torch.randn((), generator=generator, dtype=torch.float64).item() * noisy
        if tell:
            trial.set_user_attr("variance", 9.0 if noisy else {"value": 1e-6})
        return (x - 0.7) ** 2 + luck

    def error(tell):
        study = run(lambda t: objective(t, tell), n=36)
        return sum(abs(t.params["x"] - 0.7) for t in study.trials[-12:]) / 12

    known = error(tell=True)
    assert known < 0.1
    assert known < 0.5 * error(tell=False)


def test_conditional_parameters_go_to_the_independent_sampler_and_it_says_so(caplog):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.suggest_categorical("deep", [True, False]):
            return x - trial.suggest_int("depth", 1, 9)
        return x

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        study = run(objective, n=14, n_startup_trials=4)
        messages = [r.message for r in caplog.records if "'depth'" in r.message]
        assert messages
        assert not [r for r in caplog.records if "'x' of trial" in r.message]
        caplog.clear()
        run(objective, n=14, n_startup_trials=4, warn_independent_sampling=False)
        assert not [r for r in caplog.records if "'depth'" in r.message]
    optuna.logging.disable_propagation()
    space = study.sampler.infer_relative_search_space(study, study.trials[-1])
    assert set(space) == {"x", "deep"}


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, -1e300])
def test_a_wild_value_does_not_end_the_study(value):
    study = run(lambda t: value if t.number in (3, 12) else bowl(t), n=16, n_startup_trials=4)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_constant_values_do_not_end_the_study():
    study = run(lambda t: 0.0 * bowl(t), n=14, n_startup_trials=2)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert len({t.params["x"] for t in study.trials}) >= 5


def test_failed_and_pruned_trials_are_left_out():
    def objective(trial):
        value = bowl(trial)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        if trial.number % 3 == 2:
            return math.nan  # Optuna takes it for a failure
        return value

    study = run(objective, n=24, n_startup_trials=3)
    states = {t.state for t in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def quietly(make, *args, **kwargs):
    """Optuna warns where a step does not divide the range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


# A parameter of ours has a name that can be seen, which Optuna does not ask for.
NAMES = st.text(min_size=1, max_size=5).filter(str.strip)
DISTRIBUTIONS = st.one_of(
    st.tuples(st.floats(-1e6, 1e6), st.floats(0.01, 1e6)).map(
        lambda p: FloatDistribution(p[0], p[0] + p[1])
    ),
    st.tuples(st.floats(1e-8, 1e3), st.floats(1.1, 1e6)).map(
        lambda p: FloatDistribution(p[0], p[0] * p[1], log=True)
    ),
    st.tuples(st.floats(-100, 100), st.integers(1, 50), st.floats(0.01, 3)).map(
        lambda p: quietly(FloatDistribution, p[0], p[0] + p[1] * p[2], step=p[2])
    ),
    st.tuples(st.integers(-1000, 1000), st.integers(1, 10**12), st.integers(1, 7)).map(
        lambda p: quietly(IntDistribution, p[0], p[0] + p[1], step=p[2])
    ),
    st.tuples(st.integers(1, 1000), st.integers(1, 10**6)).map(
        lambda p: IntDistribution(p[0], p[0] + p[1], log=True)
    ),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3)),
        min_size=2,
        max_size=5,
        unique_by=lambda v: (str(type(v)), v),
    ).map(CategoricalDistribution),
)


@settings(max_examples=30, deadline=None)
@given(
    space=st.dictionaries(NAMES, DISTRIBUTIONS, min_size=1, max_size=4),
    values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_whatever_the_space_and_the_values_the_next_trial_lies_in_the_space(space, values, seed):
    sampler = HyperZeroSampler(seed=seed, n_startup_trials=2, num_samples=16, num_starts=1)
    study = optuna.create_study(sampler=sampler)
    for value in values:
        study.tell(study.ask(space), value)
    study.ask(space)
    params = sampler.sample_relative(study, study.trials[-1], space)
    assert params.keys() == space.keys()
    # Optuna refuses a value outside its distribution.
    optuna.trial.create_trial(value=0.0, params=params, distributions=space)


def test_unknown_noise_is_estimated_to_its_order_of_magnitude():
    for share in (1e-3, 0.03, 0.3):
        x = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(120, dtype=torch.float64)
        truth = torch.sin(5 * x[:, :1]) + x[:, 1:]
        noise = share * float(truth.var())
        luck = torch.randn(120, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        value = truth + noise**0.5 * luck
        estimate = with_noise(x, value, torch.full_like(value, math.nan))
        assert 0.25 < float(estimate[0]) / noise < 4.0
        given_ = torch.full_like(value, 7.0)
        assert torch.equal(with_noise(x, value, given_), given_)
