"""``transfer.source``: what a source must be, where it comes from, how it meets the target."""

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import CONFIG, make, play

import hyperzero_torch as hz
from hyperzero_torch.study.compaction import compact
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Planned,
    ReadingsReceived,
    StudyHeader,
    open_journal,
)
from hyperzero_torch.transfer import (
    Rescaled,
    Source,
    align,
    check_distinct,
    from_bucket,
    from_journal,
    journaled,
    translate,
)
from hyperzero_torch.transfer.sharing import package

NAN = math.nan


def source(**changes):
    values = {
        "name": "north",
        "parameters": [{"a": 0.1, "b": 0.9}, {"a": 0.7, "b": 0.2}],
        "metrics": ["gain", "guard"],
        "mean": [[0.01, NAN], [0.02, -0.01]],
        "var": [[1e-4, NAN], [2e-4, 3e-4]],
        "meta_features": {"level:gain": 1.5},
    }
    return Source(**(values | changes))


def problem(**changes):
    values = {
        "space": hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)]),
        "base": {"a": 0.4, "b": 0.6},
        "metrics": ["gain", "guard"],
        "objective": "gain",
    }
    return hz.Problem(**(values | changes))


def test_what_is_not_known_is_nan_with_an_infinite_variance():
    known = source()
    assert known.mean.dtype == torch.float64
    assert torch.equal(known.mean.isnan(), torch.tensor([[False, True], [False, False]]))
    assert torch.equal(known.var.isinf(), known.mean.isnan())
    assert len(known) == 2


def test_later_changes_of_what_was_given_change_nothing():
    mean, row = np.array([[0.01, 0.0], [0.0, 0.0]]), {"a": 0.1, "b": 0.9}
    kept = source(mean=mean, var=np.ones((2, 2)), parameters=[row, row | {"a": 0.2}])
    mean[:], row["a"] = 7.0, 7.0
    assert float(kept.mean[0, 0]) == 0.01
    assert kept.parameters[0]["a"] == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "name must be"),
        ({"parameters": []}, "parameters is empty"),
        ({"parameters": {"a": 1}}, "list of settings"),
        ({"parameters": [{"a": 1.0, "b": 1.0}, {"a": 1.0}]}, "settings [1] do not name"),
        ({"parameters": [{"a": NAN, "b": 1.0}] * 2}, "finite number"),
        ({"parameters": [{"a": [1], "b": 1.0}] * 2}, "finite number"),
        ({"parameters": [7, 8]}, "not mappings"),
        ({"metrics": []}, "metrics is empty"),
        ({"metrics": "gain"}, "list of names"),
        ({"metrics": ["gain", "gain"]}, "come twice"),
        ({"mean": [[0.1, 0.2]]}, "mean must have shape (2, 2), got (1, 2)"),
        ({"mean": [["x", 0], [0, 0]]}, "mean must be numbers"),
        ({"mean": [[math.inf, 0], [0, 0]]}, "mean is infinite in rows [0]"),
        ({"mean": [[NAN] * 2] * 2}, "there is no evidence"),
        ({"var": [[-1e-4, 1], [1, 1]]}, "above 0"),
        ({"var": [[0.0, 1], [1, 1]]}, "above 0"),
        ({"var": [[NAN, 1], [1, 1]]}, "above 0"),
        ({"var": [[math.inf, 1], [1, 1]]}, "above 0"),
        ({"meta_features": {"x": NAN}}, "meta_features['x'] must be finite"),
        ({"meta_features": {"x": "high"}}, "must be a number"),
        ({"meta_features": {"x": True}}, "must be a number"),
        ({"meta_features": [1]}, "must map"),
        ({"num_rounds": -1}, "num_rounds"),
        ({"origin": 3}, "origin"),
        ({"base": {"a": 1.0}}, "base must name the parameters ['a', 'b'], got ['a']"),
        ({"base": {}}, "base must be a setting"),
        ({"base": [0.1, 0.2]}, "base must be a setting"),
        ({"base": {"a": NAN, "b": 1.0}}, "base: 'a' = nan is not a finite number"),
        ({"base": {"a": 10**400, "b": 1.0}}, "base: 'a' = 1000"),
        ({"base": {1: 1.0, "b": 1.0}}, "base: parameter names must be strings"),
        ({"parameters": [{"a": 10**400, "b": 1.0}] * 2}, "not a finite number"),
        ({"meta_features": {"x": 10**400}}, "meta_features['x'] must be finite"),
        ({"meta_features": {"x": 10**9000}}, "of type int that cannot be shown"),
        ({"mean": [[True, False], [0, 0]]}, "not booleans"),
        ({"mean": torch.ones(2, 2, dtype=torch.bool)}, "not booleans"),
        ({"mean": [["0.1", "0.2"], ["0.1", "0.2"]]}, "not booleans, text"),
        ({"mean": np.full((2, 2), "0.1")}, "not booleans, text"),
        ({"mean": [[1j, 0], [0, 0]]}, "or complex"),
        ({"mean": torch.ones(2, 2, dtype=torch.complex64)}, "or complex"),
        ({"mean": np.ones((2, 2), dtype=complex)}, "or complex"),
        ({"mean": torch.ones(2, 2).to_sparse()}, "to_dense()"),
        ({"mean": [[1e170, 0], [0, 0]]}, "within +-1e+12"),
        ({"var": [[1e25, 1], [1, 1]]}, "at most 1e+24"),
        ({"shared": torch.ones(2, 2, 2)}, "diagonal must lie between 0 and var"),
        ({"shared": torch.ones(2, 2)}, "shared must have shape"),
        (
            {
                "mean": torch.zeros(3, 1),
                "var": torch.ones(3, 1),
                "metrics": ["gain"],
                "parameters": [{"a": v, "b": 0.5} for v in (0.1, 0.2, 0.3)],
                "shared": [[[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]],
            },
            "positive semi-definite",
        ),
    ],
)
def test_each_flaw_is_refused_in_words(changes, message):
    with pytest.raises(hz.ConfigError) as error:
        source(**changes)
    assert message in str(error.value)


