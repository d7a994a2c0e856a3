"""Data that are late, missing or without a status quo: what is waited for, left out and refused."""

from __future__ import annotations

import datetime
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.ax_studies import (
    BASE,
    QUIET,
    SMALL,
    Arm,
    Data,
    Experiment,
    GenerationStrategy,
    HyperZeroNode,
    Metric,
    ParameterType,
    RangeParameter,
    SearchSpace,
    client_with,
    experiment_of,
    fold,
    node_of,
    optimization_config,
    truth,
)

import hyperzero_torch as hz

pytestmark = QUIET
METRICS = ("views", "unfollows")


class LateMetric(Metric):
    """Whose pipeline goes on for a day after a trial."""

    @classmethod
    def period_of_new_data_after_trial_completion(cls):
        return datetime.timedelta(days=1)


def an_experiment(late=Metric):
    return Experiment(
        search_space=SearchSpace([RangeParameter(n, ParameterType.FLOAT, 0.0, 1.0) for n in "ab"]),
        name="feed",
        optimization_config=optimization_config(METRICS),
        tracking_metrics=[Metric("views"), late("unfollows")],
        status_quo=Arm(BASE, name="status_quo"),
    )


def rows(trial, level=1.0, sem=0.01, seed=0):
    """What a trial would report in full: relative errors of ``sem``, and a level of its own."""
    generator = np.random.default_rng([seed, trial.index])
    records = []
    for arm in trial.arms:
        for metric, mean in truth(arm.parameters).items():
            value = mean * level * (1 + sem * generator.normal())
            row = {"trial_index": trial.index, "arm_name": arm.name, "metric_name": metric}
            row |= {"metric_signature": metric, "mean": value, "sem": mean * level * sem}
            records.append(row)
    return pd.DataFrame(records)


def a_batch(experiment, points=((0.5, 0.5), (0.7, 0.4), (0.2, 0.8)), status_quo=True):
    trial = experiment.new_batch_trial()
    for a, b in points:
        trial.add_arm(Arm({"a": a, "b": b}))
    if status_quo:
        trial.add_status_quo_arm(weight=1.0)
    trial.mark_running(no_runner_required=True)
    return trial


def without(frame, metric=None, arm=None):
    drop = pd.Series(True, index=frame.index)
    if metric is not None:
        drop &= frame["metric_name"] == metric
    if arm is not None:
        drop &= frame["arm_name"] == arm
    return frame[~drop]


def batches(experiment, frames):
    """As many batches as frames, each with the same arms; a frame is a function of the trial's."""
    trials = []
    for keep in frames:
        trial = a_batch(experiment)
        frame = keep(rows(trial))
        if len(frame):
            experiment.attach_data(Data(df=frame))
        trials.append(trial)
    return trials


def whole(frame):
    return frame


def no_unfollows(frame):
    return without(frame, metric="unfollows")


def no_control(frame):
    return without(frame, arm="status_quo")


def no_control_unfollows(frame):
    return without(frame, metric="unfollows", arm="status_quo")


def bucket(experiment, **changes):
    config = SMALL.model_copy(update=changes)
    return fold(experiment, experiment.lookup_data(), config).tuner.bucket()


def close(experiment):
    for trial in experiment.trials.values():
        trial.mark_completed()
    return experiment


# --- a late metric -------------------------------------------------------------------------------


def test_a_late_metric_is_unknown_and_takes_nothing_from_the_others():
    """Metric by metric the evidence is what it would be had the others never been measured."""
    full, late, short = an_experiment(), an_experiment(), an_experiment()
    batches(full, [whole, whole, whole])
    batches(late, [whole, whole, no_unfollows])
    batches(short, [whole, whole])
    a, b, c = (bucket(experiment) for experiment in (full, late, short))
    assert b.tested.sum() == 3
    for field in ("mean", "var", "weight"):
        views, unfollows = getattr(b, field)[b.tested].unbind(-1)
        assert torch.equal(views, getattr(a, field)[a.tested][:, 0])
        assert torch.equal(unfollows, getattr(c, field)[c.tested][:, 1])
    assert bool((a.var[a.tested][:, 1] < b.var[b.tested][:, 1]).all())  # less is known


