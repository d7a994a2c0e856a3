"""What Ray's searcher is given, saves and restores: refused whole, with our error, or used."""

from __future__ import annotations

import copy
import json
import math
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz

pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")

from ray import tune

from hyperzero_torch.integrations.ray import HyperZeroSearch

X = {"x": tune.uniform(0.0, 1.0)}
SPACE = X | {"net": {"depth": tune.randint(1, 5), "width": 8}, "mode": tune.choice(["a", "b"])}


def a_search(space=X, **options):
    few = {"seed": 0, "num_startup": 2, "num_samples": 8, "num_starts": 0}
    return HyperZeroSearch(space, **({"metric": "loss", "mode": "min"} | few | options))


def tried(**options):
    """A searcher with finished trials and one that waits."""
    search = a_search(SPACE, at_most={"latency": 1.0}, variances={"loss": "v"}, **options)
    for number in range(4):
        config = search.suggest(f"t{number}")
        report = {"loss": config["x"], "latency": 0.5, "v": math.nan if number == 2 else 0.1}
        search.on_trial_complete(f"t{number}", report)
    search.suggest("waiting")
    return search


@pytest.mark.parametrize("space", [[1, 2], "x", 3, X["x"], ("x", X["x"])])
def test_a_space_that_is_no_mapping_is_refused(space):
    with pytest.raises(hz.ProblemError, match="maps names to what tune"):
        a_search(space)
    with pytest.raises(hz.ProblemError, match="maps names to what tune"):
        HyperZeroSearch().set_search_properties("loss", "min", space)


U = X["x"]


@pytest.mark.parametrize(
    ("space", "match"),
    [
        ({"l": [U, 3]}, r"\['l', 0\] stands in a list"),
        ({"a": {"l": (U, 3)}}, r"\['a', 'l', 0\] stands in a list"),
        ({1: U}, "no string"),
        ({None: U}, "no string"),
        ({"a/b": U}, "holds '/'"),
        ({"x": {"grid_search": 5}}, "Ray cannot read the space"),
        ({"x": {"grid_search": [1, 2]}}, "grid searches"),
        ({"x": tune.choice([1])}, "can only be 1"),
        ({"x": tune.choice([])}, "at least two"),
        ({"x": tune.choice([{"a": {"grid_search": [1, 2]}}, 3])}, "conditional"),
        ({"x": tune.choice([[U], 3])}, "conditional"),
        ({"x": tune.quniform(0, 1, -0.1)}, "step > 0"),
        ({"x": tune.uniform(-1e308, 1e308)}, "finite"),
        ({"x": tune.randint(0, 10**400)}, "supported are"),
        ({" ": U}, "name"),
    ],
)
def test_parameters_that_cannot_be_carried_are_refused(space, match):
    with pytest.raises(hz.InputError, match=match):
        a_search(space)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"at_most": ["latency"]}, "at_most maps names"),
        ({"at_least": 0.2}, "at_least maps names"),
        ({"at_most": "latency"}, "at_most maps names"),
        ({"at_most": {3: 1.0}}, "at_most maps names"),
        ({"at_most": {"latency": True}}, "finite number, got True"),
        ({"at_most": {"latency": "0.2"}}, "finite number, got '0.2'"),
        ({"at_least": {"latency": None}}, "finite number, got None"),
        ({"at_least": {"latency": math.inf}}, "finite number, got inf"),
        ({"at_most": {"latency": 10**400}}, "finite number"),
        ({"at_most": {"a": 0.1}, "at_least": {"a": 0.2}}, "at least 0.2 and at most 0.1"),
        ({"variances": "loss_var"}, "variances maps a metric"),
        ({"variances": ["loss_var"]}, "variances maps a metric"),
        ({"variances": {"loss": 0.1}}, "variances maps a metric"),
        ({"variances": {"los": "v"}}, r"variances names \['los'\], and only the metric 'loss'"),
        ({"variances": {"latency": "v"}, "at_most": {"late": 1}}, r"those with bounds, \['late'\]"),
    ],
)
def test_bounds_and_variances_that_cannot_be_are_refused(options, match):
    with pytest.raises(hz.ConfigError, match=match):
        a_search(**options)


