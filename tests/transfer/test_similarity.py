"""``transfer.similarity`` and ``overrule``: how alike, how surely, and who has the last word."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.transfer.model.correlation import by_evidence, table
from hyperzero_torch.transfer.model.source_posterior import SourcePosterior
from hyperzero_torch.transfer.overrides import ExpertOverride
from hyperzero_torch.transfer.similarity import by_features

numbers = st.floats(-100, 100)
made = st.dictionaries(st.sampled_from(["level:gain", "trend:gain", "users", "own"]), numbers)


@given(st.dictionaries(st.sampled_from("ABCDEF"), made, min_size=1))
def test_similarity_is_symmetric_within_bounds_and_one_with_oneself(domains):
    similarity = by_features(domains)
    value = similarity.value
    assert torch.equal(value.isnan(), similarity.num_common == 0)
    assert torch.allclose(value, value.T, equal_nan=True)
    seen = value[~value.isnan()]
    assert bool(((seen >= 0) & (seen <= 1)).all())
    own = value.diagonal()
    assert bool((own[~own.isnan()] == 1).all())
    assert set(similarity.scale) | set(similarity.left_out) == {
        n for f in domains.values() for n in f
    }


def test_the_value_is_the_formula():
    domains = {"A": {"users": 1.0, "level:gain": 3.0}, "B": {"users": 2.0, "level:gain": 3.5}}
    similarity = by_features(domains)
    # Two domains: half the difference is the median deviation; five more count with the usual.
    for name, usual, apart in (("users", 1.5, 1.0), ("level:gain", 1.0, 0.5)):
        robust = 1.4826 * apart / 2
        assert similarity.scale[name] == pytest.approx(
            math.sqrt((5 * usual**2 + 2 * robust**2) / 7)
        )
    squares = [(1.0 / similarity.scale["users"]) ** 2, (0.5 / similarity.scale["level:gain"]) ** 2]
    assert float(similarity.value[0, 1]) == pytest.approx(math.exp(-math.sqrt(sum(squares) / 2)))


def test_one_wild_domain_does_not_make_all_others_alike():
    levels = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    domains = {f"d{i}": {"level:gain": v} for i, v in enumerate(levels)}
    before = by_features(domains)
    wild = by_features(domains | {"wild": {"level:gain": 1e6}})
    n = len(levels)
    assert torch.allclose(wild.value[:n, :n], before.value, atol=0.1)
    assert float(wild.value[-1, :n].max()) < 1e-9


def test_metrics_in_another_unit_everywhere_change_nothing():
    domains = {d: {"level:gain": v, "users": 5.0 + v} for d, v in zip("ABC", (0.1, 0.7, 0.3))}
    moved = {d: f | {"level:gain": f["level:gain"] + 13.8} for d, f in domains.items()}
    assert torch.allclose(by_features(domains).value, by_features(moved).value)


def test_few_domains_and_features_of_ones_own():
    domains = {d: {"own": v} for d, v in zip("ABC", (1.0, 2.0, 5.0))}
    similarity = by_features(domains)
    assert "give its scale" in similarity.left_out["own"]
    assert bool(similarity.value.isnan().all())
    given_scale = by_features(domains, {"own": 1.0})
    assert bool((given_scale.value < 1).any())
    four = by_features(domains | {"D": {"own": 3.0}})
    assert four.scale["own"] == pytest.approx(1.4826)  # deviations 1.5, .5, 2.5, .5 from 2.5
    alike = by_features({d: {"own": 1.0} for d in "ABCDE"} | {"F": {"own": 2.0}})
    assert "most domains have the same value" in alike.left_out["own"]
    assert "only one" in by_features({"A": {"own": 1.0}, "B": {}}).left_out["own"]


@pytest.mark.parametrize(
    ("domains", "scales"),
    [
        ({}, None),
        (None, None),
        ([], None),
        ({"A": {"x": math.nan}}, None),
        ({"A": {"users": 1e200}, "B": {"users": 1.0}}, None),
        ({"A": {"x": 1.0}}, {"x": 0.0}),
        ({"A": {"x": 1.0}}, {"x": 1e-200}),
        ({"A": {"x": 1.0}}, [1]),
        ({"A": 3}, None),
    ],
)
def test_what_cannot_be_compared_is_refused(domains, scales):
    with pytest.raises(hz.ConfigError):
        by_features(domains, scales)


@given(st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=6), st.floats(1e-100, 1e100))
def test_any_magnitude_that_is_accepted_compares(values, scale):
    domains = {str(i): {"users": v, "own": v} for i, v in enumerate(values)}
    similarity = by_features(domains, {"own": scale})
    assert bool(((similarity.value >= 0) & (similarity.value <= 1)).all())
    assert bool((similarity.value.diagonal() == 1).all())


def worlds(correlation, num, generator, n=24, noise=0.1):
    """Pairs of functions of one prior whose processes correlate so, seen with noise."""
    points = torch.linspace(0, 1, 64, dtype=torch.float64).unsqueeze(-1)
    x = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    every = torch.cat([x, points])
    gram = torch.exp(-((every - every.T) ** 2) / (2 * 0.2**2)) + 1e-8 * torch.eye(len(every))
    root = torch.linalg.cholesky(gram)
    for _ in range(num):
        a, c = (root @ torch.randn(len(every), 2, generator=generator).double()).unbind(1)
        b = correlation * a + math.sqrt(1 - correlation**2) * c
        true = torch.corrcoef(torch.stack([a[n:], b[n:]]))[0, 1]
        seen = torch.stack([a[:n], b[:n]], -1)
        seen = seen + noise * torch.randn(seen.shape, generator=generator).double()
        yield x, seen, points, float(true)


def fit(x, y, noise=0.1):
    y = y.unsqueeze(-1)
    return SourcePosterior(hz.Surrogate().fit(x, y, torch.full_like(y, noise**2)), ("gain",))


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_interval_covers_the_true_correlation(correlation):
    generator = torch.Generator().manual_seed(3)
    covered, width = 0, []
    for x, y, points, true in worlds(correlation, 40, generator):
        posteriors = {"a": fit(x, y[:, 0]), "b": fit(x, y[:, 1])}
        similarity = by_evidence(posteriors, ["gain"], points, generator, num_draws=128)
        low, high = float(similarity.low[0, 1, 0]), float(similarity.high[0, 1, 0])
        covered += low <= true <= high
        width.append(high - low)
    # 90 % of 40, less three standard deviations of the count.
    assert covered >= 0.9 * 40 - 3 * math.sqrt(40 * 0.9 * 0.1)
    assert sum(width) / len(width) < 0.6  # and not by saying nothing


def test_little_evidence_is_little_certainty():
    generator = torch.Generator().manual_seed(0)
    x, y, points, _ = next(worlds(1.0, 1, generator))
    much = {"a": fit(x, y[:, 0]), "b": fit(x, y[:, 1])}
    little = much | {"b": fit(x[:1], y[:1, 1], noise=3.0)}
    sure = by_evidence(much, ["gain"], points, generator)
    unsure = by_evidence(little, ["gain"], points, generator)
    assert float(sure.low[0, 1, 0]) > 0.8
    assert float(unsure.low[0, 1, 0]) < 0 < float(unsure.high[0, 1, 0])
    assert float(unsure.std[0, 1, 0]) > 3 * float(sure.std[0, 1, 0])


def test_another_unit_or_control_changes_no_correlation():
    x, y, points, _ = next(worlds(0.7, 1, torch.Generator().manual_seed(1)))
    plain = {"a": fit(x, y[:, 0]), "b": fit(x, y[:, 1])}
    scaled = plain | {"b": fit(x, 1e-4 * y[:, 1] + 0.03, noise=1e-5)}

    def run(p):
        return by_evidence(p, ["gain"], points, torch.Generator().manual_seed(5))

    assert torch.allclose(run(plain).mean, run(scaled).mean, atol=1e-3)
    assert torch.allclose(run(plain).of_means, run(scaled).of_means, atol=1e-3)


def test_a_metric_that_one_does_not_know_is_unknown_with_all():
    x, y, points, _ = next(worlds(0.7, 1, torch.Generator().manual_seed(1)))
    domains = {"a": fit(x, y[:, 0]), "b": fit(x, y[:, 1])._replace(metrics=("guard",))}
    similarity = by_evidence(domains, ["guard", "gain"], points, torch.Generator().manual_seed(0))
    assert not bool(similarity.mean[1, 1, 0].isnan())
    assert not bool(similarity.mean[0, 0, 1].isnan())
    for field in similarity[2:]:
        assert bool(field[0, 1].isnan().all())


def test_bad_questions_are_refused():
    x, y, points, _ = next(worlds(0.7, 1, torch.Generator().manual_seed(1)))
    p, g = {"a": fit(x, y[:, 0])}, torch.Generator()
    for bad in (
        lambda: by_evidence({}, ["gain"], points, g),
        lambda: by_evidence(p, ["gain"], points[:2], g),
        lambda: by_evidence(p, [], points, g),
        lambda: by_evidence(p, ["gain"], points, g, num_draws=1),
        lambda: by_evidence(p, ["gain"], points, g, confidence=1.0),
    ):
        with pytest.raises(hz.ConfigError):
            bad()


def test_it_can_be_looked_at():
    features = by_features({"A<b>": {"users": 1.0}, "B%": {"users": 2.0}, "C": {}})
    x, y, points, _ = next(worlds(0.7, 1, torch.Generator().manual_seed(1)))
    fitted = fit(x, y[:, 0])
    posteriors = {"A<b>": fitted, "B%": fitted, "C": fitted}
    evidence = by_evidence(posteriors, ["gain"], points, torch.Generator().manual_seed(0))
    rows = table(features, evidence)
    assert [(r["domain"], r["other"]) for r in rows] == [("A<b>", "B%"), ("A<b>", "C"), ("B%", "C")]
    assert rows[1]["features"] is None
    assert rows[0]["low:gain"] <= rows[0]["mean:gain"] <= rows[0]["high:gain"]
    json.dumps(rows, allow_nan=False)
    with pytest.raises(hz.ConfigError, match="same domains"):
        table(by_features({"A": {}}), evidence)


def test_an_override_names_what_it_changes():
    override = ExpertOverride(
        pin={"east": 0.3},
        forbid=["north", ("west", "a")],
        discount={"south": 0.5, ("south", "b"): np.float32(0.5), "west": 0.0},
        reason="another product",
    )
    override.check(["north", "south", "east", "west"], ["a", "b"])
    assert override.subjects == ["east", "north", ("west", "a"), "south", ("south", "b"), "west"]
    assert override.summary == (
        "pin east = 0.3, forbid north, forbid west:a, discount south = 0.5, discount south:b = "
        "0.5, discount west = 0"
    )
    assert [override.excludes(name) for name in ("north", "south", "east", "west")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert ExpertOverride().summary == ""


@pytest.mark.parametrize(
    "rules",
    [
        {"pin": {"north": 1.5}},
        {"pin": {"north": math.nan}},
        {"pin": {"north": True}},
        {"pin": {"north": "0.5"}},
        {"pin": {("north", "a"): 0.5}},
        {"pin": ["north"]},
        {"discount": {"north": -0.1}},
        {"forbid": "north"},
        {"forbid": ["north"], "pin": {"north": 0.5}},
        {"forbid": ["north"], "pin": {("north", "a"): 0.5}},
        {"forbid": [("north", "a", "b")]},
        {"reason": 3},
    ],
)
def test_an_overrule_that_makes_no_sense_is_refused(rules):
    with pytest.raises(hz.ConfigError):
        ExpertOverride(**rules)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.float16(0.5), 0.5])
def test_real_numbers_of_every_make_are_one(number):
    for override in (ExpertOverride(discount={"n": number}), ExpertOverride(pin={"n": number})):
        assert [*override.discount.values(), *override.pin.values()] == [0.5]
        json.dumps([override.discount, override.pin])
    assert ExpertOverride(discount={"n": np.int64(1)}).discount == {"n": 1.0}


def test_a_pin_is_of_a_whole_source():
    with pytest.raises(hz.ConfigError, match="correlation of a whole source"):
        ExpertOverride(pin={("north", "a"): 0.5})


def test_an_overrule_of_nobody_is_refused():
    for override in (
        ExpertOverride(forbid=["nord"]),
        ExpertOverride(discount={("north", "c"): 0.5}),
    ):
        with pytest.raises(hz.ConfigError, match="there is no"):
            override.check(["north"], ["a"])
