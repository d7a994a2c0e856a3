"""Linear constraints on theta: what they mean, what is refused, that nothing outside is served.

Whether a theta satisfies a constraint is recomputed here by Python from the constraint's text.
"""

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.errors import ExpressionError, ShapeError, SpaceError, StudyMismatchError
from hyperzero_torch.problem.linear import Region, parse_linear
from hyperzero_torch.problem.space import Choice, Float, Int, SearchSpace
from hyperzero_torch.surrogate import Surrogate
from hyperzero_torch.thompson import propose
from hyperzero_torch.tuner.candidates import initial_design

law = settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

SEEDS = st.integers(0, 2**31)
DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cube(space, num, seed=0, dtype=DOUBLE):
    """Points of the whole unit cube, and some beyond it."""
    return (
        torch.rand(num, space.num_dims, dtype=DOUBLE, generator=generator(seed)) * 1.4 - 0.2
    ).to(dtype)


def excess(source, row):
    """By how much a mapping violates a constraint, in Python's own arithmetic, and its scale."""
    sign = 1 if "<=" in source else -1
    left, right = (eval(side, {}, dict(row)) for side in source.replace(">=", "<=").split("<="))
    scale = max(
        1.0, abs(left), abs(right), *(abs(v) for v in row.values() if not isinstance(v, str))
    )
    return sign * (left - right), scale


def all_satisfied(space, x):
    """Every point holds as it is served, is servable, and the space agrees."""
    assert x.shape[1] == space.num_dims
    assert bool(space.satisfied(x).all())
    assert torch.equal(space.snap(x), x)
    theta = space.from_unit(x)
    space.check(theta)
    for row in space.to_parameters(theta):
        for source in space.constraints:
            beyond, scale = excess(source, row)
            assert beyond <= 1e-9 * scale, (source, row)
    return theta


# --- random spaces ----------------------------------------------------------------------------


@st.composite
def parameters(draw, name):
    kind = draw(st.sampled_from(["float", "float", "log", "int", "choice"]))
    if kind == "float":
        low = draw(st.integers(-5, 5))
        return Float(name, low, low + draw(st.sampled_from([0.5, 1, 10])))
    if kind == "log":
        low = 10.0 ** draw(st.integers(-4, 1))
        return Float(name, low, low * 10.0 ** draw(st.integers(1, 4)), log=True)
    if kind == "int":
        low = draw(st.integers(-5, 5))
        return Int(name, low, low + draw(st.integers(1, 30)))
    return Choice(name, ["a", "b", "c"][: draw(st.integers(2, 3))])


def middle(p, part):
    if isinstance(p, Int):
        return round(p.low + part * (p.high - p.low))
    return p.low * (p.high / p.low) ** part if p.log else p.low + part * (p.high - p.low)


@st.composite
def constrained(draw):
    """A space, and constraints that one theta at least satisfies."""
    parts = [draw(parameters(f"p{i}")) for i in range(draw(st.integers(1, 5)))]
    numeric = [p for p in parts if not isinstance(p, Choice)]
    if not numeric:
        numeric = [Float("q", 0.0, 1.0)]
        parts += numeric
    inside = {p.name: middle(p, draw(st.floats(0.05, 0.95))) for p in numeric}
    constraints = []
    for _ in range(draw(st.integers(1, 3))):
        named = draw(st.lists(st.sampled_from(numeric), min_size=1, unique_by=lambda p: p.name))
        slopes = [draw(st.sampled_from([-3, -1, -0.5, 0.25, 1, 2])) for _ in named]
        value = sum(s * inside[p.name] for s, p in zip(slopes, named))
        reach = sum(abs(s) * (p.high - p.low) for s, p in zip(slopes, named))
        room = draw(st.sampled_from([0.5, 0.1, 0.01, 1e-4])) * reach
        text = " + ".join(f"{s} * {p.name}" for s, p in zip(slopes, named))
        if draw(st.booleans()):
            constraints.append(f"{text} <= {value + room!r}")
        else:
            constraints.append(f"{text} >= {value - room!r}")
    return SearchSpace(parts, constraints)


def samples_or_refusal(make):
    """None where the space says that too little is left, which only ties of Ints may come to."""
    try:
        return make()
    except SpaceError as error:
        assert "Int" in str(error) or "found" in str(error)  # noqa: PT017
        return None