def test_a_variance_of_an_unknown_metric_is_refused_once_the_metric_is_known():
    search = HyperZeroSearch(variances={"los": "v"})
    with pytest.raises(hz.ConfigError, match=r"variances names \['los'\]"):
        search.set_search_properties("loss", "min", X)
    assert search.metric is None  # nothing was taken over
    assert search.set_search_properties("los", "min", X)
    assert search.suggest("t").keys() == {"x"}


def test_a_metric_that_is_bounded_and_optimised_may_have_a_variance():
    search = a_search(at_most={"loss": 1.0}, at_least={"loss": 0.0}, variances={"loss": "v"})
    search.suggest("t")
    search.on_trial_complete("t", {"loss": 0.25, "v": 0.5})
    assert search.get_state()["finished"][0][1:] == [[0.25, 0.75, 0.25], [0.5, 0.5, 0.5]]


WRONG_REPORTS = [
    ({"latency": 0.5, "v": 0.1}, r"no \['loss'\]; it reported \['latency', 'v'\]"),
    ({"loss": 1.0, "v": 0.1}, r"no \['latency'\]"),
    ({"loss": 1.0, "latency": 0.5}, r"no \['v'\]"),
    ({"loss": "low", "latency": 0.5, "v": 0.1}, "loss = 'low'"),
    ({"loss": None, "latency": 0.5, "v": 0.1}, "loss = None"),
    ({"loss": True, "latency": 0.5, "v": 0.1}, "loss = True"),
    ({"loss": [1.0], "latency": 0.5, "v": 0.1}, r"loss = \[1.0\]"),
    ({"loss": np.ones(2), "latency": 0.5, "v": 0.1}, "loss = array"),
    ({"loss": 1j, "latency": 0.5, "v": 0.1}, "loss = 1j"),
    ({"loss": 1.0, "latency": 10**400, "v": 0.1}, "latency = 1"),
    ({"loss": 1.0, "latency": 0.5, "v": "0.1"}, "v = '0.1'"),
    ({"loss": 1.0, "latency": 0.5, "v": -0.1}, "(?s)expected >= 0.*v = -0.1"),
    ({"loss": 1.0, "latency": 0.5, "v": math.inf}, "(?s)expected >= 0.*v = inf"),
    (1.0, "a mapping from metrics to numbers, got 1.0"),
    ([("loss", 1.0)], "a mapping from metrics"),
]


@pytest.mark.parametrize(("result", "match"), WRONG_REPORTS)
def test_a_wrong_report_is_refused_and_the_trial_can_be_reported_again(result, match):
    search = tried()
    before = search.get_state()
    with pytest.raises(hz.ReadingsError, match=match):
        search.on_trial_complete("waiting", result)
    assert json.dumps(search.get_state()) == json.dumps(before)
    search.on_trial_complete("waiting", {"loss": 1.0, "latency": 0.5, "v": 0.1})
    after = search.get_state()
    assert after["finished"][-1] == [before["live"]["waiting"], [1.0, 0.5], [0.1, "nan"]]
    assert after["live"] == {}


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.5),
        np.array(0.5),
        torch.tensor(0.5),
        torch.tensor(0.5, requires_grad=True),
        Fraction(1, 2),
    ],
)
def test_a_number_of_any_library_is_a_number(value):
    search = a_search(at_least={"eval/left": 0})
    search.suggest("t")
    search.on_trial_complete("t", {"loss": value, "eval": {"left": np.int64(2)}})
    assert search.get_state()["finished"][0][1] == [0.5, 2.0]
    search.add_evaluated_point({"x": 0.25}, value)
    assert search.get_state()["finished"][1] == [[0.25], [0.5, "nan"], ["nan", "nan"]]


def test_nan_is_not_known_and_no_value_at_all_says_nothing():
    search = a_search(at_most={"latency": 1.0}, variances={"latency": "v"})
    for number, result in enumerate(
        [
            {"loss": 1.0, "latency": math.nan, "v": 0.1},
            {"loss": 1.0, "latency": 0.5, "v": math.nan},
            {"loss": math.nan, "latency": 0.5, "v": 0.1},
            {},
            None,
        ]
    ):
        search.suggest(f"{number}")
        search.on_trial_complete(f"{number}", result)
    rows = [row[1:] for row in search.get_state()["finished"]]
    assert rows == [[[1.0, "nan"], ["nan", 0.1]], [[1.0, 0.5], ["nan", "nan"]]]
    assert search.get_state()["live"] == {}
    assert 0 <= search.suggest("next")["x"] <= 1


