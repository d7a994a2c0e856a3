"""Laws of ``problem.py``: what deltas are worth, and what cannot be a problem."""

import copy
import functools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hyperzero_torch.errors import ExpressionError, InputError, ProblemError, SpaceError
from hyperzero_torch.problem.problem import Constraint, Objective, Outcome, Problem
from hyperzero_torch.problem.space import Choice, Float, Int, SearchSpace

law = settings(deadline=None, max_examples=50)

SPACE = SearchSpace([Float("w", 0.0, 1.0), Int("n", 1, 4), Choice("c", ["a", "b"])])
BASE = {"w": 0.2, "n": 2, "c": "a"}
METRICS = ["views", "watch_time", "unfollowed"]
LEVELS = [3.0, 10.0, 0.05]
BASE_LEVELS = torch.tensor(LEVELS, dtype=torch.float64)


def problem(objective="views", constraints=(), **changes):
    given_ = {"space": SPACE, "base": BASE, "metrics": METRICS, "base_levels": LEVELS} | changes
    return Problem(objective=objective, constraints=constraints, **given_)


def deltas(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, 3, generator=generator, dtype=torch.float64) - 0.5).to(dtype)


class Net(nn.Module):
    """A small network; remembers the dtypes that it was given."""

    def __init__(self, dtype=torch.float32, inputs=3):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(inputs, generator=generator).to(dtype))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.long))
        self.seen = []

    def forward(self, *given_):
        self.seen.append([g.dtype for g in given_])
        return torch.tanh(torch.cat(given_, dim=-1) @ self.weight)


