"""Laws of ``space.py``: theta and the unit cube, samples and grids, refused input."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hyperzero_torch.errors import InputError, ShapeError, SpaceError
from hyperzero_torch.problem.space import Choice, Float, Int, Parameter, SearchSpace

settings.register_profile(
    "space", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
law = settings(settings.get_profile("space"))

SEEDS = st.integers(0, 2**31)


@st.composite
def parameters(draw, name):
    kind = draw(st.sampled_from(["float", "log", "int", "choice"]))
    if kind == "float":
        low = draw(st.floats(-1e6, 1e6))
        return Float(name, low, low + draw(st.floats(1e-3, 1e6)))
    if kind == "log":
        low = 10 ** draw(st.floats(-8, 4))
        return Float(name, low, low * 10 ** draw(st.floats(0.01, 8)), log=True)
    if kind == "int":
        low = draw(st.integers(-(10**6), 10**6))
        return Int(name, low, low + draw(st.integers(1, 10**6)))
    options = st.one_of(st.text(max_size=3), st.integers(-5, 5), st.floats(-1, 1), st.booleans())
    unique = st.lists(options, min_size=2, max_size=5, unique_by=lambda o: o)
    return Choice(name, draw(unique))


@st.composite
def spaces(draw):
    return SearchSpace([draw(parameters(f"p{i}")) for i in range(draw(st.integers(1, 5)))])


def servable(space, theta):
    """Each column lies in its bounds and is whole where it must be, in plain Python."""
    for row in theta.tolist():
        for p, value in zip(space.parameters, row):
            if isinstance(p, Choice):
                assert value in range(len(p.options))
            else:
                assert p.low <= value <= p.high
                assert isinstance(p, Float) or value == int(value)


def some_value(p, rng):
    if isinstance(p, Choice):
        return p.options[rng.integers(len(p.options))]
    if isinstance(p, Int):
        return int(rng.integers(p.low, p.high + 1))
    return float(rng.uniform(p.low, p.high))


# --- round trips ------------------------------------------------------------------------------


@law
@given(spaces(), SEEDS)
def test_theta_comes_back_from_the_unit_cube(space, seed):
    rng = np.random.default_rng(seed)
    rows = [{p.name: some_value(p, rng) for p in space.parameters} for _ in range(20)]
    theta = torch.stack([space.theta(row) for row in rows])
    x = space.to_unit(theta)
    assert x.shape == (20, space.num_dims)
    assert bool(((x >= -1e-15) & (x <= 1 + 1e-15)).all())
    back = space.from_unit(x)
    for p, a, b in zip(space.parameters, theta.unbind(-1), back.unbind(-1)):
        if isinstance(p, Float):
            # A few ulps of the widest number on the way.
            scale = b.abs() * 50 if p.log else max(abs(p.low), abs(p.high)) * torch.ones_like(b)
            assert bool(((a - b).abs() <= 1e-14 * scale).all())
        else:
            assert torch.equal(a, b)
    for given_, served in zip(rows, space.to_parameters(back)):
        assert list(served) == list(space.names)
        for p in space.parameters:
            if not isinstance(p, Float):
                assert served[p.name] == given_[p.name]
                assert type(served[p.name]) is type(given_[p.name])


def test_known_values_of_every_kind():
    space = SearchSpace(
        [
            Float("f", -1.0, 3.0),
            Float("g", 0.1, 10.0, log=True),
            Int("i", 1, 4),
            Choice("c", ["a", "b", "c"]),
        ]
    )
    assert (space.num_params, space.num_dims, space.widths) == (4, 6, (1, 1, 1, 3))
    theta = space.theta({"f": 0.0, "g": 1.0, "i": 2, "c": "b"})
    assert theta.dtype == torch.float64
    assert theta.tolist() == [0.0, 1.0, 2.0, 1.0]
    assert space.to_unit(theta).tolist() == pytest.approx([0.25, 0.5, 0.375, 0, 1, 0])
    served = space.to_parameters(theta[None])[0]
    assert served == {"f": 0.0, "g": 1.0, "i": 2, "c": "b"}
    assert [type(v) for v in served.values()] == [float, float, int, str]


def test_bounds_map_to_the_faces_of_the_cube():
    space = SearchSpace([Float("f", -3.0, 7.0), Float("g", 1e-5, 1e5, log=True)])
    theta = torch.tensor([[-3.0, 1e-5], [7.0, 1e5]], dtype=torch.float64)
    assert space.to_unit(theta).tolist() == [[0, 0], [1, 1]]
    # exp(log(high)) may exceed high by an ulp; what is served may not.
    assert torch.equal(space.from_unit(space.to_unit(theta)).clamp(theta[0], theta[1]), theta)


@law
@given(spaces(), SEEDS, st.lists(st.integers(0, 3), max_size=3))
def test_batched_equals_looped(space, seed, batch):
    x = torch.rand(
        *batch, space.num_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    theta = space.from_unit(x)
    assert theta.shape == (*batch, space.num_params)
    rows = x.reshape(-1, space.num_dims)
    for row, expected in zip(rows, theta.reshape(-1, space.num_params)):
        # Vectorised exponentials may differ from single ones in the last bits.
        torch.testing.assert_close(space.from_unit(row), expected, rtol=1e-14, atol=0)
    again = space.to_unit(theta)
    assert again.shape == x.shape


@law
@given(spaces(), SEEDS)
def test_snap_is_idempotent_servable_and_keeps_what_can_be_served(space, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(50, space.num_dims, dtype=torch.float64, generator=generator) * 1.4 - 0.2
    once = space.snap(x)
    assert once.shape == x.shape
    assert torch.equal(space.snap(once), once)
    assert bool(((once >= 0) & (once <= 1)).all())
    theta = space.from_unit(once)
    servable(space, theta)
    torch.testing.assert_close(space.to_unit(theta), once, rtol=0, atol=1e-7)
    sampled = space.uniform(50, generator)
    assert torch.equal(space.snap(sampled), sampled)


def test_snap_takes_the_nearest_cell_and_the_largest_option():
    space = SearchSpace([Int("i", 0, 3), Choice("c", ["a", "b"]), Float("f", 0.0, 1.0)])
    x = torch.tensor([[0.26, 0.4, 0.39, 1.3], [1.0, 0.1, 0.2, 0.7]], dtype=torch.float64)
    expected = [[0.375, 1, 0, 1.0], [0.875, 0, 1, 0.7]]
    assert space.snap(x).tolist() == expected


def test_snap_lets_gradients_of_floats_pass():
    space = SearchSpace([Float("f", 0.1, 1.0, log=True), Int("i", 0, 3)])
    x = torch.tensor([0.3, 0.3], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(space.snap(x).sum(), x)
    assert gradient.tolist() == [1.0, 0.0]


# --- samples ----------------------------------------------------------------------------------


@law
@given(spaces(), st.integers(0, 40), SEEDS)
def test_samples_are_servable_shaped_and_seeded(space, num, seed):
    def draw(kind, seed):
        if kind == "sobol":
            return space.sobol(num, seed)
        return space.uniform(num, torch.Generator().manual_seed(seed))

    for kind in ("sobol", "uniform"):
        x = draw(kind, seed)
        assert x.shape == (num, space.num_dims)
        assert x.dtype == torch.float64
        assert bool(((x >= 0) & (x <= 1)).all())
        assert torch.equal(space.snap(x), x)
        servable(space, space.from_unit(x))
        assert torch.equal(draw(kind, seed), x)


def test_another_seed_gives_other_points():
    space = SearchSpace([Float("f", 0, 1), Choice("c", ["a", "b"])])
    assert not torch.equal(space.sobol(8, 1), space.sobol(8, 2))
    one, two = (space.uniform(8, torch.Generator().manual_seed(s)) for s in (1, 2))
    assert not torch.equal(one, two)


def test_sampling_leaves_the_global_generator_alone():
    space = SearchSpace([Float("f", 0, 1), Int("i", 0, 5)])
    before = torch.random.get_rng_state()
    space.sobol(8, 3)
    space.uniform(8, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_longer_sobol_sequence_begins_with_the_shorter():
    space = SearchSpace([Float("f", 0, 1), Int("i", 0, 5)])
    assert torch.equal(space.sobol(32, 3)[:8], space.sobol(8, 3))


def test_sobol_spreads_more_evenly_than_chance():
    space = SearchSpace([Float("f", 0, 1), Float("g", 0, 1)])
    cells = (space.sobol(64, 0) * 8).long()
    assert len({tuple(c) for c in cells.tolist()}) == 64  # one point in each of 64 cells


def test_log_floats_are_uniform_in_their_logarithm():
    num = 20_000
    space = SearchSpace([Float("g", 1e-3, 10.0, log=True)])
    theta = space.from_unit(space.uniform(num, torch.Generator().manual_seed(5)))
    u = ((theta.log() - math.log(1e-3)) / math.log(1e4)).flatten().sort().values
    rank = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    # Kolmogorov-Smirnov: P(D > 2.2 / sqrt(n)) is 1e-4.
    assert float((u - rank).abs().max()) < 2.2 / math.sqrt(num)
    linear = ((theta - 1e-3) / (10 - 1e-3)).flatten().sort().values
    assert float((linear - rank).abs().max()) > 0.3  # the test can fail


@pytest.mark.parametrize("cells", [2, 3, 7])
def test_cells_of_an_int_and_options_are_equally_likely(cells):
    num = 30_000
    space = SearchSpace([Int("i", -1, cells - 2), Choice("c", [str(i) for i in range(cells)])])
    theta = space.from_unit(space.uniform(num, torch.Generator().manual_seed(cells)))
    for column, low in ((theta[:, 0], -1), (theta[:, 1], 0)):
        count = torch.bincount((column - low).long(), minlength=cells).double()
        assert len(count) == cells
        chi2 = float(((count - num / cells) ** 2 / (num / cells)).sum())
        dof = cells - 1
        assert chi2 < dof + 5 * math.sqrt(2 * dof) + 10  # P below 1e-4 for each


@law
@given(spaces(), st.integers(0, 3000))
def test_a_grid_fits_has_every_option_and_no_point_twice(space, num):
    try:
        x = space.grid(num)
    except SpaceError as error:
        least = math.prod(len(p.options) if isinstance(p, Choice) else 2 for p in space.parameters)
        assert num < least
        assert "sobol" in str(error)  # noqa: PT017
        return
    assert 1 <= len(x) <= num
    assert x.shape[1] == space.num_dims
    assert torch.equal(space.snap(x), x)
    theta = space.from_unit(x)
    servable(space, theta)
    assert len(x.unique(dim=0)) == len(x)
    for p, column in zip(space.parameters, theta.unbind(-1)):
        if isinstance(p, Choice):
            assert len(column.unique()) == len(p.options)
        else:
            assert len(column.unique()) >= 2
    assert torch.equal(space.grid(num), x)


def test_a_grid_is_full_and_stands_in_cell_centres():
    space = SearchSpace([Float("f", 0.0, 1.0), Float("g", 0.0, 1.0)])
    theta = space.from_unit(space.grid(9))
    centres = [1 / 6, 0.5, 5 / 6]
    expected = [[a, b] for a in centres for b in centres]
    assert theta.tolist() == [pytest.approx(row) for row in expected]
    assert len(space.grid(8)) == 4
    assert len(SearchSpace([Int("i", 1, 3)]).grid(100)) == 3
    assert len(SearchSpace([Choice("c", ["a", "b"])]).grid(2)) == 2


@pytest.mark.parametrize("num", [-4, 0, 3])
def test_a_grid_that_does_not_fit_says_what_to_do(num):
    space = SearchSpace([Float("f", 0.0, 1.0), Float("g", 0.0, 1.0)])
    with pytest.raises(SpaceError, match=f"does not fit into {num} points.*sobol"):
        space.grid(num)


# --- refused input ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Float, Int])
@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (2, 1, "reversed"),
        (1, 1, "equal"),
        (float("nan"), 1, "finite"),
        (0, float("nan"), "finite"),
        (0, float("inf"), "finite"),
        (-float("inf"), 0, "finite"),
        (0, 10**400, "finite"),
        ("0", 1, "number"),
        (False, True, "number"),
        (None, 1, "number"),
        (0, torch.tensor(1.0), "number"),
    ],
)
def test_bad_bounds(kind, low, high, reason):
    with pytest.raises(SpaceError, match=f"'depth'.*{reason}"):
        kind("depth", low, high)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Float("f", 0.0, 1.0, log=True), "low > 0"),
        (lambda: Float("f", -1.0, 1.0, log=True), "low > 0"),
        (lambda: Float("f", 1e10, math.nextafter(1e10, 2e10), log=True), "too close"),
        (lambda: Float("f", 0.0, 1.0, 0.5), "True or False"),
        (lambda: Float("f", -1e308, 1e308), "too far apart"),
        (lambda: Int("f", 0, 1.5), "whole"),
        (lambda: Int("f", 0, 2**60), "not exact"),
        (lambda: Choice("f", ["a"]), "at least two"),
        (lambda: Choice("f", []), "at least two"),
        (lambda: Choice("f", ["a", "b", "a"]), "twice"),
        (lambda: Choice("f", [1, 1.0]), "twice"),
        (lambda: Choice("f", "ab"), "list"),
        (lambda: Choice("f", {"a", "b"}), "list"),
        (lambda: Choice("f", 3), "list"),
        (lambda: Choice("f", ["a", None]), "None"),
        (lambda: Choice("f", [["a"], ["b"]]), "option is"),
        (lambda: Choice("f", [1.0, float("nan")]), "finite"),
        (lambda: Float("", 0, 1), "name"),
        (lambda: Int("  ", 0, 1), "name"),
        (lambda: Choice(3, ["a", "b"]), "name"),
        (lambda: SearchSpace([]), "at least one"),
        (lambda: SearchSpace([Float("f", 0, 1), Int("f", 0, 1)]), r"twice: \['f'\]"),
        (lambda: SearchSpace([("f", 0, 1)]), "expected Float, Int or Choice"),
        (lambda: SearchSpace(Float("f", 0, 1)), r"list.*SearchSpace\(\["),
        (lambda: SearchSpace(None), "list"),
    ],
)
def test_bad_parameters_and_spaces(make, reason):
    with pytest.raises(SpaceError, match=reason):
        make()


def test_an_error_about_input_is_a_value_error():
    with pytest.raises(ValueError, match="reversed") as caught:
        Float("f", 1, 0)
    assert isinstance(caught.value, InputError)


SPACE = SearchSpace(
    [
        Float("w", 0.0, 0.3),
        Float("s", 0.1, 10.0, log=True),
        Int("n", 1, 8),
        Choice("c", [1, "b", 2.5]),
        Choice("on", [True, False]),
    ]
)
BASE = {"w": 0.2, "s": 1.0, "n": 3, "c": "b", "on": True}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"w": 0.31}, r"'w' = 0.31 lies outside \[0.0, 0.3\]"),
        ({"w": -0.1}, "outside"),
        ({"w": float("nan")}, "finite"),
        ({"w": float("inf")}, "finite"),
        ({"w": 10**400}, "finite"),
        ({"w": "0.2"}, "number"),
        ({"w": True}, "number"),
        ({"w": np.bool_(True)}, "number"),
        ({"w": None}, "number"),
        ({"w": torch.tensor(0.2)}, "number"),
        ({"s": 0.05}, "outside"),
        ({"n": 2.5}, "whole"),
        ({"n": 9}, r"\[1, 8\]"),
        ({"n": 0}, "whole number in"),
        ({"n": "3"}, "number"),
        ({"c": "a"}, "none of its options"),
        ({"c": None}, "none of its options"),
        ({"c": True}, "none of its options"),
        ({"c": np.array([1, 2])}, "none of its options"),
        ({"c": float("nan")}, "none of its options"),
        ({"c": ["b"]}, "none of its options"),
        ({"on": 1}, "none of its options"),
        ({"extra": 1}, r"unknown \['extra'\]"),
    ],
)
def test_a_bad_base_is_refused_by_name(change, reason):
    with pytest.raises(SpaceError, match=f"^base.*{reason}"):
        SPACE.theta(BASE | change, "base")


@given(st.floats(-1e6, 0), st.floats(1e-6, 1e3), st.floats(1.5, 1e3))
def test_the_advice_for_a_base_that_a_logarithm_does_not_reach_works(value, low, ratio):
    """Production value 0 is the usual case: the term is off today."""
    on_log = Float("w", low, low * ratio, log=True)
    with pytest.raises(SpaceError, match="no logarithmic scale reaches it") as caught:
        SearchSpace([on_log]).theta({"w": value}, "base")
    message = str(caught.value)
    lower = float(message.split("drop log and set low=")[1].split(",")[0])
    without_log = SearchSpace([Float("w", lower, on_log.high)])
    assert without_log.theta({"w": value}, "base").tolist() == [value]
    instead = float(message.split("such as ")[1])
    assert SearchSpace([on_log]).theta({"w": instead}, "base").tolist() == [instead]


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e3), st.floats(1.5, 1e3), st.booleans())
def test_the_advice_for_a_base_outside_the_bounds_works(value, low, ratio, log):
    assume(not low * (1 - 1e-6) <= value <= low * ratio * (1 + 1e-6))
    with pytest.raises(SpaceError, match="widen the bounds"):
        SearchSpace([Float("w", low, low * ratio, log=log)]).theta({"w": value}, "base")
    wider = Float("w", min(low, value), max(low * ratio, value), log=log)
    assert SearchSpace([wider]).theta({"w": value}, "base").tolist() == [value]


def test_the_advice_for_a_lower_bound_of_a_logarithm_works():
    with pytest.raises(SpaceError, match=r"drop log, or raise low .*the base's too"):
        Float("w", 0.0, 10.0, log=True)
    assert SearchSpace([Float("w", 0.0, 10.0)]).theta({"w": 0.0}, "base").tolist() == [0.0]
    assert SearchSpace([Float("w", 0.01, 10.0, log=True)]).theta({"w": 0.01}, "b") == 0.01


def test_a_missing_name_and_no_mapping_at_all():
    with pytest.raises(SpaceError, match=r"missing \['s', 'c'\], unknown \[\]"):
        SPACE.theta({k: v for k, v in BASE.items() if k not in "sc"})
    with pytest.raises(SpaceError, match="map parameter names to values, got list"):
        SPACE.theta([0.1, 1.0, 3, "b", True])


def test_rounding_at_a_bound_is_forgiven_and_clamped():
    theta = SPACE.theta(BASE | {"w": 0.1 + 0.2})  # 0.30000000000000004
    assert theta[0] == 0.3


def test_numpy_scalars_are_numbers():
    space = SearchSpace(
        [
            Float("w", np.float32(0.0), np.int64(2)),
            Int("n", np.int32(1), np.float64(8)),
            Choice("c", [np.int64(1), np.float64(2.5), np.str_("b"), np.bool_(False)]),
        ]
    )
    theta = space.theta({"w": np.float32(0.5), "n": np.int8(3), "c": np.int64(1)})
    assert theta.tolist() == [0.5, 3.0, 0.0]
    served = space.to_parameters(theta[None])[0]
    assert json.loads(json.dumps(served)) == {"w": 0.5, "n": 3, "c": 1}
    assert [type(v) for v in served.values()] == [float, int, int]
    plain = (space.parameters[1].low, space.parameters[1].high, *space.parameters[2].options)
    assert [type(v) for v in plain] == [int, int, int, float, str, bool]
    assert space.theta({"w": 1, "n": 8.0, "c": np.bool_(False)}).tolist() == [1, 8, 3]


@pytest.mark.parametrize("width", [0, 2, 4])
def test_a_wrong_axis_names_both_widths(width):
    space = SearchSpace([Float("a", 0, 1), Choice("c", ["a", "b"])])
    for method, expected in (("from_unit", 3), ("snap", 3), ("to_unit", 2)):
        if width == expected:
            continue
        with pytest.raises(ShapeError, match=rf"{expected} \w+, got shape \(5, {width}\)"):
            getattr(space, method)(torch.zeros(5, width))
    with pytest.raises(ShapeError):
        space.from_unit(torch.tensor(1.0))


def test_too_many_parameters_for_sobol():
    space = SearchSpace([Float(f"p{i}", 0, 1) for i in range(21202)])
    with pytest.raises(SpaceError, match=r"21201 parameters.*uniform"):
        space.sobol(1, 0)


def test_parameters_are_frozen_and_go_through_json():
    adapter = TypeAdapter(Parameter)
    for p in (Float("f", 0.1, 1.0, log=True), Int("i", 1, 3), Choice("c", ["a", "b"])):
        with pytest.raises(AttributeError):
            p.low = 5
        assert adapter.validate_json(adapter.dump_json(p)) == p
    with pytest.raises(ValidationError, match="reversed"):
        adapter.validate_python({"kind": "float", "name": "f", "low": 2, "high": 1})