def test_once_it_has_arrived_it_is_as_if_it_had_never_been_late():
    prompt, late = an_experiment(), an_experiment()
    batches(prompt, [whole, whole])
    _, trial = batches(late, [whole, no_unfollows])

    def plan(experiment):
        (runs,) = GenerationStrategy(nodes=[HyperZeroNode(config=SMALL)]).gen(experiment, n=4)
        return [(arm.parameters, w) for arm, w in zip(runs[0].arms, runs[0].weights)]

    assert len(plan(late)) == 5  # nobody has to wait for it
    close(late)
    with pytest.warns(hz.TunerWarning, match=r"trials \[1\] give no deltas of \['unfollows'\]"):
        assert len(plan(late)) == 5
    late.attach_data(Data(df=rows(trial).query("metric_name == 'unfollows'")))
    assert plan(late) == plan(prompt)


def test_one_arm_without_a_metric_is_unknown_as_to_that_metric_only():
    experiment = an_experiment()
    trial = a_batch(experiment)
    name = trial.arms[0].name
    frame = rows(trial)
    frame.loc[(frame["arm_name"] == name) & (frame["metric_name"] == "unfollows"), "mean"] = np.nan
    experiment.attach_data(Data(df=frame))
    trial.mark_completed()
    pooled = bucket(experiment)
    assert int(pooled.tested.sum()) == 2
    assert int((pooled.weight[:, 0] > 0).sum()) == 3


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("late", [Metric, LateMetric])
def test_a_metric_nobody_has_is_waited_for_as_long_as_it_may_come(running, late):
    """Once the trial is over it is an unknown metric, unless its class says that it comes later."""
    experiment = an_experiment(late)
    batches(experiment, [no_unfollows])
    if not running:
        close(experiment)
    strategy = GenerationStrategy(nodes=[HyperZeroNode(config=SMALL)])
    if running or late is LateMetric:
        (runs,) = strategy.gen(experiment, n=3)
        assert len(runs[0].arms) == 4
        if late is Metric:  # while the next is running the first can no longer be waited for
            a_batch(experiment)
            experiment.trials[0].mark_completed()
            with pytest.warns(hz.TunerWarning, match=r"trials \[0\] give no deltas of"):
                strategy.gen(experiment, n=3)
    else:
        with pytest.raises(hz.ReadingsError, match=r"data on \['unfollows'\].*data on \['views'\]"):
            strategy.gen(experiment, n=3)


# --- the status quo ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [no_control, no_control_unfollows])
def test_a_batch_without_the_status_quos_data_is_left_out_aloud_and_only_where_it_must(keep):
    experiment, short = an_experiment(), an_experiment()
    batches(experiment, [whole, keep])
    batches(short, [whole])
    close(short)
    waiting = bucket(experiment)  # it is running: what is missing may come, and nothing is said
    close(experiment)
    with pytest.warns(hz.TunerWarning, match=r"trials \[1\] give no deltas of .*'unfollows'"):
        over = bucket(experiment)
    column = slice(0, 2) if keep is no_control else slice(1, 2)
    for field in ("mean", "var", "weight"):
        assert torch.equal(getattr(waiting, field).nan_to_num(), getattr(over, field).nan_to_num())
        values = getattr(over, field)[over.tested][:, column]
        assert torch.equal(values, getattr(bucket(short), field)[over.tested][:, column])
    if keep is no_control_unfollows:
        assert bool((over.num_rounds[over.tested] == 2).all())


@pytest.mark.parametrize("keep", [no_control, no_control_unfollows])
def test_where_no_batch_has_the_status_quo_there_is_one_error(keep):
    experiment = an_experiment()
    batches(experiment, [keep, keep])
    bucket(experiment)  # running: it may come
    close(experiment)
    with pytest.raises(hz.ReadingsError, match=r"arms of trials \[0, 1\].*none of the status quo"):
        bucket(experiment)


def test_a_batch_that_never_served_the_status_quo_is_left_out_aloud():
    experiment = an_experiment()
    batches(experiment, [whole])
    trial = a_batch(experiment, status_quo=False)
    experiment.attach_data(Data(df=rows(trial)))
    with pytest.warns(hz.TunerWarning, match=r"trials \[1\] give no deltas"):
        bucket(experiment)


