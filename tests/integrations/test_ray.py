"""The searcher by itself; on a cluster: ``test_ray_cluster``; wrong input: ``test_ray_input``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz

pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")

from ray import tune

from hyperzero_torch.integrations.ray import HyperZeroSearch

SPACE = {
    "x": tune.uniform(0.0, 1.0),
    "net": {"lr": tune.loguniform(1e-4, 1e-1), "depth": tune.randint(1, 5), "width": 8},
    "mode": tune.choice(["a", "b", None]),
}


def loss(config):
    """Best at x = 0.3, lr = 0.01, mode "b": 0."""
    miss = (config["x"] - 0.3) ** 2 + 0.1 * (math.log10(config["net"]["lr"]) + 2) ** 2
    return miss + (0 if config["mode"] == "b" else 0.3)


def work(search, n, first=0, report=lambda config: {"loss": loss(config)}):
    """Suggestions and results in turn, as Ray would ask for them."""
    seen = []
    for number in range(first, first + n):
        config = search.suggest(f"t{number}")
        seen.append(config)
        search.on_trial_complete(f"t{number}", report(config))
    return seen


def a_search(**options):
    values = {"space": SPACE, "metric": "loss", "mode": "min", "seed": 0, "num_startup": 6}
    return HyperZeroSearch(**(values | options))


def test_it_suggests_within_the_space_and_finds_the_optimum():
    seen = work(a_search(), 30)
    for config in seen:
        assert 0 <= config["x"] <= 1
        assert 1e-4 <= config["net"]["lr"] <= 1e-1
        assert config["net"]["depth"] in (1, 2, 3, 4)
        assert isinstance(config["net"]["depth"], int)
        assert config["mode"] in ("a", "b", None)
    assert min(map(loss, seen[15:])) < 0.02


def test_maximising_is_minimising_the_negative():
    up = work(a_search(mode="max"), 12, report=lambda c: {"loss": -loss(c)})
    assert up == work(a_search(), 12)


def test_a_restored_searcher_goes_on_as_the_saved_one_would_have(tmp_path):
    search = a_search()
    work(search, 8)
    waiting = search.suggest("waiting")
    search.save(str(tmp_path / "state.json"))
    rest = work(search, 3, first=9)

    again = a_search(seed=5)
    again.restore(str(tmp_path / "state.json"))
    assert work(again, 3, first=9) == rest
    again.on_trial_complete("waiting", {"loss": loss(waiting)})  # what was running is known
    search.on_trial_complete("waiting", {"loss": loss(waiting)})
    assert again.get_state() == search.get_state()


def test_a_state_may_be_restored_before_ray_tells_the_space(tmp_path):
    search = a_search()
    work(search, 8)
    search.save(str(tmp_path / "state.json"))
    again = HyperZeroSearch(num_startup=6)
    again.restore(str(tmp_path / "state.json"))
    assert again.set_search_properties("loss", "min", SPACE)
    assert again.suggest("n") == search.suggest("n")


def test_the_saved_state_is_plain_json(tmp_path):
    search = a_search(space={"x": tune.choice([(1, 2), object, {"a": 1}])})
    config = search.suggest("t")
    search.on_trial_complete("t", {"loss": 1.0})
    search.save(str(tmp_path / "state.json"))
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["finished"][0][1] == [1.0]
    assert config["x"] in ((1, 2), object, {"a": 1})


def test_bounds_are_kept():
    """Maximise x + y where a reported x stays below 0.4 and a reported y' = 1 - y above 0.4."""
    search = a_search(
        space={"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)},
        mode="max",
        at_most={"used": 0.4},
        at_least={"left": 0.4},
    )

    def report(c):
        return {"loss": c["x"] + c["y"], "used": c["x"], "left": 1 - c["y"]}

    later = work(search, 32, report=report)[16:]
    feasible = [c for c in later if c["x"] <= 0.4 and c["y"] <= 0.6]
    assert len(feasible) >= 5
    assert max(c["x"] + c["y"] for c in feasible) > 0.93
    assert max(max(c["x"] - 0.4, c["y"] - 0.6) for c in later[8:]) < 0.12


def test_known_variances_are_used():
    def report(number, c):
        noisy = number % 2 == 1
        luck = torch.randn((), generator=torch.Generator().manual_seed(number)).item()
        return {"loss": (c["x"] - 0.7) ** 2 + 3 * luck * noisy, "v": 9.0 if noisy else 1e-6}

    def error(**options):
        search = a_search(space={"x": tune.uniform(0, 1)}, **options)
        seen = [search.suggest("0")]
        for number in range(36):
            search.on_trial_complete(f"{number}", report(number, seen[-1]))
            seen.append(search.suggest(f"{number + 1}"))
        return sum(abs(c["x"] - 0.7) for c in seen[-10:]) / 10

    known = error(variances={"loss": "v"})
    assert known < 0.15
    assert known < 0.5 * error()


def test_trials_that_fail_say_nothing_and_nan_is_no_value():
    search = a_search()
    for name, result, error in [("a", None, True), ("b", {"loss": 1.0}, True), ("c", None, False)]:
        search.suggest(name)
        search.on_trial_complete(name, result, error)
    search.suggest("d")
    search.on_trial_complete("d", {"loss": math.nan})
    search.on_trial_complete("never suggested", {"loss": 1.0})
    assert search.get_state()["finished"] == []
    assert search.get_state()["live"] == {}


def test_points_from_elsewhere_count():
    search = a_search(num_startup=1)
    for number in range(6):
        x = number / 5
        config = {"x": x, "net": {"lr": 0.01, "depth": 2, "width": 8}, "mode": "b"}
        search.add_evaluated_point(config, loss(config))
    search.add_evaluated_point({}, 0.0, error=True)
    assert len(search.get_state()["finished"]) == 6
    assert search.suggest("t")["x"] == pytest.approx(0.3, abs=0.25)


QUANTISED = {
    "quniform": (tune.quniform(0.25, 1.0, 0.25), {0.25, 0.5, 0.75, 1.0}),
    "qloguniform": (tune.qloguniform(1.0, 4.0, 1.0), {1.0, 2.0, 3.0, 4.0}),
    "randint": (tune.randint(-1, 2), {-1, 0, 1}),
    "qrandint": (tune.qrandint(0, 9, 3), {0, 3, 6, 9}),
    "qrandint of one": (tune.qrandint(1, 3, 1), {1, 2, 3}),
    "lograndint": (tune.lograndint(1, 4), {1, 2, 3}),
    "qlograndint": (tune.qlograndint(2, 8, 2), {2, 4, 6, 8}),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_and_whole_numbers_are_rays(name):
    """All of the values that Ray itself would draw, and no other."""
    domain, values = QUANTISED[name]
    search = a_search(space={"p": domain, "x": tune.uniform(0, 1)}, num_startup=100)
    suggested = [search.suggest(str(i))["p"] for i in range(64)]
    assert set(suggested) == values
    assert {type(v) for v in suggested} == {type(v) for v in values}
    assert set(domain.sample(size=400)) <= values


@pytest.mark.parametrize(
    ("space", "match"),
    [
        ({"x": tune.grid_search([1, 2])}, "grid searches"),
        ({"x": tune.sample_from(lambda _: 1)}, "supported are"),
        ({"x": tune.randn()}, "supported are"),
        ({"x": tune.choice([{"a": tune.uniform(0, 1)}, 2])}, "conditional spaces"),
        ({"x": 3}, "nothing to tune"),
        ({"x": tune.randint(1, 2)}, "can only be"),
        ({"x": tune.uniform(1, 0)}, "bounds"),
    ],
)
def test_spaces_that_cannot_be_carried_are_refused(space, match):
    with pytest.raises(hz.InputError, match=match):
        a_search(space=space)
    if match != "bounds":
        with pytest.raises(hz.ProblemError, match=match):
            HyperZeroSearch().set_search_properties("loss", "min", space)


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (hz.ProblemError, "one metric", lambda: a_search(metric=["a", "b"], mode=["min", "max"])),
        (hz.ProblemError, "mode", lambda: a_search(mode="up")),
        (hz.ConfigError, "bound on", lambda: a_search(at_most={"a": math.nan})),
        (hz.ConfigError, "whole number", lambda: a_search(seed=-1)),
        (hz.ProblemError, "needs a space", lambda: HyperZeroSearch().suggest("t")),
        (hz.ProblemError, "needs its space", lambda: HyperZeroSearch().add_evaluated_point({}, 1)),
    ],
)
def test_what_it_cannot_carry_is_refused(error, match, make):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("result", "match"),
    [
        ({"other": 1.0}, r"no \['loss', 'latency', 'v'\]; it reported \['other'\]"),
        ({"loss": 1.0, "latency": 1.0, "v": -1.0}, "expected >= 0"),
    ],
)
def test_an_unknown_metric_is_named_with_those_that_are_known(result, match):
    search = a_search(at_most={"latency": 1.0}, variances={"loss": "v"})
    search.suggest("t")
    with pytest.raises(hz.ReadingsError, match=match):
        search.on_trial_complete("t", result)


