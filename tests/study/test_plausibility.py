"""What is absurd and what is only rare, by the values of one metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperzero_torch.study.readings import plausibility, units
from hyperzero_torch.study.readings.plausibility import Cells
from hyperzero_torch.study.readings.units import Sample

ARMS = 13


def pareto(rng, n):
    return rng.pareto(2.5, n) + 1


FAMILIES = {
    "bernoulli": (lambda rng, n: (rng.random(n) < 0.05) * 1.0),
    "rare": (lambda rng, n: (rng.random(n) < 2e-4) * 1.0),
    "poisson": (lambda rng, n: rng.poisson(3.0, n) * 1.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 2, n)),
    "pareto": pareto,
    "zero-inflated": (lambda rng, n: (rng.random(n) < 0.03) * rng.lognormal(3, 1.5, n)),
    "zero-inflated pareto": (lambda rng, n: (rng.random(n) < 0.01) * pareto(rng, n)),
    "profit": (lambda rng, n: rng.normal(0.001, 5, n)),
    "heavy profit": (lambda rng, n: rng.lognormal(0, 2, n) - rng.lognormal(0, 2, n)),
}


def hours(family, users, num_hours, seed, rhythm=8.0):
    """Cells by hour of a study with real differences and a daily rhythm of traffic and level."""
    rng = np.random.default_rng(seed)
    effect = np.concatenate([[1.0], rng.uniform(0.7, 1.5, ARMS - 1)])
    share = np.concatenate([[0.2], np.full(ARMS - 1, 0.8 / (ARMS - 1))])
    for hour in range(num_hours):
        level = rhythm ** ((np.sin(2 * np.pi * hour / 24) - 1) / 2)
        count = np.maximum(1, rng.poisson(2 * users * level * share))
        values = FAMILIES[family](rng, int(count.sum()))
        if family not in ("bernoulli", "rare"):
            values = values * level * np.repeat(effect, count)
        parts = np.split(values, np.cumsum(count)[:-1])
        mean = np.array([p.mean() for p in parts])
        var = np.array([p.var(ddof=1) if len(p) > 1 else 0.0 for p in parts])
        yield np.full(ARMS, hour), share, count * 1.0, mean, var


def judged(new, before=()):
    """Verdicts on new cells beside believed ones."""
    columns = [np.concatenate([*(h[i] for h in before), new[i]]) for i in range(5)]
    is_new = np.arange(len(columns[0])) >= len(columns[0]) - len(new[0])
    return plausibility.judge(Cells(*columns, is_new))[-len(new[0]) :]


@pytest.mark.parametrize("users", [40, 400, 4000])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_absurd_by_chance(family, users):
    """The limit is one row in 10,000; over the whole grid below, 14,000 rows, none is hit."""
    bad = 0
    for seed in range(5):
        believed = []
        for new in hours(family, users, 8, seed):
            bad += (judged(new, believed) != "").sum()
            believed.append(new)
    assert bad == 0


@pytest.mark.parametrize("users", [4000, 400_000])
@pytest.mark.parametrize("family", ["bernoulli", "poisson", "lognormal", "pareto", "profit"])
def test_one_time_among_the_values_is_caught_in_the_first_round(family, users):
    (new,) = hours(family, users, 1, seed=1)
    for arms in ([5], [0], [2, 7, 9]):
        _, _, count, mean, var = (field.copy() for field in new)
        mean[arms] += 1.7e9 / count[arms]
        var[arms] += 1.7e9**2 / count[arms]
        verdict = judged((*new[:2], count, mean, var))
        assert np.flatnonzero(verdict != "").tolist() == arms


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6),
    st.lists(st.floats(0, 1e308), min_size=6, max_size=6),
    st.lists(st.floats(0.1, 1e308), min_size=6, max_size=6),
)
def test_any_values_get_a_verdict_and_the_impossible_are_named(mean, var, count):
    round_ = np.array([0, 0, 0, 1, 1, 1])
    share = np.full(6, 1 / 3)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        verdict = plausibility.judge(
            Cells(round_, share, *map(np.array, (count, mean, var)), round_ >= 0)
        )
    assert set(verdict) <= {"", "impossible", "crowd", "outlier", "level", "round"}
    beyond = (np.array(count) > 1e11) | (np.abs(mean) > 1e60) | (np.array(var) > 1e120)
    assert ((verdict == "impossible") == beyond).all()


def sample(family, users, num_hours, seed, unit):
    parts = list(hours(family, users, num_hours, seed))
    slot, _, count, mean, var = (np.concatenate(column) for column in zip(*parts))
    var = {"": var, "mean": var / count, "sum": var * count, "deviation": np.sqrt(var)}[unit]
    return Sample(slot, np.tile(np.arange(ARMS), num_hours), count, mean, var)


@pytest.mark.parametrize("family", FAMILIES)
def test_units_are_not_doubted_without_a_reason(family):
    for seed in range(6):
        for num_hours in (1, 2, 5):
            assert units.wrong_unit(sample(family, 3000, num_hours, seed, "")).code == ""


@pytest.mark.parametrize("family", ["bernoulli", "poisson", "pareto", "profit", "lognormal"])
def test_a_squared_standard_error_is_named_within_three_hours(family):
    named = [
        units.wrong_unit(sample(family, 20_000, 3, seed, "mean")).code == units.OF_MEAN
        for seed in range(6)
    ]
    assert sum(named) >= 5  # the tails of one may hide it an hour longer


def test_zeros_and_ones_tell_their_unit_in_the_first_hour():
    assert units.wrong_unit(sample("bernoulli", 20_000, 1, 0, "mean")).code == units.OF_MEAN
    assert units.wrong_unit(sample("bernoulli", 20_000, 1, 0, "sum")).code == units.OF_SUM
    cells = sample("bernoulli", 20_000, 1, 0, "")
    mixed = cells._replace(mean=100 * cells.mean)  # a percentage with a fraction's variance
    assert units.wrong_unit(mixed).code == units.PERCENT
    percent = mixed._replace(var=1e4 * cells.var)
    assert units.is_percentage(percent)
    assert units.wrong_unit(percent).code == ""


def test_differences_that_change_by_the_hour_are_no_standard_deviation():
    """Overdispersion of the size that a standard deviation would have, but growing with users."""
    rng = np.random.default_rng(0)
    slot, arm = np.repeat(np.arange(24), ARMS), np.tile(np.arange(ARMS), 24)
    count = 10_000.0 * rng.lognormal(0, 1, len(slot))
    mean = 30 * (1 + 0.05 * rng.standard_normal(len(slot)))
    mean = mean + 7 / np.sqrt(count) * rng.standard_normal(len(slot))
    unit = units.wrong_unit(Sample(slot, arm, count, mean, np.full(len(slot), 49.0)))
    assert not unit.sure