def test_all_flaws_are_named_in_one_error():
    with pytest.raises(hz.ConfigError) as error:
        source(name="", metrics=["gain", "gain"], var=-torch.ones(2, 2), meta_features={"x": NAN})
    for message in ("name must be", "come twice", "above 0", "meta_features['x']"):
        assert message in str(error.value)


@pytest.mark.parametrize("changes", [{"parameters": None}, {"metrics": "gain"}])
def test_one_flaw_is_told_once(changes):
    with pytest.raises(hz.ConfigError) as error:
        source(**changes)
    assert str(error.value).count("\n  - ") == 1


@given(st.integers(1, 6), st.integers(1, 4))
def test_any_covariance_of_few_common_errors_is_one(num, rank):
    root = 10 ** torch.linspace(-6, 0, num, dtype=torch.float64).unsqueeze(1)
    loading = root * torch.randn(num, rank, generator=torch.Generator().manual_seed(num)).double()
    shared = loading @ loading.T
    kept = source(
        parameters=[{"a": 0.1 * i, "b": 0.5} for i in range(num)],
        metrics=["gain"],
        mean=torch.zeros(num, 1),
        var=2 * shared.diagonal().unsqueeze(1),
        shared=shared.unsqueeze(0),
    )
    assert torch.equal(kept.shared[0], shared)


