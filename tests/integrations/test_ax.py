"""Ax plans with us: its experiment becomes a study of ours, our plans become its trials."""

from __future__ import annotations

import math
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ax_studies import (
    AX_CONFIG,
    BASE,
    QUIET,
    UNIT,
    Arm,
    ChoiceParameter,
    ChoiceParameterConfig,
    Data,
    DerivedParameter,
    Experiment,
    FixedParameter,
    GenerationStrategy,
    HyperZeroNode,
    Metric,
    Objective,
    ParameterConstraint,
    ParameterType,
    RangeParameter,
    SearchSpace,
    axes_of,
    client_with,
    fold,
    optimization_config,
    relativize_dataframe,
    space_of,
    truth,
    updated_node,
)

import hyperzero_torch as hz

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NAMES = ("views", "unfollows", "opens")
STATUS_QUO = BASE | {"mode": "x"}


def parameters():
    return [
        RangeParameter("a", ParameterType.FLOAT, 0.0, 1.0),
        RangeParameter("b", ParameterType.FLOAT, 0.0, 1.0),
        FixedParameter("mode", ParameterType.STRING, "x"),
    ]


def an_experiment(space=None, wanted=None, status_quo=STATUS_QUO, constraints=None):
    space = space or SearchSpace(parameters(), constraints or [])
    return Experiment(
        search_space=space,
        name="feed",
        optimization_config=wanted or optimization_config(NAMES),
        tracking_metrics=[Metric(name) for name in NAMES],
        status_quo=None if status_quo is None else Arm(status_quo, name="status_quo"),
    )


def observe(trial, seed=0, users=200_000, with_users=True):
    """Ax's data of a batch: every hour has a level of its own, which deltas take out."""
    generator = torch.Generator().manual_seed(1000 * seed + trial.index)
    hour = 1 + 0.3 * math.sin(trial.index)
    rows = []
    for arm, weight in trial.normalized_arm_weights().items():
        n = max(100, round(users * weight))
        for metric, mean in truth(arm.parameters).items():
            sem = mean * hour / n**0.5
            noise = torch.randn((), generator=generator, dtype=torch.float64).item()
            row = {"trial_index": trial.index, "arm_name": arm.name, "metric_name": metric}
            # As many digits as the node looks at.
            reported = {"mean": round(mean * hour + sem * noise, 9), "sem": round(sem, 9)}
            row |= {"metric_signature": metric} | reported
            rows.append(row | ({"n": n} if with_users else {}))
    return Data(df=pd.DataFrame(rows))


def run(experiment, node, rounds=6, n=None, **options):
    strategy = GenerationStrategy(nodes=[node])
    for _ in range(rounds):
        (runs,) = strategy.gen(experiment, n=n)
        trial = experiment.new_batch_trial(generator_runs=runs)
        trial.mark_running(no_runner_required=True)
        experiment.attach_data(observe(trial, **options))
        trial.mark_completed()
    return experiment


@pytest.fixture(scope="module")
def tuned():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = HyperZeroNode(seed=0)
        experiment = run(an_experiment(), node)
        node.update_generator_state(experiment, experiment.lookup_data())
    return experiment, node


def test_a_batch_is_a_plan_with_weights_and_the_status_quo(tuned):
    experiment, _ = tuned
    for index, trial in experiment.trials.items():
        assert trial.status_quo is not None
        assert "status_quo" in {arm.name for arm in trial.arms}
        weights = {arm.name: w for arm, w in trial.arm_weights.items()}
        total = sum(weights.values())
        assert weights["status_quo"] == 1.0
        assert 0 < weights["status_quo"] / total <= 0.5
        (only,) = trial.generator_runs
        assert only.gen_metadata["round"] == index + 1
        assert only.gen_metadata["control_share"] == pytest.approx(1 / total)
        assert all(arm.parameters["mode"] == "x" for arm in trial.arms)


def test_good_arms_are_served_again_with_more_weight(tuned):
    experiment, _ = tuned
    first, last = experiment.trials[0], experiment.trials[5]
    served = Counter(arm.name for trial in experiment.trials.values() for arm in trial.arms)
    assert served.pop("status_quo") == 6
    assert max(served.values()) >= 3  # duplicates are traffic
    weights = {a.name: w for a, w in last.arm_weights.items() if a.name != "status_quo"}
    assert max(weights.values()) > 4 * min(weights.values())

    def gain(trial):
        pairs = [(truth(a.parameters)["views"], w) for a, w in trial.arm_weights.items()]
        return sum(v * w for v, w in pairs) / sum(w for _, w in pairs)

    assert gain(last) > gain(first)


