"""Each fused kernel in Triton's interpreter, on the CPU, against its PyTorch definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperzero_torch.runtime import fused, native
from hyperzero_torch.runtime.fused import build
from hyperzero_torch.stats import delta, evidence
from hyperzero_torch.stats.moments import Moments
from hyperzero_torch.surrogate import Hyperparameters, Posterior, Standardiser
from hyperzero_torch.surrogate.paths import Paths

pytest.importorskip("triton", "3.6", "needs Triton, which the extra test installs on Linux")

f32, f64 = torch.float32, torch.float64
EPS = {dtype: torch.finfo(dtype).eps for dtype in (f64, f32)}
law = settings(deadline=None, max_examples=7, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([f64, f32])
layouts = st.sampled_from(["rows", "columns", "every second column", "one row"])


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    """Lets Triton 3.6 interpret loops with NumPy 2.4, which takes no array for a whole number."""
    import triton.runtime.interpreter as interpreted

    patch_tensor = interpreted._patch_lang_tensor

    def patched(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(interpreted, "_patch_lang_tensor", patched)
        yield


def both(work):
    """What the fused kernels give, and what PyTorch gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LEAST_WORK", 10**18)
        patch.setattr(fused, "usable", lambda *_: True)
        result = work()
        patch.setattr(fused, "usable", lambda *_: False)
        return result, work()


def laid_out(matrix, layout):
    """The same values with other strides."""
    if layout == "columns":
        return matrix.T.contiguous().T
    if layout == "every second column":
        return torch.stack([matrix, torch.full_like(matrix, torch.nan)], -1).flatten(1)[:, ::2]
    return matrix[:1].expand_as(matrix) if layout == "one row" else matrix


def posterior_of(generator, metrics, dims, n, missing):
    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=f64)

    noise = 0.1 + uniform(n, metrics)
    noise[uniform(n, metrics) < missing] = torch.inf
    parameters = Hyperparameters(
        0.3 + uniform(metrics, dims), 0.5 + uniform(metrics), uniform(metrics)
    )
    units = Standardiser(uniform(metrics), 0.5 + uniform(metrics))
    return Posterior(uniform(n, dims), uniform(n, metrics) - 0.5, noise, parameters, units)


def test_each_kernel_passes_its_trial():
    build.require()
    build._try(torch.device("cpu"))


@law
@given(
    seeds, dtypes, layouts, st.integers(1, 2), st.integers(1, 12), st.integers(1, 40),
    st.integers(1, 70), st.integers(1, fused.MAX_PATHS), st.integers(1, 40),
)  # fmt: skip
@example(0, f64, "every second column", 2, 4, 37, 70, 3, 39)
@example(1, f32, "columns", 2, 20, 40, 9, 8, 5)
def test_paths_agree(seed, dtype, layout, metrics, dims, n, points, num_paths, waves):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=f64)

    posterior = posterior_of(generator, metrics, dims, n, missing=0.2)
    weights = (normal(metrics, 2 * waves, num_paths), normal(metrics, n, num_paths))
    paths = Paths(posterior, normal(waves, dims), *weights)
    x = torch.rand(points, dims, generator=generator, dtype=f64).to(dtype)
    got, want = both(lambda: paths(laid_out(x, layout)))
    assert got.dtype == dtype
    # A phase is up to some hundred, and its rounding a path's.
    size = 1 + sum(float(w.abs().sum(1).max()) for w in weights)
    torch.testing.assert_close(got, want, rtol=0, atol=20 * dims * EPS[dtype] * size)


@law
@given(
    seeds, dtypes, layouts, st.integers(1, 3), st.integers(1, 20), st.integers(1, 150),
    st.integers(0, 40),
)  # fmt: skip
@example(0, f64, "every second column", 2, 4, 130, 7)
@example(1, f32, "columns", 1, 20, 65, 0)
def test_means_and_variances_agree(seed, dtype, layout, metrics, dims, n, more_points):
    generator = torch.Generator().manual_seed(seed)
    posterior = posterior_of(generator, metrics, dims, n, missing=0.2)
    x = torch.rand(n + more_points, dims, generator=generator, dtype=f64).to(dtype)
    got, want = both(lambda: posterior.marginal(laid_out(x, layout)))
    for ours, eager in zip(got, want):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, eager, rtol=0, atol=40 * n * EPS[dtype])


def test_marginals_of_few_points_need_no_inverse():
    posterior = posterior_of(torch.Generator().manual_seed(0), 2, 2, 9, missing=0)
    both(lambda: posterior.marginal(torch.rand(8, 2, dtype=f64)))
    assert not posterior._inverses
    got, want = both(lambda: posterior.marginal(torch.rand(9, 2, dtype=f64) * 0))
    assert list(posterior._inverses) == [f64]
    torch.testing.assert_close(got, want)
    assert not posterior.to("cpu")._inverses


@law
@given(
    seeds, dtypes, layouts, st.integers(1, 400), st.sampled_from([1, 2, 3, 5, 16]),
    st.sampled_from([0.0, 0.1, 1.0]),
)  # fmt: skip
@example(0, f64, "every second column", 333, 5, 0.1)
@example(1, f32, "columns", 400, 3, 0.1)
def test_streaming_updates_agree(seed, dtype, layout, rows, metrics, damaged):
    """Round after round, with arms that were not served, too small, damaged or missing."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=dtype)

    states = [evidence.init(rows, metrics, dtype) for _ in range(2)]
    for _ in range(3):
        count = torch.randint(0, 40, (rows, metrics), generator=generator).to(dtype)
        mean, m2 = 10 + uniform(rows, metrics), 50 * uniform(rows, metrics)
        for field, value in ((mean, torch.nan), (mean, torch.inf), (m2, torch.nan), (m2, -1.0)):
            field[uniform(rows, metrics) < damaged / 4] = value
        treatment = Moments(*(laid_out(field, layout) for field in (count, mean, m2)))
        control = Moments(
            torch.full((metrics,), 90.0), 10 + uniform(metrics), 90 * uniform(metrics)
        )
        control = Moments(*(field.to(dtype) for field in control))
        terms = delta.control_terms(Moments(*(field.reshape(1, -1) for field in control)))
        fused.stream(treatment, terms, states[0])
        evidence.stream_at_once(states[1], treatment, terms)
    assert damaged or rows < 3 or layout == "one row" or states[1].weight.any()
    for got, want in zip(*states):
        assert got.isfinite().all()
        torch.testing.assert_close(got, want, rtol=8 * EPS[dtype], atol=8 * EPS[dtype])


def test_a_bucket_without_rows_stays_so():
    state = evidence.init(0, 2)
    fused.stream(state, tuple(torch.ones(4, 1, 2, dtype=f64)), state)
    assert state.weight.shape == (0, 2)
