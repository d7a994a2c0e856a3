"""Bad luck: a plan is always made, the control always served, and a warning says what was done."""

import math
import warnings

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.errors import FitError
from hyperzero_torch.surrogate.likelihood import MarginalLikelihood

# The counts of these tests do not follow the shares of their plans, of which ``ask`` warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:round .*ample ratio mismatch:hyperzero_torch.TunerWarning"
)

F64 = torch.float64
CONFIG = hz.TunerConfig(num_draws=60, num_samples=64, num_proposals=2, initial_candidates=8)


def make(objective="gain", constraints=("guard >= -5%",), config=CONFIG, **changes):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(
        space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], objective, list(constraints)
    )
    return hz.Tuner(problem, config.model_copy(update=changes))


def serve(tuner, plan, *, noise=0.02, users=500.0, var=1.0, constant=False):
    """An hour of a platform whose gain rises with a and whose guard falls with b."""
    generator = torch.Generator().manual_seed(plan.round)
    mean = 10 * torch.stack([1 + 0.1 * plan.theta[:, 0], 1 - 0.05 * plan.theta[:, 1]], -1)
    mean = mean + noise * torch.randn(mean.shape, dtype=F64, generator=generator)
    spread = torch.full_like(mean, var)
    if constant:
        mean[:, 1], spread[:, 1] = 7.0, 0.0
    total = users * len(plan)  # of which each arm gets its planned share
    count = (total * torch.tensor(plan.shares, dtype=F64)).round().clamp_min(min(users, 2.0))
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, spread))


def play(tuner, rounds=5, **platform):
    """Rounds of the loop; every plan is looked at. Returns the warnings."""
    messages = []
    for _ in range(rounds):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = tuner.ask()
        messages += [str(w.message) for w in caught]
        assert plan.candidate_ids[0] == 0
        assert plan.shares[0] > 0
        assert sum(plan.shares) == pytest.approx(1)
        assert len(plan) > 1
        serve(tuner, plan, **platform)
    assert isinstance(str(tuner.recommend()), str)
    return messages


def of_other_things(messages):
    """Warnings but for those of counts that follow no shares."""
    return [message for message in messages if "ample ratio mismatch" not in message]


def test_nothing_special_warns_of_nothing():
    assert play(make()) == []


def test_a_constant_metric_is_known_not_to_move():
    tuner = make()
    assert play(tuner, constant=True) == []
    mean, var = tuner.posterior(torch.rand(20, 2, dtype=F64))
    assert float(mean[:, 1].abs().max()) < 1e-6
    assert bool(var.isfinite().all())
    assert tuner.recommend("mean").prob_feasible == 1.0


def test_zero_variance_from_tiny_groups_does_not_make_an_arm_certain():
    tuner = make()
    plan = tuner.ask()
    count = torch.full((len(plan),), 400.0, dtype=F64)
    mean = torch.full((len(plan), 2), 10.0, dtype=F64)
    var = torch.ones_like(mean)
    count[1], mean[1], var[1] = 2.0, 11.0, 0.0  # two users, the same value by luck
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, var))
    posterior_var = tuner.bucket().var[plan.candidate_ids[1]]
    assert (
        float(posterior_var.min()) > 1.0 / (2 * 100) * 0.5
    )  # about 1 / (n level^2), as others have it
    assert of_other_things(play(tuner, 3)) == []


def test_one_user_an_arm_is_no_evidence_and_arms_go_on_in_turn():
    tuner = make()
    assert of_other_things(play(tuner, 4, users=1.0)) == []
    assert not bool(tuner.bucket().tested.any())


def test_duplicate_and_near_duplicate_candidates():
    space = hz.SearchSpace([hz.Float("a", 0.0, 1e-9), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.0, "b": 0.5}, ["gain", "guard"], "gain", ["guard >= -5%"])
    tuner = hz.Tuner(problem, CONFIG)
    assert play(tuner) == []
    whole = hz.SearchSpace([hz.Int("a", 0, 1), hz.Float("b", 0.0, 1.0)])
    twins = hz.Problem(whole, {"a": 0, "b": 0.5}, ["gain", "guard"], "gain")
    x = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5 + 1e-12], [0.1, 0.1]], dtype=F64)
    y = torch.tensor([[0.01], [0.02], [0.015], [0.0]], dtype=F64)
    posterior = hz.Surrogate().fit(x, y, torch.full_like(y, 1e-5))
    mean, var = posterior.marginal(x)
    assert float((mean[0] - mean[1]).abs()) < 1e-9
    assert bool((var > 0).all())
    assert play(hz.Tuner(twins, CONFIG)) == []


