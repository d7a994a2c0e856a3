"""The compiled kernels against their PyTorch twins, and what happens where they cannot be built."""

from __future__ import annotations

import logging
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

import hyperzero_torch as hz
from hyperzero_torch.runtime import native
from hyperzero_torch.runtime.native import build
from hyperzero_torch.stats import delta, evidence, moments
from hyperzero_torch.stats.moments import Moments
from hyperzero_torch.surrogate import Hyperparameters, Posterior, Standardiser

f64 = torch.float64
law = settings(deadline=None, max_examples=60, derandomize=True)
needs_compiler = pytest.mark.skipif(build.library() is None, reason="no C compiler here")
EPS = {dtype: torch.finfo(dtype).eps for dtype in (f64, torch.float32)}


@pytest.fixture(autouse=True, scope="module")
def more_than_one_thread():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def both(monkey, work):
    """What the compiled kernels give for any size of work, and what PyTorch gives."""
    with monkey.context() as patch:
        patch.setattr(native, "LEAST_WORK", 0)
        compiled = work()
    with monkey.context() as patch:
        patch.setattr(native, "LEAST_WORK", 10**18)
        return compiled, work()


# --- raw values to moments --------------------------------------------------------------------


@needs_compiler
@law
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(0, 60),
    metrics=st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17]),
    num_arms=st.integers(1, 5),
    offset=st.sampled_from([0.0, 3.0, -1e8]),
    dtype=st.sampled_from([f64, torch.float32]),
)
def test_moments_agree(seed, users, metrics, num_arms, offset, dtype):
    rng = np.random.default_rng(seed)
    offset = offset if dtype == f64 else offset / 1e5
    values = torch.from_numpy(offset + rng.standard_normal((users, metrics))).to(dtype)
    arm = torch.from_numpy(rng.integers(0, num_arms, users))
    with pytest.MonkeyPatch.context() as patch:
        compiled, twin = both(patch, lambda: moments.summarise(values, arm, num_arms))
    assert torch.equal(compiled.count, twin.count)
    assert {t.dtype for t in compiled} == {dtype}
    size = values.double().abs().amax().item() if users else 1.0
    torch.testing.assert_close(
        compiled.mean, twin.mean, rtol=0, atol=4 * EPS[dtype] * max(size, 1.0)
    )
    exact = torch.zeros(num_arms, metrics, dtype=f64)
    for a in range(num_arms):
        mine = values[arm == a].double()
        if len(mine):
            exact[a] = (mine - mine.mean(0)).square().sum(0)
    # Sums are good to a few roundings a user; the mean here, in the reference, to eps * offset.
    atol = 16 * users * (EPS[dtype] * max(1.0, exact.max().item()) + (EPS[f64] * size) ** 2)
    torch.testing.assert_close(compiled.m2.double(), exact, rtol=0, atol=atol)


@needs_compiler
def test_an_outlier_that_comes_first_costs_nothing(monkeypatch):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3000, 1))
    values[0] = 1e9
    summary = moments.summarise(torch.from_numpy(values), torch.zeros(3000, dtype=torch.long), 1)
    mean = mpmath.fsum(values[:, 0].tolist()) / 3000
    exact = mpmath.fsum((mpmath.mpf(v) - mean) ** 2 for v in values[:, 0].tolist())
    # Without moving the shift 3000 times a sum's rounding would be left: 1e-12.
    assert float(abs(summary.m2[0, 0].item() - exact) / exact) < 100 * EPS[f64]


@needs_compiler
@pytest.mark.parametrize("wrong", [-1, 2, 10**12])
def test_an_arm_out_of_range_is_refused_before_anything_is_written(monkeypatch, wrong):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    arm = torch.tensor([0, 1, wrong, 1])
    with pytest.raises(hz.ShapeError, match=r"arm must lie in \[0, 2\)"):
        moments.summarise(torch.ones(4, 3, dtype=f64), arm, 2)


