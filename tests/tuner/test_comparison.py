"""Surrogates compared on a study's own evidence: brute-force densities; the right one wins."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.means import ZeroMean
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cron_platform import Platform
from support.quadratic_surrogate import Quadratic
from support.small_study import CONFIG, make, play

import hyperzero_torch as hz
from hyperzero_torch.surrogate.foreign import choose
from hyperzero_torch.surrogate.predictive import ahead, left_out
from hyperzero_torch.testing import example_evidence
from hyperzero_torch.tuner.gains import quantile


def frozen():
    """A kernel whose parameters no fit changes."""
    kernel = ScaleKernel(RBFKernel(ard_num_dims=2)).double()
    kernel.base_kernel.lengthscale = torch.tensor([[0.4, 0.7]], dtype=torch.float64)
    kernel.outputscale = 1.3
    return ZeroMean(), kernel.requires_grad_(False)


def evidence(with_shared):
    x, mean, var, shared = example_evidence()
    mean[2:6, 1] = torch.nan
    var = var * torch.linspace(1.0, 3.0, len(x), dtype=torch.float64).unsqueeze(-1)
    return x, mean, var, shared if with_shared else None


def brute_force(x, mean, var, shared, standardiser):
    """Leave-one-out log densities by n refits of a joint normal, in NumPy."""
    x = x.numpy()
    d = (x[:, None] - x[None]) / np.array([0.4, 0.7])
    k = 1.3 * np.exp(-0.5 * (d**2).sum(-1))
    density = np.full(mean.shape, np.nan)
    for m, (shift, scale) in enumerate(zip(*(f.numpy() for f in standardiser))):
        rows = np.flatnonzero(np.isfinite(mean[:, m].numpy()))
        joint = scale**2 * k[np.ix_(rows, rows)] + np.diag(var[rows, m].numpy())
        if shared is not None:
            common = shared[m].numpy()[np.ix_(rows, rows)]
            joint = joint + common - np.diag(np.diag(common))
        y = mean[rows, m].numpy() - shift
        for i in range(len(rows)):
            o = np.delete(np.arange(len(rows)), i)
            a = np.linalg.solve(joint[np.ix_(o, o)], joint[o, i])
            v = joint[i, i] - a @ joint[o, i]
            density[rows[i], m] = -0.5 * ((y[i] - a @ y[o]) ** 2 / v + math.log(2 * math.pi * v))
    return density


class WithoutAClosedForm:
    """A posterior that can only be conditioned anew."""

    def __init__(self, posterior):
        self.posterior = posterior

    def condition(self, *evidence):
        return self.posterior.condition(*evidence)


@pytest.mark.parametrize("with_shared", [False, True])
def test_left_out_candidates_are_those_of_refits_by_brute_force(with_shared):
    data = evidence(with_shared)
    posterior = choose(frozen(), 2).fit(*data)
    expected = brute_force(*data, posterior.inner.standardiser)
    closed = left_out(posterior, *data)
    np.testing.assert_allclose(closed.numpy(), expected, rtol=1e-6, atol=1e-8)
    conditioned = left_out(WithoutAClosedForm(posterior), *data, range(4, 12))
    np.testing.assert_allclose(conditioned.numpy(), expected[4:12], rtol=1e-5, atol=1e-6)


def test_the_default_s_closed_form_is_that_of_conditioning():
    data = evidence(True)
    posterior = hz.Surrogate().fit(*data)
    closed = left_out(posterior, *data)
    slow = left_out(WithoutAClosedForm(posterior), *data)
    torch.testing.assert_close(closed, slow, rtol=1e-5, atol=1e-6, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.integers(3, 9))
def test_a_unit_moves_every_density_by_its_logarithm(seed, unit, num):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num, 2, generator=generator, dtype=torch.float64)
    mean = torch.randn(num, 1, generator=generator, dtype=torch.float64)
    var = 0.1 + torch.rand(num, 1, generator=generator, dtype=torch.float64)
    densities = []
    for by in (1.0, unit):
        data = (x, by * mean, by**2 * var, None)
        densities.append(left_out(choose(frozen(), 2).fit(*data), *data) + math.log(by))
    torch.testing.assert_close(*densities, rtol=1e-4, atol=1e-4)


def test_rows_that_are_known_or_cannot_be_predicted_have_no_density():
    x, mean, var, _ = example_evidence()
    mean[0], var[0] = 0.0, 0.0
    mean[2:, 1] = torch.nan
    mean[0, 1] = torch.nan  # the second metric has one row
    data = (x, mean, var, None)
    density = left_out(choose(frozen(), 2).fit(*data), *data)
    assert not bool(density[0].isfinite().any())
    assert int(density[:, 1].isfinite().sum()) <= 1
    assert bool(density[1:, 0].isfinite().all())
    alone = left_out(WithoutAClosedForm(choose(frozen(), 2).fit(*data)), *data, [1])
    assert not bool(alone.isfinite().any())


def test_a_round_ahead_is_a_joint_normal():
    x, mean, var, shared = example_evidence()
    posterior = choose(frozen(), 2).fit(x[:18], mean[:18], var[:18], shared[:, :18, :18])
    new = mean[18:].clone()
    new[2, 1] = torch.nan
    noise = shared[:, 18:, 18:] + torch.diag_embed(var[18:].T)
    centre, joint = posterior.marginal(x[18:])[0], posterior.covariance(x[18:]) + noise
    for m, rows in enumerate(([0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 5])):
        normal = torch.distributions.MultivariateNormal(centre[rows, m], joint[m][rows][:, rows])
        expected = float(normal.log_prob(new[rows, m]))
        assert float(ahead(posterior, x[18:], new, noise)[m]) == pytest.approx(expected, rel=1e-8)


def test_quantiles_of_student_s_t_are_those_of_tables():
    # One-sided 95 and 99 % points from printed tables.
    for freedom, p95, p99 in ((7, 1.895, 2.998), (23, 1.714, 2.500), (120, 1.658, 2.358)):
        assert quantile(0.95, freedom) == pytest.approx(p95, rel=3e-3)
        assert quantile(0.99, freedom) == pytest.approx(p99, rel=1e-2)


SPACE = hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in "abcd"])
PROBLEM = hz.Problem(SPACE, dict.fromkeys("abcd", 0.5), ["gain", "guard"], "gain", ["guard >= -9%"])


def additive_surface(seed):
    """A draw of the additive kernel: a sum of functions of one parameter each, 0 at the base."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, 40)
    omega = torch.randn(shape, generator=generator, dtype=torch.float64) / 0.12
    phase = 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64)
    size = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(20)

    def value(theta):  # (n, 4) -> (n, 2)
        at = theta[:, None, :, None] * omega + phase
        return 0.02 * (at.cos() * size).sum((-1, -2))

    base = value(torch.full((1, 4), 0.5, dtype=torch.float64))
    return lambda theta: value(theta) - base


