"""Laws of the moments: a stream may be cut, ordered, batched and offset without changing them."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyperzero_torch.errors import HyperZeroError, InputError, ShapeError
from hyperzero_torch.stats import moments
from hyperzero_torch.stats.moments import Moments

EPS = torch.finfo(torch.float64).eps
laws = settings(deadline=None, max_examples=60, derandomize=True)


class Stream(NamedTuple):
    """Raw values of users, each in one arm: ``(users, metrics)`` and ``(users,)``."""

    values: Tensor
    arm: Tensor
    num_arms: int
    rng: np.random.Generator  # for further random choices, fixed by the example


@st.composite
def streams(draw: st.DrawFn, min_users: int = 0) -> Stream:
    """Streams of three metrics at offsets of up to 1e8 spreads, in small and large units."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users = draw(st.integers(min_users, 40))
    num_arms = draw(st.integers(1, 4))
    offset = draw(st.sampled_from([0.0, 3.0, -1e4, 1e8, -1e8]))
    unit = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    values = unit * (offset + rng.standard_normal((users, 3)))
    arm = rng.integers(0, num_arms, users)
    return Stream(torch.from_numpy(values), torch.from_numpy(arm), num_arms, rng)


def cut(stream: Stream, pieces: int) -> list[Moments]:
    """Moments of the same stream, its users dealt out to ``pieces`` piles (some may be empty)."""
    pile = torch.from_numpy(stream.rng.integers(0, pieces, len(stream.values)))
    return [
        moments.summarise(stream.values[pile == p], stream.arm[pile == p], stream.num_arms)
        for p in range(pieces)
    ]


def assert_same(got: Moments, want: Moments, values: Tensor, steps: int) -> None:
    """Equal up to rounding: a float64 mean is known to ``unit = eps * offset``, and no better.

    ``steps`` means that each are off by a few units change m2, a sum of at most ``users`` squares
    no larger than range^2, by 2 * range * unit each: a relative 1e-7 or so at 1e8 spreads.
    """
    torch.testing.assert_close(got.count, want.count, rtol=0, atol=0)
    if not values.numel():
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        return
    unit = EPS * float(values.abs().max())
    extent = float(values.max(0).values.sub(values.min(0).values).max())
    mean_tol = 4 * steps * unit
    m2_tol = 8 * steps * len(values) * unit * (extent + unit)
    torch.testing.assert_close(got.mean, want.mean, rtol=0, atol=mean_tol)
    torch.testing.assert_close(got.m2, want.m2, rtol=0, atol=m2_tol)


def exact(values: Tensor, arm: Tensor, num_arms: int) -> Moments:
    """The same moments in rational arithmetic, rounded once at the end."""
    rows = []
    for a, m in itertools.product(range(num_arms), range(values.shape[1])):
        v = [Fraction(x) for x in values[arm == a, m].tolist()]
        mean = sum(v, Fraction()) / max(len(v), 1)
        rows.append((len(v), float(mean), float(sum(((x - mean) ** 2 for x in v), Fraction()))))
    table = torch.tensor(rows, dtype=torch.float64).reshape(num_arms, values.shape[1], 3)
    return Moments(*table.unbind(-1))


def random_moments(rng: np.random.Generator, *shape: int) -> Moments:
    """Moments of 0 to 5 users, empty ones among them and consistent with that."""
    count = torch.from_numpy(rng.integers(0, 6, shape)).double()
    mean = torch.from_numpy(rng.normal(3, 1, shape)) * (count > 0)
    m2 = torch.from_numpy(rng.gamma(2, 1, shape)) * (count > 1)
    return Moments(count, mean, m2)


# --- summarise ----------------------------------------------------------------------------------


@laws
@given(streams())
def test_summarise_is_the_textbook_definition(stream: Stream) -> None:
    got = moments.summarise(stream.values, stream.arm, stream.num_arms)
    want = exact(stream.values, stream.arm, stream.num_arms)
    assert_same(got, want, stream.values, steps=1)


