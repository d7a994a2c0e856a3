"""Readings that carry little: few conversions, profit below 0, means near 0."""

from __future__ import annotations

import numpy as np
import pytest

import hyperzero_torch as hz

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")


def planned(guard, hours, arms, seed=0, **changes):
    """A tuner of one metric that has planned all hours, all arms alike, before any reading."""
    space = hz.SearchSpace([hz.Float("x", 0.0, 1.0)])
    problem = hz.Problem(space, {"x": 0.5}, ["m"], "m", [guard])
    config = hz.TunerConfig(
        **{"initial_candidates": arms, "num_samples": 64, "num_starts": 0, "num_draws": 200}
        | changes
    )
    tuner = hz.Tuner(problem, config, seed=seed)
    return tuner, [tuner.ask() for _ in range(hours)]


def tell(tuner, plans, sample):
    """Every arm's mean and variance by ``sample(plan, users)``; returns users and means.

    The users are those of the first plan: without readings later plans go back to the control.
    """
    users, means = [], []
    messages = []
    for plan in plans:
        count = np.maximum(2, np.round(100_000 * np.array(plans[0].shares)))
        mean, var = sample(plan, count)
        messages.append(hz.Readings(plan.round, plan.candidate_ids, count, mean, var))
        users.append(count)
        means.append(mean)
    tuner.tell(messages)
    return users, means


@pytest.mark.parametrize("rate", [5e-5, 1e-4, 1e-3])
def test_arms_without_a_difference_are_not_stopped_and_their_deltas_are_those_of_plain_sums(rate):
    """1.5 to 30 conversions of the control an hour; nothing differs between arms."""
    tuner, plans = planned("m >= -5%", 72, arms=8)
    rng = np.random.default_rng(int(rate * 1e6))

    def sample(plan, count):
        mean = rng.binomial(count.astype(int), rate) / count
        return mean, mean * (1 - mean) * count / (count - 1)

    users, means = tell(tuner, plans, sample)
    assert {p.candidate_ids for p in plans} == {tuple(range(9))}
    count, mean = np.array(users), np.array(means)
    plain = (count * mean).sum(0) / count.sum(0)
    conversions = (count * mean).sum(0)
    plan = tuner.ask()
    bucket = tuner.bucket()
    delta, std = bucket.mean[1:9, 0].numpy(), bucket.var[1:9, 0].sqrt().numpy()
    # With the same shares every hour the sums over hours are an estimate of their own.
    difference = delta - (plain[1:] / plain[0] - 1)
    expected = np.sqrt(1 / conversions[1:] + 1 / conversions[0])
    assert (abs(difference) < 0.5 * expected).all()
    assert (std > 0.8 * expected * (1 + delta)).all()
    assert (abs(delta) < 4 * std).all()
    assert tuner.stopped == ()
    assert plan.round == 72


def test_profit_that_rises_is_promoted_and_one_that_falls_is_stopped():
    """The control loses 10 an hour and user; an arm that loses less is better."""
    tuner, plans = planned("m >= -5%", 6, arms=8)
    rng = np.random.default_rng(0)

    def sample(plan, count):
        mean = (
            -10
            + 6 * (plan.theta[:, 0].numpy() - 0.5)
            + 8 / np.sqrt(count) * rng.normal(size=len(count))
        )
        return mean, np.full(len(count), 64.0)

    tell(tuner, plans, sample)
    tuner.ask()
    theta = tuner.bucket().theta[:, 0].numpy()
    delta = tuner.bucket().mean[1:9, 0].numpy()
    np.testing.assert_allclose(delta, 0.6 * (theta[1:9] - 0.5), atol=0.02)
    assert set(tuner.stopped) == {c for c in range(1, 9) if 0.6 * (theta[c] - 0.5) < -0.06}
    assert tuner.recommend().parameters["x"] > 0.8


def test_net_revenue_near_zero_has_no_delta_before_its_base_is_known():
    """Mean 1 and deviation 60: an hour's control is 1 +- 1.3, at times below 0."""
    tuner, plans = planned("m >= -20%", 168, arms=1, max_control_share=0.5)
    rng = np.random.default_rng(1)

    def sample(plan, count):
        count[:] = 2000
        return rng.normal(1.0, 60 / 2000**0.5, len(count)), np.full(len(count), 3600.0)

    _, means = tell(tuner, plans, sample)
    tuner.ask()
    bucket = tuner.bucket()
    mean = np.array(means).mean(0)
    assert float(bucket.mean[1, 0]) == pytest.approx(mean[1] / mean[0] - 1, abs=0.05)
    expected = 60 / (2000 * 168) ** 0.5 * (1 + (mean[1] / mean[0]) ** 2) ** 0.5 / mean[0]
    assert float(bucket.var[1, 0].sqrt()) == pytest.approx(expected, rel=0.3)
    assert tuner.stopped == ()
