"""A ``state_dict`` is checked like a message: it loads, or it is refused and changes nothing."""

import contextlib
import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.study.journal.sql import SqlJournal

FIXTURES = Path(__file__).parents[1] / "fixtures"
ODD = [
    *(None, True, -1, 0, 5, 2**63, 2**70, 1.5, float("nan"), float("inf"), "", "x", [], {}, b"a"),
    *(torch.tensor(1.0), torch.tensor([float("nan")]), torch.empty(0), torch.tensor([[1.0]])),
    *(torch.tensor([1, 2]), torch.tensor([1 + 2j]), "{}", "[]", "null", '{"a": 1}', "NaN"),
]


@pytest.fixture(scope="module")
def state():
    tuner = make()
    play(tuner, 3)
    tuner.study.set_aside([1], "logging was down")
    play(tuner, 1)
    return tuner.state_dict()


def changed(state, kind, number, values):
    """The state with one value changed in the entry of this kind and number."""
    state = copy.deepcopy(state)
    entries = [e for e in state["entries"] if e["entry"] == kind]
    entries[number].update(values(entries[number]))
    return state


def replaced(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("born", lambda e: {"theta": replaced(e["theta"], 0, 1.5)}, "outside the space"),
        ("born", lambda e: {"theta": replaced(e["theta"], 1, -1e-3)}, "outside the space"),
        ("born", lambda e: {"theta": replaced(e["theta"], 0, float("nan"))}, "theta holds nan"),
        ("born", lambda e: {"theta": replaced(e["theta"], 0, 0.125)}, "those of its theta"),
        ("born", lambda e: {"parameters": '{"a": 0.1, "b": 0.1}'}, "those of its theta"),
        ("planned", lambda e: {"shares": 1.1 * e["shares"]}, "add up to 1.1"),
        ("planned", lambda e: {"shares": replaced(e["shares"], 0, 0.0)}, "add up to"),
        (
            "planned",
            lambda e: {
                "shares": replaced(replaced(e["shares"], 1, -0.5), 0, 0.5 + sum(e["shares"][:2]))
            },
            "outside 0 to 1",
        ),
        ("planned", lambda e: {"slots": replaced(e["slots"], 1, -3)}, "slots below 0"),
        ("planned", lambda e: {"candidates": e["candidates"].flip(0)}, "first arm"),
        ("received", lambda e: {"mean": replaced(e["mean"], 0, float("inf"))}, "mean holds inf"),
        ("received", lambda e: {"count": -e["count"]}, "negative"),
        ("configured", lambda e: {"config": '{"num_draws": -5}'}, "num_draws"),
        ("configured", lambda e: {"config": "{"}, "damaged"),
        ("decided", lambda e: {"details": '{"rounds": "x"}'}, "damaged"),
        ("decided", lambda e: {"round": ()}, "kind decided has the round"),
        ("decided", lambda e: {"round": 2**200}, "has the round"),
        ("born", lambda e: {"round": -1}, "kind born has the round -1"),
    ],
)
def test_a_damaged_state_is_refused_with_the_reason(state, kind, values, words):
    damaged = changed(state, kind, 1 if kind == "born" else 0, values)
    tuner = make()
    play(tuner, 1)
    before = tuner.state_dict()
    with pytest.raises(hz.ConfigError, match=words):
        tuner.load_state_dict(damaged)
    after = tuner.state_dict()
    assert str(after) == str(before)


def test_a_damaged_state_writes_nothing_into_a_database(state, tmp_path):
    damaged = changed(state, "planned", 2, lambda e: {"shares": 1.1 * e["shares"]})
    tuner = make(SqlJournal(f"sqlite:///{tmp_path}/a.db"))
    with pytest.raises(hz.ConfigError, match=r"add up to 1\.1"):
        tuner.load_state_dict(damaged)
    assert tuner.history.num_entries == len(tuner.journal.read("default"))
    tuner.load_state_dict(state)
    assert tuner.study.verify().ok
    tuner.journal.close()


def test_states_of_changed_spaces_load():
    """Candidates of an earlier space are no fault."""
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Choice("mode", ["x", "y"])])
    base, metrics = {"a": 0.4, "mode": "x"}, ["gain"]
    config = hz.TunerConfig(num_draws=60, num_samples=64, initial_candidates=8)
    tuner = hz.Tuner(hz.Problem(space, base, metrics, "gain"), config)
    tuner.ask()
    narrower = hz.SearchSpace([hz.Float("a", 0.3, 0.5), hz.Choice("mode", ["x", "z"])])
    after = hz.Problem(narrower, base, metrics, "gain")
    tuner.change_goals(after, reason="narrower")
    tuner.ask()
    other = hz.Tuner(after, config)
    other.load_state_dict(tuner.state_dict())
    assert other.history.num_candidates == tuner.history.num_candidates


def paths(value, path=()):
    """The place of every value in nested containers."""
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from paths(part, (*path, key))


@st.composite
def mutations(draw):
    """A function that changes one value of a state at random."""
    choice = st.integers(0, 10**9)
    where, how, what, number = draw(choice), draw(st.integers(0, 5)), draw(choice), draw(choice)
    text = draw(st.text(alphabet='x01-"e9.[]{}, ', max_size=3))

    def mutate(state):
        state = copy.deepcopy(state)
        every = list(paths(state))
        *to, key = every[where % len(every)]
        parent = state
        for step in to:
            parent = parent[step]
        old = parent[key]
        if isinstance(old, torch.Tensor) and how < 4 and old.numel():
            values = [-1, 0, 10**6, 3] if not old.is_floating_point() else [
                -1.0, 0.0, 1e9, float("nan"), float("inf"), -0.5, 2.0, 1e-3
            ]  # fmt: skip
            parent[key] = replaced(old, number % len(old), values[what % len(values)])
        elif isinstance(old, str) and how < 4:
            at = number % (len(old) + 1)
            parent[key] = old[:at] + text + old[at + what % 3 :]
        elif isinstance(old, list) and how < 4 and len(old) > 1:
            i, j = number % len(old), what % len(old)
            if how == 0:
                old[i], old[j] = old[j], old[i]
            elif how == 1:
                del old[i]
            else:
                old.insert(j, old[i])
        elif how == 4 and isinstance(parent, dict):
            del parent[key]
        else:
            parent[key] = ODD[what % len(ODD)]
        return state

    return mutate


@settings(
    deadline=None,
    max_examples=120,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutate=mutations())
def test_a_mutated_state_loads_or_is_refused_and_changes_nothing(state, mutate):
    tuner = make()
    before = tuner.journal.read("default")
    mutated = mutate(state)
    try:
        tuner.load_state_dict(mutated)
    except hz.HyperZeroError:
        assert tuner.journal.read("default") == before
        assert tuner.history.num_entries == len(before)
        return
    assert tuner.history.num_entries == len(mutated["entries"])
    for plan in tuner.history.plans.values():
        assert sum(plan.shares) == pytest.approx(1, abs=1e-9)
        assert all(0 <= share <= 1 for share in plan.shares)
    theta = tuner.history.theta
    assert ((theta >= 0) & (theta <= 1)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        with contextlib.suppress(hz.HyperZeroError):
            tuner.ask()


def test_a_state_that_an_earlier_version_saved_still_loads():
    state = torch.load(FIXTURES / "journal_of_events.pt", weights_only=True)
    assert json.loads(state["problem"])["metrics"] == ["gain", "guard"]
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -2.5%"])
    tuner = hz.Tuner(problem, study="feed", seed=12)
    tuner.load_state_dict(state)
    assert tuner.history.num_entries == len(state["entries"])
    assert tuner.study.verify().ok