@needs_compiler
def test_values_need_not_be_contiguous_and_arms_may_be_small_integers(monkeypatch):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    values = torch.randn(50, 6, dtype=f64, generator=torch.Generator().manual_seed(0))[:, ::2]
    arm = (torch.arange(50) % 4).to(torch.int16)
    summary = moments.summarise(values, arm, 4)
    again = moments.summarise(values.contiguous(), arm.long(), 4)
    assert all(torch.equal(a, b) for a, b in zip(summary, again))


# --- moments to evidence ----------------------------------------------------------------------


def rounds(rng, candidates, metrics, dtype):
    """One round's moments, with arms that were not served, too small, damaged or missing."""
    count = rng.integers(0, 40, (candidates, metrics)).astype(float)
    mean = 10 + rng.standard_normal((candidates, metrics))
    m2 = rng.random((candidates, metrics)) * 50
    mean[rng.random(mean.shape) < 0.1] = np.nan
    m2[rng.random(mean.shape) < 0.1] = -1.0
    control = Moments(
        *(torch.from_numpy(v).to(dtype) for v in (np.full(metrics, 90.0), 10 + rng.random(metrics)))
        , torch.from_numpy(rng.random(metrics) * 90).to(dtype)
    )  # fmt: skip
    treatment = Moments(*(torch.from_numpy(v).to(dtype) for v in (count, mean, m2)))
    return treatment, control


