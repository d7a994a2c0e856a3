"""What differs between two problems, in sentences; and problems restored from plain values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.problem import written
from hyperzero_torch.problem.difference import changed_guardrails, difference
from hyperzero_torch.problem.options import with_options

METRICS = ["views", "time", "odd name"]


def make(objective="views", constraints=(), low=0.0, high=1.0, options=("x", "y"), **more):
    space = hz.SearchSpace(
        [hz.Float("w", low, high), hz.Choice("mode", options)], more.pop("ties", ())
    )
    base = {"w": 0.5, "mode": "x"}
    return hz.Problem(space, base, METRICS, objective, list(constraints), **more)


def goals(before, after):
    differs = difference(before.spec(), after.spec())
    assert not differs.fixed
    return list(differs.goals)


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("time >= -0.1%", "time >= -0.5%", "loosened"),
        ("time >= -0.5%", "time >= -0.1%", "tightened"),
        ("time >= -0.005", "time  >=  -1%", "loosened"),
        ("level(time) <= 5", "level(time) <= 6", "loosened"),
        ("level(time) <= 6", "level(time) <= 5e0", "tightened"),
        ("`odd name` >= -1%", "`odd name` >= -2%", "loosened"),
        ("time >= -0.5%", "time >= -0.005", "written anew"),
        (
            hz.Constraint("time", at_least=-0.1, name="guard"),
            hz.Constraint("time", at_least=-0.2, name="guard"),
            "loosened",
        ),
        (hz.Constraint("time", at_most=0.1), hz.Constraint("time", at_most=0.05), "tightened"),
    ],
)
def test_a_guardrail_is_loosened_or_tightened(old, new, how):
    before, after = make(constraints=[old]), make(constraints=[new])
    (sentence,) = goals(before, after)
    assert f"is {how}:" in sentence
    name = before.constraint_names[0]
    assert changed_guardrails(before.spec(), after.spec()) == {name}


def test_guardrails_that_come_go_or_move():
    one, two = "time >= -1%", "`odd name` >= -1%"
    assert goals(make(), make(constraints=[one])) == [
        f"constraints: the guardrail {one!r} is added"
    ]
    assert goals(make(constraints=[one, two]), make(constraints=[two])) == [
        f"constraints: the guardrail {one!r} is removed"
    ]
    assert "another order" in goals(make(constraints=[one, two]), make(constraints=[two, one]))[0]
    both = goals(make(constraints=[one]), make(constraints=["time <= 1%"]))
    assert [s.rpartition(" ")[2] for s in both] == ["removed", "added"]


def test_a_change_of_base_levels_touches_guardrails_on_levels_only():
    texts = ["time >= -1%", "level(time) >= 3", hz.Constraint("time", at_least=-0.1, name="mine")]
    before = make(constraints=texts)
    after = make(constraints=texts, base_levels=[1.0, 5.0, 2.0])
    assert changed_guardrails(before.spec(), after.spec()) == {"level(time) >= 3", "mine"}


@pytest.mark.parametrize(
    ("bounds", "how"), [((0, 2), "wider"), ((0.1, 0.9), "narrower"), ((0.1, 2), "moved")]
)
def test_bounds(bounds, how):
    (sentence,) = goals(make(), make(low=bounds[0], high=bounds[1]))
    assert f"the bounds of 'w' are {how}: [0.0, 1.0] before, " in sentence


def test_options_are_compared_as_sets():
    assert goals(make(), make(options=("y", "x"))) == []
    assert goals(make(), make(options=("x", "z"))) == [
        "parameters: 'mode' has the new options ['z']",
        "parameters: the options ['y'] of 'mode' are not served any more",
    ]


terms = st.sampled_from(["views", "time", "views + 0.5 * time", "level(views)", "`odd name`"])
guards = st.lists(
    st.builds(
        lambda name, sign, bound: f"{name} {sign} {bound}%",
        st.sampled_from(["views", "time", "`odd name`"]),
        st.sampled_from([">="]),
        st.integers(-50, 0),
    ),
    max_size=3,
    unique=True,
)


@given(terms, guards, terms, guards)
def test_equal_problems_differ_in_nothing_and_others_in_something(one, few, other, more):
    a, b = make(one, few), make(other, more)
    assert not difference(a.spec(), make(one, few).spec())
    assert bool(difference(a.spec(), b.spec())) == (a.spec() != b.spec())


@given(terms, guards, st.booleans())
def test_a_problem_is_restored_from_what_a_journal_holds(objective, constraints, is_guessed):
    problem = make(objective, constraints, ties=["w <= 0.9"])
    spec = json.loads(json.dumps(problem.spec()))
    texts = written.guessed_texts(spec) if is_guessed else written.texts_of(problem)
    assert texts == (objective, *constraints)
    again = written.restored(spec, texts)
    assert again.spec() == problem.spec()
    assert written.restored(again.spec(), texts).spec() == problem.spec()


def value(delta):
    return delta[..., 0]


def test_a_callable_is_lent_or_missed():
    problem = make(value, [hz.Constraint(value, at_least=-0.5), "time >= -1%"])
    texts = written.texts_of(problem)
    assert texts == (None, None, "time >= -1%")
    assert written.guessed_texts(problem.spec()) == texts
    again = written.restored(problem.spec(), texts, [problem])
    assert again.spec() == problem.spec()
    with pytest.raises(hz.ProblemError, match="'value' is a callable"):
        written.restored(problem.spec(), texts, [make()])


def test_options_at_the_studys_places():
    problem = make(options=("z", "x"))
    placed = with_options(problem, {"mode": ("x", "y", "z")})
    space = placed.space
    assert with_options(placed, {"mode": ("x", "y", "z")}) is placed
    assert with_options(make(options=("x", "z")), {"mode": ("x", "y", "z")}).space == space
    assert placed.spec()["parameters"][1]["options"] == ["x", "z"]
    assert space.num_dims == 4
    for x in (space.uniform(64), space.sobol(64, 0), space.grid(64), space.snap(space.uniform(9))):
        modes = {p["mode"] for p in space.to_parameters(space.from_unit(x))}
        assert modes == {"x", "z"}
    assert space.theta({"w": 0.5, "mode": "z"})[1] == 2
    with pytest.raises(hz.SpaceError, match="none of its options"):
        space.theta({"w": 0.5, "mode": "y"})
    with pytest.raises(hz.SpaceError, match=r"one of \[0, 2\], got 1"):
        space.check(space.theta({"w": 0.5, "mode": "z"}) * 0.5)
