"""What makes a HyperZeroNode: every argument is checked when it is given, and survives a file."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ax_studies import (
    AX_CONFIG,
    BASE,
    QUIET,
    GenerationStrategy,
    HyperZeroNode,
    MinTrials,
    client_with,
    experiment_of,
    node_of,
    object_from_json,
    object_to_json,
)

import hyperzero_torch as hz

pytestmark = QUIET

NO_NUMBER = st.one_of(
    st.booleans(),
    st.none(),
    st.text(),
    st.floats(),
    st.binary(),
    st.lists(st.integers(), max_size=2),
    st.just({}),
)
GOOD = {
    "name": st.text(min_size=1),
    "config": st.none()
    | st.builds(
        hz.TunerConfig,
        num_draws=st.integers(1, 10_000),
        num_samples=st.integers(1, 10_000),
        min_prob_feasible=st.floats(0.01, 0.99),
        max_arms=st.integers(1, 50),
    ),
    "seed": st.integers(0, 2**63 - 1) | st.integers(0, 100).map(np.int64),
    "num_startup": st.integers(0, 2**31 - 1) | st.integers(0, 100).map(np.int32),
    "include_status_quo": st.booleans(),
    "transition_criteria": st.none()
    | st.builds(
        lambda threshold, to: [MinTrials(threshold=threshold, transition_to=to)],
        st.integers(1, 100),
        st.text(min_size=1),
    ),
}
BAD = {
    "name": st.one_of(
        st.just(""), st.integers(), st.none(), st.binary(), st.booleans(), st.just([])
    ),
    "config": st.one_of(
        st.just({}), st.dictionaries(st.text(), st.integers()), st.text(), st.integers(),
        st.just(hz.TunerConfig),
    ),
    "seed": st.one_of(NO_NUMBER, st.integers(max_value=-1), st.integers(min_value=2**63)),
    "num_startup": st.one_of(NO_NUMBER, st.integers(max_value=-1), st.integers(min_value=2**31)),
    "include_status_quo": st.one_of(
        st.none(), st.text(), st.floats(), st.integers(), st.just(np.bool_(True))
    ),
    "transition_criteria": st.one_of(
        st.text(), st.integers(), st.booleans(), st.just({}), st.just(MinTrials),
        st.lists(st.none() | st.text() | st.integers(), min_size=1, max_size=3),
    ),
}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=GOOD))
def test_good_arguments_are_kept_and_survive_axs_json(arguments):
    node = HyperZeroNode(**arguments)
    assert node.name == arguments.get("name", "HyperZero")
    assert node.config == (arguments.get("config") or AX_CONFIG)
    assert node.seed == arguments.get("seed", 0)
    assert node.num_startup == arguments.get("num_startup", 8)
    assert {type(node.seed), type(node.num_startup)} == {int}  # NumPy's are taken over as ints
    loaded = object_from_json(json.loads(json.dumps(object_to_json(node))))
    assert type(loaded) is HyperZeroNode
    for name in ("name", "config", "seed", "num_startup", "include_status_quo"):
        assert getattr(loaded, name) == getattr(node, name)
    assert loaded.should_deduplicate is False
    assert list(loaded.transition_criteria) == list(node.transition_criteria)
    for copied in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert HyperZeroNode.serialize_init_args(copied) == HyperZeroNode.serialize_init_args(node)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_bad_argument_is_one_error_of_ours_that_names_it(data):
    name = data.draw(st.sampled_from(sorted(BAD)))
    good = data.draw(
        st.fixed_dictionaries({}, optional={k: s for k, s in GOOD.items() if k != name})
    )
    value = data.draw(BAD[name])
    expected = "name must be a text" if name == "name" else name
    with pytest.raises(hz.ConfigError, match=expected) as caught:
        HyperZeroNode(**good, **{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named", "match"),
    [
        ((0,), {}, r"got 0; a seed or a configuration is given by keyword: HyperZeroNode\(seed=0"),
        ((AX_CONFIG,), {}, r"given by keyword: .*config=TunerConfig"),
        ((), {"config": {"max_arms": 3}}, r"got {'max_arms': 3}; .* TunerConfig\(\*\*mapping\)"),
        ((), {"seed": "x"}, "seed is a whole number >= 0 and < 9223372036854775808, got 'x'"),
        ((), {"seed": True}, "seed is a whole number .* got True"),
        ((), {"num_startup": "3"}, "num_startup is a whole number .* got '3'"),
    ],
)
def test_what_newcomers_write_is_told_what_was_meant(arguments, named, match):
    with pytest.raises(hz.ConfigError, match=match):
        HyperZeroNode(*arguments, **named)


@pytest.mark.parametrize("n", [0, -1, True, 2.5, "3"])
def test_a_number_of_arms_that_cannot_be(n):
    client = client_with(HyperZeroNode(), base=BASE)
    experiment = experiment_of(client)
    with pytest.raises(hz.ConfigError, match="n, the number of arms, is a whole number >= 1"):
        node_of(client).gen(experiment=experiment, pending_observations=None, n=n)


def test_a_stored_node_of_another_version_is_refused():
    stored = object_to_json(HyperZeroNode())
    stored["config"]["num_telepaths"] = 3
    with pytest.raises(hz.ConfigError, match="num_telepaths"):
        object_from_json(stored)


def test_a_strategy_with_other_nodes_survives_with_its_transitions():
    nodes = [
        HyperZeroNode("wide", seed=3, transition_criteria=[MinTrials(5, transition_to="narrow")]),
        HyperZeroNode("narrow", hz.TunerConfig(max_arms=2), include_status_quo=False),
    ]
    strategy = GenerationStrategy(nodes=nodes, name="two")
    loaded = object_from_json(json.loads(json.dumps(object_to_json(strategy))))
    assert list(loaded.nodes_by_name) == ["wide", "narrow"]
    assert loaded.nodes_by_name["wide"].transition_criteria == nodes[0].transition_criteria
    assert loaded.nodes_by_name["narrow"].config == nodes[1].config
    assert loaded.current_node_name == "wide"
