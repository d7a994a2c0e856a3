"""Laws of the lift: the formula of ``relativize``, free of units, NaN where there is no lift."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperzero_torch.errors import ShapeError
from hyperzero_torch.stats import delta, moments
from hyperzero_torch.stats.delta import Delta
from hyperzero_torch.stats.moments import Moments

laws = settings(deadline=None, max_examples=60, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def sides(rng: np.random.Generator, *shape: int, level: float = 2.0) -> tuple[Moments, Moments]:
    """A treatment and a control of 2 to 999 users around a level, control arms of size 1."""

    def side(*shape: int) -> Moments:
        count = torch.from_numpy(rng.integers(2, 1000, shape))
        mean = torch.from_numpy(level * rng.uniform(0.5, 2, shape))
        return moments.from_sample(count, mean, torch.from_numpy(rng.gamma(2, level**2 / 4, shape)))

    return side(*shape), side(*shape[:-2], 1, shape[-1])


def relativize(m_t, sem_t, m_c, sem_c, cov=0.0):
    """Ax's estimator for a control above zero, written down from its formula alone.

    The bias-corrected lift, and its variance around the *raw* ratio m_t / m_c.
    """
    lift = (m_t - m_c) / abs(m_c) - sem_c**2 * m_t / abs(m_c) ** 3
    raw = m_t / m_c
    return lift, (sem_t**2 + raw**2 * sem_c**2 - 2 * raw * cov) / m_c**2


@laws
@given(seeds)
def test_it_is_the_delta_method_of_relativize(seed: int) -> None:
    treatment, control = sides(np.random.default_rng(seed), 5, 3)
    got = delta.ratio(treatment, control)
    m_t, m_c = treatment.mean.numpy(), control.mean.numpy()
    sem_t = np.sqrt(treatment.var.numpy() / treatment.count.numpy())
    sem_c = np.sqrt(control.var.numpy() / control.count.numpy())
    mean, var = relativize(m_t, sem_t, m_c, sem_c)
    np.testing.assert_allclose(got.mean.numpy(), mean, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(got.var.numpy(), var, rtol=1e-10, atol=0)


def test_one_example_by_hand() -> None:
    """n = 50, x = 6, vx = 8 against n0 = 20, y = 4, vy = 16: the two terms of each, worked out."""
    one = torch.ones(1, 1, dtype=torch.float64)
    got = delta.ratio(
        moments.from_sample(50 * one, 6 * one, 8 * one),
        moments.from_sample(20 * one, 4 * one, 16 * one),
    )
    assert got.mean.item() == pytest.approx(1.5 * (1 - 16 / (20 * 16)) - 1, rel=1e-14)  # 0.425
    assert got.var.item() == pytest.approx(8 / (50 * 16) + 36 * 16 / (20 * 256), rel=1e-14)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@given(seeds)
@laws
def test_a_metric_in_another_unit_has_the_same_lift(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.gamma(2.0, 1.0, (60, 2)))
    arm = torch.arange(60) % 4

    def lifts(unit: float) -> Delta:
        m = moments.summarise(values * unit, arm, 4)
        return delta.ratio(Moments(*(t[1:] for t in m)), Moments(*(t[:1] for t in m)))

    here, there = lifts(1.0), lifts(scale)
    torch.testing.assert_close(there.mean + 1, here.mean + 1, rtol=1e-12, atol=0)
    torch.testing.assert_close(there.var, here.var, rtol=1e-12, atol=0)


@laws
@given(seeds)
def test_more_is_above_less_whatever_the_sign(seed: int) -> None:
    """A delta is relative to the absolute base: counted negatively, a metric has its opposite."""
    treatment, control = sides(np.random.default_rng(seed), 4, 2)
    here = delta.ratio(treatment, control)
    there = delta.ratio(
        treatment._replace(mean=-treatment.mean), control._replace(mean=-control.mean)
    )
    torch.testing.assert_close(there.mean, -here.mean, rtol=0, atol=0)
    torch.testing.assert_close(there.var, here.var, rtol=0, atol=0)


def test_profit_that_rises_from_minus_ten_to_minus_five() -> None:
    """+50 % of the absolute base, as in Ax's ``relativize``; worked out by hand."""
    one = torch.ones(1, 1, dtype=torch.float64)
    got = delta.ratio(
        moments.from_sample(50 * one, -5 * one, 8 * one),
        moments.from_sample(20 * one, -10 * one, 16 * one),
    )
    assert got.mean.item() == pytest.approx(0.5 + 0.5 * 16 / (20 * 100), rel=1e-14)
    assert got.var.item() == pytest.approx(8 / 5000 + 25 * 16 / (20 * 10**4), rel=1e-14)


def test_there_is_no_delta_where_the_controls_mean_may_be_zero() -> None:
    """Within one standard error of 0 the correction turns the sign: -1.7e6 for one hour, once."""
    one = torch.ones(1, 1, dtype=torch.float64)
    treatment = moments.from_sample(2000 * one, one, 3600 * one)
    for mean, known in ((1e-6, False), (-1.2, False), (1.3, False), (1.4, True), (-1.4, True)):
        control = moments.from_sample(2000 * one, mean * one, 3600 * one)
        assert bool(delta.ratio(treatment, control).mean.isfinite()) == known
        assert bool(delta.control_terms(control).slope.isfinite()) == known