@settings(max_examples=60, deadline=None)
@given(
    there=arrays(bool, (2, 3, 2)),  # rounds, arms with the status quo first, metrics
    over=st.tuples(st.booleans(), st.booleans()),
)
def test_any_pattern_of_missing_data_is_what_it_says_or_one_error(there, over):
    experiment = an_experiment()
    for r in range(2):
        trial = a_batch(experiment, ((0.5, 0.5), (0.7, 0.4)))
        frame = rows(trial, sem=0.02)
        arms = ["status_quo", *(arm.name for arm in trial.arms if arm.name != "status_quo")]
        keep = [
            there[r, arms.index(row.arm_name), list(METRICS).index(row.metric_name)]
            for row in frame.itertuples()
        ]
        if any(keep):
            experiment.attach_data(Data(df=frame[keep]))
        if over[r]:
            trial.mark_completed()
    both = there[:, :1] & there[:, 1:]  # rounds, arms, metrics: what a delta needs
    started = ~there[:, 1:].any((0, 1)) & there[:, 0].any(0)  # so far the status quo alone
    hopeless = there.any() and all(over) and not (both.any((0, 1)) | started).all()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", hz.TunerWarning)
        if hopeless:
            with pytest.raises(hz.ReadingsError):
                bucket(experiment)
            return
        pooled = bucket(experiment)
    arms = len(pooled.weight) - 2  # those of trials come after the initial candidates
    np.testing.assert_array_equal((pooled.weight > 0).numpy()[arms:], both.any(0))
    assert not bool((pooled.weight[:arms] > 0).any())
    left_out = any(over[r] and there[r].any() and not there[r, 0].all() for r in range(2))
    warned = [str(w.message) for w in caught if issubclass(w.category, hz.TunerWarning)]
    assert bool(warned) == left_out, warned


# --- trials of a single arm ----------------------------------------------------------------------


def a_client(node=None, baseline=True):
    node = node or HyperZeroNode(config=SMALL, num_startup=4)
    return client_with(node, base=BASE if baseline else None)


def measured(p, metrics=("views", "unfollows")):
    return {metric: (mean, 0.01 * mean) for metric, mean in truth(p).items() if metric in metrics}


def go(client, trials, metrics=("views", "unfollows")):
    for _ in range(trials):
        for index, p in client.get_next_trials(max_trials=1).items():
            client.complete_trial(index, measured(p, metrics))


def test_a_baseline_that_is_still_running_is_waited_for_until_it_is_needed():
    client = a_client()
    go(client, 4)  # Sobol points, as they would be with it
    with pytest.raises(hz.ReadingsError, match=r"4 arms have data and the status quo has not"):
        client.get_next_trials(max_trials=1)
    client.complete_trial(0, measured(BASE))
    go(client, 2)
    study = node_of(client).study
    assert int(study.tuner.bucket().tested.sum()) == 5


@pytest.mark.parametrize("how", ["failed", "abandoned", "completed without data", "no unfollows"])
def test_a_baseline_that_will_not_report_is_one_error_with_the_way_out(how):
    client = a_client()
    if how == "failed":
        client.mark_trial_failed(0)
    elif how == "abandoned":
        client.mark_trial_abandoned(0)
    else:
        client.complete_trial(0, measured(BASE, ("views",)) if how == "no unfollows" else None)
    if how == "no unfollows":
        with pytest.raises(hz.ReadingsError, match=r"no trial has data on \['unfollows'\]"):
            client.get_next_trials(max_trials=1)
        index = client.attach_trial({"a": 0.5, "b": 0.5})
        client.complete_trial(index, measured({"a": 0.5, "b": 0.5}))
    else:
        go(client, 1)
    match = r"arms of trials \[1\] .*client.attach_trial\({'a': 0.3, 'b': 0.3}, arm_name='baseline"
    with pytest.raises(hz.ReadingsError, match=match):
        client.get_next_trials(max_trials=1)
    index = client.attach_trial(BASE, arm_name="baseline")  # as it says
    client.complete_trial(index, measured(BASE))
    go(client, 5)
    study = node_of(client).study
    assert int(study.tuner.bucket().tested.sum()) == 5


def test_a_status_quo_that_was_never_served_is_an_error_once_arms_have_data():
    experiment = an_experiment()
    trial = experiment.new_trial()
    trial.add_arm(Arm({"a": 0.5, "b": 0.5}))
    trial.mark_running(no_runner_required=True)
    strategy = GenerationStrategy(nodes=[HyperZeroNode(config=SMALL)])
    strategy.gen(experiment, n=1)
    experiment.attach_data(Data(df=rows(trial)))
    for n in (1, 3):
        with pytest.raises(hz.ReadingsError, match=r"arms of trials \[0\] have data"):
            strategy.gen(experiment, n=n)


def test_arms_that_never_report_a_metric_are_named_aloud():
    client = a_client()
    client.complete_trial(0, measured(BASE))
    go(client, 4, metrics=("views",))
    with pytest.warns(hz.TunerWarning, match=r"4 arms have data, yet .*\['unfollows'\].*a Sobol"):
        client.get_next_trials(max_trials=1)