@law
@given(constrained(), st.integers(0, 40), SEEDS)
def test_every_sample_satisfies(space, num, seed):
    for draw in (
        lambda: space.uniform(num, generator(seed)),
        lambda: space.sobol(num, seed),
    ):
        x = samples_or_refusal(draw)
        if x is None:
            assert any(isinstance(p, Int) for p in space.parameters)
            return
        assert x.shape == (num, space.num_dims)
        all_satisfied(space, x)
        assert torch.equal(draw(), x)


@law
@given(constrained(), SEEDS)
def test_snap_gives_points_that_satisfy_and_keeps_those_that_do(space, seed):
    x = cube(space, 60, seed)
    snapped = samples_or_refusal(lambda: space.snap(x))
    if snapped is None:
        return
    all_satisfied(space, snapped)
    plain = SearchSpace(space.parameters).snap(x)
    kept = space.satisfied(x)
    assert torch.equal(kept, space.satisfied(plain))
    assert torch.equal(snapped[kept], plain[kept])


@law
@given(constrained(), st.integers(2, 300))
def test_a_grid_satisfies_and_fits(space, num):
    try:
        x = space.grid(num)
    except SpaceError as error:
        assert "sobol" in str(error)  # noqa: PT017
        return
    assert 1 <= len(x) <= num
    assert len(x.unique(dim=0)) == len(x)
    all_satisfied(space, x)


@law
@given(constrained(), SEEDS)
def test_satisfied_is_what_theta_says_and_batches_agree(space, seed):
    x = cube(space, 50, seed).clamp(0, 1)
    expected = []
    for row in space.to_parameters(space.from_unit(x)):
        gaps = [excess(source, row) for source in space.constraints]
        expected.append(all(gap <= 1e-10 * scale for gap, scale in gaps))
    assert space.satisfied(x).tolist() == expected
    assert torch.equal(space.satisfied(x.reshape(5, 10, -1)), space.satisfied(x).reshape(5, 10))
    for row, holds in zip(space.to_parameters(space.from_unit(x)), expected):
        if holds:
            space.theta(row)
        else:
            with pytest.raises(SpaceError, match="violates the constraint"):
                space.theta(row)


