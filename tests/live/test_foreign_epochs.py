"""Exposures of another study, or of another journal of the study, are counted as such."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings

import hyperzero_torch as hz
from hyperzero_torch.live import SimulatedClock, TableUpdater, assign, read_table
from hyperzero_torch.live.aggregate.aggregator import Aggregator
from hyperzero_torch.live.build import ParquetSource
from hyperzero_torch.live.loop import Loop
from hyperzero_torch.study.epochs import served_as

duckdb = pytest.importorskip("duckdb")

ENGINES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "polars lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "duckdb": lambda frame: CONNECTION.from_df(frame),
}
CONNECTION = duckdb.connect()
FOREIGN = "exposures with another study or epoch"
SERVED = {3: ("feed", frozenset({"e1"})), 4: ("feed", frozenset({"e1", "e2"}))}


def log(num_users=120):
    """Two rounds of users in two arms, with an event each."""
    rows = [(u, r, u % 2, "feed", "e1") for r in (3, 4) for u in range(num_users)]
    exposures = pd.DataFrame(rows, columns=["user", "round", "candidate", "study", "epoch"])
    events = exposures[["user", "round"]].assign(metric="view", value=1.0 + exposures.user % 7)
    return exposures, events


def readings(engine, exposures, events, served=SERVED):
    """By round, candidate: count, mean, variance; and the faults and users outside."""
    frames = ENGINES[engine](exposures), ENGINES[engine](events)
    result = Aggregator(["view"]).aggregate(*frames, as_of=5, served=served)
    r = result.readings
    cells = {} if r is None else dict(zip(zip(r.round, r.candidate), zip(r.count, r.mean, r.var)))
    return cells, dict(result.faults), result.excluded_users


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_leaves_them_out_and_counts_them(engine):
    exposures, events = log()
    clean = readings(engine, exposures, events)
    assert clean[1] == {}
    assert len(clean[0]) == 4
    others = pd.DataFrame(
        [(u, 3, 1 - u % 2, study, epoch) for u in range(40)
         for study, epoch in (("other", "e1"), ("feed", "e2"), (None, "e9"))]
        + [(500 + u, 4, -1, "feed", "e9") for u in range(5)],
        columns=exposures.columns,
    )  # fmt: skip
    mixed = pd.concat([exposures, others], ignore_index=True)
    cells, faults, outside = readings(engine, mixed, events)
    assert cells == clean[0]  # nobody is in two arms for it
    assert faults == {FOREIGN: 125}
    assert not any("outside" in users for users in outside.values())
    assert readings(engine, mixed, events, None)[0] != cells


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_without_names_count_and_a_second_epoch_of_the_same_round_does(engine):
    exposures, events = log()
    clean = readings(engine, exposures, events)
    exposures.loc[:9, "epoch"] = None
    exposures.loc[10:19, "study"] = ""
    exposures.loc[exposures["round"] == 4, "epoch"] = "e2"
    assert readings(engine, exposures, events) == clean
    plain = exposures[["user", "round", "candidate"]]
    assert readings(engine, plain.assign(epoch=None, study=None), events) == clean
    assert readings(engine, plain, events) == clean
    assert readings(engine, plain.assign(epoch="e1"), events) == clean


def test_a_column_of_another_type_is_refused():
    exposures, events = log()
    with pytest.raises(hz.ReadingsError, match=r"column 'epoch' must hold text, got Int64"):
        readings("pandas", exposures.assign(epoch=17), events)


# Of readings that never come.
@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["round", "epoch"]), max_size=20))
def test_each_round_knows_the_epochs_that_it_was_served_under(steps):
    tuner = small_tuner()
    expected, epoch = {}, None
    for step in steps:
        if step == "round":
            plan = tuner.ask()
            epoch = tuner.study.epoch().epoch
            expected[plan.round] = {epoch}
        else:
            before = epoch
            epoch = tuner.study.begin_epoch("a disk was lost").epoch
            last = tuner.history.last_round
            if last is not None:  # the round may be served again, by the new epoch
                expected[last].add(epoch)
            assert epoch != before
    served = served_as("feed", tuner.history, list(expected))
    assert served.keys() == expected.keys()
    assert all(study == "feed" for study, _ in served.values())
    assert all(expected[r] <= set(epochs) for r, (_, epochs) in served.items())
    later = [r for r in expected if r > 0]
    assert all(expected[r] == set(served[r][1]) for r in later)


def small_tuner():
    problem = hz.Problem(
        space=hz.SearchSpace([hz.Float("w", 0, 1)]), base={"w": 0.5}, metrics=["view"],
        objective="view",
    )  # fmt: skip
    config = hz.TunerConfig(
        initial_candidates=4, num_draws=20, num_samples=16, num_proposals=1,
        num_starts=0, verification_share=0.0,
    )  # fmt: skip
    return hz.Tuner(problem, config, study="feed", seed=1)


def test_a_loop_counts_them_and_says_so(tmp_path):
    """Two journals of one study, which was begun anew: the log has exposures of both."""
    log = {"user": [], "round": [], "candidate": [], "study": [], "epoch": []}
    tuners = [small_tuner(), small_tuner()]
    for number, tuner in enumerate(tuners):
        updater = TableUpdater(tmp_path / f"table-{number}.json")
        source = ParquetSource(tmp_path / "x.parquet", tmp_path / "e.parquet", Aggregator(["view"]))
        loop = Loop(tuner, updater, source, SimulatedClock(1e6), lease_rounds=None)
        assert loop.step(0).applied
        table = read_table(updater.path)
        for user in range(number * 1000, number * 1000 + 300):
            served = assign(table, f"user {user}")
            row = (f"user {user}", served.round, served.candidate, served.study, served.epoch)
            for column, value in zip(log.values(), row):
                column.append(value)
    exposures = pd.DataFrame(log)
    assert exposures["epoch"].nunique() == 2
    exposures.to_parquet(tmp_path / "x.parquet")
    events = exposures[["user", "round"]].assign(metric="view", value=np.arange(600.0) % 5)
    events.to_parquet(tmp_path / "e.parquet")
    done = loop.step(1)
    assert done.rows > 0
    tables = tuners[1].history.tables[0]
    assert int(np.nansum(tables.count)) == 300
    (remark,) = [d for d in tuners[1].decisions if d.kind == "events"]
    assert remark.reason == f"left out: 300 {FOREIGN}"
    assert remark.reason in " ".join(done.notes)