def test_what_is_no_source_no_problem_and_no_list_is_refused_in_words():
    one, target = source(), problem()
    for bad, message in [
        (lambda: translate("x", target, {}), "got str and Problem"),
        (lambda: translate(one, "x", {}), "got Source and str"),
        (lambda: align(None, target), "got NoneType and Problem"),
        (lambda: align(one, None), "got Source and NoneType"),
        (lambda: translate(one, target, {}, ignore=None), "ignore must be a list"),
        (lambda: translate(one, target, {}, ignore="ab"), "ignore must be a list"),
        (lambda: translate(one, target, {"a": Rescaled("a", 10**400)}), "finite"),
        (lambda: translate(source(parameters=[{"a": 90.0, "b": 1.0}] * 2), target,
                           {"a": Rescaled("a", 1e308)}), "'a' = 90 times 1e+308"),
        (lambda: check_distinct("x"), "a list of hz.transfer.Source"),
        (lambda: check_distinct([None]), "expected a hz.transfer.Source"),
        (lambda: check_distinct([one], target="x"), "expected a hz.transfer.Source"),
        (lambda: from_journal("sqlite:///n.db#x", meta_features=[1]), "meta_features must map"),
    ]:  # fmt: skip
        with pytest.raises(hz.ConfigError) as error:
            bad()
        assert message in str(error.value)


@pytest.mark.parametrize(
    "given",
    ["north.json", Path("north.json"), ["north.json"], [Path("north.json")], [{"source": 1}], {}],
)
def test_a_package_is_told_from_a_source(given):
    with pytest.raises(
        hz.InputError, match=r"package.load\(path, scope\).source makes it a source"
    ):
        journaled.opened(given)


def test_a_package_object_is_told_from_a_source(tmp_path):
    path = tmp_path / "p.json"
    package.export(source(), path, timedelta(days=1), ["feed"])
    loaded = package.load(path, "feed")
    for one in (loaded, [loaded]):
        with pytest.raises(hz.ConfigError, match="looks like a transfer package"):
            journaled.opened(one)
    assert journaled.opened([loaded.source]) == (loaded.source,)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=2)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(Source.__match_args__), anything, min_size=1, max_size=4))
def test_anything_at_all_is_a_source_or_one_error_of_ours(changes):
    try:
        built = source(**changes)
    except hz.ConfigError:
        return
    assert bool((built.var > 0).all())
    assert built.mean.shape == (len(built), len(built.metrics))


def test_by_name_in_whatever_order():
    given = source(
        parameters=[{"b": 0.9, "a": 0.1}, {"b": 0.2, "a": 0.7}], metrics=["guard", "gain"]
    )
    aligned = align(given, problem())
    assert torch.equal(aligned.x, torch.tensor([[0.1, 0.9], [0.7, 0.2]], dtype=torch.float64))
    assert aligned.mean[:, 1].tolist() == [0.01, 0.02]
    assert math.isnan(aligned.mean[0, 0])
    assert aligned.var[0, 0] == math.inf
    assert aligned.rows == (0, 1)
    assert aligned.base is None


def test_what_lies_outside_is_dropped_and_counted():
    given = source(parameters=[{"a": 3.0, "b": 0.9}, {"a": 0.7, "b": 0.2}])
    aligned = align(given, problem())
    assert (aligned.rows, aligned.num_outside, aligned.num_silent) == ((1,), 1, 0)
    constrained = hz.SearchSpace(problem().space.parameters, ["a + b <= 0.95"])
    aligned = align(source(), problem(space=constrained, base={"a": 0.1, "b": 0.1}))
    assert (aligned.rows, aligned.num_outside) == ((1,), 1)
    with pytest.raises(hz.ConfigError, match="none of its 2 settings"):
        align(source(parameters=[{"a": 3.0, "b": 0.9}, {"a": 4.0, "b": 0.2}]), problem())


def test_settings_that_say_nothing_of_the_targets_metrics_are_dropped_and_counted():
    aligned = align(source(), problem(metrics=["guard"], objective="guard"))
    assert (aligned.rows, aligned.num_outside, aligned.num_silent) == ((1,), 0, 1)
    assert aligned.ignored == ("gain",)


def test_a_missing_metric_is_nan_and_none_in_common_is_refused():
    aligned = align(source(), problem(metrics=["gain", "clicks"]))
    assert aligned.missing == ("clicks",)
    assert bool(aligned.mean[:, 1].isnan().all())
    assert bool(aligned.var[:, 1].isinf().all())
    with pytest.raises(hz.ConfigError, match="none of the metrics"):
        align(source(), problem(metrics=["clicks"], objective="clicks"))