@laws
@given(st.lists(st.integers(1, 3), max_size=3), seeds)
def test_any_leading_shape_is_a_loop(batch: list[int], seed: int) -> None:
    treatment, control = sides(np.random.default_rng(seed), *batch, 3, 2)
    got = delta.ratio(treatment, control)
    assert got.mean.shape == got.var.shape == (*batch, 3, 2)
    for i in itertools.product(*map(range, batch)):
        for arm, metric in itertools.product(range(3), range(2)):
            one = delta.ratio(
                Moments(*(t[i][arm : arm + 1, metric : metric + 1] for t in treatment)),
                Moments(*(t[i][:, metric : metric + 1] for t in control)),
            )
            assert got.mean[i][arm, metric] == one.mean.item()
            assert got.var[i][arm, metric] == one.var.item()


def test_a_control_that_is_known_exactly_needs_no_correction() -> None:
    treatment, control = sides(np.random.default_rng(5), 4, 2)
    got = delta.ratio(treatment, control._replace(m2=torch.zeros_like(control.m2)))
    torch.testing.assert_close(got.mean, treatment.mean / control.mean - 1)
    want = treatment.var / treatment.count / control.mean.square()
    torch.testing.assert_close(got.var, want)


def test_float32_stays_float32() -> None:
    treatment, control = sides(np.random.default_rng(6), 4, 2)
    want = delta.ratio(treatment, control)
    got = delta.ratio(*(Moments(*(t.float() for t in side)) for side in (treatment, control)))
    assert got.mean.dtype == got.var.dtype == torch.float32
    torch.testing.assert_close(got.mean.double() + 1, want.mean + 1, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.var.double(), want.var, rtol=2e-6, atol=0)


def test_it_can_be_differentiated() -> None:
    treatment, control = sides(np.random.default_rng(7), 2, 2)

    def lift(x, m2_x, y, m2_y):
        return delta.ratio(Moments(treatment.count, x, m2_x), Moments(control.count, y, m2_y))

    inputs = [treatment.mean, treatment.m2, control.mean, control.m2]
    assert torch.autograd.gradcheck(lift, [t.clone().requires_grad_() for t in inputs])


# --- where there is no lift ---------------------------------------------------------------------

NO_LIFT = {  # treatment (count, mean, m2), control (count, mean, m2)
    "control mean zero": ((9, 2, 5), (9, 0, 5)),
    "both means zero": ((9, 0, 0), (9, 0, 0)),
    "one user treated": ((1, 2, 0), (9, 2, 5)),
    "nobody treated": ((0, 0, 0), (9, 2, 5)),
    "one user in control": ((9, 2, 5), (1, 2, 0)),
    "nobody in control": ((9, 2, 5), (0, 0, 0)),
    "treatment m2 negative": ((9, 2, -1), (9, 2, 50)),  # subtract can leave this
    "control m2 negative": ((9, 2, 50), (9, 2, -1)),
    "treatment mean NaN": ((9, float("nan"), 5), (9, 2, 5)),
}


@pytest.mark.parametrize("case", NO_LIFT)
def test_no_lift_is_nan_in_mean_and_var_and_only_there(case: str) -> None:
    bad_treatment, bad_control = NO_LIFT[case]
    good = (9, 2, 5)

    def column(*entries: tuple[float, float, float]) -> Moments:
        return Moments(*torch.tensor(entries, dtype=torch.float64).T.unsqueeze(-1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = delta.ratio(column(bad_treatment, good), column(bad_control, good))
    assert got.mean.isnan().flatten().tolist() == [True, False]
    assert got.var.isnan().flatten().tolist() == [True, False]


def test_users_without_scatter_are_evidence() -> None:
    """Two users a side are enough, and a variance of zero is a variance."""
    two = torch.full((1, 1), 2.0, dtype=torch.float64)
    got = delta.ratio(Moments(two, 3 * two, 0 * two), Moments(two, two, 0 * two))
    assert (got.mean.item(), got.var.item()) == (2, 0)


# --- inputs -------------------------------------------------------------------------------------


def test_inputs_are_never_changed() -> None:
    treatment, control = sides(np.random.default_rng(8), 4, 2)
    control = control._replace(mean=control.mean * torch.tensor([0.0, 1.0]).double())
    before = [t.clone() for t in (*treatment, *control)]
    delta.ratio(treatment, control)
    for after, was in zip((*treatment, *control), before):
        assert torch.equal(after, was)


@pytest.mark.parametrize(
    ("control", "parts"),
    [
        (moments.empty(3, 2), ["broadcasts", "(4, 2)", "(3, 2)"]),
        (moments.empty(1, 3), ["broadcasts", "(4, 2)", "(1, 3)"]),
        (moments.empty(1, 2, dtype=torch.float32), ["dtype", "torch.float64", "torch.float32"]),
        (moments.empty(1, 2, device="meta"), ["device", "cpu", "meta"]),
    ],
)
def test_a_control_that_does_not_fit_is_refused(control: Moments, parts: list[str]) -> None:
    with pytest.raises(ShapeError) as caught:
        delta.ratio(moments.empty(4, 2), control)
    for what in parts:
        assert what in str(caught.value)
