"""Factors and weights for honest pooled deltas: Monte Carlo, invariances, degenerate input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from hyperzero_torch.stats import dispersion, evidence
from hyperzero_torch.stats.delta import Delta

ARMS, ROUNDS, METRICS = 30, 12, 2
SEEDS = 30


def noise(kind, shape, generator):
    """Errors in units of the formula's standard deviation."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "wild":  # three rounds in a hundred are thirty times as noisy
        wild = torch.rand(shape, generator=generator, dtype=torch.float64) < 0.03
        return torch.where(wild, 30 * normal, normal)
    if kind == "t3":
        squares = torch.randn(3, *shape, generator=generator, dtype=torch.float64).square()
        return normal / squares.mean(0).sqrt()
    return float(kind) ** 0.5 * normal


def study(kind, seed, arms=ARMS, rounds=ROUNDS, spread=0.05):
    """Deltas of arms over rounds whose errors are not what their variances claim."""
    generator = torch.Generator().manual_seed(seed)
    candidate, slot = (
        torch.arange(arms).repeat(rounds),
        torch.arange(rounds).repeat_interleave(arms),
    )
    true = spread * torch.randn(arms, METRICS, generator=generator, dtype=torch.float64)
    shape = (len(candidate), METRICS)
    var = 1e-4 * (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64))
    mean = true[candidate] + var.sqrt() * noise(kind, shape, generator)
    return candidate, slot, Delta(mean, var), true


def pool(candidate, slot, delta, arms=ARMS, weight=None):
    """Mean and variance per candidate: as the formula says, and as fitted."""
    weight = 1 / delta.var if weight is None else weight
    fitted = dispersion.fit(candidate, slot, delta, weight, arms)
    sides = []
    for var, w in ((delta.var, weight), (fitted.factor * delta.var, fitted.weight)):
        state = evidence.summarise(candidate, Delta(delta.mean, var), w, arms)
        sides.append((state.mean, state.spread / state.weight.square()))
    return fitted, *sides


def repeated(kind, arms=ARMS, rounds=ROUNDS):
    """Coverage; mean squared errors (plain, fitted) and claim, over the formula's variance."""
    rows = []
    for seed in range(SEEDS):
        candidate, slot, delta, true = study(kind, seed, arms, rounds)
        _, (plain, formula), (mean, var) = pool(candidate, slot, delta, arms)
        covered = ((mean - true).abs() < 1.96 * var.sqrt()).double()
        error, fitted = (plain - true).square() / formula, (mean - true).square() / formula
        rows.append(torch.stack([x.mean() for x in (covered, error, fitted, var / formula)]))
    return torch.stack(rows).mean(0).tolist()


def coverage_error(arms):
    """Three standard errors of a coverage of 0.95, and what an unknown factor costs."""
    return 3 * math.sqrt(0.95 * 0.05 / (SEEDS * arms * METRICS)) + 0.01


@pytest.mark.parametrize(("arms", "rounds"), [(30, 12), (8, 30), (100, 4)])
def test_clean_deltas_keep_their_variances_and_lose_no_efficiency(arms, rounds):
    covered, plain, fitted, claimed = repeated("1", arms, rounds)
    assert covered == pytest.approx(0.95, abs=coverage_error(arms))
    # Never below 1; a factor known from n errors and 20 of the prior is off by sqrt(2 / (n + 20)),
    # twice (dispersion and scale), half of it upwards.
    off = math.sqrt(2 / (arms * (rounds - 1) + 20))
    assert 1 <= claimed < 1 + 2 * off
    assert fitted / plain < 1.05


@pytest.mark.parametrize("factor", ["2", "6", "20"])
def test_it_finds_a_common_factor(factor):
    covered, plain, fitted, claimed = repeated(factor)
    assert covered == pytest.approx(0.95, abs=coverage_error(ARMS) + 0.01)
    freedom = ARMS * (ROUNDS - 1)
    shrunk = (20 + float(factor) * freedom) / (20 + freedom)
    assert claimed == pytest.approx(shrunk, rel=0.1)
    assert fitted / plain < 1.05


@pytest.mark.parametrize(("kind", "gain"), [("t3", 0.75), ("wild", 0.1)])
def test_wild_rounds_count_less_and_the_claim_stays_honest(kind, gain):
    covered, plain, fitted, _ = repeated(kind)
    assert fitted < gain * plain  # the t3's best estimate needs 0.5 of it
    assert 0.94 < covered < 0.985


@pytest.mark.parametrize("freedom", [3, 5, 12])
@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 10])
def test_the_variance_of_a_t_estimate_is_as_documented(freedom, rounds):
    draws = 40_000
    generator = torch.Generator().manual_seed(rounds)
    normal = torch.randn(draws, rounds, generator=generator, dtype=torch.float64)
    squares = torch.zeros(draws, rounds, dtype=torch.float64)
    for _ in range(freedom):
        squares += torch.randn(draws, rounds, generator=generator, dtype=torch.float64).square()
    value = normal / (squares / freedom).sqrt()
    mean = value.mean(1)
    for _ in range(30):
        weight = dispersion.student_weight((value - mean[:, None]).square(), freedom)
        mean = (weight * value).sum(1) / weight.sum(1)
    matched = rounds * float((mean.abs().quantile(0.95) / 1.959964).square())
    claimed = dispersion.estimate_variance(torch.tensor(freedom), torch.tensor(float(rounds)))
    assert float(claimed) == pytest.approx(matched, rel=0.08)