@pytest.mark.parametrize("noise", [1e-12, 0.0])
def test_exact_duplicates_that_contradict_each_other_without_noise(noise):
    x = torch.full((3, 2), 0.5, dtype=F64)
    y = torch.tensor([[0.01], [-0.01], [0.02]], dtype=F64)
    mean, var = hz.Surrogate().fit(x, y, torch.full_like(y, noise)).marginal(x)
    assert bool(mean.isfinite().all() & (var > 0).all())


def test_one_candidate_only():
    space = hz.SearchSpace([hz.Choice("mode", ["old", "new"])])
    problem = hz.Problem(space, {"mode": "old"}, ["gain", "guard"], "gain", ["guard >= -5%"])
    tuner = hz.Tuner(problem, CONFIG)
    for _ in range(5):
        plan = tuner.ask()
        assert plan.candidate_ids == (0, 1)
        generator = torch.Generator().manual_seed(plan.round)
        mean = 10 + 0.01 * torch.randn(2, 2, dtype=F64, generator=generator)
        mean[1, 0] += 0.5
        tuner.tell(hz.Readings(plan.round, (0, 1), [500, 500], mean, torch.ones(2, 2)))
    assert tuner.recommend().parameters == {"mode": "new"}


def test_an_objective_that_is_nan_for_some_draws():
    tuner = make(lambda delta: torch.where(delta[..., 0] > 0.02, torch.nan, delta[..., 0]))
    messages = play(tuner)
    assert messages
    assert all("was NaN for a candidate in" in line for line in messages)
    assert {d.kind for d in tuner.history.decisions} == {"undefined"}


def test_an_objective_that_is_nan_everywhere_keeps_the_base():
    tuner = make(lambda delta: delta[..., 0] * torch.nan)
    messages = play(tuner)
    assert any("NaN" in line for line in messages)
    assert tuner.recommend().candidate_id == 0


def test_an_objective_that_is_constant_serves_in_turn():
    tuner = make(lambda delta: 0 * delta[..., 0] + 1.0, verification_share=0.0)
    messages = play(tuner)
    assert messages
    assert all("was the same for all feasible candidates" in line for line in messages)
    with pytest.warns(hz.TunerWarning):
        slots = tuner.ask().slots[1:]
    assert max(slots) - min(slots) <= 5  # newcomers have at least five


def test_constraints_that_contradict_each_other():
    low = hz.Constraint("guard", at_most=-0.03, may_exclude_base=True)
    high = hz.Constraint("guard", at_least=0.03, may_exclude_base=True)
    tuner = make(constraints=(low, high))
    messages = play(tuner)
    assert messages
    assert all("did any candidate meet all constraints" in line for line in messages)
    best = tuner.recommend()
    assert best.candidate_id == 0
    assert "stay with the base" in best.reason


def test_a_fit_that_fails(monkeypatch):
    tuner = make()
    play(tuner, 3)

    def fail(self, at):
        raise FitError("not today")

    monkeypatch.setattr(MarginalLikelihood, "loss_and_gradient", fail)
    messages = play(tuner, 2)
    assert messages
    assert all("it was not used" in line for line in messages)
    assert {d.kind for d in tuner.history.decisions} == {"fit"}


def test_a_fit_that_predicts_left_out_rows_much_worse_is_not_used(monkeypatch):
    x = hz.SearchSpace([hz.Float("a", 0.0, 1.0)]).sobol(24, seed=0)
    y = (6 * x).sin()
    honest = hz.Surrogate().fit(x, y, torch.full_like(y, 1e-4))
    assert honest.fit_succeeded

    def run_away(self, starts, max_iterations):
        flat = starts[-1].clone()
        flat[:-2] = math.log(50.0)
        return flat, True

    monkeypatch.setattr(MarginalLikelihood, "maximise", run_away)
    guarded = hz.Surrogate().fit(x, y, torch.full_like(y, 1e-4))
    assert not guarded.fit_succeeded
    assert float(guarded.hyperparameters.lengthscale.max()) < 1
    assert float(guarded.leave_one_out().sum()) > -10


def test_left_out_density_is_that_of_fits_without_the_row():
    x = hz.SearchSpace([hz.Float("a", 0.0, 1.0)]).sobol(8, seed=0)
    y = (6 * x).sin()
    var = torch.full_like(y, 0.01)
    whole = hz.Surrogate().fit(x, y, var)
    total = 0.0
    for i in range(8):
        rest = [j for j in range(8) if j != i]
        less = type(whole)(
            x[rest], (y[rest] - whole.standardiser.shift) / whole.standardiser.scale,
            whole.noise.T[rest], whole.hyperparameters, whole.standardiser,
        )  # fmt: skip
        mean, spread = less.marginal(x[i : i + 1])
        std = ((spread + var[i]) / whole.standardiser.scale**2).sqrt()
        z = (y[i] - mean) / whole.standardiser.scale
        total += float(torch.distributions.Normal(0.0, std).log_prob(z))
    assert float(whole.leave_one_out().sum()) == pytest.approx(total, rel=1e-6)
