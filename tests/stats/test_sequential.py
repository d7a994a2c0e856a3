"""Confidence sequences against exact integrals, their own laws, and 500 looks at a true null."""

from __future__ import annotations

import json
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats
from support.waits import Waits
from torch._dynamo.testing import CompileCounter

from bench.reliability import peeking
from hyperzero_torch import ConfigError, ShapeError
from hyperzero_torch.stats import sequential

f64 = torch.float64
ALPHAS = (1e-9, 1e-3, 0.05, 0.2, 0.45)
alphas = st.floats(1e-9, 0.45)
means = st.floats(-10, 10)
variances = st.floats(1e-8, 1e8)


def tensor(*values):
    return torch.tensor(values, dtype=f64)


def rho(tightest_at, alpha, sides):
    """By SciPy's Lambert W, in units of information."""
    level = alpha if sides == 2 else 2 * alpha
    return 1 / tightest_at / (-special.lambertw(-(level**2) / math.e, -1).real - 1)


# The mixtures


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize(("mean", "var", "tightest_at"), [(0.3, 0.04, 0.01), (-0.8, 0.09, 1.0)])
def test_the_e_value_is_the_mixture_of_likelihood_ratios(mean, var, tightest_at, alternative):
    """M = the integral of exp(l S - l^2 V / 2) over l ~ N(0, 1 / rho) or its positive half."""
    got = sequential.log_e_value(tensor(mean), tensor(var), 0.1, tightest_at, alternative, 0.05)
    information = 1 / var
    s = information * (mean - 0.1) * (-1 if alternative == "less" else 1)
    r = rho(tightest_at, 0.05, 2 if alternative == "two-sided" else 1)
    with mpmath.workdps(30):

        def integrand(x):
            tilt = mpmath.exp(x * s - x * x * information / 2)
            return tilt * mpmath.npdf(x, 0, 1 / mpmath.sqrt(r))

        peak = s / (information + r)
        ends = [
            peak - 12 / math.sqrt(information + r),
            peak,
            peak + 12 / math.sqrt(information + r),
        ]
        if alternative == "two-sided":
            want = mpmath.quad(integrand, ends)
        else:
            want = 2 * mpmath.quad(integrand, [0, *[e for e in ends if e > 0], mpmath.inf])
        want = float(mpmath.log(want))
    assert float(got) == pytest.approx(want, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_one_sided_radius_is_the_exact_inverse_and_never_below_it(alpha):
    progress = torch.logspace(-6, 6, 25, dtype=f64)
    got = sequential.critical_value(progress, alpha, sides=1).tolist()
    for one, at in zip(got, progress.tolist()):
        with mpmath.workdps(30):
            v = mpmath.mpf(at) / mpmath.mpf(rho(1.0, alpha, 1))  # information, rho = 1
            level = mpmath.log1p(v) / 2 - mpmath.log(2 * mpmath.mpf(alpha))
            start = mpmath.sqrt(2 * mpmath.log(mpmath.exp(level) + 1))  # the published bound

            def off(x, level=level):
                return x * x / 2 + mpmath.log(mpmath.ncdf(x)) - level

            root = mpmath.findroot(off, (0, start), solver="anderson", tol=1e-25)
            stretch = mpmath.sqrt((v + 1) / v)
        assert one == pytest.approx(float(root * stretch), rel=1e-12)
        assert one >= float(root * stretch) * (1 - 1e-14)
        assert root <= start


@pytest.mark.parametrize("sides", [1, 2])
def test_newtons_method_stopped_early_is_wider_never_narrower(sides, monkeypatch):
    """The closed form that it starts from is an upper bound, and every step stays above."""
    progress = torch.logspace(-3, 3, 40, dtype=f64)
    level = torch.linspace(1e-6, 0.49, 40, dtype=f64).unsqueeze(-1)
    want = sequential.critical_value(progress, level, sides)
    horizon = sequential.tightest_over_rho(level, sides)
    monkeypatch.setattr(sequential, "tightest_over_rho", lambda *_: horizon)
    before = torch.full_like(want, torch.inf)
    for steps in range(4):
        monkeypatch.setattr(sequential, "_STEPS", steps)
        got = sequential.critical_value(progress, level, sides)
        assert bool((got >= want * (1 - 1e-13)).all())
        assert bool((got <= before * (1 + 1e-13)).all())
        before = got
    assert sides == 2 or float((sequential.critical_value(progress, level, 1) / want).max()) < 1.01


@pytest.mark.parametrize("sides", [1, 2])
def test_rho_is_lambert_w(sides):
    level = torch.cat([torch.logspace(-100, -1, 100, dtype=f64), tensor(0.2, 0.3, 0.4, 0.49)])
    got = 1 / sequential.tightest_over_rho(level, sides)
    want = rho(1.0, level.numpy(), sides)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-11)


