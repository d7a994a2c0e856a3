"""Prior means and trends that users know, against dense NumPy; as files, and from other studies."""

import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cron_platform import Platform
from support.quadratic_surrogate import Quadratic
from support.small_study import CONFIG, make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.surrogate import Ensemble
from hyperzero_torch.surrogate.foreign import PriorMean, choose, with_prior_mean
from hyperzero_torch.surrogate.foreign.builtin import quadratic_matern
from hyperzero_torch.surrogate.foreign.features import features
from hyperzero_torch.surrogate.foreign.prior import MetricPrior
from hyperzero_torch.surrogate.foreign.trend import QuadraticKernel
from hyperzero_torch.testing import SurrogateContract, example_evidence

PROBLEM = make().problem


def simulator(theta):
    """Gain rises with a and is curved in b; torch, so it has slopes."""
    a, b = theta.unbind(-1)
    return torch.stack([0.02 * a + 0.01 * (b - 0.5).square(), -0.01 * b], dim=-1)


def in_numpy(theta):
    """The same without slopes, as most simulators are."""
    a, b = theta.numpy().T
    return np.stack([0.02 * a + 0.01 * (b - 0.5) ** 2, -0.01 * b], axis=-1)


def expected_mean(x):
    """Relative to the base (0.4, 0.6), by hand."""

    def raw(a, b):
        return np.stack([0.02 * a + 0.01 * (b - 0.5) ** 2, -0.01 * b], axis=-1)

    return (1 + raw(*x.numpy().T)) / (1 + raw(np.array([0.4]), np.array([0.6]))) - 1


def about(function, surrogate=None):
    mean = PriorMean.of(function, PROBLEM.metrics)
    return with_prior_mean(choose(surrogate, 2), mean).bound(PROBLEM)


