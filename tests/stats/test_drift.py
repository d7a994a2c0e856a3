"""The drift alarm: bets that are fair, sums that are what they say, false alarms and delays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waits import Waits
from torch._dynamo.testing import CompileCounter

from bench.reliability import drift_alarms
from hyperzero_torch import ConfigError, ShapeError
from hyperzero_torch.stats import drift

f64 = torch.float64
ROUNDS = 200


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def fold(z, **how):
    """All rounds of ``z (rounds, *batch, arms, metrics)``."""
    state = drift.init(*z.shape[1:])
    for one in z:
        state = drift.update(state, one, **how)
    return state


def factors(z, memory):
    """e of every bet in one round of one metric, written out: ``(arms,)`` twice to ``(bets,)``."""
    known = np.isfinite(z)
    z, memory = z[known], memory[known]
    if not len(z):
        return np.ones(len(drift.STAKES))
    m = z.sum() / math.sqrt(len(z))
    spread = [np.prod(np.exp(z**2 * (1 - s**-2) / 2) / s) for s in drift.SPREADS]
    shift = [math.exp(k * m - k * k / 2) for k in drift.SHIFTS]
    b = [np.clip(c * memory, -0.5, 0.5) for c in drift.OWN]
    return np.array(spread + shift + [np.prod(np.exp(x * z - x * x / 2)) for x in b])


# Bets and sums


def test_the_stakes_are_all_there_is():
    assert math.fsum(drift.STAKES) == pytest.approx(1)
    assert len(drift.STAKES) == len(drift.SPREADS) + len(drift.SHIFTS) + len(drift.OWN)


@pytest.mark.parametrize("memory", [0.0, 2.5, -40.0])
def test_every_bet_is_fair_and_none_is_better_where_the_noise_is_smaller(memory):
    """E e = 1 over a standard normal z, at most 1 at variance 0.8: by trapezoids, to rounding."""
    z = torch.linspace(-60, 60, 24_001, dtype=f64)
    log_e = drift.log_bets(
        z.reshape(-1, 1, 1), z.isfinite().reshape(-1, 1, 1), memory + z.new_zeros(1, 1)
    )
    for var in (1.0, 0.8):
        density = -z.square() / (2 * var) - math.log(2 * math.pi * var) / 2
        mean = torch.trapezoid((log_e[..., 0] + density.unsqueeze(-1)).exp(), z, dim=0)
        assert (mean <= 1 + 1e-12).all()
        if var == 1:
            torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-12, atol=0)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.sampled_from([1.0, 1.5]))
def test_the_sums_over_starting_rounds_are_as_written_out(seed, missing, tolerance):
    """D = sum over starts of products; E the same with weights 1 / (j (j + 1)), and what waits."""
    generator = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(7, 4, 2, dtype=f64, generator=generator)
    z = torch.where(torch.rand(7, 4, 2, dtype=f64, generator=generator) < missing, torch.nan, z)
    state = fold(z, tolerance=tolerance)
    for metric in range(2):
        rounds, memory = [], np.zeros(4)
        for one in z[..., metric].numpy() / math.sqrt(tolerance):
            if np.isfinite(one).any():
                rounds.append(factors(one, memory))
            memory = np.where(np.isfinite(one), drift.DECAY * memory + one, memory)
        num = len(rounds)
        assert int(state.num_rounds[metric]) == num
        started = [np.prod(rounds[j:], axis=0) for j in range(num)]
        each = np.array(drift.STAKES)
        detector = sum(float(each @ s) for s in started)
        process = sum(float(each @ s) / (j * (j + 1)) for j, s in enumerate(started, 1))
        process += 1 / (num + 1)
        got = drift.log_detector(state)[metric].exp(), drift.log_process(state)[metric].exp()
        assert float(got[0]) == pytest.approx(detector, rel=1e-9)
        assert float(got[1]) == pytest.approx(process, rel=1e-9)
        np.testing.assert_allclose(state.memory[:, metric], memory, rtol=1e-12, atol=1e-15)


def test_what_is_left_out_changes_nothing_and_masks_are_nans():
    z = normal(5, 6, 3)
    mask = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(1)) > 0.4
    by_nan = fold(torch.where(mask, z, torch.nan))
    state = drift.init(6, 3)
    for one, part in zip(z, mask):
        state = drift.update(state, one, part)
    for got, want in zip(state, by_nan):
        assert torch.equal(got, want)
    nothing = torch.full((6, 3), torch.nan, dtype=f64)
    for one in (nothing, torch.full_like(nothing, torch.inf)):
        for got, want in zip(drift.update(state, one), state):
            assert torch.equal(got, want)


def test_arms_in_another_order_and_batches_say_the_same():
    z = normal(20, 3, 6, 2)
    batched = fold(z)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    for i in range(3):
        alone = fold(z[:, i])
        for got, want in zip(batched, alone):
            torch.testing.assert_close(got[i], want)
        moved = fold(z[:, i][:, order])
        torch.testing.assert_close(drift.log_detector(moved), drift.log_detector(alone))


def test_candidates_that_are_born_later_have_no_past():
    z = normal(6, 4, 2)
    late = torch.cat(
        [z[:, :2], torch.where(torch.arange(6)[:, None, None] < 3, torch.nan, z[:, 2:])], 1
    )
    want = fold(late)
    state = drift.init(2, 2)
    for one in late[:3, :2]:
        state = drift.update(state, one)
    state = drift.grow(state, 4)
    for one in late[3:]:
        state = drift.update(state, one)
    for got, right in zip(state, want):
        torch.testing.assert_close(got, right)
    with pytest.raises(ShapeError, match="4 arms cannot shrink to 3"):
        drift.grow(state, 3)


def test_restart_forgets_the_metrics_that_alarmed_and_no_other():
    z = normal(30, 5, 2)
    z[..., 0] *= 4
    state = fold(z)
    hit = drift.alarm(state, 0.001)
    assert hit.tolist() == [True, False]
    assert drift.drifted(state, 0.05).tolist() == [True, False]
    after = drift.restart(state, hit)
    fresh = drift.init(5, 2)
    for got, old, new in zip(after, state, fresh):
        assert torch.equal(got[..., 1], old[..., 1])
        assert torch.equal(got[..., 0], new[..., 0])
    assert drift.log_process(fresh).tolist() == [0.0, 0.0]
    assert not drift.alarm(fresh, 0.99).any()


def test_an_outlier_alone_is_not_bet_on_for_long():
    """After one residual of 8 the state recovers: it is not taken for a way of the arm's own."""
    z = normal(200, 5, 1, seed=3)
    z[100, 0] = 8.0
    own = fold(z).detector[-len(drift.OWN) :]
    assert float(own.max()) < math.log(1000)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(1, 4))
