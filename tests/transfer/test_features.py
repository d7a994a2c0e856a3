"""``transfer.features``: what readings say of a domain, against domains whose answers are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Decision, Planned, ReadingsReceived
from hyperzero_torch.study.journal.trace import RoundsExcluded
from hyperzero_torch.transfer import features


def domain(count, level, var, metrics=("gain",), arms=3):
    """A history whose rounds have ``count (rounds,)`` users per arm, level and var per metric."""
    history = History(1, metrics)
    history.extend(CandidateAdded(c, 0, "initial", (0.1 * c,), {"a": 0.1 * c}) for c in range(arms))
    ids = tuple(range(arms))
    for t in range(len(count)):
        history.extend([Planned(t, ids, (1,) * arms, (1 / arms,) * arms)])
        keys = [(t, c, m, 0) for c in ids for m in range(len(metrics))]
        values = [(count[t], level[t][m], var[t][m]) for c in ids for m in range(len(metrics))]
        history.extend([ReadingsReceived(*zip(*keys), *zip(*values))])
    return history


def steady(rounds, rate=0.0, rhythm=0.0, phase=0.0, noise=0.0, level=2.0, users=100.0, seed=0):
    hour = np.arange(rounds)
    error = np.random.default_rng(seed).standard_normal(rounds) * noise
    values = level * np.exp(rate * hour / 24 + error)
    count = users * (1 + rhythm * np.cos(2 * np.pi * (hour - phase) / 24))
    return domain(count, values[:, None], np.full((rounds, 1), 9.0))


def test_a_domain_of_known_make_reads_as_what_it_is():
    computed = features.of(steady(72, rate=0.05, rhythm=0.5, phase=20.0), 24)
    assert computed["trend:gain"] == pytest.approx(0.05, rel=1e-6)
    assert computed["users"] == pytest.approx(math.log(300), abs=1e-9)
    assert computed["growth"] == pytest.approx(0.0, abs=1e-9)
    assert computed["peak_to_trough"] == pytest.approx(math.log(3.0), abs=1e-9)
    assert math.hypot(computed["rhythm_sin"], computed["rhythm_cos"]) == pytest.approx(0.5)
    peak = math.atan2(computed["rhythm_sin"], computed["rhythm_cos"]) / (2 * math.pi) * 24 % 24
    assert peak == pytest.approx(20.0)
    flat = features.of(steady(48), 24)
    assert flat["level:gain"] == pytest.approx(math.log(2.0))
    assert flat["noise:gain"] == pytest.approx(math.log(9.0 / 4.0))
    assert flat["thin:gain"] == 1.0  # 3 / sqrt(100) = 0.3 is more than a tenth of 2
    assert features.of(steady(48, users=1e4), 24)["thin:gain"] == 0.0
    assert flat["level_rhythm:gain"] == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_told_is_left_out():
    assert features.of(History(1, ("gain",)), 24) == {}
    half_a_day = features.of(steady(12), 24)
    assert not {"peak_to_trough", "trend:gain", "growth"} & set(half_a_day)
    assert {"users", "level:gain", "noise:gain"} <= set(half_a_day)
    around_zero = domain([10.0] * 5, [[-0.1]] * 5, [[1.0]] * 5)
    assert set(features.of(around_zero, 24)) == {"users"}


def test_rounds_set_aside_do_not_count():
    history = steady(49, rate=0.05)
    level = features.of(history, 24)
    history.extend([Decision.of(48, "a bad hour", RoundsExcluded(rounds=(48,)))])
    assert features.of(history, 24) == pytest.approx(features.of(steady(48, rate=0.05), 24))
    assert level != features.of(history, 24)


@given(st.floats(1e-6, 1e6), st.integers(0, 3))
def test_another_unit_moves_the_level_alone(unit, seed):
    rng = np.random.default_rng(seed)
    count, level = rng.uniform(50, 90, 60), rng.uniform(1, 2, (60, 1))
    var = rng.uniform(1, 2, (60, 1))
    one = features.of(domain(count, level, var), 24)
    other = features.of(domain(count, unit * level, unit**2 * var), 24)
    assert other.pop("level:gain") == pytest.approx(
        one.pop("level:gain") + math.log(unit), abs=1e-9
    )
    assert other == pytest.approx(one, rel=1e-6, abs=1e-9)


def test_a_trend_that_is_noise_is_shrunk_and_a_trend_that_is_there_is_found():
    """Over 200 worlds: squared error below least squares' without a trend, small with one."""
    rounds = np.arange(96)

    def slopes(rate):
        noise = np.random.default_rng(1).standard_normal((200, 96)) * 0.05
        return np.array(
            [
                features.daily_slope(np.exp(rate * rounds / 24 + e), np.ones(96), rounds, 24)
                for e in noise
            ]
        )

    # Least squares: error^2 / (96 rounds x variance of days within an hour of the day).
    days = rounds // 24
    std = 0.05 / math.sqrt(96 * days.var())
    nothing = slopes(0.0)
    assert np.sqrt((nothing**2).mean()) < 0.8 * std
    strong = slopes(0.1)
    assert abs(strong.mean() - 0.1) < 3 * std / math.sqrt(200) + std**2 / 0.1
    assert strong.std() == pytest.approx(std, rel=4 / math.sqrt(2 * 200))


def test_several_metrics_are_named_and_renamed():
    history = domain([50.0] * 30, [[2.0, 4.0]] * 30, [[1.0, 1.0]] * 30, ("gain", "a:b"))
    computed = features.of(history, 24, torch.tensor([1.0, 2.0]), {"region": 7})
    assert computed["dispersion:gain"] == 0.0
    assert computed["dispersion:a:b"] == pytest.approx(math.log(2.0))
    assert computed["region"] == 7.0
    renamed = features.renamed(computed, {"a:b": "clicks"})
    assert renamed["level:clicks"] == computed["level:a:b"]
    assert renamed["region"] == 7.0
    assert all(features.spread_of(name) is not None for name in computed if name != "region")
    assert features.spread_of("region") is None


def test_features_of_ones_own():
    history = steady(24)
    computed = features.of(
        history, 24, extra={"rounds": lambda h: float(len(h.tables)), "users": 1.0}
    )
    assert computed["rounds"] == 24.0
    assert computed["users"] == 1.0
    for bad in (math.nan, "many", None):
        with pytest.raises(hz.ConfigError, match="own"):
            features.of(history, 24, extra={"own": bad})


def test_what_cannot_be_computed_is_named():
    history = steady(24)

    def broken(history):
        raise KeyError("region")

    with pytest.raises(hz.ConfigError, match="'own' could not be computed: KeyError") as error:
        features.of(history, 24, extra={"own": broken})
    assert isinstance(error.value.__cause__, KeyError)
    for bad, message in [
        (lambda: features.of(None, 24), "got NoneType"),
        (lambda: features.of(history, 24, extra=[1]), "extra must map"),
        (lambda: features.of(history, 0), "rounds_per_day"),
        (lambda: features.of(history, True), "rounds_per_day"),
        (lambda: features.of(history, 2.5), "rounds_per_day"),
    ]:
        with pytest.raises(hz.ConfigError, match=message):
            bad()
