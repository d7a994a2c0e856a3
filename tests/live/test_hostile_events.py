"""One bad row, file or user holds up nothing else: the loop on hostile logs, beside a clean one."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings

import hyperzero_torch as hz
from hyperzero_torch.live import Aggregator, Loop, ParquetSource
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.retry import RetryPolicy

pytest.importorskip("duckdb")

METRICS = ("views", "clicks")
ROUNDS = range(4)
USERS = 240
CONFIG = hz.TunerConfig(
    num_draws=40, num_samples=32, num_proposals=1, initial_candidates=3, num_starts=0,
    verification_share=0.0,
)  # fmt: skip


class Nowhere:
    def apply(self, plan):
        pass

    def withdraw(self):
        pass


def new_tuner():
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    return hz.Tuner(hz.Problem(space, {"w": 0.2}, METRICS, "views"), CONFIG, seed=0)


@pytest.fixture(scope="module")
def planned():
    """A study whose rounds are planned, so that a log of all of them can be written at once."""
    tuner = new_tuner()
    plans = [tuner.ask(round_) for round_ in ROUNDS]
    return tuner.state_dict(), plans


def clean_log(plans):
    """Exposures and events of every round; user ``u7`` is in the same arm of each."""
    rng = np.random.default_rng(0)
    exposures, events = [], []
    for plan in plans:
        ends = np.round(np.cumsum(plan.shares) * USERS).astype(int)
        for i in range(USERS):
            arm = plan.candidate_ids[int(np.searchsorted(ends, i, side="right"))]
            exposures.append((f"u{i}", plan.round, arm))
            events.append((f"u{i}", plan.round, "views", float(rng.poisson(6) + 1)))
            events.append((f"u{i}", plan.round, "clicks", float(rng.poisson(2) + 1)))
    return exposures, events


def write(path, rows, columns):
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_parquet(path)


EXPOSURES, EVENTS = ("user", "round", "candidate"), ("user", "round", "metric", "value")


def write_clean(folder, plans):
    exposures, events = clean_log(plans)
    for round_ in ROUNDS:
        write(folder / f"x/{round_}.parquet", [r for r in exposures if r[1] == round_], EXPOSURES)
        write(folder / f"e/{round_}.parquet", [r for r in events if r[1] == round_], EVENTS)
    return exposures


def collected(folder, state):
    """The readings and the remarks of a loop that reads the log when the next round begins."""
    tuner = new_tuner()
    tuner.load_state_dict(state)
    source = ParquetSource(folder / "x/*.parquet", folder / "e/*.parquet", Aggregator(METRICS))
    clock = SimulatedClock(1e6)
    loop = Loop(tuner, Nowhere(), source, clock, retry=RetryPolicy(attempts=1, timeout=120.0))
    done = loop.step(len(ROUNDS))
    cells = {
        (r, c, METRICS[m]): (t.count[i, m], t.mean[i, m], t.var[i, m])
        for r, t in tuner.history.tables.items()
        for i, c in enumerate(t.candidates.tolist())
        for m in range(len(METRICS))
        if t.revision[i, m] >= 0
    }
    return cells, [d for d in tuner.history.decisions if d.kind == "events"], done


@pytest.fixture(scope="module")
def clean(planned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    write_clean(folder, planned[1])
    cells, remarks, done = collected(folder, planned[0])
    assert len(cells) == sum(len(p.candidate_ids) * len(METRICS) for p in planned[1])
    assert not remarks
    assert not done.notes
    return cells


user, round_, metric = st.integers(0, USERS - 1), st.sampled_from(ROUNDS), st.sampled_from(METRICS)
values = st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 1.8e308, 1e150, 1e18, None])
hostile = st.one_of(
    st.tuples(st.just("value"), user, round_, metric, values),
    st.tuples(st.just("round"), user, st.sampled_from([-1, -(2**60), None]), metric),
    st.tuples(st.just("user"), st.sampled_from([None, ""]), round_, metric),
    st.tuples(st.just("metric"), user, round_),
    st.tuples(st.just("exposure"), st.sampled_from([None, "", "stranger"]), round_),
    st.tuples(st.just("arm"), st.sampled_from([-1, None, 99]), round_),
    st.tuples(st.just("torn"), st.sampled_from("xe"), st.floats(0, 0.99)),
    st.tuples(st.just("schema"), st.sampled_from("xe"), st.sampled_from(["missing", "text"])),
    st.tuples(st.just("future"), user, round_, metric),
)


def write_hostile(folder, number, event):
    """Write one hostile thing as a file beside the others; returns the readings that it costs."""
    kind, *how = event
    e, x = folder / f"e/hostile_{number}.parquet", folder / f"x/hostile_{number}.parquet"
    if kind == "value":
        number_, at, name, value = how
        write(e, [(f"u{number_}", at, name, value)], EVENTS)
        return {(number_, at, name)}
    if kind == "round":
        write(e, [(f"u{how[0]}", how[1], how[2], 5.0)], EVENTS)
    elif kind == "user":
        write(e, [(how[0], how[1], how[2], 5.0), ("u1", -1, "views", 1.0)], EVENTS)
    elif kind == "metric":
        write(e, [(f"u{how[0]}", how[1], None, 5.0), ("u1", -1, "views", 1.0)], EVENTS)
    elif kind == "exposure":
        at = -1 if how[0] == "stranger" else how[1]
        write(x, [(how[0], at, 0), ("u1", -3, 0)], EXPOSURES)
    elif kind == "arm":
        write(x, [("stranger", how[1], how[0])], EXPOSURES)
    elif kind == "torn":
        whole = (folder / f"{how[0]}/0.parquet").read_bytes()
        (folder / f"{how[0]}/torn_{number}.parquet").write_bytes(whole[: int(how[1] * len(whole))])
    elif kind == "schema":
        path, columns = (x, EXPOSURES) if how[0] == "x" else (e, EVENTS)
        row = {"user": "u1", "round": 1, "candidate": 0, "metric": "views", "value": 1.0}
        row = {name: row[name] for name in columns}
        row = {**row, columns[-1]: "many"} if how[1] == "text" else dict(list(row.items())[:-1])
        pd.DataFrame([row]).to_parquet(path)  # the file is left out, whatever lies beside it
    else:
        rows = [(f"u{how[0]}", how[1], how[2], 1000.0, len(ROUNDS) + 3)]
        write(e, rows, (*EVENTS, "arrived"))
    return set()


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@example(events=[("metric", 0, 0), ("value", 98, 0, "views", None), ("torn", "e", 0.0)])
@example(events=[("torn", "e", 0.0), ("schema", "e", "missing")])
@example(events=[("schema", "e", "missing")])
@example(events=[("arm", -1, 0)])
@example(events=[("arm", None, 0)])
@example(events=[("arm", 99, 0)])
@given(events=st.lists(hostile, min_size=1, max_size=4))
def test_all_other_readings_equal_those_of_a_clean_run(events, planned, clean, tmp_path_factory):
    state, plans = planned
    folder = tmp_path_factory.mktemp("hostile")
    exposures = write_clean(folder, plans)
    costs = set().union(*(write_hostile(folder, i, event) for i, event in enumerate(events)))
    cells, remarks, done = collected(folder, state)
    arm_of = {(u, r): arm for u, r, arm in exposures}
    lost = {}
    for number, at, name in costs:
        key = (at, arm_of[f"u{number}", at], name)
        lost[key] = lost.get(key, 0) + 1
    assert cells.keys() == clean.keys()
    for key, row in clean.items():
        if key in lost:  # the user is left out of this metric of his arm in this round
            assert cells[key][0] == row[0] - lost[key]
            assert cells[key][1] < 20
        else:
            assert cells[key] == row
    # Everything that was left out is counted. No remark is due where a row has not arrived yet, or
    # where candidate -1 says that its user takes no part, as the platform page asks for.
    is_said = any(event[0] != "future" and event[:2] != ("arm", -1) for event in events)
    assert bool(remarks) == is_said
    assert bool(done.notes) == is_said
    assert done.plan is not None
    assert done.applied


def test_each_kind_is_counted_by_user_or_by_file(planned, tmp_path):
    state, plans = planned
    write_clean(tmp_path, plans)
    kinds = [
        ("value", 7, 1, "views", math.nan),
        ("value", 8, 1, "views", 1e300),
        ("round", 9, -1, "views"),
        ("arm", 99, 2),
        ("torn", "e", 0.5),
        ("schema", "x", "missing"),
        ("schema", "e", "text"),
    ]
    for number, event in enumerate(kinds):
        write_hostile(tmp_path, number, event)
    _, remarks, done = collected(tmp_path, state)
    texts = [d.reason for d in remarks]
    assert any(t.startswith("left out: 2 users with a value of 'views'") for t in texts)
    assert "left out: 1 events with no valid round" in texts
    assert "left out: 1 users exposed to a candidate that is no arm of the round" in texts
    assert any("torn_4.parquet of the events cannot be used" in t for t in texts)
    assert any("hostile_5.parquet of the exposures cannot be used" in t for t in texts)
    assert any("hostile_6.parquet of the events cannot be used" in t for t in texts)
    assert len(texts) == 6
    assert list(done.notes) == texts


def test_a_fault_that_lasts_does_not_fill_the_journal(planned, tmp_path):
    state, plans = planned
    write_clean(tmp_path, plans)
    write_hostile(tmp_path, 0, ("round", 9, -1, "views"))
    tuner = new_tuner()
    tuner.load_state_dict(state)
    source = ParquetSource(tmp_path / "x/*.parquet", tmp_path / "e/*.parquet", Aggregator(METRICS))
    loop = Loop(tuner, Nowhere(), source, SimulatedClock(1e6))
    notes = [loop.step(round_).notes for round_ in (4, 5, 6)]
    assert [len(n) for n in notes] == [1, 0, 0]
    write_hostile(tmp_path, 1, ("round", 9, -1, "views"))  # twice as many
    assert len(loop.step(7).notes) == 1
    assert len([d for d in tuner.history.decisions if d.kind == "events"]) == 2


def test_a_file_that_is_damaged_behind_its_footer_is_left_out(planned, clean, tmp_path):
    state, plans = planned
    write_clean(tmp_path, plans)
    data = bytearray((tmp_path / "e/0.parquet").read_bytes())
    data[8 : len(data) // 3] = bytes(len(data) // 3 - 8)
    (tmp_path / "e/damaged.parquet").write_bytes(data)
    cells, remarks, _ = collected(tmp_path, state)
    assert cells == clean
    assert "damaged.parquet of the events cannot be used" in remarks[0].reason


def test_files_of_several_schemas_are_one_table_and_the_future_does_not_count(tmp_path):
    """The first file has no arrivals, the second has, the third has its columns in another order
    and whole numbers as floats."""
    write(tmp_path / "x.parquet", [(f"u{i}", 1, i % 2) for i in range(8)], EXPOSURES)
    events = tmp_path / "e"
    write(events / "a.parquet", [(f"u{i}", 1, "m", 1.0 + i) for i in range(8)], EVENTS)
    rows = [("u0", 1, "m", 100.0, 9), ("u1", 1, "m", 10.0, 1)]
    write(events / "b.parquet", rows, (*EVENTS, "arrived"))
    columns = ("value", "metric", "extra", "round", "user")
    write(events / "c.parquet", [(1000.0, "m", [1], 1.0, "u2")], columns)
    result = Aggregator(["m"]).aggregate(tmp_path / "x.parquet", str(events / "*.parquet"), as_of=2)
    values = np.array([1.0, 12.0, 1003.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert result.readings.mean.tolist() == [values[::2].mean(), values[1::2].mean()]
    assert result.readings.var == pytest.approx([values[::2].var(ddof=1), values[1::2].var(ddof=1)])
    assert result.faults == {}


@pytest.mark.parametrize("winsorise", [None, 0.9])
@pytest.mark.parametrize("bad", [math.nan, 1e300])
def test_a_bad_value_leaves_its_user_out_of_every_metric_that_rests_on_it(winsorise, bad):
    """A plain metric, a ratio and an adjusted one, against the same log without that user."""
    pl = pytest.importorskip("polars")
    from hyperzero_torch.live import Metric

    rng = np.random.default_rng(1)
    users = np.arange(60)
    exposures = pl.DataFrame({"user": users, "round": 1, "candidate": users % 2})
    log = [
        pl.DataFrame({"user": users, "round": 1, "metric": name, "value": rng.gamma(2, 3, 60)})
        for name in ("click", "view", "other")
    ]
    events = pl.concat(log)
    covariates = pl.DataFrame({"user": users, "metric": "view", "value": rng.gamma(2, 3, 60)})
    row = pl.DataFrame({"user": [5], "round": [1], "metric": ["view"], "value": [bad]})
    spoilt = pl.concat([events, row.cast(dict(events.schema))])
    metrics = [
        Metric("view", winsorise=winsorise, covariate=True),
        Metric.ratio("ctr", "click", "view", winsorise=winsorise),
        Metric("other", winsorise=winsorise),
    ]
    aggregator = Aggregator(metrics)
    got = aggregator.aggregate(exposures, spoilt, covariates, as_of=2)
    without = aggregator.aggregate(
        exposures.filter(pl.col("user") != 5), events, covariates, as_of=2
    ).readings
    whole = aggregator.aggregate(exposures, events, covariates, as_of=2).readings
    is_other = whole.metric == "other"
    for name in ("count", "mean", "var"):
        values = getattr(got.readings, name)
        assert values[is_other].tolist() == getattr(whole, name)[is_other].tolist()
        if winsorise is None:
            expected = getattr(without, name)[~is_other]
            assert values[~is_other] == pytest.approx(expected, rel=1e-12)
    assert got.readings.count[~is_other].tolist() == [30, 29, 30, 29]
    assert got.excluded_users[1]["unusable_values"] == 1