def test_no_residual_however_large_breaks_the_state(value, arms):
    state = fold(torch.full((3, arms, 1), value, dtype=f64))
    assert not any(field.isnan().any() for field in state)
    assert drift.log_detector(state).isfinite().all()
    if abs(value) > 100:
        assert drift.alarm(state, 1e-6).all()


# Whitening


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1e-8, 1.0, 1e8]))
def test_white_residuals_are_independent_and_standard(seed, arms, unit):
    """L^-1 S L^-T = 1, column by column, whatever the unit; its squares are Mahalanobis'."""
    root = normal(2, arms, arms + 2, seed=seed)
    covariance = unit * root @ root.mT
    residual = math.sqrt(unit) * normal(arms, 2, seed=seed + 1)
    z = drift.whiten(residual, covariance)
    want = residual.mT.unsqueeze(-2) @ torch.linalg.solve(covariance, residual.mT.unsqueeze(-1))
    torch.testing.assert_close(z.square().sum(0), want.flatten(), rtol=1e-6, atol=1e-12)
    factor = torch.linalg.cholesky(covariance)
    white = torch.stack([drift.whiten(c.mT, covariance) for c in factor.movedim(-1, 0)])
    unit_ = torch.eye(arms, dtype=f64).unsqueeze(-1).expand(-1, -1, 2)
    torch.testing.assert_close(white, unit_, rtol=1e-6, atol=1e-6)


def test_an_arm_that_is_missing_is_as_if_it_were_not_there():
    root = normal(2, 5, 7)
    covariance = root @ root.mT
    residual = normal(5, 2)
    residual[1, 0] = residual[4, 0] = torch.nan
    z = drift.whiten(residual, covariance)
    there = [0, 2, 3]
    alone = drift.whiten(residual[there, :1], covariance[:1][:, there][:, :, there])
    torch.testing.assert_close(z[there, :1], alone)
    assert z[:, 0].isnan().tolist() == [False, True, False, False, True]
    torch.testing.assert_close(z[:, 1:], drift.whiten(residual[:, 1:], covariance[1:]))


def test_what_is_no_covariance_is_no_evidence():
    covariance = torch.stack([torch.eye(3, dtype=f64), -torch.eye(3, dtype=f64)])
    covariance[1, 0, 0] = 1.0
    z = drift.whiten(normal(3, 2), covariance)
    assert z[:, 0].isfinite().all()
    assert z[:, 1].isnan().all()


def test_the_predictive_covariance_counts_the_shared_control_once():
    """Against simulated deltas that share a control: 200,000 of them."""
    own, loading = torch.tensor([[0.5], [0.3], [0.1]], dtype=f64), normal(3, 1, seed=4)
    root = normal(1, 3, 3, seed=5)
    got = drift.predictive_covariance(root @ root.mT, own + loading.square(), loading)
    num = 200_000
    error = normal(num, 3, seed=6) * own.squeeze(-1).sqrt() + normal(num, 1, seed=7) @ loading.mT
    sample = error + normal(num, 3, seed=8) @ root[0].mT
    spread = got[0].diagonal()
    tolerance = 5 * (torch.outer(spread, spread) * 2 / num).sqrt()
    assert ((sample.mT.cov() - got[0]).abs() <= tolerance).all()


# Refusals