@law
@given(
    seed=st.integers(0, 2**32 - 1),
    candidates=st.integers(1, 30),
    metrics=st.integers(1, 5),
    dtype=st.sampled_from([f64, torch.float32]),
    compiled=st.booleans(),
)
def test_streaming_is_pooling_the_ratio(seed, candidates, metrics, dtype, compiled):
    """In tiles, in C and at once: the same as ratio, summarise and merge, round after round."""
    rng = np.random.default_rng(seed)
    state = evidence.init(candidates, metrics, dtype)
    at_once = evidence.init(candidates, metrics, dtype)
    want = evidence.init(candidates, metrics, dtype)
    ids = torch.arange(candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LEAST_WORK", 0 if compiled else 10**18)
        patch.setattr(evidence, "_TILE_ELEMENTS", 7 * metrics)
        for _ in range(3):
            treatment, control = rounds(rng, candidates, metrics, dtype)
            evidence.stream(state, treatment, control)
            row = Moments(*(field.unsqueeze(0) for field in control))
            evidence.stream_at_once(at_once, treatment, delta.control_terms(row))
            lift = delta.ratio(treatment, row)
            one = evidence.summarise(ids, lift, treatment.count, candidates)
            want = evidence.merge(want, one)
    for pooled in (state, at_once):
        assert torch.equal(pooled.weight, want.weight)
        atol = 64 * EPS[dtype]
        torch.testing.assert_close(pooled.mean, want.mean, rtol=64 * EPS[dtype], atol=atol)
        torch.testing.assert_close(pooled.spread, want.spread, rtol=64 * EPS[dtype], atol=atol)


@needs_compiler
@law
@given(
    seed=st.integers(0, 2**32 - 1),
    arms=st.integers(0, 40),
    candidates=st.integers(1, 12),
    metrics=st.sampled_from([1, 2, 3, 16, 300]),
    dtype=st.sampled_from([f64, torch.float32]),
    wide=st.booleans(),
)
def test_an_update_is_summarised_and_merged(seed, arms, candidates, metrics, dtype, wide):
    """Repeated candidates, missing deltas, and columns that are not contiguous, twice in a row."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, candidates, arms))
    mean, var = rng.standard_normal((arms, 2 * metrics)), rng.random((arms, 2 * metrics))
    mean[rng.random(mean.shape) < 0.2], var[rng.random(var.shape) < 0.1] = np.nan, np.inf
    lift = delta.Delta(*(torch.from_numpy(v).to(dtype)[:, ::2] for v in (mean, var)))
    users = torch.from_numpy(1 + 100 * rng.random((arms, metrics) if wide else arms)).to(dtype)

    def work():
        store = hz.Evidence(candidates, metrics, dtype)
        first = store.state
        for _ in range(2):
            store.update(ids, lift, users)
        assert not any(field.any() for field in first)  # what was read before stays as it was
        return store.state

    compiled, plain = both(pytest.MonkeyPatch, work)
    tolerance = {"rtol": 256 * EPS[dtype], "atol": 256 * EPS[dtype]}
    for field, want in zip(compiled, plain):
        torch.testing.assert_close(field, want, **tolerance)


@pytest.mark.parametrize("broken", ["mean", "count"])
def test_a_control_that_is_none_changes_nothing(broken):
    treatment, control = rounds(np.random.default_rng(0), 5, 2, f64)
    control = control._replace(**{broken: torch.zeros(2, dtype=f64)})
    state = evidence.init(5, 2)
    evidence.stream(state, treatment, control)
    assert all(not field.any() for field in state)


@pytest.mark.parametrize(
    "change",
    [
        {"treatment": lambda m: Moments(*(f[:3] for f in m))},
        {"control": lambda m: Moments(*(f.repeat(2) for f in m))},
        {"control": lambda m: Moments(*(f.float() for f in m))},
        {"treatment": lambda m: Moments(*(f.half() for f in m))},
        {"treatment": lambda m: m._replace(m2=m.m2.half())},
    ],
)
def test_a_stream_that_does_not_fit_is_refused_and_changes_nothing(change):
    treatment, control = rounds(np.random.default_rng(0), 5, 2, f64)
    given_ = {"treatment": treatment, "control": control}
    given_ |= {name: how(given_[name]) for name, how in change.items()}
    store = hz.Evidence(5, 2)
    with pytest.raises(hz.ShapeError, match="stream expects"):
        store.stream(**given_)
    assert not store.weight.any()


def test_streaming_works_into_rows_of_a_larger_state():
    treatment, control = rounds(np.random.default_rng(1), 5, 2, f64)
    large, small = evidence.init(10, 2), evidence.init(5, 2)
    evidence.stream(evidence.EvidenceState(*(f[::2] for f in large)), treatment, control)
    evidence.stream(small, treatment, control)
    assert all(torch.equal(a[::2], b) and not a[1::2].any() for a, b in zip(large, small))


# --- covariances, marginals and paths -----------------------------------------------------------


def a_posterior(seed, n, dims, metrics, missing=True):
    rng = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=rng, dtype=f64)

    noise = 0.01 + 0.05 * rand(n, metrics)
    if missing and n > 2:
        noise[1, 0] = torch.inf
    hyper = Hyperparameters(0.2 + rand(metrics, dims), 0.5 + rand(metrics), rand(metrics) - 0.5)
    scale = Standardiser(0.01 * rand(metrics), 0.001 + 0.01 * rand(metrics))
    return Posterior(rand(n, dims), 3 * rand(n, metrics), noise, hyper, scale)


@needs_compiler
@law
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([1, 2, 7, 255, 256, 257]),
    dims=st.integers(1, 5),
    metrics=st.integers(1, 3),
    points=st.integers(1, 40),
    num_paths=st.sampled_from([1, 3, 16, 17]),
    dtype=st.sampled_from([f64, torch.float32]),
)
def test_marginals_and_paths_agree(seed, n, dims, metrics, points, num_paths, dtype):
    posterior = a_posterior(seed, n, dims, metrics)
    x = torch.rand(points, dims, generator=torch.Generator().manual_seed(seed), dtype=f64)
    paths = posterior.paths(num_paths, torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        compiled, _ = both(patch, lambda: (*posterior.marginal(x.to(dtype)), paths(x.to(dtype))))
        _, twin = both(patch, lambda: (*posterior.marginal(x), paths(x)))
    scale = posterior.standardiser.scale * posterior.hyperparameters.outputscale.sqrt()
    wide = 1.0 + paths.update.abs().sum(1).amax(-1)  # what a path's rounding is proportional to
    assert {t.dtype for t in compiled} == {dtype}
    bound = 200 * EPS[dtype]
    for value, want, unit in zip(compiled, twin, (scale, scale.square(), scale * wide)):
        assert bool(((value.double() - want).abs() <= bound * unit * (10 + n**0.5)).all())


@needs_compiler
def test_elementary_functions_are_good_to_the_last_bits(monkeypatch):
    """The kernel from distance 0 to beyond underflow, against 50 digits."""
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    distance = np.concatenate([[0.0], np.geomspace(1e-8, 700.0, 400), [1e3, 1e6]])
    with mpmath.workdps(50):
        want = [float((1 + r + mpmath.mpf(r) ** 2 / 3) * mpmath.exp(-r)) for r in distance.tolist()]
    for dtype in (f64, torch.float32):
        x = torch.from_numpy(distance).to(dtype).unsqueeze(1)
        out = torch.empty(len(x), 1, dtype=dtype)
        native.covariance(x, torch.zeros(1, 1, dtype=dtype), out)
        # float32 distances are rounded before the kernel sees them: the argument's error counts.
        rel = EPS[dtype] * (4 + torch.from_numpy(distance))
        tiny = 1e-290 if dtype == f64 else 1e-25  # the smallest exponential, times r^2 / 3
        error = (out[:, 0].double() - torch.tensor(want, dtype=f64)).abs()
        assert bool((error <= rel * torch.tensor(want, dtype=f64) + tiny).all())


@needs_compiler
def test_waves_are_good_at_large_phases(monkeypatch):
    phase = torch.linspace(-5000, 5000, 1001, dtype=f64)
    for dtype, bound in ((f64, 1e-12), (torch.float32, 2e-3)):  # eps * 5000, and the reduction's
        one = torch.ones(1, 1, dtype=dtype)
        waves = [
            native.paths(phase.to(dtype).unsqueeze(1), 0 * one, 0 * one, one, *amplitudes)
            for amplitudes in ((one, 0 * one), (0 * one, one))
        ]
        assert float((waves[0][:, 0] - phase.cos()).abs().max()) < bound
        assert float((waves[1][:, 0] - phase.sin()).abs().max()) < bound


@needs_compiler
def test_a_point_that_is_not_a_number_gives_none(monkeypatch):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    posterior = a_posterior(0, 20, 2, 2)
    x = torch.tensor([[0.5, torch.nan], [0.5, 0.5]], dtype=f64)
    mean, var = posterior.marginal(x)
    value = posterior.paths(2, torch.Generator().manual_seed(0))(x)
    assert mean[0].isnan().all()
    assert var[0].isnan().all()
    assert value[:, 0].isnan().all()
    assert mean[1].isfinite().all()
    assert var[1].isfinite().all()
    assert value[:, 1].isfinite().all()


@needs_compiler
def test_points_and_evidence_may_lie_in_memory_as_they_like(monkeypatch):
    """Column by column, as from NumPy's Fortran order: the kernels read row by row."""
    x, y = torch.rand(2, 30, dtype=f64), torch.rand(20, 2, dtype=f64)
    hyper = Hyperparameters(torch.full((2, 2), 0.5, dtype=f64), *torch.ones(2, 2, dtype=f64))
    unit = Standardiser(torch.zeros(2, dtype=f64), torch.ones(2, dtype=f64))

    def work(at, data):
        posterior = Posterior(data, y, y + 0.1, hyper, unit)
        paths = posterior.paths(2, torch.Generator().manual_seed(0))
        return *posterior.marginal(at), paths(at), posterior.covariance(at)

    monkeypatch.setattr(native, "LEAST_WORK", 0)
    data = torch.rand(2, 20, dtype=f64)
    for got, want in zip(work(x.T, data.T), work(x.T.contiguous(), data.T.contiguous())):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.zeros(2, device="meta"),),
        (torch.zeros(2, dtype=f64), torch.zeros(2)),
        (torch.zeros(2, dtype=f64), torch.zeros(2, dtype=torch.half)),
        (torch.zeros(2, dtype=torch.half),),
        (torch.zeros(2, dtype=f64, requires_grad=True),),
    ],
)
def test_what_the_kernels_cannot_do_they_are_not_given(tensors):
    assert not native.usable(10**9, *tensors)