POINTS = torch.rand(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("function", [simulator, in_numpy])
@pytest.mark.parametrize("surrogate", [None, "rbf", "quadratic+matern"])
def test_it_is_a_fit_to_what_the_mean_leaves(function, surrogate):
    x, mean, var, shared = example_evidence()
    posterior = about(function, surrogate).fit(x, mean, var, shared)
    residual = mean - torch.tensor(expected_mean(x))
    inner = (choose(surrogate, 2) or hz.Surrogate()).fit(x, residual, var, shared)
    got, variance = posterior.marginal(POINTS)
    centre, expected_variance = inner.marginal(POINTS)
    np.testing.assert_allclose(got, centre.numpy() + expected_mean(POINTS), rtol=0, atol=1e-12)
    torch.testing.assert_close(variance, expected_variance)
    draws = posterior.paths(2, torch.Generator().manual_seed(4))(POINTS)
    inner_draws = inner.paths(2, torch.Generator().manual_seed(4))(POINTS).numpy()
    np.testing.assert_allclose(draws, inner_draws + expected_mean(POINTS), rtol=0, atol=1e-12)


def test_without_evidence_nearby_it_is_the_prior_mean():
    """One candidate far away, and a short lengthscale: there is nothing else to go by."""
    x = torch.tensor([[0.02, 0.02]], dtype=torch.float64)
    y = torch.tensor(expected_mean(x))
    posterior = about(simulator).fit(x, y, torch.full_like(y, 1e-6), None)
    np.testing.assert_allclose(posterior.marginal(POINTS)[0], expected_mean(POINTS), atol=1e-9)
    assert expected_mean(torch.tensor([[0.4, 0.6]], dtype=torch.float64)) == pytest.approx(0.0)


class TestAPriorMeanWithoutSlopes(SurrogateContract):
    def make_surrogate(self):
        return with_prior_mean(None, PriorMean.of(in_numpy, ("gain", "guard")))


class TestAPriorMeanAboutATrend(SurrogateContract):
    def make_surrogate(self):
        mean = PriorMean.of(simulator, ("gain", "guard"))
        return with_prior_mean(choose("quadratic+matern", 2), mean)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_a_quadratic_kernel_is_a_sum_of_quadratic_terms(dims, seed):
    x = torch.rand(7, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = 2 * x.numpy() - 1
    a = u @ u.T / dims
    kernel = QuadraticKernel()
    np.testing.assert_allclose(kernel(x, x).to_dense(), (a + a**2) / 2, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(kernel(x, diag=True), np.diag(a + a**2) / 2, rtol=1e-10, atol=1e-12)
    phi = features(MetricPrior(torch.nn.Identity(), kernel), x, None)(x)
    np.testing.assert_allclose(phi @ phi.T, (a + a**2) / 2, rtol=1e-8, atol=1e-10)


def test_a_quadratic_trend_reaches_beyond_the_evidence():
    """Fitted to one half of the cube, it predicts the other; Matern alone falls back."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    x[:, 0] *= 0.5
    at = torch.tensor([[0.95, 0.3], [0.9, 0.8]], dtype=torch.float64)

    def surface(x):
        return (0.01 * (x[:, 0] - 0.2).square() - 0.004 * x[:, 1]).unsqueeze(-1)

    errors = []
    for name in (None, "quadratic+matern"):
        y = surface(x)
        model = choose(name, 2) or hz.Surrogate()
        mean, _ = model.fit(x, y, torch.full_like(y, 1e-11)).marginal(at)
        errors.append(float((mean - surface(at)).abs().max()))
    assert errors[1] < 0.3 * errors[0]
    assert MetricPrior(torch.nn.Identity(), quadratic_matern(2)).kernel is not None


class Wide(Quadratic):
    """Records the prior scale that it is given."""

    def fit(self, x, mean, var, shared, prior_std=None):
        self.prior_std = prior_std
        return super().fit(x, mean, var, shared)


def test_plausible_lift_is_the_prior_scale_of_networks_and_of_objects_that_take_it():
    config = CONFIG.model_copy(update={"plausible_lift": (("gain", 0.04), ("guard", 0.02))})
    wide = Wide()
    tuner = hz.Tuner(PROBLEM, config, surrogate=wide)
    play(tuner, 2)
    tuner.surrogate()
    assert wide.prior_std.tolist() == [0.02, 0.01]
    with pytest.warns(hz.TunerWarning, match=r"Quadratic.*takes no argument prior_std"):
        hz.Tuner(PROBLEM, config, surrogate=Quadratic())

    x, mean, var, _ = example_evidence()
    far = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    few = (x[:1] * 0, mean[:1], var[:1])
    deviations = [
        Ensemble(members=400).fit(*few, prior_std=torch.tensor([std, math.nan])).marginal(far)[1]
        for std in (0.01, 0.1)
    ]
    ratio = (deviations[1] / deviations[0]).sqrt()
    assert float(ratio[0, 0]) == pytest.approx(10, rel=0.02)  # the same networks, in other units
    assert float(ratio[0, 1]) == pytest.approx(1)


WRONG = {
    "number": (3, r"must be a function of theta.*got int"),
    "text": ("simulator", r"'simulator' is not understood; write 'module:function'"),
    "missing": ("no_such_module:f", r"prior_mean 'no_such_module:f' cannot be imported"),
    "metric": ({"loss": simulator}, r"unknown metrics \['loss'\]"),
    "shape": (lambda theta: theta[:, :1], r"must be \(N, metrics\) = \(1, 2\), got \(1, 1\)"),
    "one column": ({"gain": simulator}, r"prior mean of gain must be \(1,\).*got \(1, 2\)"),
    "raises": (lambda theta: theta / [], r"raised TypeError.*called with theta \(N, 2\)"),
    "nan": (lambda theta: theta * math.nan, r"is not finite everywhere"),
    "none": (lambda theta: None, r"must return real numbers.*got NoneType"),
    "complex": (lambda theta: theta * 1j, r"must return real numbers.*got torch.complex128"),
    "not a function": ({"gain": 0.3}, r"prior mean of gain must be a function.*got 0\.3"),
    "total loss": (lambda theta: theta - 9, r"at the base is.*above -1"),
    "random": (lambda theta: torch.rand(len(theta), 2) / 9, r"changes from call to call"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_a_prior_mean_is_one_clear_error(case):
    value, message = WRONG[case]
    with pytest.raises(hz.ConfigError, match=message):
        hz.Tuner(PROBLEM, CONFIG, prior_mean=value)


def test_a_prior_mean_that_works_in_place_moves_no_candidate():
    def in_place(theta):
        return theta.mul_(0.02)

    tuners = [hz.Tuner(PROBLEM, CONFIG, prior_mean=m) for m in (in_place, lambda t: 0.02 * t)]
    for tuner in tuners:
        play(tuner, 2)
    first, second = (tuner.ask() for tuner in tuners)
    assert torch.equal(first.theta, second.theta)
    assert first.parameters == second.parameters
    assert tuners[0].problem.base_theta.tolist() == [0.4, 0.6]


class Fails(torch.nn.Module):
    """A network as a simulator; breaks from some number of points on."""

    def __init__(self, scale=0.01, most=10**9):
        super().__init__()
        self.scale, self.most = torch.nn.Parameter(torch.tensor(scale).double()), most

    def forward(self, theta):
        return self.scale * theta * (math.nan if len(theta) > self.most else 1.0)


def test_a_prior_mean_that_fails_in_a_round_leaves_it_to_the_default():
    tuner = hz.Tuner(PROBLEM, CONFIG, prior_mean=Fails(most=20))
    tuner.tell(reply(tuner.ask()))
    with pytest.warns(hz.TunerWarning, match=r"Fails.*not finite everywhere.*the default model"):
        tuner.ask()
    assert [d.kind for d in tuner.decisions] == ["surrogate", "fallback"]


def test_a_study_goes_on_with_the_same_prior_mean_or_not_at_all(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    straight = hz.Tuner(PROBLEM, CONFIG, prior_mean=Fails())
    play(straight, 3)
    hz.Tuner(PROBLEM, CONFIG, url, prior_mean=Fails())
    for _ in range(3):
        tuner = hz.Tuner.resume(url, problem=PROBLEM, prior_mean=Fails())
        tuner.tell(reply(tuner.ask()))
    assert straight.recommend() == tuner.recommend()
    for other in (None, Fails(0.02), simulator):
        with pytest.raises(hz.StudyMismatchError, match=r"matern about .*Fails"):
            hz.Tuner.resume(url, problem=PROBLEM, prior_mean=other)
    compared = tuner.compare_surrogates(["rbf"])
    names = [c.name.partition(" about")[0] for c in compared.contenders]
    assert names == ["matern", "matern", "rbf"]
    assert compared.own == compared.contenders[1].name


def test_wider_bounds_move_the_prior_mean_with_them():
    tuner = hz.Tuner(PROBLEM, CONFIG, prior_mean=simulator)
    play(tuner, 2)
    wide = hz.SearchSpace([hz.Float("a", 0.0, 2.0), hz.Float("b", 0.0, 1.0)])
    goals = hz.Problem(wide, PROBLEM.base, PROBLEM.metrics, "gain", ["guard >= -5%"])
    tuner.change_goals(goals, reason="more room", by="ann")
    theta = torch.tensor([[1.9, 0.6]], dtype=torch.float64)
    mean, var = tuner.posterior(theta)
    expected = expected_mean(theta)
    assert abs(float(mean[0, 0]) - expected[0, 0]) < 3 * float(var[0, 0].sqrt())
    assert not [d for d in tuner.decisions if d.kind == "fallback"]


def test_another_study_s_mean(tmp_path):
    url = f"sqlite:///{tmp_path}/north.db"
    north = hz.Tuner(PROBLEM, CONFIG, url)
    play(north, 6)
    address = f"{url}#default@4"
    first = hz.Tuner(PROBLEM, CONFIG, prior_mean=address)
    assert "before round 4" in first.decisions[0].reason
    assert f"{tmp_path}/north.db" in first.decisions[0].reason
    play(first, 2)
    mean, _ = first.posterior({"a": 0.9, "b": 0.6})
    assert float(mean[0]) > 0.01  # 0.1 x 0.5 / 1.04, as the other study has seen
    with pytest.raises(hz.StudyNotFoundError):
        hz.Tuner(PROBLEM, CONFIG, prior_mean=f"sqlite:///{tmp_path}/south.db#default")
    with pytest.raises(hz.ConfigError, match="no evidence yet"):
        hz.Tuner(PROBLEM, CONFIG, prior_mean=f"{url}#default@0")

    own = f"sqlite:///{tmp_path}/own.db"
    play(hz.Tuner(PROBLEM, CONFIG, own, prior_mean=address), 1)
    play(north, 1)  # later rounds of the other study change nothing
    play(hz.Tuner.resume(own, problem=PROBLEM, prior_mean=address), 1)


def test_a_study_file_names_its_prior_mean(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    (tmp_path / "offline_models.py").write_text(
        "import torch\n"
        "def predict(theta):\n    return torch.stack([0.01 * theta[:, 0]] * 3, dim=-1)\n"
    )
    study = yaml.safe_load(platform.config.read_text())
    study |= {"prior_mean": "offline_models:predict", "surrogate": "quadratic+matern"}
    platform.config.write_text(yaml.safe_dump(study))
    for hour in range(3):
        more = () if not hour else ("--readings", platform.readings(platform.plan(hour - 1)))
        code, _, err = platform.step(*more, "--plan", tmp_path / f"plan_{hour}.json")
        assert code == 0, err
    before = platform.journal()
    assert "quadratic+matern about offline_models:predict" in str(before["decisions"][0])
    code, out, err = platform.run("models", "-c", platform.config, "--surrogate", "rbf")
    assert code == 0, err
    assert "about" in out
    platform.config.write_text(yaml.safe_dump(study | {"prior_mean": None}))
    code, _, err = platform.step("--plan", tmp_path / "plan_3.json")
    assert code == 6, err
    platform.config.write_text(yaml.safe_dump(study | {"prior_mean": "offline"}))
    code, _, err = platform.run("status", "-c", platform.config)
    assert code == 3
    assert "prior_mean 'offline' is not understood" in " ".join(err.split())
    assert platform.journal() == before