def test_satisfied_without_constraints_is_true_and_bad_widths_are_refused():
    free = SearchSpace([Float("a", 0, 1), Choice("c", ["x", "y"])])
    answer = free.satisfied(torch.rand(4, 5, 3))
    assert answer.dtype == torch.bool
    assert answer.shape == (4, 5)
    assert bool(answer.all())
    tied = SearchSpace(free.parameters, ["a <= 0.5"])
    for space in (free, tied):
        with pytest.raises(ShapeError, match="3 dims"):
            space.satisfied(torch.zeros(2, 2))
    assert not bool(tied.satisfied(torch.full((1, 3), math.nan)).any())
    assert tied.satisfied(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_all_of_it_on_a_gpu():
    for sources in (["a + b <= 1", "n >= 3 * a"], ["a + b <= 1", "a + b >= 0.9999999"]):
        space = SearchSpace(
            [Float("a", 0.01, 1, log=True), Float("b", 0, 1), Int("n", 0, 9)], sources
        )
        x = space.uniform(100, torch.Generator("cuda").manual_seed(0))
        assert x.device.type == space.satisfied(x).device.type == "cuda"
        snapped = space.snap(cube(space, 50).cuda())
        assert snapped.device.type == "cuda"
        all_satisfied(space, x.cpu())
        all_satisfied(space, snapped.cpu())


# --- what a constraint says -------------------------------------------------------------------

SPACE = [
    Float("w_a", 0.0, 1.0),
    Float("w_b", 0.0, 1.0),
    Float("w share", 0.1, 10.0, log=True),
    Int("n", 1, 8),
    Choice("mode", ["a", "b"]),
]


@pytest.mark.parametrize(
    ("source", "coefficients", "bound"),
    [
        ("w_a + 2 * w_b <= 1.5", [1, 2, 0, 0], 1.5),
        ("w_a >= w_b", [-1, 1, 0, 0], 0),
        ("1.5 >= w_a", [1, 0, 0, 0], 1.5),
        ("-(w_a - 3 * (n + 1)) / 2 >= 10%", [0.5, 0, 0, -1.5], 1.4),
        ("2 * 3 * `w share` <= n * 4 - -1", [0, 0, 6, -4], 1),
        ("w_a + w_a - w_b <= w_b", [2, -2, 0, 0], 0),
        ("+w_a*.5e1<=1e0", [5, 0, 0, 0], 1),
        ("(w_a + w_b) * 50% <= n / 4", [0.5, 0.5, 0, -0.25], 0),
    ],
)
def test_constraints_are_read(source, coefficients, bound):
    row = parse_linear(source, SPACE)
    assert row.source == source
    assert list(row.coefficients) == pytest.approx([*coefficients, 0])
    assert row.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("source", "at", "reason"),
    [
        ("mode <= 1", 0, r"'mode' is a Choice.*may name \['w_a', 'w_b', 'w share', 'n'\]"),
        ("w_a + mode <= 1", 6, "is a Choice"),
        ("w_c <= 1", 0, r"unknown parameter 'w_c'; known parameters: \['w_a'.*did you mean 'w_"),
        ("w_share <= 1", 0, "did you mean `w share`, in backticks"),
        ("w_a * n <= 1", 4, "product of parameters.*linear"),
        ("w_a / n <= 1", 4, "division by a parameter.*linear"),
        ("1 / w_a <= 1", 2, "division by a parameter"),
        ("w_a / (1 - 1) <= 1", 4, "division by 0"),
        ("w_a ** 2 <= 1", 4, "no powers here.*linear"),
        ("abs(w_a) <= 1", 0, r"no functions here, not even abs\(\)"),
        ("w_a <= 1 <= 2", 9, "second comparison: write a range as two"),
        ("w_a + w_b", 9, "'>=' or '<=' and a bound"),
        ("w_a == w_b", 4, "'=' is not understood; expected .* >= <="),
        ("w_a < w_b", 4, "'<' is not understood"),
        ("w_a <=", 6, "ends here; expected a number, a parameter"),
        ("", 0, "ends here"),
        ("1 <= 2", 6, "no parameter is named"),
        ("w_a - w_a <= 1", 14, "cancel out"),
        ("0 * w_a <= 1", 12, "cancel out"),
        ("w_a <= 1)", 8, "unexpected .* or the end"),
        ("(w_a <= 1", 5, r"expected '\)'"),
        ("w_a 2 <= 1", 4, r"expected an operator"),
        ("1e308 * 1e308 * w_a <= 1", 24, "too large"),
        ("w_a <= 1e999", 7, "too large"),
        ("-" * 100 + "w_a <= 1", 60, "nested more than"),
        ("w_a, 1 <= 1", 3, "expected an operator"),
        ("__import__('os') <= 1", 11, "not understood"),
    ],
)
def test_what_is_not_understood_shows_the_place(source, at, reason):
    with pytest.raises(ExpressionError, match=f"(?s){reason}") as caught:
        SearchSpace(SPACE, [source])
    assert caught.value.position == at
    assert str(caught.value).endswith(f"    {source}\n    {' ' * at}^")


@pytest.mark.parametrize(
    ("constraints", "reason"),
    [
        ([3], "is a string, got int: 3"),
        ([["w_a <= 1"]], "got list"),
        (None, r"must be a list of strings, got NoneType.*\[\] for none"),
        (7, "must be a list"),
        (["1e308 * w_a + 1e308 * w_b + 1e308 * n <= 1"], "too large for a float"),
    ],
)
def test_what_is_no_list_of_strings_is_refused(constraints, reason):
    with pytest.raises(SpaceError, match=reason):
        SearchSpace(SPACE, constraints)


def test_one_string_is_one_constraint_and_a_generator_is_a_list():
    assert SearchSpace(SPACE, "w_a <= w_b").constraints == ("w_a <= w_b",)
    assert SearchSpace(SPACE, (s for s in ["w_a <= w_b"])).constraints == ("w_a <= w_b",)


# --- refused thetas ---------------------------------------------------------------------------

BASE = {"w_a": 0.5, "w_b": 0.25, "w share": 1.0, "n": 3, "mode": "a"}


def test_a_theta_outside_is_refused_by_name_and_amount():
    space = SearchSpace(SPACE, ["w_a + 2 * w_b <= 1.5", "n >= 4 * w_a"])
    space.theta(BASE)
    with pytest.raises(
        SpaceError, match=r"^base violates the constraint 'w_a \+ 2 \* w_b <= 1.5' by 0.25;"
    ):
        space.theta(BASE | {"w_a": 0.75, "w_b": 0.5}, "base")
    with pytest.raises(SpaceError, match=r"'n >= 4 . w_a' by 1; .*loosen"):
        space.theta(BASE | {"n": 1})
    good = space.theta(BASE)
    bad = good.clone()
    bad[3] = 1.0
    assert space.check(torch.stack([good, good])) is not None
    assert space.check(torch.zeros(0, 5)).shape == (0, 5)
    with pytest.raises(SpaceError, match="by 1;"):
        space.check(torch.stack([good, bad, good]).reshape(3, 1, 5))
    with pytest.raises(SpaceError, match=r"^base violates"):
        hz.Problem(space, BASE | {"n": 1}, ["views"], "views")