def test_states_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        a_search().restore(str(path))
    for text in ("{", "[]", "{}", '{"version": 1}'):
        path.write_text(text)
        with pytest.raises(hz.ConfigError):
            a_search().restore(str(path))
    path.unlink()  # a file of others is not written over
    a_search(space={"y": tune.uniform(0, 1)}).save(str(path))
    with pytest.raises(hz.StudyMismatchError, match="another space"):
        a_search().restore(str(path))
    a_search(at_most={"a": 1.0}).save(str(path))
    with pytest.raises(hz.StudyMismatchError, match="another bounds"):
        a_search().restore(str(path))


@settings(max_examples=25, deadline=None)
@given(
    low=st.floats(-1e3, 1e3),
    width=st.floats(0.1, 1e3),
    values=st.lists(st.floats(), min_size=1, max_size=4),
    seed=st.integers(0, 2**60),
)
def test_whatever_is_reported_the_next_suggestion_lies_in_the_space(low, width, values, seed):
    space = {"a": tune.uniform(low, low + width), "b": tune.choice([True, 1, "1"])}
    search = a_search(space=space, seed=seed, num_startup=1, num_samples=8, num_starts=0)
    for number, value in enumerate(values):
        search.suggest(f"{number}")
        search.on_trial_complete(f"{number}", {"loss": value})
    suggested = search.suggest("last")
    assert low <= suggested["a"] <= low + width
    assert any(suggested["b"] is option for option in (True, 1, "1"))


@pytest.mark.parametrize(("metric", "mode"), [("other", "min"), ("loss", "max")])
def test_a_state_of_another_metric_or_mode_is_refused(tmp_path, metric, mode):
    space = {"x": tune.uniform(0.0, 1.0)}
    search = HyperZeroSearch(space, "loss", "min")
    search.suggest("a")
    search.on_trial_complete("a", {"loss": 1.0})
    search.save(str(tmp_path / "search.json"))
    with pytest.raises(hz.StudyMismatchError, match=r"another (metric|mode)"):
        HyperZeroSearch(space, metric, mode).restore(str(tmp_path / "search.json"))
    late = HyperZeroSearch(space)
    late.restore(str(tmp_path / "search.json"))
    with pytest.raises(hz.StudyMismatchError, match="has learnt from trials with"):
        late.set_search_properties(metric, mode, {})


def test_a_state_of_earlier_code_goes_on():
    folder = Path(__file__).parent.parent / "fixtures"
    again = a_search(seed=5)
    again.restore(str(folder / "ray_state.json"))
    expected = json.loads((folder / "integrations.json").read_text())["ray"]
    assert [c["mode"] for c in work(again, 2, first=9)] == [c["mode"] for c in expected]