def test_the_recommendation_is_good_and_keeps_the_guardrail(tuned):
    _, node = tuned
    best = node.study.tuner.recommend()
    assert best.candidate_id != 0
    true = truth(best.parameters)
    assert true["views"] > 11.2  # of 12; the base has 10.72 at (0.3, 0.3)
    assert true["unfollows"] <= 1.02 + 0.002
    assert best.prob_feasible >= 0.9


def test_deltas_are_those_of_axs_own_relativization(tuned):
    """Ax's ``relativize`` with bias correction is the oracle, trial by trial."""
    experiment, node = tuned
    relative = relativize_dataframe(
        experiment.lookup_data().df,
        status_quo_name="status_quo",
        as_percent=False,
        include_sq=False,
        bias_correction=True,
        control_as_constant=False,
    )
    study = node.study
    deltas = (
        fold(
            experiment,
            experiment.lookup_data(),
            AX_CONFIG.model_copy(update={"calibrate": False}),
        )
        .tuner.bucket()
        .deltas
    )
    by_name = {arm.name: arm for trial in experiment.trials.values() for arm in trial.arms}
    checked = 0
    for row in range(len(deltas.round)):
        trial = int(deltas.round[row]) - 1
        theta = study.tuner.history.theta[int(deltas.candidate[row])].tolist()
        parameters = study.parameters(theta)
        name = next(n for n, arm in by_name.items() if arm.parameters == parameters)
        for column, metric in enumerate(study.tuner.problem.metrics):
            here = relative[
                (relative["trial_index"] == trial)
                & (relative["arm_name"] == name)
                & (relative["metric_name"] == metric)
            ]
            assert float(deltas.delta.mean[row, column]) == pytest.approx(
                float(here["mean"].iloc[0]), abs=1e-12
            )
            assert float(deltas.delta.var[row, column]) ** 0.5 == pytest.approx(
                float(here["sem"].iloc[0]), rel=1e-9
            )
            checked += 1
    assert checked > 50


def test_the_same_experiment_gives_the_same_plan_whoever_asks(tuned):
    """All that the node knows is in the experiment: a new process goes on where one stopped."""
    experiment, _ = tuned

    def plan():
        node = HyperZeroNode(seed=0)
        node.update_generator_state(experiment, experiment.lookup_data())
        return node.study.tuner.ask()

    assert plan() == plan()


def test_ax_may_say_how_many_arms():
    experiment = run(an_experiment(), HyperZeroNode(), rounds=3, n=5)
    for trial in experiment.trials.values():
        assert len(trial.arms) <= 6
    assert len(experiment.trials[0].arms) == 6


def test_the_status_quo_may_be_left_to_others():
    experiment = an_experiment()
    strategy = GenerationStrategy(nodes=[HyperZeroNode(include_status_quo=False)])
    (runs,) = strategy.gen(experiment, n=4)
    assert len(runs[0].arms) == 4
    share = runs[0].gen_metadata["control_share"]
    assert sum(runs[0].weights) == pytest.approx((1 - share) / share)
    trial = experiment.new_batch_trial(generator_runs=runs)
    trial.add_status_quo_arm(weight=1.0)
    assert max(trial.normalized_arm_weights().values()) <= 1.0
    assert 1 / sum(trial.arm_weights.values()) == pytest.approx(share)


def test_a_stored_experiment_goes_on_with_the_next_plan(tmp_path):
    from ax.storage.json_store.load import load_experiment
    from ax.storage.json_store.save import save_experiment

    experiment = run(an_experiment(), HyperZeroNode(), rounds=2, n=5)
    save_experiment(experiment, str(tmp_path / "experiment.json"))
    loaded = load_experiment(str(tmp_path / "experiment.json"))
    plans = []
    for stage in (experiment, loaded):
        (runs,) = GenerationStrategy(nodes=[HyperZeroNode()]).gen(stage, n=5)
        plans.append([(a.parameters, w) for a, w in zip(runs[0].arms, runs[0].weights)])
    assert plans[0] == plans[1]