@pytest.mark.parametrize(("dtype", "offset"), [(torch.float64, 1e8), (torch.float32, 1e4)])
def test_an_offset_costs_the_variance_nothing(dtype: torch.dtype, offset: float) -> None:
    """Values k * 2^-q + offset are exact in ``dtype``, so whole numbers k give the exact answer.

    m2 is as accurate as a plain sum of n squares, whose rounding walks at random (sqrt(n) * eps),
    although the offset is 1e8 spreads; sums of squares about zero would lose it altogether
    (eps * offset^2 = 2.2 spreads^2 each), and squares about a mean that was summed in float32
    without the correction are off by ten times the tolerance.
    """
    rng, q, users = np.random.default_rng(1), (20 if dtype == torch.float64 else 9), 3000
    k = np.rint(rng.standard_normal((users, 2)) * 2**q).astype(np.int64)
    arm = rng.integers(0, 3, users)
    values = torch.from_numpy(k * 2.0**-q + offset).to(dtype)
    assert np.array_equal(values.double().numpy(), k * 2.0**-q + offset), "the premise"
    got = moments.summarise(values, torch.from_numpy(arm), 3)
    assert got.mean.dtype == got.m2.dtype == dtype
    eps = torch.finfo(dtype).eps
    for a, m in itertools.product(range(3), range(2)):
        own = [int(x) for x in k[arm == a, m]]
        n, total = len(own), sum(own)
        mean = offset + total / n * 2.0**-q
        m2 = float(Fraction(sum(x * x for x in own) * n - total**2, n) / 4**q)
        assert got.count[a, m] == n
        assert float(got.mean[a, m]) == pytest.approx(mean, abs=eps * offset, rel=0)
        assert float(got.m2[a, m]) == pytest.approx(m2, rel=4 * n**0.5 * eps)
        assert float(got.var[a, m]) == pytest.approx(m2 / (n - 1), rel=4 * n**0.5 * eps)


def test_float32_counts_beyond_2_to_the_24() -> None:
    """Adding ones in float32 stands still at 16,777,216."""
    users = 2**24 + 2
    arm = torch.zeros(1, dtype=torch.long).expand(users)
    assert moments.summarise(torch.ones(1, 1).expand(users, 1), arm, 1).count.item() == users


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_whole_number_names_an_arm(dtype: torch.dtype) -> None:
    values = torch.tensor([[1.0], [3.0], [10.0]], dtype=torch.float64)
    got = moments.summarise(values, torch.tensor([2, 2, 0], dtype=dtype), 4)
    assert got.count.squeeze().tolist() == [1, 0, 2, 0]
    assert got.mean.squeeze().tolist() == [10, 0, 2, 0]
    assert got.m2.squeeze().tolist() == [0, 0, 2, 0]


def test_no_users_and_no_arms_are_empty() -> None:
    no_arm = torch.zeros(0, dtype=torch.long)
    none = torch.zeros(0, 3, dtype=torch.float64)
    for num_arms in (0, 2):
        got = moments.summarise(none, no_arm, num_arms)
        torch.testing.assert_close(got, moments.empty(num_arms, 3), rtol=0, atol=0)


# --- merge and subtract -------------------------------------------------------------------------


@laws
@given(streams(), st.integers(1, 6))
def test_any_split_merges_to_the_moments_of_the_whole(stream: Stream, pieces: int) -> None:
    whole = moments.summarise(stream.values, stream.arm, stream.num_arms)
    got = reduce(moments.merge, cut(stream, pieces), moments.empty(*whole.mean.shape))
    assert_same(got, whole, stream.values, steps=pieces + 1)
    # and so they are those of rational arithmetic
    truth = exact(stream.values, stream.arm, stream.num_arms)
    assert_same(got, truth, stream.values, steps=pieces + 1)