@pytest.mark.parametrize(("sides", "slack"), [(2, 1e-9), (1, 2e-5)])
@pytest.mark.parametrize("alpha", [1e-4, 0.01, 0.05, 0.1])
def test_it_is_tightest_where_asked(alpha, sides, slack):
    """No other rho gives a narrower radius there; on one side none that is 0.002 % narrower."""

    def at(log):
        return float(sequential.radius(tensor(4.0), alpha, 4.0 * math.exp(log), sides))

    best = optimize.minimize_scalar(at, bounds=(-2, 2), method="bounded", options={"xatol": 1e-8})
    assert at(0.0) <= best.fun * (1 + slack)


# Laws


@given(means, variances, variances, alphas, st.floats(1e-6, 1e6))
def test_the_interval_follows_the_unit(mean, var, tightest_at, alpha, unit):
    mean, var = tensor(mean), tensor(var)
    scaled = (mean * unit, var * unit**2)
    got = sequential.interval(*scaled, alpha, tightest_at * unit**2)
    want = sequential.interval(mean, var, alpha, tightest_at)
    one = sequential.lower(*scaled, alpha, tightest_at * unit**2)
    for bound, right in ((got.lower, want.lower), (got.upper, want.upper)):
        torch.testing.assert_close(bound / unit, right, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        one / unit, sequential.lower(mean, var, alpha, tightest_at), rtol=1e-9, atol=1e-9
    )
    p = [sequential.p_value(*pair, 0.0, t, "greater") for pair, t in (
        ((mean, var), tightest_at), (scaled, tightest_at * unit**2))]  # fmt: skip
    torch.testing.assert_close(p[0], p[1], rtol=1e-7, atol=1e-12)


@given(means, variances, variances, alphas)
def test_one_side_lies_inside_two_and_both_outside_the_fixed_horizon(mean, var, tight, alpha):
    mean, var = tensor(mean), tensor(var)
    both = sequential.interval(mean, var, alpha, tight)
    low, high = (f(mean, var, alpha, tight) for f in (sequential.lower, sequential.upper))
    fixed = stats.norm.isf(alpha) * var.sqrt()
    assert both.lower <= mean - stats.norm.isf(alpha / 2) * var.sqrt() <= both.upper
    assert low <= mean - fixed
    assert high >= mean + fixed
    torch.testing.assert_close(mean - low, high - mean, rtol=1e-9, atol=1e-9)


@given(means, variances, variances, alphas, st.floats(0.2, 5.0))
def test_the_p_value_says_what_the_bound_says(mean, var, tight, alpha, far):
    """Just inside the bound it is above alpha, at the bound alpha, just outside below."""
    mean, var = tensor(mean), tensor(var)
    both = sequential.interval(mean, var, alpha, tight)
    for alternative, bound in (
        ("two-sided", both.lower),
        ("two-sided", both.upper),
        ("greater", sequential.lower(mean, var, alpha, tight)),
        ("less", sequential.upper(mean, var, alpha, tight)),
    ):
        at = sequential.log_e_value(mean, var, bound, tight, alternative, alpha)
        # The bound is mean -+ radius: as far off as rounding in that subtraction lets it be.
        size = float(mean.abs() / var.sqrt()) * 1e-15 * float((bound - mean).abs() / var.sqrt())
        assert float(at) == pytest.approx(-math.log(alpha), rel=1e-9, abs=1e-9 + 10 * size)
        null = mean + (bound - mean) * (1 + far / 10)
        assert sequential.p_value(mean, var, null, tight, alternative, alpha) < alpha
        null = mean + (bound - mean) / (1 + far / 10)
        assert sequential.p_value(mean, var, null, tight, alternative, alpha) > alpha


@given(st.lists(st.tuples(means, variances, variances, alphas), min_size=1, max_size=6))
def test_batched_is_looped(rows):
    mean, var, tight, alpha = tensor(*rows).unbind(-1)
    looped = [
        sequential.radius(var, alpha, tight, 1),
        sequential.radius(var.reshape(-1, 1), alpha.reshape(-1, 1), tight.reshape(-1, 1))[:, 0],
        sequential.p_value(mean, var, 0.5, tight, "less", alpha),
    ]
    for i, (m, v, t, a) in enumerate(rows):
        want = (
            sequential.radius(tensor(v)[0], a, t, 1),
            sequential.radius(tensor(v)[0], a, t, 2),
            sequential.p_value(tensor(m)[0], tensor(v)[0], 0.5, t, "less", a),
        )
        for got, right in zip(looped, want):
            torch.testing.assert_close(got[i], right, rtol=1e-12, atol=1e-300)