def test_what_does_not_fit_is_refused():
    state = drift.init(4, 2)
    with pytest.raises(ShapeError, match=r"of \(4, 2\), got \(3, 2\)"):
        drift.update(state, normal(3, 2))
    for tolerance in (0.5, math.nan, math.inf):
        with pytest.raises(ConfigError, match="tolerance"):
            drift.update(state, normal(4, 2), tolerance=tolerance)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="alpha"):
            drift.alarm(state, alpha)
    with pytest.raises(ShapeError, match=r"covariance \(\*batch, 2, 4, 4\)"):
        drift.whiten(normal(4, 2), normal(4, 4))
    with pytest.raises(ShapeError, match="one dtype and device"):
        drift.whiten(normal(4, 2), normal(2, 4, 4).float())


# As a device wants it


def a_round(state, residual, covariance):
    state = drift.update(state, drift.whiten(residual, covariance), tolerance=1.2)
    return state, drift.alarm(state, 0.01), drift.drifted(state, 0.05)


def test_a_round_is_one_graph_and_never_waits():
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(a_round, fullgraph=True, backend=counter)
    for arms in (3, 7, 12):
        residual, root = normal(arms, 2), normal(2, arms, arms + 3)
        given_ = (drift.init(arms, 2), residual, root @ root.mT)
        with Waits() as waits:
            want = a_round(*given_)
        assert not waits.operations
        torch.testing.assert_close(compiled(*given_), want, rtol=1e-9, atol=1e-9)
    assert counter.frame_count <= 2


# False alarms and delays


def within(rate, num):
    """Five standard deviations of a rate above it."""
    return rate + 5 * math.sqrt(rate * (1 - rate) / num)


@pytest.mark.parametrize("served", [1.0, 0.3])
def test_false_alarms_stay_below_what_is_promised(served):
    """Detector: alpha x rounds; process: alpha. And both can alarm: the bounds are not empty."""
    rates = drift_alarms.false_alarms(400, ROUNDS, 1, served=served)
    assert rates["detector"] <= within(drift_alarms.ALPHA * ROUNDS, 400)
    assert rates["process"] <= within(drift_alarms.ALPHA_EVER, 400)
    assert rates["detector"] > 0.01


def test_rounds_from_one_false_alarm_to_the_next_are_one_over_alpha_or_more():
    generator = torch.Generator().manual_seed(2)
    stream = drift_alarms.residuals(drift_alarms.still(200, generator), 200, ROUNDS, generator)
    length = drift_alarms.run_length(stream, 0.05)
    assert 20 <= length <= 200


def test_larger_noise_is_an_alarm_that_a_tolerance_takes_back():
    loud = drift_alarms.false_alarms(100, ROUNDS, 3, dispersion=1.3)
    assert loud["detector"] > 0.9
    allowed = drift_alarms.false_alarms(100, ROUNDS, 3, dispersion=1.3, tolerance=1.3)
    assert allowed["detector"] <= within(drift_alarms.ALPHA * ROUNDS, 100)


def test_without_whitening_one_mishap_of_the_control_is_counted_often():
    assert drift_alarms.false_alarms(100, ROUNDS, 4, whitened=False)["process"] > 0.5


def test_lifts_that_turn_or_jump_are_heard_soon(monkeypatch):
    monkeypatch.setattr(drift_alarms, "WORLDS", 6)
    turn = drift_alarms.delays(40, 120, 5, 0, None)
    assert turn["detector"]["found"] > 0.9
    assert turn["detector"]["median"] < 60
    jump = drift_alarms.delays(40, 120, 5, 48, 50)
    assert jump["detector"]["found"] > 0.9
    assert jump["detector"]["median"] < 15


def test_the_worlds_arc_is_the_worlds_own():
    """The two ends from which the benchmark takes every point give the world's lifts."""
    truth = drift_alarms.moving(2, 10, None)
    world = drift_alarms.GuardrailWorld(1, 2, drift=drift_alarms.TURN)
    space = world.problem.space
    theta = space.from_unit(space.sobol(drift_alarms.ARMS, seed=1))
    for round_, turned in ((0, 0), (10, 0), (11, 1), (60, 50)):
        torch.testing.assert_close(truth(round_)[1], world.true_delta(theta, turned)[:, 0])


def test_the_table_is_drawn_from_the_raw_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(drift_alarms, "ROUNDS", 60)
    monkeypatch.setattr(drift_alarms, "WORLDS", 2)
    still = [drift_alarms.false_alarms(20, 60, 0, dispersion=1.3)]
    moving = [drift_alarms.delays(10, 108, 0, 48, 25, tolerance=1.3)]
    length = [{"alpha": 0.01, "rounds": 100, "length": 123.4}]
    path = tmp_path / "drift_alarms.json"
    path.write_text(json.dumps({"alpha": 1e-3, "alpha_ever": 0.05, "still": still,
                                "length": length, "drift": moving}))  # fmt: skip
    drawn = drift_alarms.table(path)
    assert "noise variance x 1.3" in drawn
    assert "| 0.01 | 100 | 123 | 100 |" in drawn
    assert "jumps by 0.5 rad, from round 48 | tolerance 1.3" in drawn