@laws
@given(streams())
def test_one_user_at_a_time_is_all_at_once(stream: Stream) -> None:
    """``update`` is ``merge(state, summarise(batch))``."""
    state = moments.empty(stream.num_arms, 3)
    for value, arm in zip(stream.values.split(1), stream.arm.split(1)):
        state = moments.merge(state, moments.summarise(value, arm, stream.num_arms))
    whole = moments.summarise(stream.values, stream.arm, stream.num_arms)
    assert_same(state, whole, stream.values, steps=len(stream.values) + 1)


@laws
@given(streams())
def test_merge_is_commutative(stream: Stream) -> None:
    a, b = cut(stream, 2)
    assert_same(moments.merge(a, b), moments.merge(b, a), stream.values, steps=2)


@laws
@given(streams())
def test_merge_is_associative(stream: Stream) -> None:
    a, b, c = cut(stream, 3)
    left = moments.merge(moments.merge(a, b), c)
    right = moments.merge(a, moments.merge(b, c))
    assert_same(left, right, stream.values, steps=3)


@laws
@given(streams())
def test_empty_is_the_identity_to_the_last_bit(stream: Stream) -> None:
    whole = moments.summarise(stream.values, stream.arm, stream.num_arms)
    nothing = moments.empty(*whole.mean.shape)
    for merged in (moments.merge(whole, nothing), moments.merge(nothing, whole)):
        torch.testing.assert_close(merged, whole, rtol=0, atol=0)


@laws
@given(streams())
def test_subtract_undoes_merge(stream: Stream) -> None:
    a, b = cut(stream, 2)
    got = moments.subtract(moments.merge(a, b), a)
    # What is known of the whole to one unit is known of the rest to count / count_b units.
    amplified = float((1 + a.count / b.count.clamp_min(1)).max())
    assert_same(got, b, stream.values, steps=2 + math.ceil(2 * amplified))
    nothing_left = (b.count == 0).all()
    if nothing_left:
        torch.testing.assert_close(got, moments.empty(*b.mean.shape), rtol=0, atol=0)


@laws
@given(streams())
def test_subtracting_all_leaves_the_empty_moments(stream: Stream) -> None:
    whole = moments.summarise(stream.values, stream.arm, stream.num_arms)
    a, b = cut(stream, 2)
    for part in (whole, moments.merge(a, b)):  # the same users, rounded on another way
        got = moments.subtract(whole, part)
        torch.testing.assert_close(got, moments.empty(*whole.mean.shape), rtol=0, atol=0)


def test_what_cannot_be_a_rest_is_marked() -> None:
    """A larger part has no mean; an m2 that cannot be comes out negative, as it is."""
    one = torch.ones(1, 1, dtype=torch.float64)
    small, large = Moments(2 * one, one, one), Moments(5 * one, one, 4 * one)
    assert moments.subtract(small, large).mean.isnan().all()
    wide = Moments(2 * one, one, 9 * one)
    assert moments.subtract(large, wide).m2.item() == -5