@pytest.mark.parametrize("value", ["a", None, True, [1.0]])
def test_points_from_elsewhere_without_a_number_are_refused(value):
    search = a_search()
    with pytest.raises(hz.ReadingsError, match="must be a number"):
        search.add_evaluated_point({"x": 0.5}, value)
    assert search.get_state()["finished"] == []


@pytest.mark.parametrize("point", [{}, {"net": 3}, {"x": 0.5, "net": {}}, "x", None])
def test_points_from_elsewhere_without_a_parameter_are_refused(point):
    search = a_search(SPACE)
    with pytest.raises(hz.SpaceError, match="missing"):
        search.add_evaluated_point(point, 1.0)


def test_a_trial_has_a_string_for_its_id_and_one_set_of_parameters_at_a_time():
    search = a_search()
    for wrong in (3, None, ["t"]):
        with pytest.raises(hz.ReadingsError, match="id is a string"):
            search.suggest(wrong)
        with pytest.raises(hz.ReadingsError, match="id is a string"):
            search.on_trial_complete(wrong, {"loss": 1.0})
    search.suggest("t")
    with pytest.raises(hz.RoundError, match="has not finished"):
        search.suggest("t")
    search.on_trial_complete("t", {"loss": 1.0})
    assert search.suggest("t") is not None


def test_choices_of_dicts_and_arrays_come_back_as_they_are():
    options = [{"deep": {"a": 1}}, np.zeros(3), np.ones(3), [1, 2]]
    search = a_search({"o": {"x": tune.choice(options)}}, num_startup=64)
    for number in range(32):
        value = search.suggest(f"{number}")["o"]["x"]
        (index,) = [i for i, option in enumerate(options) if option is value]
        assert search.get_state()["live"][f"{number}"] == [float(index)]
    search.add_evaluated_point({"o": {"x": {"deep": {"a": 1}}}}, 1.0)
    assert search.get_state()["finished"][-1][0] == [0.0]


def test_a_state_fits_the_same_space_in_another_process():
    """Functions and objects are told by their names, not by where they lie in memory."""

    def space():
        return {"f": tune.choice([lambda x: x, object(), math.sin])}

    search = a_search(space())
    search.suggest("t")
    a_search(space()).set_state(search.get_state())
    with pytest.raises(hz.StudyMismatchError, match="another space"):
        a_search({"f": tune.choice([object(), math.cos, 3])}).set_state(search.get_state())


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", ["state.json"]])
def test_what_names_no_file_is_refused(path):
    for work in (a_search().save, a_search().restore, a_search().restore_from_dir):
        with pytest.raises(hz.ConfigError, match="expected the name of a file"):
            work(path)