@needs_compiler
def test_forward_derivatives_go_around_the_compiled_kernels(monkeypatch):
    posterior = a_posterior(0, 20, 2, 2)
    paths = posterior.paths(2, torch.Generator().manual_seed(0))
    x = torch.rand(3, 2, dtype=f64)

    def tangent():
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            return forward_ad.unpack_dual(paths(dual)).tangent.clone()

    got, want = both(monkeypatch, tangent)
    torch.testing.assert_close(got, want)


@needs_compiler
def test_a_default_device_elsewhere_changes_nothing(monkeypatch):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    posterior = a_posterior(0, 20, 2, 2)
    paths = posterior.paths(2, torch.Generator().manual_seed(0))
    x = torch.rand(3, 2, dtype=f64)
    arm = torch.zeros(3, dtype=torch.long)
    want = paths(x), *posterior.marginal(x), moments.summarise(x, arm, 1).mean
    torch.set_default_device("meta")
    try:
        got = paths(x), *posterior.marginal(x), moments.summarise(x, arm, 1).mean
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_what_is_evaluated_first_without_gradients_can_have_them_later():
    posterior = a_posterior(0, 20, 2, 2)
    x = torch.rand(3, 2)
    with torch.inference_mode():
        posterior.marginal(x)
    x.requires_grad_()
    posterior.paths(2, torch.Generator().manual_seed(0))(x).sum().backward()
    assert x.grad is not None