def test_numbers_of_users_are_not_needed(tuned):
    """Without ``n`` the standard errors say how much an arm weighs."""
    experiment, _ = tuned
    data = experiment.lookup_data()
    blind = Data(df=data.df.drop(columns="n"))
    plain = AX_CONFIG.model_copy(update={"calibrate": False})
    a = fold(experiment, data, plain).tuner.bucket()
    b = fold(experiment, blind, plain).tuner.bucket()
    tested = a.tested
    assert torch.equal(tested, b.tested)
    torch.testing.assert_close(a.deltas.delta.mean, b.deltas.delta.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(a.deltas.delta.var, b.deltas.delta.var, rtol=1e-3, atol=0)
    # As weights Ax's n and 1 / sem^2 agree up to the arm's own level.
    error = a.var[tested].sqrt()
    assert bool(((a.mean - b.mean)[tested].abs() < 0.2 * error).all())


def test_arms_that_others_made_count_as_well():
    """After a Sobol node, or trials by hand: their arms are candidates like all others."""
    experiment = an_experiment()
    trial = experiment.new_batch_trial()
    for a in (0.1, 0.5, 0.9):
        trial.add_arm(Arm({"a": a, "b": 0.5, "mode": "x"}))
    trial.add_status_quo_arm(weight=1.0)
    trial.mark_running(no_runner_required=True)
    experiment.attach_data(observe(trial))
    trial.mark_completed()
    study = fold(experiment, experiment.lookup_data(), AX_CONFIG)
    own = 1 + AX_CONFIG.initial_candidates
    assert study.tuner.history.num_candidates == own + 3
    assert int(study.tuner.bucket().tested.sum()) == 3
    assert study.rounds == {1: [0]}
    failed = experiment.new_batch_trial()
    failed.add_arm(Arm({"a": 0.2, "b": 0.5, "mode": "x"}))
    failed.mark_running(no_runner_required=True)
    failed.mark_failed()
    again = fold(experiment, experiment.lookup_data(), AX_CONFIG)
    assert again.tuner.history.num_candidates == own + 3


# --- one arm at a time: Ax's Client ------------------------------------------------------------


def a_client(node):
    mode = ChoiceParameterConfig(
        name="mode", parameter_type="str", values=["x", "y"], is_ordered=False
    )
    return client_with(node, [*UNIT, mode], random_seed=0)


def measured(p, number, sem=0.004):
    generator = torch.Generator().manual_seed(number)
    penalty = 0.0 if p.get("mode", "x") == "x" else 0.1
    data = {}
    for metric, mean in truth(p).items():
        noise = torch.randn((), generator=generator, dtype=torch.float64).item()
        data[metric] = ((mean - penalty) * (1 + sem * noise), mean * sem)
    return data


def test_axs_client_tunes_with_us():
    node = HyperZeroNode(seed=0, num_startup=8)
    client = a_client(node)
    index = client.attach_baseline({"a": 0.3, "b": 0.3, "mode": "x"})
    client.complete_trial(index, raw_data=measured(BASE, 999, sem=0.001))
    number = 0
    for _ in range(6):
        trials = client.get_next_trials(max_trials=4)
        assert len({tuple(p.items()) for p in trials.values()}) == 4
        for trial, p in trials.items():
            client.complete_trial(trial, raw_data=measured(p, number))
            number += 1
    assert updated_node(client) is node
    best = node.study.tuner.recommend()
    true = truth(node.study.parameters(node.study.tuner.history.theta[best.candidate_id].tolist()))
    assert best.prob_feasible >= 0.9
    assert true["views"] > 11.3
    assert true["unfollows"] <= 1.02 + 0.004  # one standard error of a single trial
    assert node.study.rounds == {0: list(range(25))}


def test_before_the_baseline_has_reported_the_client_gets_points_that_cover_the_space():
    client = a_client(HyperZeroNode(seed=0))
    client.attach_baseline({"a": 0.3, "b": 0.3, "mode": "x"})
    points = [p for _ in range(3) for p in client.get_next_trials(max_trials=4).values()]
    assert len({(p["a"], p["b"]) for p in points}) == 12
    a = sorted(p["a"] for p in points)
    assert a[0] < 0.2
    assert a[-1] > 0.8


# --- spaces and objectives ---------------------------------------------------------------------


def test_every_kind_of_parameter_comes_back_as_ax_would_have_it():
    space = SearchSpace(
        [
            RangeParameter("f", ParameterType.FLOAT, -1.0, 1.0),
            RangeParameter("log", ParameterType.FLOAT, 1e-4, 1.0, log_scale=True),
            RangeParameter("digits", ParameterType.FLOAT, 0.0, 1.0, digits=1),
            RangeParameter("i", ParameterType.INT, -3, 5),
            RangeParameter("log_i", ParameterType.INT, 1, 1000, log_scale=True),
            ChoiceParameter(
                "c", ParameterType.STRING, ["u", "v", "w"], is_ordered=False, sort_values=False
            ),
            ChoiceParameter("o", ParameterType.INT, [1, 4, 9], is_ordered=True, sort_values=True),
            FixedParameter("k", ParameterType.INT, 7),
        ]
    )
    axes, constants = axes_of(space)
    ours = space_of(space, axes)
    assert constants == {"k": 7}
    for theta in ours.from_unit(ours.sobol(64, seed=0)).tolist():
        values = {axis.name: axis.value(t) for axis, t in zip(axes, theta)} | constants
        assert space.check_membership(values, raise_error=True)
        assert space.check_types(values, raise_error=True)
        again = [axis.theta(values[axis.name]) for axis in axes]
        assert [a.value(t) for a, t in zip(axes, again)] == [values[a.name] for a in axes]


def test_linear_constraints_hold_for_what_is_proposed():
    space = SearchSpace(
        [
            RangeParameter("a", ParameterType.FLOAT, 0.0, 1.0),
            RangeParameter("i", ParameterType.INT, -2, 6),
        ],
        [
            ParameterConstraint(inequality="2 * a + 0.25 * i <= 1"),
            ParameterConstraint(inequality="a >= 0.4"),
        ],
    )
    axes, _ = axes_of(space)
    ours = space_of(space, axes)
    seen = []
    for theta in ours.from_unit(ours.uniform(200, torch.Generator().manual_seed(0))).tolist():
        values = {axis.name: axis.value(t) for axis, t in zip(axes, theta)}
        assert space.check_membership(values, raise_error=True)
        seen.append(values["i"])
    assert set(seen) == {-2, -1, 0}  # whatever a >= 0.4 leaves


@settings(max_examples=30, deadline=None)
@given(
    low=st.floats(-100, 100),
    width=st.floats(0.1, 100),
    first=st.integers(-20, 20),
    cells=st.integers(1, 30),
    weights=st.tuples(st.floats(0.1, 3), st.floats(-3, -0.1)).flatmap(st.permutations),
    slack=st.floats(0.1, 2),
)
def test_any_linear_constraint_means_the_same_on_both_sides(
    low, width, first, cells, weights, slack
):
    a = RangeParameter("a", ParameterType.FLOAT, low, low + width)
    i = RangeParameter("i", ParameterType.INT, first, first + cells)
    inside = weights[0] * (low + width / 2) + weights[1] * first
    terms = f"{weights[0]:.6f} * a + {weights[1]:.6f} * i <= {inside + slack:.6f}"
    space = SearchSpace([a, i], [ParameterConstraint(inequality=terms)])
    axes, _ = axes_of(space)
    ours = space_of(space, axes)
    (constraint,) = space.parameter_constraints
    grid = [(low + width * k / 7, n) for k in range(8) for n in range(first, first + cells + 1)]
    for values in grid:
        point = dict(zip("ai", values))
        margin = constraint.bound - sum(w * point[n] for n, w in constraint.constraint_dict.items())
        row = torch.tensor([axis.theta(point[axis.name]) for axis in axes], dtype=torch.float64)
        if abs(margin) > 1e-6:  # on the boundary rounding may say either
            assert bool(ours.satisfied(ours.to_unit(row))) == (margin > 0)


def test_minimising_and_weighted_sums_mean_what_ax_means():
    p = {"a": 0.6, "b": 0.2, "mode": "x"}
    true = truth(p) | {"opens": 5.0}
    base = truth(BASE) | {"opens": 4.0}
    for objective, want in (
        ("-unfollows", -true["unfollows"]),
        ("2*views - 3*unfollows", 2 * true["views"] - 3 * true["unfollows"]),
    ):
        experiment = an_experiment(
            wanted=optimization_config(NAMES, objective, ["opens >= 4.5", "opens <= 4.9"])
        )
        study = fold(experiment, experiment.lookup_data(), AX_CONFIG)
        problem = study.tuner.problem
        levels = torch.tensor([base[m] for m in problem.metrics], dtype=torch.float64)
        lift = torch.tensor([true[m] for m in problem.metrics], dtype=torch.float64)
        outcome = problem.with_base_levels(levels).evaluate(lift / levels - 1)
        assert float(outcome.utility) == pytest.approx(want)
        assert outcome.slack.tolist() == pytest.approx([0.5, -0.1])


def with_status_quo_only(data=True, **changes):
    experiment = an_experiment(**changes)
    trial = experiment.new_batch_trial()
    trial.add_arm(Arm({"a": 0.5, "b": 0.5, "mode": "x"}, name="one"))
    if experiment.status_quo is not None and data != "no control":
        trial.add_status_quo_arm(weight=1.0)
    trial.mark_running(no_runner_required=True)
    frame = observe(trial).df
    if data == "no metric":
        frame = frame[frame["metric_name"] == "views"]
    if data == "negative":
        frame = frame.assign(mean=-frame["mean"])
    if data == "no sem":
        frame = frame.assign(sem=np.nan)
    experiment.attach_data(Data(df=frame))
    trial.mark_completed()
    return experiment


def multi_objective():
    from ax.core.optimization_config import MultiObjectiveOptimizationConfig

    wanted = MultiObjectiveOptimizationConfig(
        objective=Objective(
            expression="views, -unfollows", metric_name_to_signature={n: n for n in NAMES}
        )
    )
    return with_status_quo_only(wanted=wanted)


def odd_space(*more):
    space = SearchSpace([*parameters(), *more])
    names = {p.name: p for p in more}
    quo = STATUS_QUO | {n: (p.values[0] if hasattr(p, "values") else 0.3) for n, p in names.items()}
    return an_experiment(space=space, status_quo=quo)


REFUSED = {
    "no status quo": (
        hz.ProblemError, "no status quo", lambda: with_status_quo_only(status_quo=None)
    ),
    "several objectives": (hz.ProblemError, "one objective", multi_objective),
    "a control that was not served": (
        hz.ReadingsError, "none of the status quo", lambda: with_status_quo_only("no control")
    ),
    "an unknown metric": (
        hz.ReadingsError, r"data on \['unfollows'\]", lambda: with_status_quo_only("no metric")
    ),
    "no standard errors": (
        hz.ReadingsError, "no standard errors", lambda: with_status_quo_only("no sem")
    ),
    "a negative metric with a relative bound": (
        hz.ReadingsError, "below 0", lambda: with_status_quo_only("negative")
    ),
    "a relative bound on a sum": (
        hz.ProblemError,
        "on several metrics",
        lambda: with_status_quo_only(
            wanted=optimization_config(NAMES, constraints=["opens + unfollows >= 0.9 * baseline"])
        ),
    ),
    "a task": (
        hz.ProblemError,
        "supported are",
        lambda: odd_space(
            ChoiceParameter(
                "t", ParameterType.STRING, ["u", "v"], is_task=True, target_value="u",
                is_ordered=False, sort_values=False,
            )
        ),
    ),
    "a fidelity": (
        hz.ProblemError,
        "supported are",
        lambda: odd_space(
            RangeParameter("t", ParameterType.FLOAT, 0, 1, is_fidelity=True, target_value=1.0)
        ),
    ),
    "a derived parameter": (
        hz.ProblemError,
        "supported are",
        lambda: odd_space(DerivedParameter("t", ParameterType.FLOAT, expression_str="a")),
    ),
    "a conditional space": (
        hz.ProblemError,
        "without conditions",
        lambda: odd_space(
            ChoiceParameter(
                "t", ParameterType.STRING, ["u", "v"], dependents={"u": ["a"], "v": ["b"]},
                is_ordered=False, sort_values=False,
            )
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_carry_is_refused(name):
    error, match, make = REFUSED[name]
    experiment = make()
    with pytest.raises(error, match=match):
        GenerationStrategy(nodes=[HyperZeroNode()]).gen(experiment, n=3)


def test_fixed_features_are_refused():
    from ax.core.observation import ObservationFeatures

    with pytest.raises(hz.ProblemError, match="fixed"):
        GenerationStrategy(nodes=[HyperZeroNode()]).gen(
            an_experiment(), n=3, fixed_features=ObservationFeatures({"a": 0.5})
        )


def test_a_node_that_was_never_asked_says_so():
    with pytest.raises(hz.RoundError, match="no experiment yet"):
        _ = HyperZeroNode().study