def singles(levels, seed=0, sem=0.01):
    """The status quo in the first trial, arms in later ones, each with a level of its own."""
    experiment = an_experiment()
    points = [BASE, {"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.2}]
    for level, point in zip(levels, points):
        trial = experiment.new_trial()
        trial.add_arm(Arm(point, name="status_quo" if point is BASE else None))
        trial.mark_running(no_runner_required=True)
        experiment.attach_data(Data(df=rows(trial, level, sem, seed)))
    return close(experiment), points[1:]


def deltas(experiment):
    pooled = bucket(experiment, calibrate=False)
    return pooled.mean[pooled.tested], pooled.var[pooled.tested]


def lifts(points):
    base = truth(BASE)
    rows = [[truth(p)[m] / base[m] - 1 for m in METRICS] for p in points]
    return torch.tensor(rows, dtype=torch.float64)


def test_an_earlier_baseline_gives_unbiased_deltas_with_honest_errors_while_levels_stand_still():
    """z-scores against the truth over many worlds; their mean and spread within 4 errors."""
    worlds, scores = 150, []
    for seed in range(worlds):
        experiment, points = singles((1.0, 1.0, 1.0), seed)
        mean, var = deltas(experiment)
        scores.append((mean - lifts(points)) / var.sqrt())
    score = torch.stack(scores)[:, 0]  # one arm a world: both share the status quo's error
    assert bool((score.mean(0).abs() < 4 / math.sqrt(worlds)).all())
    assert bool(((score.var(0) - 1).abs() < 4 * math.sqrt(2 / worlds)).all())


def test_levels_that_move_between_trials_bias_single_arms_and_not_batches():
    """10 % more on the arms' day looks like 10 % more of an arm; a batch does not see it."""
    experiment, points = singles((1.0, 1.1, 1.1), sem=1e-4)
    mean, _ = deltas(experiment)
    torch.testing.assert_close(mean, 1.1 * (1 + lifts(points)) - 1, rtol=0, atol=2e-3)
    moved = an_experiment()
    for level in (1.0, 1.1):
        trial = a_batch(moved, [(p["a"], p["b"]) for p in points])
        moved.attach_data(Data(df=rows(trial, level, 1e-4)))
    mean, _ = deltas(close(moved))
    torch.testing.assert_close(mean, lifts(points), rtol=0, atol=2e-3)


def test_several_trials_of_the_baseline_are_pooled_by_their_precision():
    experiment, _ = singles((1.0, 1.0, 1.0))
    trial = experiment.new_trial()
    trial.add_arm(experiment.status_quo)
    trial.mark_running(no_runner_required=True)
    experiment.attach_data(Data(df=rows(trial, sem=0.005)))
    trial.mark_completed()
    data = experiment.lookup_data().df.query("arm_name == 'status_quo' and metric_name == 'views'")
    weight = 1 / data["sem"] ** 2
    study = fold(experiment, experiment.lookup_data(), SMALL)
    table = study.tuner.history.tables[0]
    assert table.mean[0, 0] == pytest.approx((data["mean"] * weight).sum() / weight.sum(), rel=1e-6)
    assert table.var[0, 0] / table.count[0, 0] == pytest.approx(1 / weight.sum(), rel=1e-4)


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": math.inf}, "'views' has infinite means in trials \\[0\\]"),
        ({"sem": -0.1}, "'views' has no standard errors >= 0 in trials \\[0\\]"),
        ({"sem": math.nan}, "'views' has no standard errors >= 0 in trials \\[0\\]"),
        ({"mean": 0.0}, "the status quo's mean of 'views' in trials \\[0\\] is 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_trial_and_metric(change, match):
    experiment = an_experiment()
    trial = a_batch(experiment)
    frame = rows(trial)
    row = (frame["arm_name"] == "status_quo") & (frame["metric_name"] == "views")
    for name, value in change.items():
        frame.loc[row, name] = value
    experiment.attach_data(Data(df=frame))
    with pytest.raises(hz.ReadingsError, match=match):
        bucket(experiment)


def test_of_a_progression_only_the_latest_step_counts():
    """Steps of one trial hold the same users again and again."""
    client, other = a_client(), a_client()
    for each, steps in ((client, (0, 1, 2)), (other, (2,))):
        for index, p in ((0, BASE), (1, {"a": 0.5, "b": 0.5})):
            if index:
                each.attach_trial(p)
            for step in steps:
                data = {m: (mean + step, sem) for m, (mean, sem) in measured(p).items()}
                each.attach_data(index, data, progression=step)
            each.complete_trial(index)
    a, b = (bucket(experiment_of(each)) for each in (client, other))
    assert torch.equal(a.mean.nan_to_num(), b.mean.nan_to_num())
    assert torch.equal(a.var.nan_to_num(), b.var.nan_to_num())
