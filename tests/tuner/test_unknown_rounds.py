"""Messages with rows that say nothing, and with rows of rounds that were never planned."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import hyperzero_torch as hz

CONFIG = hz.TunerConfig(
    num_draws=40, num_samples=32, initial_candidates=4, num_starts=0, verification_share=0.0
)


def make():
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    problem = hz.Problem(space, {"w": 0.2}, ["views", "clicks"], "views")
    return hz.Tuner(problem, CONFIG, seed=0)


def message(plan, round_=None, arms=slice(None), **change):
    ids = plan.candidate_ids[arms]
    mean = 5.0 + 0.1 * torch.arange(2.0 * len(ids)).reshape(-1, 2)
    values = {"count": torch.full_like(mean, 500.0), "mean": mean, "var": torch.ones_like(mean)}
    at = plan.round if round_ is None else round_
    return hz.Readings(at, ids, **(values | change), metrics=["views", "clicks"])


@pytest.mark.filterwarnings("ignore:.*ample ratio mismatch")  # all arms have as many users
def test_rounds_never_planned_are_refused_unless_they_may_be_skipped():
    tuner = make()
    plan = tuner.ask(3)
    mixed = [message(plan), message(plan, 1), message(plan, 9)]
    with pytest.raises(hz.ReadingsError, match="unknown round 1"):
        tuner.tell(mixed)
    with pytest.raises(hz.ConfigError, match="'refuse' or 'skip', got 'ignore'"):
        tuner.tell(mixed, unknown="ignore")
    left_out = tuner.study.left_out(hz.Readings.concat(mixed))
    rows = 2 * len(plan.candidate_ids)
    assert left_out.never_planned == {1: rows, 9: rows}
    assert tuner.tell(mixed, unknown="skip") == rows
    assert tuner.tell(mixed, unknown="skip") == 0
    (remark,) = [d for d in tuner.decisions if d.kind == "refused"]
    assert remark.details == {"rounds": [1, 9], "rows": 2 * rows}
    assert "unknown rounds 1, 9: they were never planned, the last is 3" in remark.reason
    plain = make()
    plain.ask(3)
    plain.tell(message(plan))
    assert plain.ask() == tuner.ask()


def test_before_the_first_plan_every_row_is_a_mistake():
    tuner, plan = make(), make().ask()
    with pytest.raises(hz.ReadingsError, match="no round was planned yet"):
        tuner.tell(message(plan), unknown="skip")


def test_rows_of_compacted_rounds_are_skipped_and_named():
    tuner = make()
    plans = [tuner.ask(r) for r in range(3)]
    tuner.tell([message(p) for p in plans])
    del tuner.history.tables[0]  # what a compaction leaves
    assert tuner.study.left_out(message(plans[0])).compacted == {0: 10}


@pytest.mark.parametrize("var", [None, float("nan"), float("inf"), "NULL", "", "nan", "\\N"])
@pytest.mark.parametrize("count", [1, 1.0, "1"])
def test_the_variance_of_one_user_is_no_fault(var, count):
    """In a frame, and with the same evidence as without that row."""
    tuner, without = make(), make()
    plan = tuner.ask()
    without.ask()
    rows = message(plan, arms=slice(0, -1))
    without.tell(rows)
    columns = {name: getattr(rows, name).tolist() for name in ("round", "candidate", "metric")}
    columns |= {name: getattr(rows, name).tolist() for name in ("count", "mean", "var")}
    last = {"round": 0, "candidate": plan.candidate_ids[-1], "metric": "views"}
    for name, value in (last | {"count": count, "mean": 7.0, "var": var}).items():
        columns[name].append(value)
    assert tuner.tell(hz.Readings.from_frame(columns)) == len(rows) + 1
    got, expected = tuner.bucket(), without.bucket()
    torch.testing.assert_close(got.mean, expected.mean, rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(got.var, expected.var, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert got.mean[-1].isnan().all()
    assert (got.weight[-1] == 0).all()


def test_the_variance_of_one_user_in_tensors():
    tuner = make()
    plan = tuner.ask()
    var = torch.ones(len(plan.candidate_ids), 2)
    count = torch.full_like(var, 500.0)
    var[2], count[2] = torch.nan, 1
    assert tuner.tell(message(plan, var=var, count=count)) == var.numel()
    count[2] = 2
    with pytest.raises(hz.ReadingsError, match=r"var is .*nan"):
        message(plan, var=var, count=count)


@settings(max_examples=60, deadline=None)
@given(
    mean=st.floats(-1e9, 1e9, allow_subnormal=False),  # a part of it would round to 0
    var=st.floats(0, 1e12),
    nudge=st.sampled_from([0.0, 1e-15, 4e-10, -4e-10]),
    name=st.sampled_from(["mean", "var"]),
)
def test_values_within_rounding_are_the_same_and_others_are_not(mean, var, nudge, name, study):
    tuner, plan = study
    at = tuner.history.num_messages  # each example has a revision of its own
    values = {"mean": mean or 1.0, "var": var}
    first = one_row(plan, at, **values)
    assert tuner.tell(first) == 1
    near = values | {name: values[name] * (1 + nudge)}
    assert tuner.tell(one_row(plan, at, **near)) == 0
    spread = max(abs(values["mean"]), var**0.5)
    far = values | {"mean": values["mean"] + 1e-8 * spread}
    with pytest.raises(hz.ReadingsError) as caught:
        tuner.tell(one_row(plan, at, **far))
    received, sent = str(caught.value).split("and now has")
    assert f"mean {values['mean']!r}" in received
    assert f"mean {far['mean']!r}" in sent


@pytest.fixture(scope="module")
def study():
    tuner = make()
    return tuner, tuner.ask()


def one_row(plan, revision, mean, var):
    columns = {"round": plan.round, "candidate": 0, "metric": "views", "count": 100}
    columns |= {"mean": mean, "var": var, "revision": revision}
    return hz.Readings.from_frame({name: [value] for name, value in columns.items()})


def test_a_treatment_whose_control_is_missing_warns():
    tuner = make()
    plan = tuner.ask()
    tuner.tell(message(plan, arms=slice(1, None)))
    for _ in range(4):  # the control may still be on its way
        tuner.ask()
    with pytest.warns(hz.TunerWarning, match=r"readings of round 0 and the control has none of"):
        tuner.ask()
    assert [d.kind for d in tuner.decisions].count("control") == 1
    tuner.ask()  # said once
    tuner.tell(message(plan, arms=slice(0, 1)))
    assert tuner.bucket().mean[1:].isfinite().all()