@given(variances, variances, alphas, st.sampled_from([1, 2]), st.floats(1.001, 100))
def test_more_evidence_is_narrower_and_more_certainty_wider(var, tight, alpha, sides, factor):
    here = sequential.radius(tensor(var), alpha, tight, sides)
    assert sequential.radius(tensor(var / factor), alpha, tight, sides) < here
    at_plan = [sequential.critical_value(tensor(1.0), a, sides) for a in (alpha / factor, alpha)]
    assert at_plan[0] > at_plan[1]
    same = sequential.critical_value(tensor(tight) / tensor(var), alpha, sides)
    torch.testing.assert_close(same * tensor(var).sqrt(), here, rtol=1e-9, atol=0)


# Ends


@pytest.mark.parametrize("sides", [1, 2])
def test_no_information_says_nothing_and_all_of_it_says_all(sides):
    var = tensor(math.inf, 0.0, math.nan, -1.0, 1e-300, 1e300)
    radius = sequential.radius(var, 0.05, 1.0, sides)
    assert radius[0] == math.inf
    assert radius[1] == 0
    assert radius[2:4].isnan().all()
    assert 0 < radius[4] < 1e-140
    assert 1e150 < radius[5] < math.inf
    assert float(sequential.critical_value(tensor(0.0), 0.05, sides)) == math.inf
    useless = sequential.radius(tensor(1.0, 1.0), 0.05, tensor(0.0, math.nan), sides)
    assert useless[0] == math.inf
    assert useless[1].isnan()


def test_what_is_not_known_retires_and_promotes_nobody():
    mean = tensor(math.nan, -5.0, -5.0, -5.0)
    var = tensor(1.0, math.nan, math.inf, 0.0)
    assert (sequential.upper(mean, var, 0.05, 1.0) < 0).tolist() == [False, False, False, True]
    assert (sequential.lower(-mean, var, 0.05, 1.0) > 0).tolist() == [False, False, False, True]
    for alternative in ("two-sided", "less"):
        p = sequential.p_value(mean, var, 0.0, 1.0, alternative)
        assert p[:2].isnan().all()
        assert p[2:].tolist() == [1.0, 0.0]
    exact = sequential.p_value(
        tensor(2.0, 2.0, 2.0), tensor(0.0), tensor(1.0, 2.0, 3.0), 1.0, "less"
    )
    assert exact.tolist() == [1.0, 1.0, 0.0]


def test_far_on_the_wrong_side_the_e_value_is_finite():
    log_e = sequential.log_e_value(tensor(-1e6, -40.0), tensor(1.0), 0.0, 1.0, "greater")
    assert log_e.isfinite().all()
    assert log_e[0] < log_e[1] < 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ConfigError, match=r"alpha must lie above 0 and below 0\.5"):
        sequential.radius(tensor(1.0), alpha, 1.0)


@pytest.mark.parametrize("tightest_at", [0.0, -1.0, math.inf, math.nan])
def test_a_planned_variance_out_of_range_is_refused(tightest_at):
    with pytest.raises(ConfigError, match="tightest_at must lie above 0"):
        sequential.lower(tensor(0.0), tensor(1.0), 0.05, tightest_at)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="1 or 2 sides"):
        sequential.radius(tensor(1.0), 0.05, 1.0, sides=3)
    with pytest.raises(ConfigError, match="'two-sided', 'greater' or 'less'"):
        sequential.p_value(tensor(0.0), tensor(1.0), 0.0, 1.0, "more")
    with pytest.raises(ShapeError, match=r"\(2,\) beside \(3,\)"):
        sequential.interval(tensor(0.0, 1.0), tensor(1.0, 1.0, 1.0), 0.05, 1.0)
    with pytest.raises(ShapeError, match="one dtype and device"):
        sequential.lower(tensor(0.0).float(), tensor(1.0), 0.05, 1.0)
    with pytest.raises(ShapeError, match="floating"):
        sequential.radius(torch.tensor([1]), 0.05, 1.0)


# As a device wants it