def test_gradients_go_around_the_compiled_kernels(monkeypatch):
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    posterior = a_posterior(0, 20, 2, 2)
    x = torch.rand(3, 2, dtype=f64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    posterior.paths(2, torch.Generator().manual_seed(0))(x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


# --- where they cannot be built -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "says"),
    [
        ("", "no C compiler"),
        ("no-such-cc", "no C compiler"),
        ("false", "failed"),
        ("cc '", "No closing quotation"),
    ],
)
def test_without_a_compiler_pytorch_does_the_work_and_it_is_said_once(
    monkeypatch, tmp_path, caplog, compiler, says
):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "LEAST_WORK", 0)
    build.library.cache_clear()
    try:
        with caplog.at_level(logging.DEBUG, "hyperzero_torch"):
            values, arm = torch.arange(6, dtype=f64).reshape(3, 2), torch.tensor([0, 1, 0])
            summary = moments.summarise(values, arm, 2)
            moments.summarise(values, arm, 2)
    finally:
        build.library.cache_clear()
    assert summary.mean.tolist() == [[2.0, 3.0], [2.0, 3.0]]
    messages = [r.getMessage() for r in caplog.records if "compiled kernels" in r.getMessage()]
    assert len(messages) == 1
    assert says in messages[0]
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_they_are_built_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load()
    (kept,) = tmp_path.rglob("*.so")
    monkeypatch.setattr(build, "_build", lambda *a: pytest.fail("built again"))
    build.load()
    assert [*tmp_path.rglob("*")] == [kept.parent, kept]


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.load() is not None
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


@needs_compiler
def test_a_user_without_a_home_does_without_a_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(build.Path, "home", nobody)
    assert build.load() is not None


def test_nothing_is_built_at_import():
    code = (
        "import hyperzero_torch.runtime.native.build as b; print(b.library.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