def simulated(surface, rounds=14, arms=8, seed=0):
    """A study whose candidates are spread over the cube, and whose deltas a surface makes."""
    config = hz.TunerConfig(
        num_draws=30, num_samples=16, num_proposals=8, proposal_probability=1.0, num_starts=0,
        initial_candidates=arms, newcomer_slots=4, drift_alpha=None, verification_share=0.0,
        control_share=0.3,
    )  # fmt: skip
    tuner = hz.Tuner(PROBLEM, config, seed=seed)
    for round_ in range(rounds):
        plan = tuner.ask()
        generator = torch.Generator().manual_seed(1000 * seed + round_)
        true = 1 + surface(plan.theta)
        count = 4e5 * torch.tensor(plan.shares, dtype=torch.float64).unsqueeze(-1).expand_as(true)
        noise = torch.randn(true.shape, generator=generator, dtype=torch.float64)
        mean = true + 0.5 * noise / count.sqrt()
        var = torch.full_like(mean, 0.25)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, var))
    return tuner


@pytest.fixture(scope="module")
def additive_study():
    return simulated(additive_surface(3))


def test_the_right_kernel_wins_where_the_journal_comes_from_it(additive_study):
    before = additive_study.history.num_entries
    compared = additive_study.compare_surrogates(["rbf", "additive"], rounds=12)
    assert compared.advised == "additive"
    assert "take additive" in compared.advice
    gains = {c.name: c for c in compared.contenders}
    assert list(gains) == ["matern", "rbf", "additive"]
    assert gains["additive"].ahead.total > gains["rbf"].ahead.total
    assert gains["matern"].ahead.total == gains["matern"].left_out.total == 0
    for contender in compared.contenders:
        for gain in (contender.left_out, contender.ahead):
            assert gain.total == pytest.approx(sum(gain.by_metric))
    assert additive_study.history.num_entries == before
    assert additive_study.compare_surrogates(["rbf", "additive"], rounds=12).advised == "additive"