def test_a_save_that_cannot_be_leaves_nothing_and_harms_nothing(tmp_path, monkeypatch):
    search = tried()
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        search.save(str(tmp_path / "missing" / "state.json"))
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        search.save_to_dir(str(tmp_path / "missing"))
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        search.save(str(tmp_path))
    assert list(tmp_path.iterdir()) == []

    path = tmp_path / "state.json"
    search.save(str(path))
    before = path.read_bytes()
    search.on_trial_complete("waiting", {"loss": 1.0, "latency": 0.5, "v": 0.1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(hz.ConfigError, match="No space left"):
        search.save(str(path))
    assert [f.name for f in tmp_path.iterdir()] == ["state.json"]
    assert path.read_bytes() == before


def test_files_that_are_no_state_are_refused(tmp_path):
    search = tried()
    before = search.get_state()
    path = tmp_path / "state.json"
    for content in (b"", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"version": 2}', b"NaN"):
        path.write_bytes(content)
        with pytest.raises(hz.ConfigError, match=r"cannot be read|no state"):
            search.restore(str(path))
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        search.restore(str(tmp_path))
    with pytest.raises(hz.ConfigError, match="holds no searcher-state"):
        search.restore_from_dir(str(tmp_path))
    assert search.get_state() == before


def test_a_state_of_parameters_outside_the_space_is_refused_whenever_the_space_is_known():
    state = tried().get_state()
    state["finished"][0][0][0] = 1.5
    with pytest.raises(hz.ConfigError, match="damaged"):
        tried().set_state(state)
    late = HyperZeroSearch(at_most={"latency": 1.0})
    late.set_state(state)
    with pytest.raises(hz.ConfigError, match="damaged"):
        late.set_search_properties("loss", "min", SPACE)


def test_a_state_is_a_copy():
    search = tried()
    state = search.get_state()
    state["live"]["waiting"].append(9.0)
    state["finished"].clear()
    assert len(search.get_state()["finished"]) == 4
    assert search.get_state()["live"]["waiting"] != state["live"]["waiting"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
STATE = tried().get_state()


def places(value, path=()):
    """Ways to everything that a state holds."""
    yield path
    for key, inner in (
        (value.items() if isinstance(value, dict) else enumerate(value) if value else ())
        if isinstance(value, dict | list)
        else ()
    ):
        yield from places(inner, (*path, key))


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from(list(places(STATE))[1:]), new=JSON, drop=st.booleans())
def test_a_damaged_state_is_refused_whole_or_was_not_damaged(path, new, drop):
    state = copy.deepcopy(STATE)
    *parents, last = path
    inner = state
    for key in parents:
        inner = inner[key]
    if drop:
        del inner[last]
    else:
        inner[last] = new
    search = a_search(SPACE, at_most={"latency": 1.0})
    before = search.get_state()
    try:
        search.set_state(state)
    except (hz.ConfigError, hz.StudyMismatchError):
        assert search.get_state() == before
        return
    taken = search.get_state()
    stated = {key: value for key, value in state.items() if value is not None}
    assert taken == taken | stated  # what nobody had said yet is what the searcher knew
    suggested = search.suggest("next")
    assert 0 <= suggested["x"] <= 1
    assert suggested["net"]["depth"] in (1, 2, 3, 4)


@settings(max_examples=50, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_half_a_file_is_refused(tmp_path_factory, cut):
    text = json.dumps(STATE)
    path = tmp_path_factory.mktemp("half") / "state.json"
    path.write_text(text[: int(cut * len(text))])
    search = a_search(SPACE, at_most={"latency": 1.0})
    before = search.get_state()
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        search.restore(str(path))
    assert search.get_state() == before
    path.write_text(text)
    search.restore(str(path))
    assert search.get_state() == STATE


@settings(max_examples=60, deadline=None)
@given(
    reports=st.lists(
        st.dictionaries(st.sampled_from(["loss", "latency", "v", "other"]), JSON) | JSON,
        min_size=1,
        max_size=4,
    ),
    numbers=st.lists(st.tuples(st.floats(), st.floats(), st.floats(0.0)), max_size=3),
)
def test_whatever_is_reported_is_refused_or_learnt_from(reports, numbers):
    search = a_search(at_most={"latency": 1.0}, variances={"loss": "v"}, num_startup=1)
    reports = [*reports, *({"loss": a, "latency": b, "v": v} for a, b, v in numbers)]
    for number, report in enumerate(reports):
        search.suggest(f"{number}")
        before = search.get_state()
        try:
            search.on_trial_complete(f"{number}", report)
        except hz.ReadingsError:
            assert search.get_state() == before
            search.on_trial_complete(f"{number}", error=True)
        assert search.get_state()["live"] == {}
    again = a_search(at_most={"latency": 1.0}, variances={"loss": "v"}, num_startup=1)
    again.set_state(json.loads(json.dumps(search.get_state(), allow_nan=False)))
    suggested = search.suggest("last")
    assert 0 <= suggested["x"] <= 1
    assert again.suggest("last") == suggested


DOMAINS = st.sampled_from(
    [
        tune.uniform(-1.0, 2.0),
        tune.loguniform(1e-6, 1e3),
        tune.quniform(0.0, 1.0, 0.25),
        tune.randint(-5, 5),
        tune.qrandint(0, 9, 3),
        tune.lograndint(1, 1000),
        tune.choice([None, "a", 1]),
        tune.choice([1]),
        tune.randn(),
        tune.sample_from(lambda _: 1),
        tune.grid_search([1, 2]),
    ]
)
SPACES = st.recursive(
    DOMAINS | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b", "c/d", " "]) | st.integers(0, 3), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(space=SPACES)
def test_whatever_the_space_it_is_refused_or_its_values_are_rays(space):
    try:
        search = a_search(space)
    except hz.InputError:
        return

    def within(domains, values):
        if isinstance(domains, dict):
            assert set(values) <= set(domains)
            return sum(within(domains[key], values[key]) for key in values)
        assert domains.is_valid(values)
        return 1

    assert within(space, search.suggest("t")) == len(search.get_state()["live"]["t"])