def test_rounding_at_a_bound_is_forgiven():
    space = SearchSpace([Float("a", 0, 1), Float("b", 0, 1)], ["a + b <= 0.3", "3 * a >= 0.3"])
    theta = space.theta({"a": 0.1, "b": 0.2})  # 0.30000000000000004 and 0.3 exactly or not
    assert bool(space.satisfied(space.to_unit(theta)))
    with pytest.raises(SpaceError, match="by 1e-06"):
        space.theta({"a": 0.1, "b": 0.200001})


def test_a_small_scale_is_not_forgiven_more_than_its_own_rounding():
    space = SearchSpace([Float("s", 1e-8, 1e4, log=True)], ["s <= 1e-6"])
    space.theta({"s": 1e-6})
    with pytest.raises(SpaceError, match="by 1e-12"):
        space.theta({"s": 1.000001e-6})


@pytest.mark.parametrize(
    ("constraints", "named", "innocent"),
    [
        (["w_a + w_b >= 1.5", "w_a <= 0.4", "n <= 4"], ["w_a + w_b >= 1.5", "w_a <= 0.4"], "n"),
        (["w_a + w_b >= 2.1"], ["w_a + w_b >= 2.1"], "n"),
        (["w_a >= w_b", "w_b >= w_a + 1e-6"], ["w_a >= w_b", "w_b >= w_a + 1e-6"], "n"),
        (["`w share` <= 0.2", "n <= 2", "`w share` >= 0.3"], ["<= 0.2", ">= 0.3"], "n <="),
        (["n >= 2.2", "n <= 2.8"], ["n >= 2.2", "n <= 2.8", "whole numbers"], "mode"),
        (["2 * n + w_a >= 5.2", "2 * n <= 5.5 - w_a", "w_a <= 0.1"], ["whole numbers"], "mode"),
    ],
)
def test_constraints_that_contradict_each_other_are_named(constraints, named, innocent):
    with pytest.raises(SpaceError, match="no theta is left") as caught:
        SearchSpace(SPACE, constraints)
    assert all(name in str(caught.value) for name in named)
    assert innocent not in str(caught.value).split("]")[0].split("[")[1]


def test_thirty_whole_numbers_that_contradict_each_other_are_found_out():
    parts = [Int(f"n{i}", 0, 9) for i in range(30)]
    even = " + ".join(f"2 * n{i}" for i in range(30))
    try:
        space = SearchSpace(parts, [f"{even} >= 21", f"{even} <= 21"])
    except SpaceError as error:
        assert "no theta" in str(error)  # noqa: PT017
        return
    for act in (
        lambda: space.uniform(5),
        lambda: space.sobol(5, 0),
        lambda: space.snap(cube(space, 3)),
    ):
        with pytest.raises(SpaceError, match="hardly any theta"):
            act()


# --- how samples are spread -------------------------------------------------------------------


def distance(values, cdf):
    """Kolmogorov-Smirnov distance times the root of the number of values."""
    values = np.sort(np.asarray(values))
    rank = np.arange(len(values)) / len(values)
    return np.abs(cdf(values) - rank).max() * math.sqrt(len(values))


def test_a_fair_share_is_sampled_as_independent_uniform_points_are():
    space = SearchSpace([Float("a", 0, 1), Float("b", 0, 1)], ["a + b <= 1"])
    theta = all_satisfied(space, space.uniform(4000, generator()))
    # P(D > 2.2 / sqrt(n)) is 1e-4.
    assert distance(theta[:, 0], lambda v: 1 - (1 - v) ** 2) < 2.2
    assert distance(theta.sum(1), lambda v: v**2) < 2.2
    points = space.sobol(4000, 1)
    theta = all_satisfied(space, points)
    assert distance(theta[:, 0], lambda v: 1 - (1 - v) ** 2) < 0.3  # better than chance


def test_a_sobol_sequence_is_the_free_one_without_what_violates():
    parts = [Float("a", 0, 1), Int("n", 1, 5), Choice("c", ["x", "y"])]
    space = SearchSpace(parts, ["5 * a >= n"])
    free = SearchSpace(parts).sobol(200, 3)
    kept = free[space.satisfied(free)]
    assert 20 < len(kept) < 180
    assert torch.equal(space.sobol(len(kept), 3), kept)
    assert torch.equal(space.sobol(8, 3), kept[:8])


