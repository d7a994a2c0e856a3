"""Metrics that inform each other, against dense NumPy over all pairs of rows and metrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.surrogate import MultiTask
from hyperzero_torch.surrogate.foreign import choose
from hyperzero_torch.testing import SurrogateContract, example_evidence


class TestMetricsTogether(SurrogateContract):
    def make_surrogate(self):
        return "multitask"


class TestBoTorchsMultiTaskGP(SurrogateContract):
    def make_surrogate(self):
        return pytest.importorskip("botorch.models").MultiTaskGP


def dense(posterior, x, mean, var, shared, at):
    """Means and covariances within metrics of the joint normal over rows and metrics."""
    prior = posterior.inner_posterior.priors[0]
    matern, tasks = prior.kernel.kernels
    length = matern.lengthscale.detach().numpy()[0]
    factor = tasks.covar_factor.detach().numpy()
    b = factor @ factor.T + np.diag(tasks.var.detach().numpy())
    constants = prior.mean_module.constants.detach().numpy()
    shift, scale = (f.numpy() for f in posterior.standardiser)

    def k(p, q):
        r = math.sqrt(5) * np.sqrt((((p[:, None] - q[None]) / length) ** 2).sum(-1))
        return (1 + r + r**2 / 3) * np.exp(-r)

    rows = [(m, i) for m in range(mean.shape[1]) for i in range(len(x)) if mean[i, m] == mean[i, m]]
    task = np.array([m for m, _ in rows])
    points = x.numpy()[[i for _, i in rows]]
    y = np.array([(float(mean[i, m]) - shift[m]) / scale[m] for m, i in rows])
    noise = np.zeros((len(rows), len(rows)))
    for a, (m, i) in enumerate(rows):
        for c, (n, j) in enumerate(rows):
            if a == c:
                noise[a, c] = float(var[i, m]) / scale[m] ** 2
            elif m == n and shared is not None:
                noise[a, c] = float(shared[m, i, j]) / scale[m] ** 2
    system = b[task][:, task] * k(points, points) + noise
    means, joints = [], []
    for m in range(mean.shape[1]):
        cross = b[m][task] * k(at.numpy(), points)
        means.append(constants[m] + cross @ np.linalg.solve(system, y - constants[task]))
        joint = b[m, m] * k(at.numpy(), at.numpy()) - cross @ np.linalg.solve(system, cross.T)
        joints.append(scale[m] ** 2 * joint)
    return shift + scale * np.stack(means, -1), np.stack(joints)


@pytest.mark.parametrize("with_shared", [False, True])
def test_it_is_a_joint_normal_over_rows_and_metrics(with_shared):
    x, mean, var, shared = example_evidence()
    mean[4:9, 1] = torch.nan
    shared = shared if with_shared else None
    posterior = MultiTask().fit(x, mean, var, shared)
    at = torch.rand(11, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected, covariance = dense(posterior, x, mean, var, shared, at)
    got, variance = posterior.marginal(at)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(posterior.covariance(at), covariance, rtol=0, atol=1e-11)
    diagonal = np.diagonal(covariance, axis1=1, axis2=2).T
    np.testing.assert_allclose(variance, diagonal, rtol=1e-5, atol=1e-12)


def surfaces(num, correlation, seed=3):
    """Two metrics that are each other's image with this correlation; the second is rarely seen."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num, 2, generator=generator, dtype=torch.float64)

    def value(x):
        first = (4 * x[:, 0]).sin() + (3 * x[:, 1]).cos()
        return 0.01 * torch.stack([first, correlation * first], dim=-1)

    noise = torch.randn(num, 2, generator=generator, dtype=torch.float64)
    mean = value(x) + 5e-4 * noise
    mean[8:, 1] = torch.nan
    at = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    return value, x, mean, torch.full_like(mean, 25e-8), at


@pytest.mark.parametrize("correlation", [1.0, -1.0])
def test_a_metric_that_is_rarely_seen_is_learnt_from_another(correlation):
    value, x, mean, var, at = surfaces(40, correlation)
    errors = {}
    for name in ("multitask", None):
        model = choose(name, 2) or hz.Surrogate()
        posterior = model.fit(x, mean, var, None)
        errors[name] = float((posterior.marginal(at)[0] - value(at))[:, 1].square().mean().sqrt())
    assert errors["multitask"] < 0.4 * errors[None]
    learnt = MultiTask().fit(x, mean, var).correlation
    assert float(learnt[0, 1]) * correlation > 0.7


def test_draws_of_metrics_are_correlated():
    _, x, mean, var, at = surfaces(40, 1.0)
    posterior = MultiTask().fit(x[:6], mean[:6], var[:6])
    draws = posterior.paths(3000, torch.Generator().manual_seed(0))(at[:5])
    centred = draws - draws.mean(0)
    first, second = centred.unbind(-1)
    size = (first.square().mean(0) * second.square().mean(0)).sqrt()
    correlation = (first * second).mean(0) / size
    assert float(correlation.mean()) > 0.3


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(3, 7), st.integers(1, 3), st.integers(0, 10**6))
def test_any_evidence_has_a_finite_posterior(dims, num, metrics, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num, dims, generator=generator, dtype=torch.float64)
    mean = 1e-3 * torch.randn(num, metrics, generator=generator, dtype=torch.float64)
    mean[2:, 0] = torch.nan
    var = 1e-6 * (0.1 + torch.rand(num, metrics, generator=generator, dtype=torch.float64))
    var[0] = 0.0
    posterior = choose("multitask", dims).fit(x, mean, var, None)
    got, variance = posterior.marginal(torch.rand(5, dims, generator=generator).double())
    assert bool(got.isfinite().all())
    assert bool((variance > 0).all())


def test_what_cannot_be_such_a_model_is_one_clear_error():
    models = pytest.importorskip("botorch.models")
    with pytest.raises(hz.ConfigError, match=r"got int"):
        MultiTask(3)
    with pytest.raises(hz.ConfigError, match=r"raised TypeError.*last column is the metric's"):
        choose(MultiTask(lambda x: x), 2)

    def learning(x, y, train_Yvar, task_feature):
        return models.MultiTaskGP(x, y, task_feature=task_feature)

    with pytest.raises(hz.ConfigError, match="learns noise"):
        choose(MultiTask(learning), 2)

    def single(x, y, train_Yvar, task_feature):
        return models.SingleTaskGP(x, y, train_Yvar)

    with pytest.raises(hz.ConfigError, match="whose covariance is a kernel of x times"):
        choose(MultiTask(single), 2)
    with pytest.raises(hz.ConfigError, match="must make a BoTorch MultiTaskGP, it made Linear"):
        choose(MultiTask(lambda *a, **k: torch.nn.Linear(2, 1)), 2)
    with pytest.raises(hz.ConfigError, match="one output without a batch"):
        choose(lambda x, y, yvar: models.SingleTaskGP(x, y.expand(-1, 2), yvar.expand(-1, 2)), 2)
    assert MultiTask(models.MultiTaskGP).descriptor != MultiTask().descriptor