def test_parameters_that_do_not_fit_are_refused_together():
    wider = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("c", 0.0, 1.0)])
    with pytest.raises(hz.ConfigError) as error:
        align(source(), problem(space=wider, base={"a": 0.4, "c": 0.6}))
    assert "no parameter 'c'" in str(error.value)
    assert "varied 'b'" in str(error.value)
    text = [{"a": "low", "b": 0.1}, {"a": "high", "b": 0.1}]
    with pytest.raises(hz.ConfigError, match="must be numbers"):
        align(source(parameters=text), problem())


def test_a_parameter_that_the_source_never_varied_is_ignored():
    settings = [{"a": 0.1, "b": 0.9, "c": 5}, {"a": 0.7, "b": 0.2, "c": 5}]
    assert align(source(parameters=settings), problem()).ignored == ("c",)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(1, 8)), min_size=1, max_size=6),
    st.floats(1e-3, 1e3),
)
def test_names_and_units_are_mapped_and_nothing_else_changes(points, factor):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Int("depth", 1, 8)])
    target = problem(space=space, base={"a": 0.4, "depth": 3})
    ours = [{"a": a, "depth": d} for a, d in points]
    theirs = [{"weight": a * factor, "tiefe": d * 100} for a, d in points]
    evidence = {"mean": [[0.1, 0.2]] * len(points), "var": [[1.0, 2.0]] * len(points)}
    plain = align(source(parameters=ours, **evidence), target)
    meta = {"level:zuwachs": 1.5, "own": 2.0}
    other = source(parameters=theirs, metrics=["zuwachs", "guard"], meta_features=meta, **evidence)
    mapping = {
        "a": Rescaled("weight", 1 / factor),
        "depth": Rescaled("tiefe", 0.01),
        "gain": "zuwachs",
    }
    mapped = align(translate(other, target, mapping), target)
    assert mapped.rows == plain.rows
    assert torch.allclose(mapped.x, plain.x, atol=1e-9)
    assert torch.equal(mapped.mean, plain.mean)
    assert mapped.meta == {"level:gain": 1.5, "own": 2.0}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (["a"], "mapping must map"),
        ({"q": "a"}, "no parameter or metric 'q'"),
        ({"a": "q"}, "the source has no 'q'"),
        ({"a": "b"}, "two of the target"),
        ({"gain": "guard"}, "two of the target"),
        ({"a": 7}, "a name or Rescaled"),
        ({"gain": Rescaled("gain", 2.0)}, "have no unit"),
        ({"a": Rescaled("a", 0.0)}, "factor"),
        ({"a": Rescaled("a", NAN)}, "finite"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(mapping, message):
    with pytest.raises(hz.ConfigError) as error:
        translate(source(), problem(), mapping)
    assert message in str(error.value)


def test_what_is_ignored_is_left_out_and_a_name_never_stands_for_two():
    settings = [{"w": 0.1, "a": 0.3, "b": 0.9}, {"w": 0.7, "a": 0.4, "b": 0.2}]
    other = source(parameters=settings)
    with pytest.raises(hz.ConfigError, match="would be unused"):
        translate(other, problem(), {"a": "w"})
    translated = translate(other, problem(), {"a": "w"}, ignore=["a"])
    assert list(translated.parameters) == [{"a": 0.1, "b": 0.9}, {"a": 0.7, "b": 0.2}]
    with pytest.raises(hz.ConfigError, match="the target needs"):
        translate(other, problem(), {}, ignore=["b"])
    with pytest.raises(hz.ConfigError, match="ignore: it has no"):
        translate(other, problem(), {}, ignore=["z"])
    third = source(metrics=["gain", "clicks"])
    swapped = translate(third, problem(), {"gain": "clicks"})
    assert swapped.metrics == ("gain",)
    assert swapped.mean.nan_to_num(9.0).equal(third.mean[:, 1:].nan_to_num(9.0))


def test_features_of_a_metric_that_is_another_one_here_are_left_out():
    meta = {"level:gain": 9.0, "noise:gain": 3.0, "level:all": 1.0, "users": 2.0}
    other = source(metrics=["gain", "all"], meta_features=meta)
    assert dict(translate(other, problem(), {"gain": "all"}).meta_features) == {
        "level:gain": 1.0, "users": 2.0,
    }  # fmt: skip


def test_a_parameter_and_a_metric_may_share_a_name():
    settings = [{"c": 0.3, "b": 0.9}, {"c": 0.4, "b": 0.2}]
    other = source(parameters=settings, metrics=["c", "guard"])
    mapped = translate(other, problem(), {"a": "c", "gain": "c"})
    assert mapped.parameter_names == ("a", "b")
    assert mapped.metrics == ("gain", "guard")


def test_a_single_source_with_one_setting_is_aligned_as_any_other():
    one = source(parameters=[{"a": 0.1, "b": 0.9}], mean=[[0.01, 0.0]], var=[[1e-4, 1e-4]])
    aligned = align(one, problem())
    assert tuple(aligned.x.shape) == (1, 2)
    assert aligned.rows == (0,)


def test_the_common_error_follows_its_rows_and_metrics():
    root = torch.tensor([[0.001, 0.002, 0.003], [0.004, 0.005, 0.006]], dtype=torch.float64)
    shared = root.unsqueeze(-1) * root.unsqueeze(-2)
    three = source(
        parameters=[{"a": a, "b": 0.5} for a in (0.1, 9.0, 0.3)],
        mean=torch.zeros(3, 2),
        var=torch.full((3, 2), 1e-3),
        shared=shared,
    )
    aligned = align(three, problem(metrics=["guard", "gain"]))
    assert torch.equal(aligned.shared[0], shared[1][[0, 2]][:, [0, 2]])
    assert torch.equal(aligned.shared[1], shared[0][[0, 2]][:, [0, 2]])


def test_the_same_evidence_never_counts_twice():
    check_distinct([source(), source(name="south", mean=[[0.03, NAN], [0.02, -0.01]])])
    with pytest.raises(hz.ConfigError, match="count twice"):
        check_distinct([source(), source(name="south")])
    with pytest.raises(hz.ConfigError, match="two are named 'north'"):
        check_distinct([source(), source(mean=[[0.03, NAN], [0.02, -0.01]])])
    with pytest.raises(hz.ConfigError, match="evidence as the target"):
        check_distinct([source()], target=source(name="target"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "north.db"
    tuner = make(journal=f"sqlite:///{path}")
    play(tuner, 5)
    return tuner, f"sqlite:///{path}#default"


def test_a_studys_own_evidence_becomes_a_source(study):
    tuner, address = study
    read = from_journal(address, meta_features={"region": 3.0})
    assert read.name == "default"
    assert read.origin.endswith("north.db#default")
    assert read.meta_features["region"] == 3.0
    assert "level:gain" in read.meta_features
    assert read.base == tuner.problem.base
    assert 1 <= read.num_rounds <= 5
    pooling = Pooling(CONFIG.weights, CONFIG.rounds_per_day, CONFIG.calibrate)
    bucket = gather(tuner.history, pooling)
    own = from_bucket(tuner.problem, bucket, "default")
    assert own.fingerprint() == read.fingerprint()
    known = bucket.tested.nonzero().flatten()
    assert torch.equal(own.mean, bucket.mean[known])
    aligned = align(read, tuner.problem)
    assert torch.equal(aligned.x, tuner.problem.space.to_unit(bucket.theta[known]))
    base = tuner.problem.space.to_unit(tuner.problem.base_theta)
    assert torch.equal(aligned.base, base)
    assert torch.equal(aligned.shared, bucket.shared(known))
    with pytest.raises(hz.ConfigError, match="evidence as the target"):
        check_distinct([read], target=own)


def test_a_long_study_is_read_after_its_readings_were_compacted(tmp_path):
    """A hundred rounds in blocks of 24, written as a tuner would write them."""
    url, target = f"sqlite:///{tmp_path / 'long.db'}", problem()
    config = CONFIG.model_copy(update={"block_rounds": 24})
    rng, ids, rounds = np.random.default_rng(0), tuple(range(6)), range(100)
    theta = [(0.4, 0.6), *((float(a), float(b)) for a, b in rng.uniform(0, 1, (5, 2)))]
    entries = [Configured(config.model_dump(mode="json"))]
    entries += [
        CandidateAdded(c, 0, "initial", t, {"a": t[0], "b": t[1]}) for c, t in enumerate(theta)
    ]
    for t in rounds:
        keys = [(t, c, m, 0) for c in ids for m in range(2)]
        values = [(90.0 + t, 10 + float(rng.normal(0, 0.1)), 1.0) for _ in keys]
        entries += [
            Planned(t, ids, (1,) * 6, (1 / 6,) * 6),
            ReadingsReceived(*zip(*keys), *zip(*values)),
        ]
    journal = open_journal(url)
    journal.create(StudyHeader("long", 0, target.spec()), entries)
    before = from_journal(f"{url}#long")
    assert before.num_rounds == 100
    history = History(2, target.metrics)
    history.extend(entries)
    pooling = Pooling(config.weights, config.rounds_per_day, config.calibrate, config.block_rounds)
    compacted, summary = compact(history, pooling, keep=24)
    assert len(summary.rounds) >= 48
    journal.append("long", compacted, after=len(entries))
    journal.close()
    after = from_journal(f"{url}#long")
    assert after.fingerprint() == before.fingerprint()
    assert torch.equal(after.shared, before.shared)
    assert after.num_rounds == 100
    assert after.meta_features.keys() == before.meta_features.keys()


def test_a_study_of_a_callable_objective_is_read_without_it(tmp_path):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Choice("mode", ["x", "y"])], ["a <= 0.9"])
    problem = hz.Problem(space, {"a": 0.4, "mode": "x"}, ["gain", "guard"], lambda d: d[..., 0])
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = hz.Tuner(problem, CONFIG, url, "callable")
    with pytest.raises(hz.ConfigError, match="no evidence yet"):
        from_journal(f"{url}#callable")
    plan = tuner.ask()
    count = torch.full((len(plan.candidate_ids), 2), 500.0, dtype=torch.float64)
    mean = 10 + 0.1 * torch.rand(count.shape, dtype=torch.float64)
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    read = from_journal(f"{url}#callable", name="other")
    assert read.name == "other"
    assert set(read.parameter_names) == {"a", "mode"}


def test_a_metric_without_any_spread_is_known_all_but_exactly():
    tuner = make()
    plan = tuner.ask()
    count = torch.full((len(plan.candidate_ids), 2), 500.0, dtype=torch.float64)
    mean = 10 + torch.rand(count.shape, dtype=torch.float64)
    mean[:, 1] = 3.0
    var = torch.tensor([[1.0, 0.0]]).expand_as(mean)
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, var))
    pooling = Pooling(CONFIG.weights, CONFIG.rounds_per_day, CONFIG.calibrate)
    read = from_bucket(tuner.problem, gather(tuner.history, pooling), "flat")
    assert bool((read.mean[:, 1] == 0).all())
    assert bool((read.var[:, 1] <= 1e-17).all())


def test_addresses_that_name_nothing_are_refused_and_nothing_is_made(tmp_path, study):
    for address in ("sqlite:///x.db", "#feed", "sqlite:///x.db#", 3):
        with pytest.raises(hz.InputError, match="journal's URL") as error:
            from_journal(address)
        assert "package" not in str(error.value)
    for address in ("memory://#x", "sqlite://#x", "sqlite:///:memory:#x"):
        with pytest.raises(
            hz.InputError, match="journal in memory, which other processes cannot read"
        ):
            from_journal(address)
    with pytest.raises(hz.InputError) as error:
        from_journal("postgresql://me:s3cret@host/db")
    assert "s3cret" not in str(error.value)
    with pytest.raises(hz.StudyNotFoundError):
        from_journal(f"sqlite:///{tmp_path / 'none.db'}#feed")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(hz.StudyNotFoundError):
        from_journal(study[1].replace("#default", "#other"))