KERNELS = {
    "interval": lambda m, v: sequential.interval(m, v, 0.05, 0.01),
    "upper": lambda m, v: sequential.upper(m, v, 0.05, 0.01),
    "p two-sided": lambda m, v: sequential.p_value(m, v, 0.0, 0.01),
    "p greater": lambda m, v: sequential.p_value(m, v, 0.0, v, "greater", v / 10),
}


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_one_graph_and_never_waits(name):
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(KERNELS[name], fullgraph=True, backend=counter)
    generator = torch.Generator().manual_seed(0)
    for n in (3, 7, 12):
        mean = torch.randn(n, 2, dtype=f64, generator=generator)
        var = torch.rand(n, 2, dtype=f64, generator=generator) + 0.1
        with Waits() as waits:
            want = KERNELS[name](mean, var)
        assert not waits.operations
        torch.testing.assert_close(compiled(mean, var), want, rtol=1e-12, atol=1e-12)
    assert counter.frame_count <= 2


# 500 looks


def at_most(rate, streams):
    """Five standard deviations of a rate above it."""
    return rate + 5 * math.sqrt(rate * (1 - rate) / streams)


@pytest.mark.parametrize("sides", [2, 1])
@pytest.mark.parametrize("kind", ["equal", "rhythm"])
def test_the_error_over_500_looks_is_alpha_and_the_fixed_horizon_test_breaks_it(kind, sides):
    mean, var = peeking.normal_streams(kind, 2000, torch.Generator().manual_seed(1))
    rates = peeking.type_one(kind, mean, var, sides)
    assert rates["sequence"] <= at_most(0.05, 2000)
    assert rates["sequence"] >= 0.01  # it is not safe for being useless
    assert 0.03 < rates["fixed_last"] < at_most(0.05, 2000)
    assert rates["fixed"] > 0.3


def test_an_early_plan_and_a_late_one_keep_alpha_too():
    mean, var = peeking.normal_streams("rhythm", 2000, torch.Generator().manual_seed(2))
    for planned in (1.0, 1 / 24, 1 / 5000):
        p = sequential.p_value(mean, var, 0.0, planned, "less")
        for level in (0.01, 0.05, 0.2):
            assert float((p <= level).any(1).double().mean()) <= at_most(level, 2000)


def test_hours_of_skewed_users_keep_alpha_and_the_fixed_horizon_test_does_not():
    mean, var = peeking.user_streams(250, torch.Generator().manual_seed(3), looks=200)
    assert float(var[:, -1].mean()) == pytest.approx(
        peeking.planned_var("users", 200, looks=200), rel=0.1
    )
    for sides in (2, 1):
        rates = peeking.type_one("users", mean, var, sides, looks=200)
        assert rates["sequence"] <= at_most(0.05, 250)
        assert rates["fixed"] > 0.25


def test_other_weights_keep_alpha_by_their_own_clock():
    """Weights by users where the noise of an hour does not follow its users."""
    generator = torch.Generator().manual_seed(4)
    weight = peeking.traffic("rhythm")
    noise = weight.roll(9).square()  # an hour's variance
    step = torch.randn(2000, len(weight), dtype=f64, generator=generator) * noise.sqrt()
    clock = (weight.square() * noise).cumsum(0)
    standard = (weight * step).cumsum(1) / clock.sqrt()
    critical = sequential.critical_value(clock / clock[-1], 0.05)
    rate = float((standard.abs() > critical).any(1).double().mean())
    assert 0.01 <= rate <= at_most(0.05, 2000)


def test_a_harm_is_found_and_its_price_is_what_is_said():
    mean, var = peeking.normal_streams("rhythm", 500, torch.Generator().manual_seed(5))
    small = peeking.detection("rhythm", mean, var, 4.0, 500)
    large = peeking.detection("rhythm", mean, var, 8.0, 500)
    early = peeking.detection("rhythm", mean, var, 8.0, 24)
    assert small["found"] > 0.85
    assert large["found"] == 1
    assert early["median"] < large["median"] < small["median"] < 300
    (two,) = peeking.width(2, 500, (500,))
    (one,) = peeking.width(1, 500, (500,))
    assert two["ratio"] == pytest.approx(1.549, abs=0.001)
    assert one["ratio"] == pytest.approx(1.681, abs=0.001)


def test_the_table_is_drawn_from_the_raw_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(peeking, "USERS", 20)
    numbers = peeking.measure(50, 10)
    path = tmp_path / "peeking.json"
    path.write_text(json.dumps(numbers))
    drawn = peeking.table(path)
    assert f"{100 * numbers['type_one'][0]['fixed']:.1f} %" in drawn
    assert "1.55" in drawn
    widths = {line.count("|") for line in drawn.split("\n\n")[0].splitlines()}
    assert widths == {7}
