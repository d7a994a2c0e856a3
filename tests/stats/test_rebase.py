"""Deltas against another base: the transformation, its error, and what all then share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.stats.rebase import factors, rebase, remaining

F64 = torch.float64


def covariance(rebased, shared, with_base, base):
    """All covariances of rebased deltas, ``(metrics, n, n)``."""
    loadings = rebased.loadings.permute(2, 0, 1)
    rest = remaining(shared, with_base, with_base[base], rebased.scale)
    full = loadings @ loadings.transpose(-1, -2) + rest
    own = rebased.var.T - full.diagonal(dim1=-2, dim2=-1)
    return full + torch.diag_embed(own)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_means_variances_and_covariances_agree_with_monte_carlo(sign):
    """Users' noise of every arm and of five controls, against the exact ratio of what is drawn."""
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([0.0, 0.08, -0.05, 0.2, 0.02], dtype=F64)
    own = torch.tensor([0.0, 0.01, 0.02, 0.015, 0.03], dtype=F64)  # the old base has no error
    loading = 0.01 * torch.rand(5, 5, generator=generator, dtype=F64)
    loading[0] = 0.0
    base, num = 1, 400_000
    draws = true + own * torch.randn(num, 5, generator=generator, dtype=F64)
    draws += torch.randn(num, 5, generator=generator, dtype=F64) @ loading.T
    ratio = (draws - draws[:, [base]]) / (sign + draws[:, [base]]).abs()
    shared = loading @ loading.T
    column = lambda x: x.unsqueeze(-1)  # noqa: E731
    var, with_base = column(own.square() + shared.diagonal()), column(shared[:, base])
    rebased = rebase(column(true), var, with_base, base, torch.tensor([sign], dtype=F64))
    matrix = covariance(rebased, shared.unsqueeze(0), with_base, base)[0]
    expected = torch.cov(ratio.T)
    others = [0, 2, 3, 4]
    torch.testing.assert_close(
        matrix[others][:, others], expected[others][:, others], rtol=0.03, atol=3e-6
    )
    assert float(matrix[base].abs().max()) < 1e-15
    # The bias of the ratio is subtracted: at the true deltas the mean is the truth minus it.
    truth = (true - true[base]) / (sign + true[base]).abs()
    bias = ratio.mean(0) - truth
    error = ratio.std(0) / num**0.5
    assert bool(((rebased.mean[:, 0] - (truth - bias)).abs() <= 4 * error + 2e-6).all())


def test_without_error_it_is_the_ratio_of_the_levels():
    mean = torch.tensor([[0.0], [0.25], [-0.5]], dtype=F64)
    zero = torch.zeros_like(mean)
    rebased = rebase(mean, zero, zero, 1, torch.ones(1, dtype=F64))
    assert rebased.mean[:, 0].tolist() == pytest.approx([1 / 1.25 - 1, 0.0, 0.5 / 1.25 - 1])
    assert bool((rebased.var == 0).all())
    below = rebase(mean, zero, zero, 1, -torch.ones(1, dtype=F64))
    assert below.mean[:, 0].tolist() == pytest.approx([-0.25 / 0.75, 0.0, -0.75 / 0.75])


@settings(deadline=None)
@given(
    st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=6),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([1.0, -1.0]),
)
def test_a_base_that_is_changed_twice_is_as_if_it_was_changed_once(deltas, first, second, sign):
    mean = torch.tensor(deltas, dtype=F64).unsqueeze(-1)
    zero, signs = torch.zeros_like(mean), torch.tensor([sign], dtype=F64)
    once = rebase(mean, zero, zero, second, signs)
    twice = rebase(rebase(mean, zero, zero, first, signs).mean, zero, zero, second, signs)
    torch.testing.assert_close(once.mean, twice.mean, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_covariance_is_never_more_than_the_variances_allow(seed, num):
    generator = torch.Generator().manual_seed(seed)
    mean = 0.1 * torch.randn(num, 1, generator=generator, dtype=F64)
    loading = 0.01 * torch.randn(num, 4, generator=generator, dtype=F64)
    shared = loading @ loading.T
    var = (shared.diagonal() + 1e-4 * torch.rand(num, generator=generator, dtype=F64)).unsqueeze(-1)
    with_base = shared[:, :1]
    rebased = rebase(mean, var, with_base, 0, torch.ones(1, dtype=F64))
    matrix = covariance(rebased, shared.unsqueeze(0), with_base, 0)[0]
    assert float(torch.linalg.eigvalsh(matrix).min()) >= -1e-12
    torch.testing.assert_close(matrix.diagonal().unsqueeze(-1), rebased.var)


def test_nothing_is_relative_to_a_level_that_may_be_zero():
    mean = torch.tensor([[0.0], [-0.99], [0.1]], dtype=F64)
    var = torch.full_like(mean, 1e-4)
    rebased = rebase(mean, var, torch.zeros_like(mean), 1, torch.ones(1, dtype=F64))
    assert bool(rebased.mean.isnan().all())
    assert bool(rebased.scale.isnan().all())


def test_factors_give_the_covariance_back():
    generator = torch.Generator().manual_seed(3)
    loading = torch.randn(2, 6, 3, generator=generator, dtype=F64)
    matrix = loading @ loading.transpose(-1, -2)
    parts = factors(matrix, 3).permute(2, 0, 1)
    torch.testing.assert_close(parts @ parts.transpose(-1, -2), matrix)
    assert factors(matrix, 10).shape == (6, 6, 2)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(hz.ShapeError, match="n, metrics"):
        rebase(torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(3, 2), 0, torch.ones(2))
