"""The factor by which hours scatter more than the formula says, estimated from the hours."""

import math

import pytest
import torch

from hyperzero_torch.stats import evidence
from hyperzero_torch.stats.delta import Delta

ARMS, ROUNDS, METRICS = 30, 12, 2


def hours(factor, seed, unit=1.0):
    """Deltas of arms over rounds, whose true variance is ``factor`` times what they claim."""
    generator = torch.Generator().manual_seed(seed)
    candidate = torch.arange(ARMS).repeat(ROUNDS)
    true = 0.05 * torch.randn(ARMS, METRICS, generator=generator, dtype=torch.float64)
    rows = len(candidate)
    var = 1e-4 * (0.5 + torch.rand(rows, METRICS, generator=generator, dtype=torch.float64))
    noise = torch.randn(rows, METRICS, generator=generator, dtype=torch.float64)
    mean = true[candidate] + (factor * var).sqrt() * noise
    return candidate, Delta(unit * mean, unit**2 * var)


def estimate(candidate, delta, num=ARMS):
    state = evidence.summarise(candidate, delta, 1 / delta.var, num)
    return evidence.overdispersion(candidate, delta, state)


@pytest.mark.parametrize("factor", [1.5, 4.0, 20.0])
def test_it_finds_the_factor(factor):
    freedom = ARMS * (ROUNDS - 1)
    found = torch.stack([estimate(*hours(factor, seed)) for seed in range(20)])
    expected = (20 + factor * freedom) / (20 + freedom)  # shrunk as documented
    error = expected * math.sqrt(2 / freedom / (20 * METRICS))
    assert float(found.mean()) == pytest.approx(expected, abs=5 * error)


def test_it_is_one_where_the_formula_holds_and_never_below():
    found = torch.stack([estimate(*hours(1.0, seed)) for seed in range(20)])
    assert float(found.min()) == 1.0
    assert float(found.max()) < 1 + 5 * math.sqrt(2 / (ARMS * (ROUNDS - 1)))
    assert torch.equal(estimate(*hours(0.1, 0)), torch.ones(METRICS, dtype=torch.float64))


def test_it_does_not_depend_on_a_unit():
    plain, scaled = estimate(*hours(3.0, 1)), estimate(*hours(3.0, 1, unit=1e-6))
    assert torch.allclose(plain, scaled, rtol=1e-9)


def test_single_rounds_and_missing_metrics_say_nothing():
    candidate, delta = hours(9.0, 2)
    once = Delta(delta.mean[:ARMS], delta.var[:ARMS])
    assert torch.equal(estimate(candidate[:ARMS], once), torch.ones(METRICS, dtype=torch.float64))
    mean = delta.mean.clone()
    mean[:, 1] = torch.nan
    found = estimate(candidate, Delta(mean, delta.var))
    assert float(found[0]) > 5
    assert float(found[1]) == 1.0


def test_calibrated_intervals_of_pooled_means_cover():
    covered = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(10_000 + seed)
        candidate = torch.arange(ARMS).repeat(ROUNDS)
        var = torch.full((len(candidate), 1), 1e-4, dtype=torch.float64)
        noise = torch.randn(len(candidate), 1, generator=generator, dtype=torch.float64)
        delta = Delta((6 * var).sqrt() * noise, var)  # the true delta is 0
        state = evidence.summarise(candidate, delta, 1 / delta.var, ARMS)
        phi = evidence.overdispersion(candidate, delta, state)
        std = (phi * state.spread / state.weight.square()).sqrt()
        covered.append((state.mean.abs() < 1.96 * std).double().mean())
    share = float(torch.stack(covered).mean())
    assert share == pytest.approx(0.95, abs=0.02)
