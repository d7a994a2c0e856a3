"""What is absurd and what is only rare, by the values of one metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.reliability.set_aside import ARMS, FAMILIES, false_verdicts, hours, judged, sample
from hyperzero_torch.study.readings import plausibility, units
from hyperzero_torch.study.readings.plausibility import Cells
from hyperzero_torch.study.readings.units import Sample

# Metrics of which every hour has many values.
THICK = ["Bernoulli 5 %", "Poisson", "Pareto, index 2.5", "profit near 0"]


@pytest.mark.parametrize("users", [3, 30, 300])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_absurd_by_chance(family, users):
    """At most one row in 10,000; over the whole grid below, 14,000 rows, it is none."""
    assert false_verdicts(family, users, studies=5, num_hours=8) == 0


@pytest.mark.parametrize("users", [300, 30_000])
@pytest.mark.parametrize(
    "family",
    [*THICK, "lognormal, sigma 2"],
)
def test_one_time_among_the_values_is_caught_in_the_first_round(family, users):
    (new,) = hours(family, users, 1, seed=1)
    for arms in ([5], [0], [2, 7, 9]):
        _, _, count, mean, var = (field.copy() for field in new)
        mean[arms] += 1.7e9 / count[arms]
        var[arms] += 1.7e9**2 / count[arms]
        verdict = judged(new._replace(mean=mean, var=var))
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


@pytest.mark.parametrize("family", FAMILIES)
def test_units_are_not_doubted_without_a_reason(family):
    for seed in range(6):
        for num_hours in (1, 2, 5):
            assert units.wrong_unit(sample(family, 230, num_hours, seed)).code == ""


@pytest.mark.parametrize("family", THICK)
def test_a_squared_standard_error_is_named_within_three_hours(family):
    named = [
        units.wrong_unit(sample(family, 1500, 3, seed, "mean")).code == units.OF_MEAN
        for seed in range(6)
    ]
    assert sum(named) >= 5  # the tails of one may hide it an hour longer


def test_zeros_and_ones_tell_their_unit_in_the_first_hour():
    assert units.wrong_unit(sample("Bernoulli 5 %", 1500, 1, 0, "mean")).code == units.OF_MEAN
    assert units.wrong_unit(sample("Bernoulli 5 %", 1500, 1, 0, "sum")).code == units.OF_SUM
    cells = sample("Bernoulli 5 %", 1500, 1, 0)
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