def simplex(d, top, bottom=None):
    total = " + ".join(f"w{i}" for i in range(d))
    sources = [f"{total} <= {top!r}"] + ([] if bottom is None else [f"{total} >= {bottom!r}"])
    return SearchSpace([Float(f"w{i}", 0, 1) for i in range(d)], sources)


def test_a_thin_corner_of_eight_dimensions():
    space = simplex(8, 0.3)  # 2e-9 of the cube
    x = space.uniform(4096, generator(1))
    theta = all_satisfied(space, x)
    assert len(theta.unique(dim=0)) == 4096
    for column in theta.unbind(-1):  # points of a chain depend on each other a little
        assert distance(column, lambda v: 1 - (1 - v / 0.3) ** 8) < 3.5
    assert distance(theta.sum(1), lambda v: (v / 0.3) ** 8) < 3.5
    assert torch.equal(space.uniform(4096, generator(1)), x)
    assert not torch.equal(space.uniform(4096, generator(2)), x)
    all_satisfied(space, space.sobol(64, 5))
    all_satisfied(space, space.snap(cube(space, 200)))


@pytest.mark.parametrize("width", [0, 1e-9, 1e-6, 1e-3])
def test_thin_slabs_and_an_equality_in_eight_dimensions(width):
    space = simplex(8, 1.0, 1.0 - width)
    theta = all_satisfied(space, space.uniform(2048, generator()))
    for column in theta.unbind(-1):
        assert distance(column, lambda v: 1 - (1 - v) ** 7) < 3.5
    if width >= 1e-6:  # and across the slab
        assert distance((1 - theta.sum(1)) / width, lambda v: v) < 3.5
    snapped = space.snap(cube(space, 100))
    all_satisfied(space, snapped)
    assert len(snapped.unique(dim=0)) == 100
    with pytest.raises(SpaceError, match=r"of a grid only . points where 64.*sobol"):
        space.grid(64)


def test_a_band_along_two_logarithms():
    parts = [Float("a", 1e-3, 1e3, log=True), Float("b", 1e-3, 1e3, log=True)]
    for sources in (["a <= 1.001 * b", "a >= 0.999 * b"], ["a <= b", "a >= b"]):
        space = SearchSpace(parts, sources)
        theta = all_satisfied(space, space.uniform(1024, generator()))
        assert distance(theta[:, 0].log10(), lambda v: (v + 3) / 6) < 3.5
        all_satisfied(space, space.snap(cube(space, 50)))


def test_a_logarithm_of_twelve_decades():
    space = SearchSpace([Float("a", 1e-8, 1e4, log=True)], ["a <= 1e-6", "a >= 1e-7"])
    theta = all_satisfied(space, space.uniform(2000, generator()))
    assert distance(theta[:, 0].log10(), lambda v: v + 7) < 2.2


def test_whole_numbers_that_add_up():
    parts = [Int(name, 0, 20) for name in "abc"]
    space = SearchSpace(parts, ["a + b + c <= 20", "a + b + c >= 20"])
    theta = all_satisfied(space, space.uniform(3000, generator()))
    assert len(theta.unique(dim=0)) == 231  # every one of them
    assert len(space.grid(1000)) == 231
    parts = [Int(f"n{i}", 0, 20) for i in range(8)]
    total = " + ".join(p.name for p in parts)
    space = SearchSpace(parts, [f"{total} <= 8"])
    theta = all_satisfied(space, space.uniform(2000, generator()))
    assert len(theta.unique(dim=0)) > 1000
    assert theta.mean(0).tolist() == pytest.approx([8 / 9] * 8, abs=0.15)


def test_an_int_tied_to_a_float_is_sampled_or_refused():
    parts = [Int("n", 0, 50), Float("w", 0.0, 10.0)]
    slab = SearchSpace(parts, ["n + 5 * w <= 40.01", "n + 5 * w >= 40"])
    assert len(all_satisfied(slab, slab.uniform(500, generator())).unique(dim=0)) > 50
    tied = SearchSpace(parts, ["n + 10 * w <= 30.5", "n + 10 * w >= 30.5"])
    with pytest.raises(SpaceError, match=r"too thin a region to sample.*Int that is tied"):
        tied.uniform(5, generator())
    all_satisfied(tied, tied.snap(cube(tied, 20)))


