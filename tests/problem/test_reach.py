"""Constraints that nothing can break are refused, and no other constraint is."""

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import hyperzero_torch as hz

METRICS = ["views", "watch_time", "unfollow"]


def problem(*constraints, **more):
    space = hz.SearchSpace([hz.Float("x", 0.0, 1.0)])
    return hz.Problem(space, {"x": 0.2}, METRICS, "views", list(constraints), **more)


@pytest.mark.parametrize(
    ("constraint", "meant"),
    [
        ("watch_time >= -5", "-5 is -500 %.*did you mean -0.05"),
        ("-5 <= watch_time", "-5 is -500 %.*did you mean -0.05"),
        ("watch_time >= -1", "-1 is -100 %.*did you mean -0.01"),
        ("watch_time >= -2.5", "-2.5 is -250 %.*did you mean -0.025"),
        ("watch_time >= -100%", "-1 is -100 %"),
        ("watch_time >= -500 %", "-5 is -500 %"),
        ("watch_time + 5 >= 0", "at least 4 wherever"),
        ("0.5 * views + 0.5 * watch_time >= -1", "-1 is -100 %"),
        ("min(views, watch_time) >= -3", "-3 is -300 %"),
        ("-watch_time <= 5", "at least 4"),
        ("(1 + views) * (1 + watch_time) >= 0", "at least 0"),
        ("(1 + views) ** 2 >= 0", "at least 0"),
        ("abs(views) >= 0", "at least 0"),
        ("sqrt(1 + views) >= 0", "at least 0"),
        ("exp(views) >= 0", "at least 0.36"),
        (hz.Constraint("watch_time", at_least=-5.0), "did you mean -0.05"),
        (hz.Constraint("watch_time >= -5", name="guard"), "did you mean -0.05"),
        (hz.Constraint("-watch_time", at_most=5.0), "at least 4"),
        (hz.Constraint(lambda d: d[..., 1], at_least=-5.0), "did you mean -0.05"),
        (hz.Constraint(lambda d: 0.5 * d[..., 0] + 0.5 * d[..., 1], at_least=-2), "-200 %"),
        (hz.Constraint(lambda d: -d[..., 1], at_most=5.0), "at least 4"),
    ],
)
def test_a_constraint_that_nothing_can_break_is_refused(constraint, meant):
    with pytest.raises(hz.ProblemError, match=f"can never be broken: .*{meant}"):
        problem("unfollow <= 1%", constraint)


@pytest.mark.parametrize(
    "constraint",
    [
        "watch_time >= -0.05",
        "watch_time >= -5%",
        "watch_time >= -99.9%",
        "unfollow <= 5",
        "views - watch_time >= -5",
        "views / (1 + watch_time) >= -5",
        "views * watch_time >= -5",
        "(1 + views) ** 0.5 - watch_time >= -5",
        "(1 + views) ** 3 >= 0.1",
        "log(1 + views) >= -5",
        "exp(-views) - 0.1 >= 0",
        "max(-views, watch_time) >= -0.5",
        "level(watch_time) >= -5",  # a level may be negative: this is how profit is guarded
        "level(watch_time) + watch_time >= -5",
        hz.Constraint("watch_time", at_most=5.0),
        hz.Constraint(lambda d: d[..., 0] - d[..., 1], at_least=-5.0),
        hz.Constraint(lambda d: -((d[..., 0] - 3).abs()), at_least=-5.0),
        hz.Constraint(lambda d: d[..., 0].clamp(max=2.0), at_least=-0.5),
        hz.Constraint(lambda level: level[..., 0], at_least=-5.0, on="level"),
        hz.Constraint(lambda d: 1e6 * d[..., 1], at_least=-2e6),  # a unit of its own
        hz.Constraint(lambda d: torch.zeros(d.shape[:-1]), at_least=-5.0),
    ],
)
def test_any_other_constraint_is_accepted(constraint):
    assert problem(constraint, base_levels=[1.0, 2.0, 0.5]).num_constraints == 1


def test_the_bound_that_the_message_suggests_is_accepted():
    with pytest.raises(hz.ProblemError) as caught:
        problem("watch_time >= -5")
    meant = str(caught.value).split("did you mean ")[1].split()[0]
    guarded = problem(f"watch_time >= {meant}")
    worst = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    assert guarded.evaluate(worst).slack.tolist() == [-0.95]


def test_a_study_file_says_it_too(tmp_path):
    (tmp_path / "tuning.yaml").write_text(
        "parameters: [{kind: float, name: x, low: 0, high: 1}]\nbase: {x: 0.2}\n"
        "metrics: [views, watch_time]\nobjective: views\nconstraints: [watch_time >= -5]\n"
    )
    with pytest.raises(hz.ProblemError, match=r"did you mean -0\.05"):
        hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()


WEIGHT = st.floats(-3, 3).map(lambda w: round(w, 2))


@given(st.lists(WEIGHT, min_size=3, max_size=3), st.floats(-6, 0).map(lambda b: round(b, 2)))
def test_a_linear_constraint_is_refused_exactly_where_its_corners_hold(weights, bound):
    """On a box, a linear function is least in a corner; far away stands for infinity."""
    text = " + ".join(f"({w}) * {m}" for w, m in zip(weights, METRICS)) + f" >= {bound}"
    corners = itertools.product((-1.0, 1e6), repeat=3)
    least = min(math.fsum([*(w * d for w, d in zip(weights, c)), -bound]) for c in corners)
    if abs(least) < 1e-9:  # rounding decides
        return
    if least > 0:
        with pytest.raises(hz.ProblemError, match="can never be broken"):
            problem(text)
    else:
        assert problem(text).num_constraints == 1


@st.composite
def expressions(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([*METRICS, "0.5", "2", "1"]))
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    form = draw(
        st.sampled_from(
            ["({0} + {1})", "({0} - {1})", "({0} * {1})", "({0} / {1})", "min({0}, {1})",
             "max({0}, {1})", "abs({0})", "exp({0})", "sqrt({0})", "log({0})", "({0}) ** 2",
             "({0}) ** 3", "-({0})"]
        )
    )  # fmt: skip
    return form.format(left, right)


@given(expressions(), st.floats(-4, 1).map(lambda b: round(b, 1)), st.integers(0, 2**31))
def test_whatever_is_refused_holds_at_every_delta(text, bound, seed):
    try:
        problem(hz.Constraint(f"{text} + 0 * views", at_least=bound, may_exclude_base=True))
    except hz.ProblemError as error:
        if "can never be broken" not in str(error):
            return
    else:
        return
    generator = torch.Generator().manual_seed(seed)
    far = torch.rand(2000, 3, generator=generator, dtype=torch.float64)
    deltas = torch.cat([2 * far - 1, 4 * far - 1, torch.full((1, 3), -1.0, dtype=torch.float64)])
    # The same expression as an objective is evaluated without the check.
    space = hz.SearchSpace([hz.Float("x", 0.0, 1.0)])
    value = hz.Problem(space, {"x": 0.2}, METRICS, f"{text} + 0 * views").evaluate(deltas).utility
    assert bool((value >= bound - 1e-9).all()), value.min()
