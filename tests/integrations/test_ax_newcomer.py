"""What somebody who knows Ax tries first: it works, or one error of ours says what is supported."""

from __future__ import annotations

import pytest
import torch
from support.ax_studies import (
    BASE,
    BOUND,
    QUIET,
    SMALL,
    UNIT,
    ChoiceParameter,
    ChoiceParameterConfig,
    HyperZeroNode,
    ParameterConstraint,
    ParameterType,
    RangeParameter,
    RangeParameterConfig,
    SearchSpace,
    axes_of,
    client_with,
    experiment_of,
    space_of,
    updated_node,
)

import hyperzero_torch as hz

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def a_client(parameters=UNIT, objective="views", bounds=(), base=BASE, linear=()):
    node = HyperZeroNode(config=SMALL, num_startup=3)
    return client_with(node, parameters, objective, bounds, base=base, linear=linear)


def conditional():
    fork = ChoiceParameterConfig(
        name="m",
        parameter_type="str",
        values=["x", "y"],
        dependent_parameters={"x": ["a"], "y": ["b"]},
        is_ordered=True,
    )
    return a_client([fork, *UNIT], base=None)


def unknown_metric():
    client = a_client(bounds=[BOUND])
    client.complete_trial(0, {"views": (10.0, 0.1), "unfolows": (1.0, 0.01)})
    return client


def at_zero():
    client = a_client()
    client.complete_trial(0, {"views": (0.0, 0.1)})
    return client


def blind():
    client = a_client()
    client.complete_trial(0, {"views": 10.0})
    return client


REFUSED = {
    "several objectives": (
        hz.ProblemError,
        "needs an optimization config with one objective, a metric or a weighted sum",
        lambda: a_client(objective="views, -unfollows"),
    ),
    "conditional parameters": (hz.ProblemError, "'m' .*supported are", conditional),
    "no baseline": (
        hz.ProblemError,
        r"no status quo.*client.attach_baseline\(parameters\)",
        lambda: a_client(base=None),
    ),
    "a baseline outside": (
        hz.SpaceError,
        r"'a' = 3.0 lies outside \[0.0, 1.0\]",
        lambda: a_client(base={"a": 3.0, "b": 0.3}),
    ),
    "a metric by another name": (
        hz.ReadingsError,
        r"data on \['unfollows'\].*there are data on \['unfolows', 'views'\]",
        unknown_metric,
    ),
    "a baseline of zero": (hz.ReadingsError, "is 0, and no change relative to 0 exists", at_zero),
    "no standard errors": (hz.ReadingsError, r"attach data as \(mean, sem\)", blind),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_one_error_of_ours(name):
    error, match, make = REFUSED[name]
    client = make()
    with pytest.raises(error, match=match):
        client.get_next_trials(max_trials=1)
    assert len(experiment_of(client).trials) <= 1  # and no trial was made


def test_parameters_held_fixed_for_one_trial_are_refused():
    with pytest.raises(hz.ProblemError, match="FixedParameters of the search space"):
        a_client().get_next_trials(max_trials=1, fixed_parameters={"a": 0.5})


def test_a_linear_constraint_on_a_choice_is_refused():
    space = SearchSpace(
        [
            RangeParameter("a", ParameterType.FLOAT, 0.0, 1.0),
            ChoiceParameter("c", ParameterType.INT, [1, 2, 5], is_ordered=True, sort_values=True),
        ]
    )
    axes, _ = axes_of(space)
    constraint = ParameterConstraint(inequality="a + c <= 3")
    space._parameter_constraints = [constraint]  # Ax would refuse it, in words of its own
    with pytest.raises(hz.ProblemError, match="on the choice 'c'; supported are"):
        space_of(space, axes)


def test_a_client_over_every_kind_of_parameter_runs_and_says_what_it_believes():
    parameters = [
        RangeParameterConfig(
            name="rate", parameter_type="float", bounds=(1e-3, 1.0), scaling="log"
        ),
        RangeParameterConfig(name="depth", parameter_type="int", bounds=(1, 9)),
        RangeParameterConfig(
            name="step", parameter_type="float", bounds=(0.0, 1.0), step_size=0.25
        ),
        *(
            ChoiceParameterConfig(name=name, parameter_type=kind, values=values, is_ordered=True)
            for name, kind, values in (
                ("mode", "str", ["x", "y", "z"]),
                ("flag", "bool", [True, False]),
                ("same", "str", ["only"]),
            )
        ),
    ]
    base = {"rate": 0.1, "depth": 2, "step": 0.25, "mode": "x", "flag": True, "same": "only"}
    client = a_client(parameters, base=base)

    def views(p):
        return 10 + 0.3 * p["depth"] + (0.5 if p["flag"] else 0.0)

    client.complete_trial(0, {"views": (views(base), 0.01)})
    for _ in range(12):
        for index, p in client.get_next_trials(max_trials=1).items():
            assert p.keys() == base.keys()
            assert {n: type(v) for n, v in p.items()} == {n: type(v) for n, v in base.items()}
            client.complete_trial(index, {"views": (views(p), 0.01)})
    node = updated_node(client)
    study = node.study
    for trial in list(experiment_of(client).trials.values())[1:]:
        parameters = trial.arm.parameters
        theta = study.theta(parameters)
        assert study.parameters(theta) == parameters
        mean, var = study.tuner.posterior(torch.tensor(theta, dtype=torch.float64))
        error = abs(float(mean) - (views(parameters) / views(base) - 1))
        assert error < 5 * float(var) ** 0.5 + 1e-3
    with pytest.raises(hz.SpaceError, match="'mode' = 'q' is none of"):
        study.theta(base | {"mode": "q"})
    best = study.tuner.recommend()
    chosen = study.parameters(study.tuner.history.theta[best.candidate_id].tolist())
    assert views(chosen) >= views(base) + 1.5