def test_a_region_of_one_point():
    space = SearchSpace([Float("a", 0, 1), Float("b", 0, 1)], ["a + b >= 2"])
    assert all_satisfied(space, space.uniform(3, generator())).tolist() == [[1, 1]] * 3
    assert space.snap(torch.zeros(2, 2, dtype=DOUBLE)).tolist() == [[1, 1]] * 2


def test_options_are_free_of_the_constraints():
    parts = [Float("a", 0, 1), Choice("c", ["x", "y", "z"]), Float("b", 0, 1), Int("n", 0, 3)]
    for sources in (["a >= b"], ["a + b <= 0.05", "a >= b"]):
        space = SearchSpace(parts, sources)
        theta = all_satisfied(space, space.uniform(3000, generator()))
        for column, options in ((1, 3), (3, 4)):
            share = torch.bincount(theta[:, column].long(), minlength=options) / 3000
            assert share.tolist() == pytest.approx([1 / options] * options, abs=0.05)
        x = cube(space, 40)
        snapped = space.snap(x)
        free = SearchSpace(parts).snap(x)
        assert torch.equal(snapped[:, 1:4], free[:, 1:4])
        assert torch.equal(snapped[:, 5], free[:, 5])


def test_a_grid_still_has_about_as_many_points():
    parts = [Float("a", 0, 1), Float("b", 0, 1)]
    for num in (64, 500, 2000):
        assert 0.8 * num <= len(SearchSpace(parts, ["a + b <= 1"]).grid(num)) <= num
        assert 0.8 * num <= len(SearchSpace(parts, ["a + b <= 0.3"]).grid(num)) <= num
    everywhere = SearchSpace(parts, ["a + b <= 2"])
    assert torch.equal(everywhere.grid(64), SearchSpace(parts).grid(64))
    one = SearchSpace([Float("a", 0, 1)], ["a <= 0.25"]).grid(1000)
    assert 900 <= len(one) <= 1000
    with pytest.raises(SpaceError, match=r"does not fit into 3 points.*sobol"):
        everywhere.grid(3)
    with pytest.raises(SpaceError, match=r"does not fit.*sobol"):
        simplex(30, 20.0).grid(64)


# --- nearest points ---------------------------------------------------------------------------


def test_snap_takes_the_nearest_point():
    space = SearchSpace([Float("a", 0, 1), Float("b", 0, 1)], ["a + b <= 1", "a >= b"])
    x = torch.tensor([[0.9, 0.5], [0.2, 0.4], [0.3, 0.9], [1.0, 0.5], [0.6, 0.1]], dtype=DOUBLE)
    expected = torch.tensor(
        [[0.7, 0.3], [0.3, 0.3], [0.5, 0.5], [0.75, 0.25], [0.6, 0.1]], dtype=DOUBLE
    )
    torch.testing.assert_close(space.snap(x), expected, rtol=0, atol=1e-6)


def test_snap_keeps_whole_numbers_where_floats_make_up_for_it():
    space = SearchSpace([Float("a", 0.0, 1.0), Int("n", 1, 8)], ["n >= 4 * a"])
    theta = space.theta({"a": 0.25, "n": 2})
    x = space.to_unit(theta)
    x[0] = 0.9
    snapped = space.from_unit(space.snap(x.unsqueeze(0)))[0]
    assert snapped.tolist() == pytest.approx([0.5, 2])