class Weights(nn.Module):
    """Fixed weights in a buffer: a module without a single parameter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, delta):
        return delta @ self.weight


# --- what a term is given, and what comes back ------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("2 * views - 1%", lambda d, v: 2 * d[..., 0] - 0.01),
        ("level(watch_time)", lambda d, v: v[..., 1]),
        ("views * level(views)", lambda d, v: d[..., 0] * v[..., 0]),
        (lambda d: d[..., 0], lambda d, v: d[..., 0]),
        (functools.partial(torch.sum, dim=-1), lambda d, v: d.sum(-1)),
        (Objective(lambda d: d[..., 0]), lambda d, v: d[..., 0]),
        (Objective(lambda v: v[..., 2], on="level"), lambda d, v: v[..., 2]),
        (
            Objective(lambda d, v: d[..., 0] - v[..., 2], on="both"),
            lambda d, v: d[..., 0] - v[..., 2],
        ),
    ],
)
def test_every_way_to_write_an_objective(objective, expected):
    delta = deltas(7)
    utility, slack = problem(objective).evaluate(delta)
    level = BASE_LEVELS * (1 + delta)
    torch.testing.assert_close(utility, expected(delta, level), rtol=1e-14, atol=1e-15)
    assert slack.shape == (7, 0)


def test_levels_are_base_times_one_plus_delta():
    seen = []
    problem(Objective(lambda v: seen.append(v) or v[..., 0], on="level")).evaluate(deltas(2, 4))
    torch.testing.assert_close(seen[-1], BASE_LEVELS * (1 + deltas(2, 4)))


@pytest.mark.parametrize("on", ["delta", "level", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_get_their_dtype_and_the_result_comes_back_in_the_deltas(on, dtype):
    net = Net(dtype, inputs=6 if on == "both" else 3)
    terms = {"objective": Objective(net, on=on), "constraints": [Constraint(net, at_least=-2)]}
    if on != "delta":
        terms["constraints"] = [Constraint(net, at_least=-2.0, on=on)]
    outcome = problem(**terms).evaluate(deltas(5, 4))
    assert net.seen[-1] == [dtype] * (2 if on == "both" else 1)
    assert outcome.utility.dtype == outcome.slack.dtype == torch.float64
    delta, level = deltas(5, 4), BASE_LEVELS * (1 + deltas(5, 4))
    given_ = {"delta": delta, "level": level, "both": torch.cat([delta, level], -1)}[on]
    expected = torch.tanh(given_ @ net.weight.double()).detach()
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 0}
    torch.testing.assert_close(outcome.utility.detach(), expected, **close)
    torch.testing.assert_close(outcome.slack.detach()[..., 0], expected + 2, **close)


def test_a_module_of_buffers_only_computes_in_their_dtype():
    utility = problem(Weights()).evaluate(deltas(4)).utility
    assert utility.dtype == torch.float64
    expected = deltas(4) @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(utility, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_the_deltas_through_every_kind_of_term(dtype):
    mixed = problem(
        Objective(Net(dtype), on="level"),
        [
            "level(watch_time) * views >= -5",
            Constraint(Net(dtype), at_least=-2.0),
            Constraint(lambda d: d[..., 2] ** 2, at_most=1.0),
        ],
    )
    delta = deltas(6).requires_grad_()
    outcome = mixed.evaluate(delta)
    parts = [outcome.utility, *outcome.slack.unbind(-1)]
    for part in parts:
        (gradient,) = torch.autograd.grad(part.sum(), delta, retain_graph=True)
        assert gradient.dtype == torch.float64
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    (gradient,) = torch.autograd.grad(parts[3].sum(), delta)
    torch.testing.assert_close(gradient[:, 2], -2 * delta[:, 2].detach())
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda d: tuple(mixed.evaluate(d)), delta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_outcome_has_the_dtype_of_the_deltas(dtype):
    terms = ["views >= -0.5", "level(views) >= 0", Constraint(Net(), at_least=-2.0)]
    outcome = problem("level(views) + 1", terms).evaluate(deltas(4, dtype=dtype))
    assert outcome.utility.dtype == outcome.slack.dtype == dtype


# --- signs of the slack -----------------------------------------------------------------------

WATCH = deltas(9)[:, 1]


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("watch_time >= -0.1%", WATCH + 0.001),
        ("watch_time <= 0.1%", 0.001 - WATCH),
        ("-10% <= watch_time", WATCH + 0.1),
        (Constraint("watch_time >= -0.1%"), WATCH + 0.001),
        (Constraint("watch_time", at_least=-0.001), WATCH + 0.001),
        (Constraint("watch_time", at_most=0.001), 0.001 - WATCH),
        (Constraint("watch_time", at_least=0), WATCH),
        (Constraint("watch_time", at_most=0), -WATCH),
        (Constraint("watch_time", at_least=np.float64(-0.5)), WATCH + 0.5),
        (Constraint(lambda d: d[..., 1], at_least=-0.25), WATCH + 0.25),
        (Constraint(lambda d: d[..., 1], at_most=0.25), 0.25 - WATCH),
        (Constraint(lambda v: v[..., 1], at_most=12.0, on="level"), 2 - 10 * WATCH),
        ("level(watch_time) >= 9", 1 + 10 * WATCH),
    ],
)
def test_slack_is_positive_where_the_constraint_holds(constraint, expected):
    outcome = problem(constraints=[constraint]).evaluate(deltas(9))
    torch.testing.assert_close(outcome.slack, expected[:, None], rtol=1e-12, atol=1e-14)
    assert torch.equal(outcome.feasible, expected >= 0)
    assert 0 < int(outcome.feasible.sum()) <= 9


def test_feasible_means_that_every_slack_is_there_and_not_negative():
    slack = torch.tensor([[0.0, 1.0], [-1e-12, 1.0], [math.nan, 1.0], [math.inf, 0.0]])
    assert Outcome(torch.zeros(4), slack).feasible.tolist() == [True, False, False, True]
    assert problem().evaluate(deltas(4)).feasible.tolist() == [True] * 4


def test_constraints_keep_their_order_and_names():
    guarded = problem(
        Objective("views", name="reach"),
        [
            "views >= -3%",
            Constraint("unfollowed", at_most=0.04),
            Constraint(Weights(), at_least=-1, name="w"),
            Constraint(Net(), at_least=-1.0),
        ],
    )
    assert guarded.constraint_names == (
        "views >= -3%",
        "unfollowed <= 0.04",
        "w",
        "Net >= -1",
    )
    assert guarded.num_constraints == 4
    assert guarded.objective_name == "reach"
    assert guarded.evaluate(torch.zeros(3, dtype=torch.float64)).slack.tolist() == pytest.approx(
        [0.03, 0.04, 1.0, 1.0]
    )


def test_one_constraint_needs_no_list():
    for one in ("views >= -1%", Constraint("views", at_least=-0.01)):
        assert problem(constraints=one).num_constraints == 1


# --- batches ----------------------------------------------------------------------------------

MIXED = {
    "objective": "min(views, level(unfollowed)) * 2",
    "constraints": [
        "watch_time >= -20%",
        "level(unfollowed) <= 6%",
        Constraint(lambda d, v: (d * v).sum(-1), at_least=-50.0, on="both"),
        Constraint(Net(torch.float64), at_most=2.0),
    ],
}


@law
@given(st.lists(st.integers(0, 4), max_size=4), st.integers(0, 1000))
def test_batched_equals_looped(shape, seed):
    mixed = problem(**MIXED)
    delta = deltas(*shape, seed=seed)
    outcome = mixed.evaluate(delta)
    assert outcome.utility.shape == tuple(shape)
    assert outcome.slack.shape == (*shape, 4)
    assert outcome.feasible.shape == tuple(shape)
    rows = [mixed.evaluate(row) for row in delta.reshape(-1, 3)]
    for i, row in enumerate(rows):
        torch.testing.assert_close(row.utility, outcome.utility.flatten()[i], rtol=1e-13, atol=0)
        torch.testing.assert_close(
            row.slack, outcome.slack.reshape(-1, 4)[i], rtol=1e-12, atol=1e-14
        )


def test_evaluate_changes_nothing_and_is_repeatable():
    mixed = problem(**MIXED)
    delta = deltas(5)
    before = delta.clone()
    first, second = mixed.evaluate(delta), mixed.evaluate(delta)
    assert torch.equal(delta, before)
    assert torch.equal(first.utility, second.utility)
    assert torch.equal(first.slack, second.slack)


# --- base levels ------------------------------------------------------------------------------


def test_levels_without_base_levels_say_what_to_do():
    for terms in (
        {"objective": "level(views)"},
        {"constraints": ["level(views) >= 1"]},
        {"objective": Objective(lambda v: v[..., 0], on="level")},
        {"objective": Objective(lambda d, v: v[..., 0], on="both")},
    ):
        unknown = problem(**terms, base_levels=None)
        assert unknown.sees_levels
        with pytest.raises(ProblemError, match=r"pass base_levels=.*control's readings"):
            unknown.evaluate(deltas(2))
    deaf = problem(constraints=["views >= -1%"], base_levels=None)
    assert not deaf.sees_levels
    assert deaf.evaluate(deltas(2)).utility.shape == (2,)


def test_base_levels_in_any_form():
    forms = [
        LEVELS,
        tuple(LEVELS),
        dict(zip(METRICS, LEVELS)),
        dict(zip(METRICS[::-1], LEVELS[::-1])),
        BASE_LEVELS,
        BASE_LEVELS.float().double().requires_grad_(),
        np.array(LEVELS),
    ]
    for form in forms:
        levels = problem(base_levels=form).base_levels
        assert levels.dtype == torch.float64
        assert not levels.requires_grad
        torch.testing.assert_close(levels, BASE_LEVELS, rtol=1e-7, atol=0)
    assert problem(base_levels=[-1.0, 2, 3]).base_levels[0] == -1


@pytest.mark.parametrize("form", [torch.tensor, np.array])
def test_base_levels_are_copied(form):
    mine = form(LEVELS)
    taken = problem(base_levels=mine)
    mine[0] = 99.0
    assert taken.base_levels[0] == 3.0


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ({"views": 1.0, "watch_time": 2.0}, "name exactly the metrics"),
        (dict(zip(METRICS, LEVELS)) | {"likes": 1.0}, "name exactly the metrics"),
        ({"views": 1.0, "watch_time": 2.0, "unfolowed": 3.0}, "unfolowed"),
        ([1.0, 2.0], "3 finite numbers"),
        ([[1.0, 2.0, 3.0]], "3 finite numbers"),
        (3.0, "3 finite numbers"),
        ([1.0, math.nan, 3.0], "3 finite numbers"),
        ([1.0, math.inf, 3.0], "3 finite numbers"),
        ([1.0, 0.0, 3.0], "base level of 0"),
        (dict(zip(METRICS, [1.0, -0.0, 2.0])), "base level of 0"),
        (["a", "b", "c"], "3 finite numbers"),
        (dict.fromkeys(METRICS), "3 finite numbers"),
        ([[1], [1, 2], 3], "3 finite numbers"),
        ("abc", "3 finite numbers"),
        (10**400, "3 finite numbers"),
    ],
)
def test_bad_base_levels(levels, reason):
    with pytest.raises(ProblemError, match=reason):
        problem(base_levels=levels)


def test_with_and_without_base_levels_leave_the_original_alone():
    known = problem("level(views)")
    other = known.with_base_levels(torch.tensor([6.0, 1.0, 1.0]))
    none = known.with_base_levels(None)
    assert other.evaluate(torch.zeros(3)).utility == 6
    assert known.evaluate(torch.zeros(3)).utility == 3
    assert other.base_levels.dtype == torch.float64
    assert none.base_levels is None
    assert torch.equal(known.base_levels, BASE_LEVELS)
    with pytest.raises(ProblemError, match="base levels are not"):
        none.evaluate(torch.zeros(3))
    again = none.with_base_levels(BASE_LEVELS)
    assert torch.equal(again.evaluate(deltas(4)).utility, known.evaluate(deltas(4)).utility)


# --- devices ----------------------------------------------------------------------------------


def test_to_the_same_device_copies_no_module():
    net = Net()
    first = problem(net, [Constraint(net, at_least=-2.0)])
    second = first.to("cpu")
    assert second is not first
    net.weight.data.mul_(2)  # the user's module is still the one that is called
    assert torch.equal(first.evaluate(deltas(4)).utility, second.evaluate(deltas(4)).utility)


def test_to_another_device_copies_modules_and_leaves_the_original():
    net = Net(torch.float64)
    weight = net.weight
    first = problem(
        Objective(net, on="level"), [Constraint(net, at_least=-2.0), "level(views) >= 0"]
    )
    before = first.evaluate(deltas(4))
    moved = first.to("meta")
    assert net.weight is weight
    assert net.weight.device.type == net.steps.device.type == "cpu"
    assert (first.device.type, first.base_levels.device.type) == ("cpu", "cpu")
    assert (moved.device.type, moved.base_levels.device.type) == ("meta", "meta")
    after = moved.evaluate(deltas(4).to("meta"))
    assert after.utility.device.type == after.slack.device.type == "meta"
    assert (after.utility.shape, after.slack.shape) == ((4,), (4, 2))
    again = first.evaluate(deltas(4))
    assert torch.equal(before.utility, again.utility)
    assert torch.equal(before.slack, again.slack)
    assert moved.with_base_levels(BASE_LEVELS).base_levels.device.type == "meta"


# --- the base and infeasible constraints ------------------------------------------------------


@pytest.mark.parametrize(
    "constraint",
    [
        "watch_time >= 0.1%",
        "watch_time <= -0.1%",
        Constraint("watch_time", at_least=0.001),
        Constraint(lambda d: d[..., 0], at_most=-0.5),
        Constraint(Net(), at_least=0.5),
        "sqrt(views - 1%) >= 0",  # not a number at a delta of 0
        "log(views) >= -5",
        "views / 0 >= 1",
        "views >= 9**9**9",
    ],
)
def test_a_constraint_that_no_base_satisfies(constraint):
    for constraints in ([constraint], (c for c in ["views >= -0.5", constraint])):
        with pytest.raises(ProblemError, match=r"no base can satisfy.*'>= -0.1%'.*may_exclude_ba"):
            problem(constraints=constraints)


def test_a_required_improvement_may_be_asked_for():
    wanted = problem(
        constraints=[
            Constraint("watch_time >= 0.1%", may_exclude_base=True),
            Constraint(lambda d: d[..., 0], at_least=0.5, may_exclude_base=True),
        ]
    )
    slack = wanted.evaluate(torch.zeros(3, dtype=torch.float64)).slack
    assert slack.tolist() == [-0.001, -0.5]
    with pytest.raises(ProblemError, match="'views >= 1%'"):  # one permission covers one only
        problem(
            constraints=[Constraint("watch_time >= 1%", may_exclude_base=True), "views >= 1%"],
        )


def test_a_constraint_on_levels_may_exclude_the_base():
    # Appendix A: the constraint cuts the cube in two, and the base may lie on the wrong side.
    for constraint in (
        "level(views) >= 3.6036",
        "level(views) + views >= 4",
        Constraint(lambda v: v[..., 0], at_least=4.0, on="level"),
    ):
        world = problem(constraints=[constraint])
        assert not world.evaluate(torch.zeros(3)).feasible
        assert world.evaluate(torch.ones(3)).feasible
        problem(constraints=[constraint], base_levels=None)


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (BASE | {"w": 1.5}, r"base.*'w' = 1.5 lies outside \[0.0, 1.0\]"),
        ({"w": 0.5}, r"missing \['n', 'c'\]"),
        (BASE | {"v": 0.5}, r"unknown \['v'\]"),
        (None, "must map parameter names"),
    ],
)
def test_a_base_outside_its_space(base, reason):
    with pytest.raises(SpaceError, match=reason):
        problem(base=base)


# --- what cannot be a problem -----------------------------------------------------------------


def boom(delta):
    raise RuntimeError("no such weights")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda d: d, r"'\(\.\.\., metrics\) to \(\.\.\.\)|expected \(3, 5\) from \(3, 5, 3\)"),
        (lambda d: d.sum(), r"expected \(3, 5\).* got \(\)"),
        (lambda d: d[0, :, 0], r"got \(5,\)"),
        (lambda d: d[..., :1], r"got \(3, 5, 1\)"),
        (boom, r"fails on deltas of shape \(3, 5, 3\): RuntimeError: no such weights"),
        (lambda: 0, "fails on deltas.*TypeError"),
        (lambda d: d[..., 7], "fails on deltas.*IndexError"),
        (lambda d: 1.0, "returned a float, expected a torch tensor"),
        (lambda d: None, "returned a NoneType"),
        (lambda d: d.numpy()[..., 0], "returned a ndarray"),
        (Net(inputs=5), "'Net.* fails on deltas"),
    ],
)
def test_a_callable_that_does_not_work_is_found_at_once(function, reason):
    with pytest.raises(ProblemError, match=f"^objective .*{reason}"):
        problem(function)
    with pytest.raises(ProblemError, match=f"^constraint .*{reason}"):
        problem(constraints=["views >= -0.5", Constraint(function, at_least=-1e9)])


def test_the_cause_of_a_failing_callable_is_kept():
    with pytest.raises(ProblemError) as caught:
        problem(boom)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, InputError)


def test_the_shape_is_checked_for_levels_that_are_not_yet_known():
    with pytest.raises(ProblemError, match="must map"):
        problem(Objective(lambda v: v, on="level"), base_levels=None)


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ([], "at least one"),
        (["views", "views"], r"twice: \['views'\]"),
        (["views", 3], "must be names"),
        (["views", ""], "must be names"),
        (["views", " "], "must be names"),
        (["views", None], "must be names"),
        (["views", ["a"]], "must be names"),
        (["views", "a`b"], "must be names"),
        ("views", "got the string 'views'"),
        (None, "got NoneType"),
        (3, "got int"),
    ],
)
def test_bad_metrics(metrics, reason):
    with pytest.raises(ProblemError, match=reason):
        problem(metrics=metrics, base_levels=None)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: problem(None), "objective must be a string, a torch callable or an nn.Module"),
        (lambda: problem(3), "got int"),
        (lambda: problem(Constraint("views", at_least=0)), "objective.*got Constraint"),
        (lambda: problem(["views"]), "got list"),
        (lambda: problem(constraints=[lambda d: d[..., 0]]), r"wrap a callable: hz.Constraint\("),
        (lambda: problem(constraints=[Objective("views")]), "got Objective"),
        (lambda: problem(constraints=[None]), "got NoneType"),
        (lambda: problem(constraints=None), r"must be a list, got NoneType.*\[\] for none"),
        (lambda: problem(constraints=boom), "must be a list, got function"),
        (lambda: problem(space=[Float("w", 0, 1)]), "must be a SearchSpace, got list"),
        (lambda: Constraint(None, at_least=0), "constraint must be a string"),
        (lambda: Constraint("views"), "exactly one of at_least and at_most, got 0"),
        (lambda: Constraint(boom), "'boom' needs exactly one .* got 0"),
        (lambda: Constraint(boom, at_least=0, at_most=1), "got 2; write a range as two"),
        (lambda: Constraint("views >= 1", at_least=0), "contains a bound already"),
        (lambda: Constraint("views <= 1", at_most=0), "contains a bound already"),
        (lambda: Constraint("views", at_least=math.nan), "at_least must be a finite number"),
        (lambda: Constraint("views", at_most=math.inf), "at_most must be a finite number"),
        (lambda: Constraint("views", at_most="1%"), "got '1%'"),
        (lambda: Constraint("views", at_most=True), "got True"),
        (lambda: Objective(boom, on="deltas"), "on must be 'delta', 'level' or 'both'"),
        (lambda: Constraint(boom, on=None, at_least=0), "on must be"),
        (lambda: Objective("views", on="level"), r"for callables.*write level\(metric\)"),
        (lambda: Constraint("views", on="both", at_least=0), "for callables"),
    ],
)
def test_bad_terms(make, reason):
    with pytest.raises(ProblemError, match=reason):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: problem("viws"),
        lambda: problem("views >= 0"),
        lambda: problem(""),
        lambda: problem(constraints=["views"]),
        lambda: problem(constraints=[""]),
        lambda: problem(constraints=["-1 <= views <= 1"]),
        lambda: problem(constraints=[Constraint("viws", at_least=0)]),
        lambda: problem(constraints=[Constraint("viws >= 0")]),
    ],
)
def test_strings_that_are_not_understood_show_the_place(make):
    with pytest.raises(ExpressionError, match=r"\^$"):
        make()


def test_a_metric_with_a_comparison_in_its_name():
    odd = problem(
        "`watch>=30s`",
        [Constraint("`watch>=30s`", at_least=-0.1), "`watch>=30s` <= 20%"],
        metrics=["watch>=30s"],
        base_levels=None,
    )
    outcome = odd.evaluate(torch.tensor([0.05], dtype=torch.float64))
    assert outcome.slack.tolist() == pytest.approx([0.15, 0.15])


# --- the record -------------------------------------------------------------------------------


def test_the_spec_is_plain_json_and_tells_problems_apart():
    np_base = {"w": np.float32(0.25), "n": np.int64(2), "c": np.str_("a")}
    first = problem(Net(), ["views >= -1%", Constraint(Weights(), at_most=1)], base=np_base)
    spec = first.spec()
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
    assert spec["base"] == {"w": 0.25, "n": 2, "c": "a"}
    assert spec["metrics"] == METRICS
    assert spec["objective"] == "Net"
    assert spec["constraints"] == ["views >= -1%", "Weights <= 1"]
    assert [p["name"] for p in spec["parameters"]] == ["w", "n", "c"]
    assert [p["kind"] for p in spec["parameters"]] == ["float", "int", "choice"]
    assert spec["parameters"][2]["options"] == ["a", "b"]
    for other in (
        problem(),
        problem(Net(), ["views >= -2%", Constraint(Weights(), at_most=1)], base=np_base),
        problem(Net(), ["views >= -1%", Constraint(Weights(), at_most=1)]),
    ):
        assert other.spec() != spec


def test_the_spec_does_not_share_its_parts():
    first = problem()
    before = copy.deepcopy(first.spec())
    changed = first.spec()
    changed["metrics"].append("x")
    changed["parameters"][0]["low"] = -9
    changed["base"]["w"] = 9
    assert first.spec() == before


def test_the_representation_names_the_parts():
    text = repr(problem("views", ["views >= -1%"]))
    assert "views >= -1%" in text
    assert "'w': 0.2" in text
