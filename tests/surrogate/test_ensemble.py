"""The ensemble of networks: calibrated on surfaces that it was not chosen on; exact last layers."""

import math

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.surrogate import Ensemble
from hyperzero_torch.testing import example_evidence


def surface(seed, dims):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    omega, phase, size = normal(64, dims) / (0.4 * math.sqrt(dims)), 6.3 * normal(64), normal(64, 2)

    def value(x):
        return 0.01 * (x @ omega.T + phase).cos() @ size / 8

    x = torch.rand(40, dims, generator=generator, dtype=torch.float64)
    y = value(x) + 1e-3 * normal(40, 2)
    return value, x, y, torch.rand(300, dims, generator=generator, dtype=torch.float64)


def test_its_intervals_cover_what_they_say():
    """95 % intervals hold at least 90 % of true values, over worlds of other seeds and dims."""
    covered = []
    for seed in (101, 102, 103, 104):
        value, x, y, at = surface(seed, 3)
        mean, var = Ensemble().fit(x, y, torch.full_like(y, 1e-6)).marginal(at)
        covered.append(((value(at) - mean).abs() < 1.96 * var.sqrt()).double().mean())
    assert 0.9 <= float(torch.stack(covered).mean()) <= 0.995


def test_the_members_of_fixed_units_are_draws_of_the_exact_posterior():
    """Against the closed form of Bayesian regression on the units, member by member."""
    x, mean, var, shared = example_evidence()
    posterior = Ensemble(members=400, units=8, steps=0).fit(x, mean, var, shared)
    # The same units in every member: then all members draw from a single posterior.
    layer = posterior.layer
    layer = layer._replace(
        weight=layer.weight[:, :1].expand_as(layer.weight),
        bias=layer.bias[:, :1].expand_as(layer.bias),
    )
    posterior.layer = layer
    again = posterior.condition(x, mean, var, shared)
    shift, scale = posterior.standardiser
    for m in range(2):
        phi = layer(x)[m, 0]
        noise = (torch.diag(var[:, m]) + shared[m] - torch.diag(shared[m].diagonal())) / scale[
            m
        ] ** 2
        y = (mean[:, m] - shift[m]) / scale[m]
        precision = phi.T @ torch.linalg.solve(noise, phi) + torch.diag(1 / layer.prior_variance)
        expected = torch.linalg.solve(precision, phi.T @ torch.linalg.solve(noise, y))
        covariance = torch.linalg.inv(precision)
        drawn = again.weights[m]  # (members, 9)
        error = (drawn.mean(0) - expected) / (covariance.diagonal() / len(drawn)).sqrt()
        assert float(error.abs().max()) < 5
        ratio = drawn.var(0) / covariance.diagonal()
        assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / len(drawn))


def test_settings_are_checked_and_described():
    with pytest.raises(hz.ConfigError, match="members must be a whole number >= 8, got 2"):
        Ensemble(members=2)
    assert Ensemble(units=64).descriptor != Ensemble().descriptor


def test_many_candidates_are_solved_in_parts_as_they_are_at_once(monkeypatch):
    """Without shared errors; hidden layers as they were drawn, so that only the solution counts."""
    from hyperzero_torch.surrogate import ensemble

    _, x, y, at = surface(7, 2)
    whole = Ensemble(units=16, steps=0).fit(x, y, torch.full_like(y, 1e-6))
    monkeypatch.setattr(ensemble, "_BATCH", 7)
    parts = Ensemble(units=16, steps=0).fit(x, y, torch.full_like(y, 1e-6))
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-7, atol=1e-9)
    trained = Ensemble(units=16, steps=8).fit(x, y, torch.full_like(y, 1e-6))
    again = Ensemble(units=16, steps=8).fit(x, y, torch.full_like(y, 1e-6))
    assert torch.equal(trained.weights, again.weights)
    monkeypatch.setattr(ensemble, "_MANY", 100)  # then in float32
    for exact, rounded in zip(whole.marginal(at[:100]), whole.marginal(at)):
        torch.testing.assert_close(exact, rounded[:100], rtol=1e-3, atol=1e-7)


def test_independent_errors_are_shared_errors_of_nothing():
    _, x, y, at = surface(8, 2)
    var, nothing = torch.full_like(y, 1e-6), torch.zeros(2, len(x), len(x), dtype=torch.float64)
    alone, together = (Ensemble(units=16).fit(x, y, var, s) for s in (None, nothing))
    for a, b in zip(alone.marginal(at), together.marginal(at)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-9)


def test_twenty_thousand_candidates_need_no_matrix_of_them():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 2, generator=generator, dtype=torch.float64)
    y = 0.01 * (4 * x[:, :1]).sin()
    posterior = Ensemble(members=8, units=16, steps=4).fit(x, y, torch.full_like(y, 1e-6))
    mean, _ = posterior.marginal(x[:50])
    assert float((mean - y[:50]).abs().max()) < 2e-3