def test_snap_lets_gradients_of_points_inside_pass():
    space = SearchSpace([Float("a", 0, 1), Float("b", 0, 1)], ["a + b <= 1"])
    x = torch.tensor([[0.2, 0.3], [0.9, 0.8]], dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(space.snap(x).sum(), x)
    assert gradient.tolist() == [[1, 1], [0, 0]]


def test_single_precision_satisfies_up_to_its_own_rounding():
    space = SearchSpace(
        [Float("a", 0, 1), Float("b", 0, 1), Int("n", 0, 9)], ["a + b <= 1", "n >= a"]
    )
    snapped = space.snap(cube(space, 200, dtype=torch.float32))
    assert snapped.dtype == torch.float32
    assert bool(space.satisfied(snapped).all())
    assert torch.equal(space.snap(snapped), snapped)
    assert bool(space.satisfied(space.uniform(200, generator()).float()).all())


# --- identity ---------------------------------------------------------------------------------


def test_representation_and_equality():
    parts = [Float("a", 0, 1), Float("b", 0, 1)]
    free, tied = SearchSpace(parts), SearchSpace(parts, ["a <= b"])
    assert repr(free) == f"SearchSpace([{parts[0]!r}, {parts[1]!r}])"
    assert repr(tied) == f"SearchSpace([{parts[0]!r}, {parts[1]!r}], constraints=['a <= b'])"
    assert tied == SearchSpace(tuple(parts), ("a <= b",))
    assert hash(tied) == hash(SearchSpace(parts, ["a <= b"]))
    others = [free, SearchSpace(parts, ["a <= 2 * b"]), SearchSpace(parts[::-1], ["a <= b"]), "a"]
    assert all(tied != other for other in others)
    assert free == SearchSpace(parts, [])
    flags = SearchSpace([Choice("c", [True, False])])
    assert flags != SearchSpace([Choice("c", [1, 0])])
    for copied in (copy.deepcopy(tied), pickle.loads(pickle.dumps(tied))):
        assert copied == tied
        assert torch.equal(copied.uniform(5, generator()), tied.uniform(5, generator()))


def problem(constraints=(), **changes):
    space = SearchSpace(
        [Float("w_a", 0.0, 1.0), Float("w_b", 0.01, 1.0, log=True), Int("n", 1, 8),
         Choice("mode", ["a", "b"])],
        constraints,
    )  # fmt: skip
    base = {"w_a": 0.5, "w_b": 0.25, "n": 3, "mode": "a"}
    return hz.Problem(
        space, base, ["views", "watch_time"], "views", ["watch_time >= -1%"], **changes
    )


TIES = ["w_a + w_b <= 0.8", "n >= 4 * w_a"]
EQUAL = ["w_a + w_b <= 0.75", "w_a + w_b >= 0.75", "n >= 4 * w_a"]


def test_the_spec_names_the_constraints_only_where_there_are_any():
    plain, tied = problem().spec(), problem(TIES).spec()
    assert list(plain) == [
        "parameters", "base", "metrics", "objective", "constraints", "terms", "base_levels"
    ]  # fmt: skip
    assert tied == plain | {"theta_constraints": TIES}
    assert json.loads(json.dumps(tied)) == tied


@pytest.mark.parametrize(("first", "second"), [(TIES, ()), ((), TIES), (TIES, TIES[:1])])
def test_a_study_with_other_constraints_is_refused(tmp_path, first, second):
    url = f"sqlite:///{tmp_path}/study.db"
    config = hz.TunerConfig(initial_candidates=4, num_draws=20, num_samples=16)
    hz.Tuner(problem(first), config, url).ask()
    hz.Tuner(problem(first), config, url).ask()
    with pytest.raises(StudyMismatchError, match=r"another problem.*theta_constraints"):
        hz.Tuner(problem(second), config, url)


# --- what is served ---------------------------------------------------------------------------


def test_the_spaces_own_sampling_is_untouched_without_constraints():
    space = problem().space
    u = torch.rand(7, 4, dtype=DOUBLE, generator=generator(3))
    x = space.uniform(7, generator(3))
    assert torch.equal(x[:, :2], u[:, :2])
    engine = torch.quasirandom.SobolEngine(4, scramble=True, seed=3)
    assert torch.equal(space.sobol(7, 3)[:, :2], engine.draw(7, dtype=DOUBLE)[:, :2])


@pytest.mark.parametrize("design", ["sobol", "grid"])
def test_the_initial_design_satisfies(design):
    tied = problem(TIES)
    config = hz.TunerConfig(initial_candidates=60, initial_design=design)
    born = initial_design(tied, config, seed=0)
    assert 20 <= len(born) <= 61
    all_satisfied(
        tied.space, tied.space.to_unit(torch.tensor([b.theta for b in born], dtype=DOUBLE))
    )


@pytest.mark.parametrize("ties", [TIES, EQUAL])
def test_proposals_satisfy(ties):
    tied = problem(ties)
    space = tied.space
    x = space.sobol(20, 0)
    mean = torch.stack([x[:, 0] - x[:, 1], x[:, 1]], dim=1) * 0.01
    posterior = Surrogate().fit(x, mean, torch.full_like(mean, 1e-8))
    for draws in ("joint", "marginal"):
        proposals = propose(posterior, tied, 200, 8, generator(1), draws)
        space.check(proposals.theta)
        assert bool(space.satisfied(proposals.x).all())


@pytest.mark.filterwarnings("ignore:.*ample ratio mismatch")  # all arms have as many users
@pytest.mark.parametrize("ties", [TIES, EQUAL])
def test_a_tuner_only_ever_serves_what_satisfies(ties):
    tied = problem(ties)
    config = hz.TunerConfig(
        initial_candidates=12, num_draws=50, num_samples=128, num_proposals=3, max_arms=12
    )
    tuner = hz.Tuner(tied, config, seed=1)
    random = np.random.default_rng(0)
    for _ in range(3):  # the initial design, then two rounds with a model
        plan = tuner.ask()
        tied.space.check(plan.theta)
        for row in plan.parameters:
            assert all(excess(s, row)[0] <= 1e-9 for s in ties)
        gain = np.array([[1 + 0.02 * row["w_a"], 1 - 0.01 * row["w_b"]] for row in plan.parameters])
        count = 100_000
        mean = gain * [30.0, 12.0] + random.normal(size=gain.shape) * 0.01
        tuner.tell(
            hz.Readings(
                round=plan.round,
                candidate_ids=plan.candidate_ids,
                count=torch.full((len(gain),), count),
                mean=torch.tensor(mean),
                var=torch.full(gain.shape, 9.0),
            )
        )
    assert tuner.history.num_candidates > 13  # something was proposed
    tied.space.check(tuner.history.theta)
    best = tuner.recommend()
    tied.space.theta(best.parameters)
    with pytest.raises(SpaceError, match="violates"):
        tuner.posterior({"w_a": 1.0, "w_b": 1.0, "n": 8, "mode": "a"})


# --- files ------------------------------------------------------------------------------------


def run(capsys, *arguments):
    try:
        main([str(a) for a in arguments])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def study(tmp_path, capsys):
    """A study file as ``init`` writes it, with what the template has commented out put in."""
    path = tmp_path / "tuning.yaml"
    assert run(capsys, "init", path)[0] == 0
    text = path.read_text()
    assert hz.StudyConfig.from_file(path).problem().space.constraints == ()
    lines = text.splitlines()
    at = lines.index("# theta_constraints:")
    for i in range(at, at + 3):
        lines[i] = lines[i].removeprefix("# ")
    path.write_text("\n".join(lines))
    return path


def test_the_template_holds_constraints_to_take_out_of_the_comment(study, capsys):
    sources = hz.StudyConfig.from_file(study).problem().space.constraints
    assert sources == ("w_click + 2 * w_share <= 3", "w_share >= w_click")
    out = study.parent / "plan.json"
    code, _, err = run(capsys, "step", "-c", study, "--plan", out)
    assert code == 0, err
    for arm in json.loads(out.read_text())["arms"]:
        row = arm["parameters"]
        assert row["w_click"] + 2 * row["w_share"] <= 3 + 1e-9
        assert row["w_share"] >= row["w_click"]


def test_a_configuration_comes_back_from_yaml(study):
    config = hz.StudyConfig.from_file(study)
    again = study.parent / "again.yaml"
    again.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert hz.StudyConfig.from_file(again) == config
    assert hz.StudyConfig.from_file(again).problem().space == config.problem().space


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (["w_clik <= 1"], "unknown parameter 'w_clik'; known parameters.*did you mean 'w_click'"),
        (["w_click * w_share <= 1"], "product of parameters"),
        (["w_click >= 0.5"], "base violates the constraint 'w_click >= 0.5' by 0.3"),
        (["w_click >= 0.5", "w_click <= 0.4"], "no theta is left"),
        ("w_click <= 1", "theta_constraints.*valid tuple"),
        ([3], "theta_constraints.0.*valid string"),
    ],
)
def test_the_command_line_says_what_is_wrong_and_changes_nothing(study, capsys, constraints, says):
    values = yaml.safe_load(study.read_text()) | {"theta_constraints": constraints}
    study.write_text(yaml.safe_dump(values))
    code, _, err = run(capsys, "step", "-c", study, "--plan", study.parent / "plan.json")
    assert code == 3
    assert "Traceback" not in err
    assert re.search(says, " ".join(err.split()))
    assert not (study.parent / "study.db").exists()


def test_a_changed_constraint_is_another_problem_on_the_command_line(study, capsys):
    assert run(capsys, "step", "-c", study, "--plan", study.parent / "p.json")[0] == 0
    values = yaml.safe_load(study.read_text())
    del values["theta_constraints"]
    study.write_text(yaml.safe_dump(values))
    code, _, err = run(capsys, "step", "-c", study, "--plan", study.parent / "q.json")
    assert code == 6
    assert "theta_constraints" in err


def test_a_region_says_how_much_of_the_cube_it_is():
    region = Region(
        [Float("a", 0, 1), Float("b", 0, 1)],
        [parse_linear("a <= b", [Float("a", 0, 1), Float("b", 0, 1)])],
    )
    assert region.share == pytest.approx(0.5, abs=0.02)