def test_a_model_like_the_default_is_within_noise(additive_study):
    copy = ScaleKernel(RBFKernel(ard_num_dims=4))
    named = {"again": copy, "the default by name": "matern"}
    compared = additive_study.compare_surrogates(named, rounds=8)
    assert [c.name for c in compared.contenders] == ["matern", "again"]
    assert compared.advised == "matern"
    assert "keep the default" in compared.advice


class Failing(Quadratic):
    def fit(self, *evidence):
        raise RuntimeError("singular")


def test_where_a_fit_fails_the_default_stands_in(additive_study):
    compared = additive_study.compare_surrogates([Failing()], rounds=8)
    failing = compared.contenders[1]
    assert failing.num_failed == 9
    assert "singular" in failing.why_failed
    assert failing.ahead.total == failing.left_out.total == 0
    assert compared.advised == "matern"


def test_bad_requests_are_one_clear_error():
    tuner = make()
    with pytest.raises(hz.RoundError, match="wait for more rounds"):
        tuner.compare_surrogates()
    play(tuner, 3)
    with pytest.raises(hz.ConfigError, match="are a list, got the text 'rbf'"):
        tuner.compare_surrogates("rbf")
    with pytest.raises(hz.ConfigError, match="whole number >= 1, got 0"):
        tuner.compare_surrogates(["rbf"], rounds=0)
    with pytest.raises(hz.ConfigError, match="use a name"):
        tuner.compare_surrogates(["cubic"])
    few = tuner.compare_surrogates(["rbf"])
    assert few.advised == "matern"
    assert "a verdict needs 8" in few.advice


def test_the_study_s_own_surrogate_is_among_them():
    tuner = hz.Tuner(make().problem, CONFIG, surrogate="rbf")
    play(tuner, 3)
    compared = tuner.compare_surrogates(["additive"])
    assert compared.own == "rbf"
    assert [c.name for c in compared.contenders] == ["matern", "rbf", "additive"]


def test_the_command_prints_tables_and_json_and_writes_nothing(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    (tmp_path / "own_models.py").write_text(
        "from gpytorch.kernels import MaternKernel, ScaleKernel\n"
        "def make(dims):\n    return ScaleKernel(MaternKernel(nu=1.5, ard_num_dims=dims))\n"
    )
    for hour in range(3):
        more = () if not hour else ("--readings", platform.readings(platform.plan(hour - 1)))
        code, _, err = platform.step(*more, "--plan", tmp_path / f"plan_{hour}.json")
        assert code == 0, err
        if hour == 1:  # nothing could be predicted yet, which is no gain of 0
            code, out, err = platform.run("models", "-c", platform.config, "--surrogate", "rbf")
            assert code == 0, err
            assert "0 rounds ahead" in out
            assert "+0.0" not in out.partition("0 rounds ahead")[2]
    before = platform.journal()
    asked = ("models", "-c", platform.config, "--surrogate", "rbf")
    code, out, err = platform.run(*asked, "--surrogate", "own_models:make", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [s["name"] for s in result["surrogates"]] == ["matern", "rbf", "own_models:make"]
    assert result["advised"] == "matern"
    used = {"views", "watch_time", "unfollowed"}
    assert set(result["surrogates"][1]["ahead"]["metrics"]) <= used
    code, out, err = platform.run(*asked)
    assert code == 0, err
    assert "gain over the default in nats" in out
    assert "rbf" in out
    assert "keep the default" in " ".join(out.split())
    code, _, err = platform.run("models", "-c", platform.config, "--surrogate", "cubic")
    assert code == 3
    assert "surrogate 'cubic' is not known" in " ".join(err.split())
    assert platform.journal() == before
    assert yaml.safe_load(platform.config.read_text())