def test_true_differences_between_candidates_do_not_look_like_noise():
    near, far = (
        dispersion.fit(c, s, d, 1 / d.var, ARMS)
        for c, s, d, _ in (study("1", 3, spread=x) for x in (0.0, 100.0))
    )
    assert torch.allclose(near.factor, far.factor, rtol=1e-6)


@given(
    unit=st.sampled_from([1e-9, 1e-3, -1.0, 1e6]),
    shift=st.floats(-1, 1),
    seed=st.integers(0, 50),
    kind=st.sampled_from(["1", "6", "t3", "wild"]),
)
@settings(deadline=None, max_examples=25)
def test_neither_unit_nor_level_nor_the_order_of_rows_matters(unit, shift, seed, kind):
    candidate, slot, delta, _ = study(kind, seed, arms=6, rounds=8)
    other = Delta(unit * (delta.mean + shift), unit**2 * delta.var)
    order = torch.randperm(len(slot), generator=torch.Generator().manual_seed(seed))
    _, _, (mean, var) = pool(candidate, slot, delta, 6)
    shuffled = Delta(*(field[order] for field in other))
    _, _, (mean_, var_) = pool(candidate[order], slot[order], shuffled, 6)
    assert torch.allclose(mean_ / unit - shift, mean, rtol=1e-6, atol=1e-9)
    assert torch.allclose(var_ / unit**2, var, rtol=1e-6)


@given(seed=st.integers(0, 1000), missing=st.floats(0, 1), zero=st.floats(0, 0.5))
@settings(deadline=None, max_examples=40)
def test_whatever_is_missing_the_answer_is_finite(seed, missing, zero):
    candidate, slot, delta, _ = study("wild", seed, arms=5, rounds=6)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(delta.mean.shape, generator=generator)
    mean = torch.where(chance < missing, torch.nan, delta.mean)
    var = torch.where(torch.rand(chance.shape, generator=generator) < zero, 0.0, delta.var)
    users = 1000 * torch.rand(len(slot), generator=generator, dtype=torch.float64) + 1
    fitted, (_, formula), (pooled, claimed) = pool(candidate, slot, Delta(mean, var), 5, users)
    for field in (fitted.factor, fitted.weight, fitted.common, *fitted.tails):
        assert bool(field.isfinite().all())
    assert bool(
        (fitted.factor >= 0).all() & (fitted.weight >= 0).all() & (fitted.common >= 1).all()
    )
    known = torch.zeros(5, METRICS).index_add(0, candidate, mean.isfinite().float()) > 0
    assert torch.equal(pooled.isfinite(), torch.ones_like(known))
    assert bool((claimed[known] >= formula[known] * (1 - 1e-9)).all())
    sums = torch.zeros(5, METRICS, dtype=torch.float64)
    given_ = sums.index_add(0, candidate, torch.where(mean.isfinite(), users[:, None], 0.0))
    assert torch.allclose(sums.index_add(0, candidate, fitted.weight), given_)


def test_one_round_or_none_changes_nothing():
    candidate, slot, delta, _ = study("20", 0, rounds=1)
    fitted = dispersion.fit(candidate, slot, delta, 1 / delta.var, ARMS)
    assert torch.equal(fitted.factor, torch.ones_like(delta.var))
    assert torch.allclose(fitted.weight, 1 / delta.var)
    nothing = Delta(*(field[:0] for field in delta))
    empty = dispersion.fit(candidate[:0], slot[:0], nothing, nothing.var, ARMS)
    assert empty.factor.shape == (0, METRICS)
    assert torch.equal(empty.common, torch.ones(METRICS, dtype=torch.float64))


def test_a_metric_that_is_never_seen_does_not_touch_the_other():
    candidate, slot, delta, _ = study("6", 1)
    blind = Delta(delta.mean.clone(), delta.var)
    blind.mean[:, 1] = torch.nan
    seen, alone = (dispersion.fit(candidate, slot, d, 1 / d.var, ARMS) for d in (delta, blind))
    assert torch.equal(seen.factor[:, 0], alone.factor[:, 0])
    assert float(alone.common[1]) == 1


def test_predictions_know_only_earlier_rounds():
    candidate, slot, delta, _ = study("t3", 5)
    ahead = dispersion.follow(candidate, slot, delta, ARMS)
    assert bool(ahead.mean[slot == 0].isnan().all())
    later = Delta(*(torch.where((slot >= 6)[:, None], 7.0, field) for field in delta))
    changed = dispersion.follow(candidate, slot, later, ARMS)
    early, next_ = slot <= 5, slot == 6
    for name in ("mean", "var"):
        one, other = getattr(ahead, name), getattr(changed, name)
        assert torch.equal(one[early].nan_to_num(), other[early].nan_to_num())
    assert torch.equal(ahead.mean[next_], changed.mean[next_])


def test_predictive_intervals_cover_and_tails_are_recognised():
    for kind, heavy in (("6", False), ("t3", True)):
        candidate, slot, delta, _ = study(kind, 11, arms=60, rounds=40)
        ahead = dispersion.follow(candidate, slot, delta, 60)
        late = slot >= 20
        error2 = (delta.mean - ahead.mean).square() / ahead.var
        tails = dispersion.tails(error2[late], torch.ones(int(late.sum()), 1))
        assert bool((tails.freedom < 8).all()) == heavy
        quantile = torch.from_numpy(student.ppf(0.975, tails.freedom.numpy()))
        covered = (error2[late] < quantile.square() * tails.scale).double().mean(0)
        assert bool(((covered - 0.95).abs() < 0.02).all())
