"""Sample ratio mismatch: Pearson by hour; e-processes over all hours, valid at every hour."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

import hyperzero_torch as hz
from hyperzero_torch.stats import sample_ratio

HOURS = 72
ALPHA = 0.05


def shares(kind, rng, arms=8):
    if kind == "constant":
        row = np.array([0.4] + [0.6 / (arms - 1)] * (arms - 1))
        return np.tile(row, (HOURS, 1))
    weight = rng.uniform(0.05, 1.0, (HOURS, arms)) * (rng.random((HOURS, arms)) < 0.8)
    weight[:, 0] = 1.0  # the control is always served
    return weight / weight.sum(1, keepdims=True)


def users(rng, planned, total, runs, kept=None):
    """``(runs, hours, arms)`` users that arrive, arm i with probability ``kept[i]``."""
    counts = np.stack([rng.multinomial(total, row, size=runs) for row in planned], axis=1)
    return torch.from_numpy(counts if kept is None else rng.binomial(counts, kept)).double()


@pytest.mark.parametrize("kind", ["constant", "varying"])
def test_followed_plans_are_doubted_at_any_hour_with_probability_alpha_at_most(kind):
    rng = np.random.default_rng(1)
    planned = shares(kind, rng)
    counts, plan = users(rng, planned, 5000, 400), torch.from_numpy(planned)
    for prior in (50.0, sample_ratio.PRIOR_USERS):
        process = sample_ratio.log_e_process(counts, plan.expand_as(counts), prior_users=prior)
        ever = (process >= -math.log(ALPHA)).any(-1).double().mean()
        assert float(ever) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)
    # Each hour's mean of E is 1 at most: an e-value, not just a rare alarm.
    assert float(process[:, -1].exp().mean()) < 1.5
    lost = torch.zeros(planned.shape[1])
    for run in counts[:150]:
        path = torch.stack([sample_ratio.log_e_loss(run[:t], plan[:t]) for t in (8, 24, 48, HOURS)])
        lost += (path >= -math.log(ALPHA)).any(0)
    assert float(lost.max()) / 150 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 150)


@pytest.mark.parametrize("kept", [0.98, 0.99])
def test_a_slow_leak_passes_every_hour_and_is_found_over_all(kept):
    """1 to 2 % of one arm's users: no hour shows it, the hours together do."""
    rng = np.random.default_rng(2)
    planned = shares("constant", rng, arms=4)
    total = 30_000 if kept == 0.98 else 120_000
    counts = users(rng, planned, total, 40, [1.0, 1.0, kept, 1.0])
    plan = torch.from_numpy(planned)
    expected = plan * counts.sum(-1, keepdim=True)
    hourly = [
        float(sample_ratio.p_value(counts[r, t], expected[r, t]))
        for r in range(8)
        for t in range(HOURS)
    ]
    assert np.mean(np.array(hourly) < 0.0005) < 0.06
    process = sample_ratio.log_e_process(counts, plan.expand_as(counts))
    assert float((process[:, -1] >= -math.log(0.0005)).double().mean()) >= 0.9
    lost = torch.stack([sample_ratio.log_e_loss(run, plan) for run in counts])
    assert float((lost[:, 2] >= -math.log(0.0005)).double().mean()) >= 0.9
    assert float(lost[:, [0, 1, 3]].max()) < -math.log(0.0005)


def test_with_shares_that_stay_it_is_the_bayes_factor_of_a_dirichlet():
    rng = np.random.default_rng(3)
    planned = np.array([0.5, 0.3, 0.2])
    counts = np.stack([rng.multinomial(400, planned) for _ in range(6)]).astype(float)
    prior = 80.0
    process = sample_ratio.log_e_process(
        torch.from_numpy(counts), torch.from_numpy(np.tile(planned, (6, 1))), prior_users=prior
    )
    for hour in range(6):
        n = counts[: hour + 1].sum(0)
        log_marginal = (
            special.gammaln(prior) - special.gammaln(prior + n.sum())
            + (special.gammaln(prior * planned + n) - special.gammaln(prior * planned)).sum()
        )  # fmt: skip
        assert float(process[hour]) == pytest.approx(log_marginal - (n * np.log(planned)).sum())


def test_an_hour_served_in_part_under_the_plan_before_is_no_mismatch():
    before = torch.tensor([[0.5, 0.5, 0.0]]).double()
    plan = torch.tensor([[0.5, 0.1, 0.4]]).double()
    counts = 100_000 * (0.75 * plan + 0.25 * before)
    late = sample_ratio.log_e_process(counts, plan, before)
    punctual = sample_ratio.log_e_process(counts, plan)
    assert float(punctual) > 1000
    assert float(late) < 0
    assert float(sample_ratio.log_e_loss(counts, plan, before)[2]) <= 1e-9
    assert float(sample_ratio.log_e_loss(counts, plan)[2]) > 1000


def test_one_hour_gives_a_limited_number_of_nats():
    plan = torch.tensor([[0.5, 0.5]] * 4).double()
    counts = torch.tensor([[500.0, 500.0]] * 4).double()
    counts[1, 1] = 0.0
    free = sample_ratio.log_e_loss(counts, plan)[1]
    held = sample_ratio.log_e_loss(counts, plan, most=3.0)[1]
    assert float(free) > 20
    assert float(held) < 3.0


def test_the_hourly_p_value_is_pearsons_and_small_arms_are_merged():
    rng = np.random.default_rng(4)
    observed, planned = rng.multinomial(900, [0.5, 0.3, 0.2]), np.array([0.5, 0.3, 0.2])
    p = sample_ratio.p_value(torch.from_numpy(observed), torch.from_numpy(900 * planned))
    assert float(p) == pytest.approx(stats.chisquare(observed, 900 * planned).pvalue)
    few = sample_ratio.p_value(torch.tensor([96.0, 2, 2]), torch.tensor([94.0, 3, 3]))
    assert float(few) == pytest.approx(stats.chisquare([96, 4], [94, 6]).pvalue)
    assert float(sample_ratio.p_value(torch.tensor([3.0]), torch.tensor([3.0]))) == 1


def test_shapes_must_fit():
    with pytest.raises(hz.ShapeError, match="of one shape"):
        sample_ratio.log_e_process(torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(hz.ShapeError, match="of one shape"):
        sample_ratio.log_e_loss(torch.ones(3), torch.ones(3))