@pytest.mark.parametrize("verb", [moments.merge, moments.subtract])
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(0, 2**32 - 1))
@laws
def test_any_leading_shape_is_a_loop(verb, batch: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_moments(rng, *batch, 3, 2), random_moments(rng, *batch, 3, 2)
    got = verb(a, b)
    for i in itertools.product(*map(range, batch)):
        one = verb(Moments(*(t[i] for t in a)), Moments(*(t[i] for t in b)))
        batched = Moments(*(t[i] for t in got))
        torch.testing.assert_close(batched, one, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_unit_is_only_a_unit(scale: float) -> None:
    """The mean is in the metric's unit, m2 in its square; counts have none."""
    rng = np.random.default_rng(2)
    values, arm = torch.from_numpy(rng.normal(5, 1, (50, 2))), torch.arange(50) % 3
    here, there = (moments.summarise(values * s, arm, 3) for s in (1.0, scale))
    want = Moments(here.count, here.mean * scale, here.m2 * scale**2)
    torch.testing.assert_close(there, want, rtol=1e-12, atol=0)


# --- from_sample and var ------------------------------------------------------------------------


@laws
@given(streams())
def test_from_sample_is_the_way_back_from_count_mean_and_var(stream: Stream) -> None:
    """Also for groups of no and one user, whose var is NaN: they are known, not poisoned."""
    want = moments.summarise(stream.values, stream.arm, stream.num_arms)
    got = moments.from_sample(want.count, want.mean, want.var)
    torch.testing.assert_close(got, want, rtol=1e-15, atol=0)


def test_from_sample_of_nothing_is_empty() -> None:
    """However a platform writes the mean of nobody."""
    nan = torch.full((2, 3), torch.nan, dtype=torch.float64)
    got = moments.from_sample(torch.zeros(2, 1, dtype=torch.long), nan, nan)
    torch.testing.assert_close(got, moments.empty(2, 3), rtol=0, atol=0)


def test_from_sample_broadcasts_users_over_metrics() -> None:
    mean = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    got = moments.from_sample(torch.tensor([[11], [21]]), mean, mean)
    assert got.count.tolist() == [[11, 11], [21, 21]]
    assert got.m2.tolist() == [[10, 20], [60, 80]]
    assert got.count.dtype == torch.float64


def test_var_is_the_sample_variance_and_nan_below_two_users() -> None:
    count = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    m2 = torch.tensor([0.0, 0.0, 3.0, 8.0], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        var = Moments(count, m2, m2).var
    assert var[:2].isnan().all()
    assert var[2:].tolist() == [3, 2]


# --- inputs -------------------------------------------------------------------------------------


def test_inputs_are_never_changed() -> None:
    rng = np.random.default_rng(3)
    a, b = random_moments(rng, 2, 3), random_moments(rng, 2, 3)
    values, arm = torch.from_numpy(rng.normal(size=(9, 3))), torch.arange(9) % 2
    given_ = [*a, *b, values, arm]
    before = [t.clone() for t in given_]
    moments.merge(a, b)
    moments.subtract(a, b)
    moments.from_sample(*a)
    moments.summarise(values, arm, 2)
    _ = a.var
    for after, was in zip(given_, before):
        assert torch.equal(after, was)


def refused(call, *parts: str) -> None:
    """The call raises a ShapeError, inside the tree, whose message names all of ``said``."""
    with pytest.raises(ShapeError) as caught:
        call()
    assert isinstance(caught.value, InputError | HyperZeroError | ValueError)
    for what in parts:
        assert what in str(caught.value)


@pytest.mark.parametrize("verb", [moments.merge, moments.subtract])
def test_two_moments_that_are_not_alike_are_refused(verb) -> None:
    a = moments.empty(2, 3)
    refused(lambda: verb(a, moments.empty(1, 3)), verb.__name__, "(2, 3)", "(1, 3)")
    other = moments.empty(2, 3, dtype=torch.float32)
    refused(lambda: verb(a, other), "torch.float64", "torch.float32")
    refused(lambda: verb(a, moments.empty(2, 3, device="meta")), "cpu", "meta")
    crooked = a._replace(m2=torch.zeros(3, 2, dtype=torch.float64))
    refused(lambda: verb(a, crooked), "m2", "(2, 3)", "(3, 2)")


def test_summarise_refuses_what_does_not_fit() -> None:
    values, arm = torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    expected = "values (users, metrics) and arm (users,)"
    refused(lambda: moments.summarise(values[0], arm, 1), expected, "(2,)", "(4,)")
    refused(lambda: moments.summarise(values, arm[:3], 1), expected, "(4, 2)", "(3,)")
    refused(lambda: moments.summarise(values, arm[:, None], 1), expected, "(4, 2)", "(4, 1)")
    refused(lambda: moments.summarise(values.long(), arm, 1), "floating", "torch.int64")
    refused(lambda: moments.summarise(values, arm.to("meta"), 1), "cpu", "meta")


def test_summarise_refuses_arms_out_of_range() -> None:
    values = torch.zeros(3, 1, dtype=torch.float64)
    refused(lambda: moments.summarise(values, torch.tensor([0, 5, 1]), 3), "[0, 3)", "0 to 5")
    refused(lambda: moments.summarise(values, torch.tensor([0, -1, 1]), 3), "[0, 3)", "-1 to 1")
    refused(lambda: moments.summarise(values, torch.tensor([0, 0, 0]), 0), "[0, 0)", "0 to 0")
    refused(lambda: moments.summarise(values, torch.tensor([0, 0, 0]), -2), "num_arms", "-2")


def test_from_sample_refuses_what_does_not_fit() -> None:
    count, mean = torch.ones(2, dtype=torch.long), torch.ones(3, dtype=torch.float64)
    refused(lambda: moments.from_sample(count, mean, mean), "(2,)", "(3,)")
    count = torch.ones(3, dtype=torch.long)
    refused(lambda: moments.from_sample(count, mean, mean.to("meta")), "cpu", "meta")
    refused(lambda: moments.from_sample(count.to("meta"), mean, mean), "meta", "cpu")
    single = mean.float()
    refused(lambda: moments.from_sample(count, mean, single), "torch.float64", "torch.float32")
    refused(lambda: moments.from_sample(count, count, count), "floating", "torch.int64")


def test_moderated_variances_are_right_on_average_and_steadier():
    generator = torch.Generator().manual_seed(0)
    arms, users = 2000, 10
    values = 3 + 2 * torch.randn(arms * users, 1, dtype=torch.float64, generator=generator)
    arm = torch.arange(arms).repeat_interleave(users)
    sample = moments.summarise(values, arm, arms)
    group = torch.arange(arms) % 20
    drawn = moments.moderate(sample, group, 20)
    # 2000 sample variances of 9 degrees of freedom: their mean has a standard error of 1 %.
    assert float(drawn.var.mean()) == pytest.approx(4.0, rel=0.04)
    assert float(drawn.var.std()) < 0.3 * float(sample.var.std())
    assert torch.equal(drawn.mean, sample.mean)
    assert torch.equal(drawn.count, sample.count)


def test_an_arm_without_a_rare_event_has_the_variance_of_its_round():
    """100,000 users at a rate of 0.001 %: an arm with 0 events is as uncertain as one with 2."""
    count = torch.full((4, 1), 1e5, dtype=torch.float64)
    events = torch.tensor([[0.0], [2.0], [1.0], [1.0]], dtype=torch.float64)
    mean = events / count
    sample = moments.from_sample(count, mean, mean * (1 - mean) * count / (count - 1))
    moderated = moments.moderate(sample, torch.zeros(4, dtype=torch.long), 1)
    # Of 50 prior events and the one that is expected, the arm's own says 1 / 51.
    want = (50 * 1e-5 + events / count) / 51
    torch.testing.assert_close(moderated.var, want, rtol=1e-4, atol=0)


def test_moderation_leaves_many_users_alone_and_does_not_invent():
    count = torch.tensor([[1e6], [5.0], [1.0], [0.0], [9.0]], dtype=torch.float64)
    m2 = torch.tensor([[2e6], [0.0], [0.0], [0.0], [-1.0]], dtype=torch.float64)
    sample = moments.Moments(count, torch.ones_like(count), m2)
    moderated = moments.moderate(sample, torch.zeros(5, dtype=torch.long), 1)
    assert float(moderated.var[0]) == pytest.approx(2.0, rel=1e-3)
    assert float(moderated.var[1]) == pytest.approx(2.0 * 100 / 104, rel=1e-3)  # 4 freedoms say 0
    assert bool(moderated.var[2].isnan())
    assert float(moderated.m2[4]) == -1.0
    alone = moments.moderate(sample, torch.arange(5), 5)
    torch.testing.assert_close(alone.m2, sample.m2)
    big = moments.Moments(count, 1e6 * sample.mean, 1e12 * m2)
    scaled = moments.moderate(big, torch.zeros(5, dtype=torch.long), 1)
    torch.testing.assert_close(scaled.m2, 1e12 * moderated.m2, equal_nan=True)
