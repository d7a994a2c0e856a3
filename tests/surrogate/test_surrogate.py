"""Laws of the surrogate: the kernel, the exact posterior, its paths, and the fit.

Oracles are written out again here, in NumPy or mpmath, or are GPyTorch's own prediction.
Monte Carlo tolerances are five standard errors, measured between independent generators.
"""

import contextlib
import itertools
import math

import gpytorch
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.tensors import f64, gen, rand, randn, tensor

from hyperzero_torch.errors import FitError, ShapeError
from hyperzero_torch.surrogate import (
    Hyperparameters,
    Posterior,
    Standardiser,
    Surrogate,
    default_hyperparameters,
    fit,
    leave_one_out_log_density,
    likelihood,
    posterior,
)
from hyperzero_torch.surrogate.kernels import features, frequencies, matern52

law = settings(deadline=None, max_examples=25)


# --- the same mathematics once more, in NumPy -----------------------------------------------


def k_numpy(a, b, lengthscale):
    """Matern 5/2 from plain differences, one metric."""
    r = np.sqrt(5 * (((a[:, None] - b[None]) / lengthscale) ** 2).sum(-1))
    return (1 + r + r**2 / 3) * np.exp(-r)


def exact(x, y, noise, lengthscale, outputscale, constant, points):
    """Mean and covariance of one metric given the whole noise matrix, by explicit inverse."""
    inverse = np.linalg.inv(outputscale * k_numpy(x, x, lengthscale) + noise)
    cross = outputscale * k_numpy(points, x, lengthscale)
    mean = constant + cross @ inverse @ (y - constant)
    prior = outputscale * k_numpy(points, points, lengthscale)
    return mean, prior - cross @ inverse @ cross.T


def hyper(metrics, dims, seed=0):
    u = rand(metrics, dims + 2, seed=seed)
    return Hyperparameters(0.2 + u[:, :dims], 0.5 + u[:, dims], u[:, dims + 1] - 0.5)


def unit(metrics):
    return Standardiser(torch.zeros(metrics, dtype=f64), torch.ones(metrics, dtype=f64))


def odd_units(metrics):
    return Standardiser(tensor([0.3, -2.0, 1e-3][:metrics]), tensor([1e-4, 5.0, 1e3][:metrics]))


def low_rank(metrics, n, rank=2, size=0.2, seed=5):
    """A shared noise covariance with its diagonal, ``(metrics, n, n)``."""
    loading = size * randn(metrics, n, rank, seed=seed)
    return loading @ loading.mT


def off_diagonal(matrix):
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


def compare_with_numpy(p, x, y, noises, points):
    """Marginal and covariance of ``p`` against ``exact``, metric by metric."""
    mean, var = p.marginal(points)
    covariance = p.covariance(points)
    for m in range(p.num_metrics):
        length, out, constant = (field[m].numpy() for field in p.hyperparameters)
        want_mean, want = exact(
            x.numpy(), y[:, m].numpy(), noises[m], length, out, constant, points.numpy()
        )
        shift, scale = (float(field[m]) for field in p.standardiser)
        unit_ = {"rtol": 1e-9, "atol": 1e-11}
        np.testing.assert_allclose((mean[:, m] - shift) / scale, want_mean, **unit_)
        np.testing.assert_allclose(var[:, m] / scale**2, np.diag(want), **unit_)
        np.testing.assert_allclose(covariance[m] / scale**2, want, **unit_)


# --- the kernel -----------------------------------------------------------------------------

DISTANCES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.01, 0.1, 0.3, 0.7, 1.0, 2.0]


@pytest.mark.parametrize("lengthscale", [0.01, 0.1, 1.0, 30.0])
def test_matern52_is_the_formula_in_fifty_digits(lengthscale):
    points = tensor([[0.3 + d] for d in DISTANCES])
    got = matern52(points[:1], points, tensor([[lengthscale]]))[0, 0]
    with mpmath.workdps(50):
        for value, point in zip(got.tolist(), points[:, 0].tolist()):
            r = mpmath.sqrt(5) * (mpmath.mpf(point) - mpmath.mpf(points[0].item())) / lengthscale
            want = (1 + r + r * r / 3) * mpmath.exp(-r)
            # Rounding of the expanded square, by the kernel's slope in it (at most 5/6).
            assert abs(value - want) < 1e-16 * (2 / lengthscale) ** 2 + 1e-15


@pytest.mark.parametrize("lengthscale", [0.01, 0.1, 1.0])
def test_matern52_error_from_the_expanded_square_stays_below_the_noise_floor(lengthscale):
    x = rand(200, 6, seed=1)
    got = matern52(x, x, torch.full((1, 6), lengthscale, dtype=f64))[0]
    # Rounding is that of |x / lengthscale|^2, and the kernel's slope in it at most 5/6.
    bound = 4 * np.finfo(float).eps * 6 / lengthscale**2 + 1e-15
    assert (
        float((got - torch.from_numpy(k_numpy(x.numpy(), x.numpy(), lengthscale))).abs().max())
        < bound
    )
    assert bound < 1e-10


@law
@given(
    dims=st.integers(1, 5), n=st.integers(1, 9), metrics=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_matern52_is_gpytorchs_and_a_correlation_matrix(dims, n, metrics, seed):
    x = rand(n, dims, seed=seed)
    x = torch.cat([x, x[:1]])  # a point twice
    length = 0.05 + rand(metrics, dims, seed=seed + 1)
    ours = matern52(x, x, length)
    theirs = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=dims, batch_shape=(metrics,))
    theirs = theirs.double()
    theirs.lengthscale = length.unsqueeze(-2)
    torch.testing.assert_close(ours, theirs(x).to_dense().detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours, ours.mT, rtol=0, atol=1e-12)
    ones = torch.ones(metrics, n + 1, dtype=f64)
    torch.testing.assert_close(ours.diagonal(dim1=-2, dim2=-1), ones, rtol=0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(ours).min()) > -1e-10
    assert float(ours.min()) >= 0


def test_matern52_takes_leading_axes_and_is_batched_over_them():
    a, b, length = rand(2, 3, 4, 2), rand(5, 2, seed=1), 0.1 + rand(3, 2, seed=2)
    got = matern52(a, b, length)
    assert got.shape == (3, 2, 3, 4, 5)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(got[:, i, j], matern52(a[i, j], b, length))


@pytest.mark.parametrize("gap", [0.0, 1e-17, 1e-15, 1e-12, 1e-8, 1e-4])
def test_matern52_gradient_is_exact_at_and_near_coinciding_points(gap):
    b = rand(6, 3, seed=3)
    length = tensor([[0.2, 0.5, 1.0]])
    a = (b[:2] + gap).requires_grad_()
    matern52(a, b[:1], length).sum().backward()
    difference = (a.detach() - b[:1]) / length
    r = (5 * difference.square().sum(-1, keepdim=True)).sqrt()
    want = -5 / 3 * (1 + r) * torch.exp(-r) * difference / length  # no 1 / r: smooth at 0
    torch.testing.assert_close(a.grad, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dims", [1, 3])
def test_random_features_average_to_matern52(dims):
    num, x = 400_000, rand(6, dims, seed=4) * 2
    length = tensor([[0.3] * dims, [1.0] * dims])
    omega = frequencies(num, dims, gen(11))
    phi = features(x, omega, length)
    assert phi.shape == (2, 6, 2 * num)
    k = matern52(x, x, length)
    # An inner product is the average of num cosines of w (x - x').
    double = matern52(2 * x, 2 * x, length)
    error = ((1 + double) / 2 - k.square()).clamp_min(0) / num
    assert bool(((phi @ phi.mT - k).abs() <= 5 * error.sqrt() + 1e-12).all())


@pytest.mark.parametrize("dims", [1, 4])
def test_frequencies_have_the_spectral_student_t(dims):
    omega = frequencies(20_000, dims, gen(12))
    assert omega.dtype == f64
    # |t|^2 / dims of a Student t with 5 degrees of freedom is F(dims, 5).
    assert stats.kstest(omega.square().sum(-1).numpy() / dims, stats.f(dims, 5).cdf).pvalue > 1e-3
    assert stats.kstest(omega[:, 0].numpy(), stats.t(5).cdf).pvalue > 1e-3


# --- the posterior in closed form -----------------------------------------------------------


def test_one_point_is_the_scalar_formula():
    x, y, noise = tensor([[0.3]]), tensor([[0.8]]), tensor([[0.25]])
    h = Hyperparameters(tensor([[0.4]]), tensor([1.7]), tensor([0.1]))
    p = Posterior(x, y, noise, h, Standardiser(tensor([2.0]), tensor([3.0])))
    a, b = 0.45, 0.9

    def k(s, t):
        r = math.sqrt(5) * abs(s - t) / 0.4
        return 1.7 * (1 + r + r * r / 3) * math.exp(-r)

    mean, var = p.marginal(tensor([[a], [b]]))
    covariance = p.covariance(tensor([[a], [b]]))
    for i, point in enumerate((a, b)):
        want = 0.1 + k(point, 0.3) / (1.7 + 0.25) * (0.8 - 0.1)
        assert float(mean[i, 0]) == pytest.approx(2 + 3 * want, rel=1e-12)
        want = 1.7 - k(point, 0.3) ** 2 / (1.7 + 0.25)
        assert float(var[i, 0]) == pytest.approx(9 * want, rel=1e-12)
    want = k(a, b) - k(a, 0.3) * k(b, 0.3) / (1.7 + 0.25)
    assert float(covariance[0, 0, 1]) == pytest.approx(9 * want, rel=1e-12)


@pytest.mark.parametrize("shared", [0.0, 0.2])
def test_two_points_are_the_two_by_two_formula(shared):
    x, y, noise = tensor([[0.2], [0.5]]), tensor([[0.8], [-0.4]]), tensor([[0.25], [0.5]])
    h = Hyperparameters(tensor([[0.4]]), tensor([1.7]), tensor([0.1]))
    matrix = tensor([[[0.0, shared], [shared, 0.0]]])
    p = Posterior(x, y, noise, h, unit(1), matrix if shared else None)

    def k(s, t):
        r = math.sqrt(5) * abs(s - t) / 0.4
        return 1.7 * (1 + r + r * r / 3) * math.exp(-r)

    point = 0.6
    a, b, c = 1.7 + 0.25, 1.7 + 0.5, k(0.2, 0.5) + shared
    k1, k2, y1, y2 = k(point, 0.2), k(point, 0.5), 0.7, -0.5
    det = a * b - c * c
    want_mean = 0.1 + (k1 * (b * y1 - c * y2) + k2 * (a * y2 - c * y1)) / det
    want_var = 1.7 - (b * k1 * k1 - 2 * c * k1 * k2 + a * k2 * k2) / det
    mean, var = p.marginal(tensor([[point]]))
    assert float(mean) == pytest.approx(want_mean, rel=1e-12)
    assert float(var) == pytest.approx(want_var, rel=1e-12)
    assert float(p.covariance(tensor([[point]]))) == pytest.approx(want_var, rel=1e-12)


@law
@given(
    n=st.integers(1, 6),
    dims=st.integers(1, 3),
    metrics=st.integers(1, 3),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_posterior_is_the_textbook_formula(n, dims, metrics, shared, seed):
    x, y = rand(n, dims, seed=seed), randn(n, metrics, seed=seed + 1)
    noise = 0.01 + rand(n, metrics, seed=seed + 2)
    common = low_rank(metrics, n, seed=seed) if shared else torch.zeros(metrics, n, n, dtype=f64)
    noise = noise + common.diagonal(dim1=-2, dim2=-1).mT
    p = Posterior(
        x,
        y,
        noise,
        hyper(metrics, dims, seed),
        odd_units(metrics),
        off_diagonal(common) if shared else None,
    )
    full = [np.diag(noise[:, m].numpy()) + off_diagonal(common)[m].numpy() for m in range(metrics)]
    compare_with_numpy(p, x, y, full, rand(4, dims, seed=seed + 3))


exactly = gpytorch.settings.fast_computations(False, False, False)


@pytest.mark.parametrize("shared", [False, True])
def test_posterior_is_gpytorchs_own_prediction(shared):
    n, dims = 25, 3
    x, points = rand(n, dims), torch.cat([rand(7, dims, seed=1), rand(n, dims)[:2]])
    y, noise = randn(n, 2, seed=2), 0.01 + rand(n, 2, seed=3)
    common = low_rank(2, n)
    noise = noise + common.diagonal(dim1=-2, dim2=-1).mT
    p = Posterior(x, y, noise, hyper(2, dims), unit(2), off_diagonal(common) if shared else None)
    mean, var = p.marginal(points)
    model = p.as_gpytorch()
    assert isinstance(model, gpytorch.models.ExactGP)
    assert not model.training
    with torch.no_grad(), exactly, gpytorch.settings.fast_pred_var(False):
        theirs = model(points.expand(2, *points.shape))
    close = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(mean, theirs.mean.T, **close)
    torch.testing.assert_close(var, theirs.variance.T, **close)
    torch.testing.assert_close(p.covariance(points), theirs.covariance_matrix, **close)


def test_a_missing_reading_is_all_but_gone_from_the_gpytorch_model():
    x, mean, var = data()
    mean[4, 0] = torch.nan
    p = Surrogate().fit(x, mean, var)
    points = rand(5, 2, seed=8)
    with torch.no_grad(), exactly:
        theirs = p.as_gpytorch()(points.expand(2, *points.shape))
    want = (p.marginal(points)[0] - p.standardiser.shift) / p.standardiser.scale
    torch.testing.assert_close(theirs.mean.T, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_a_missing_reading_is_a_row_that_is_not_there(shared):
    n = 8
    x, mean, var = rand(n, 2), randn(n, 3, seed=1), 0.1 + rand(n, 3, seed=2)
    common = low_rank(3, n)
    var = var + common.diagonal(dim1=-2, dim2=-1).mT
    gone = torch.zeros(n, 3, dtype=torch.bool)
    gone[[1, 4], 0], gone[[0, 1, 7], 2] = True, True
    mean[gone] = torch.nan
    var[0, 2] = torch.nan  # or both, or only the variance
    mean[0, 2] = 5.0
    given_ = common if shared else None
    p = Surrogate().fit(x, mean, var, given_)
    points = torch.cat([rand(4, 2, seed=3), x])
    got_mean, got_var = p.marginal(points)
    covariance = p.covariance(points)
    for m in range(3):
        kept = ~gone[:, m]
        one = Hyperparameters(*(field[m : m + 1] for field in p.hyperparameters))
        scale = Standardiser(*(field[m : m + 1] for field in p.standardiser))
        y = ((mean - p.standardiser.shift) / p.standardiser.scale)[kept][:, m : m + 1]
        noise = (var / p.standardiser.scale.square())[kept][:, m : m + 1]
        block = off_diagonal(common)[m : m + 1][:, kept][:, :, kept] / scale.scale.square()
        alone = Posterior(x[kept], y, noise, one, scale, block if shared else None)
        want_mean, want_var = alone.marginal(points)
        torch.testing.assert_close(got_mean[:, m], want_mean[:, 0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(got_var[:, m], want_var[:, 0], rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(
            covariance[m], alone.covariance(points)[0], rtol=1e-11, atol=1e-13
        )
        # The fit itself, hyperparameters and standardiser included, differs only by optimisation.
        again = Surrogate().fit(
            x[kept],
            mean[kept][:, m : m + 1],
            var[kept][:, m : m + 1],
            common[m : m + 1][:, kept][:, :, kept] if shared else None,
        )
        torch.testing.assert_close(again.standardiser.scale, scale.scale, rtol=1e-12, atol=0)
        torch.testing.assert_close(again.standardiser.shift, scale.shift, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(again.marginal(points)[0], want_mean, rtol=0.01, atol=0.01)


def test_rows_that_say_nothing_of_a_metric_do_not_move_its_fit():
    """Most rows miss metric 0: its hyperparameters are those of the few rows that have it."""
    x, mean, var = data(n=40)
    mean[10:, 0] = torch.nan
    p = Surrogate().fit(x, mean, var)
    q = Surrogate().fit(x[:10], mean[:10, :1], var[:10, :1])
    for got, want in zip(p.hyperparameters, q.hyperparameters):
        torch.testing.assert_close(got[:1], want, rtol=0.01, atol=0.01)


def test_missing_rows_take_no_part_in_paths():
    n = 6
    x, y, noise = rand(n, 2), randn(n, 1, seed=1), 0.1 + rand(n, 1, seed=2)
    common = off_diagonal(low_rank(1, n))
    kept = torch.tensor([True, False, True, True, False, True])
    noise[~kept] = torch.inf
    noise[kept] += 0.5
    common = common * kept * kept.unsqueeze(-1)
    p = Posterior(x, y, noise, hyper(1, 2), unit(1), common)
    other = y.clone()
    other[~kept] = torch.nan  # "anything where noise is infinite"
    q = Posterior(x, other, noise, hyper(1, 2), unit(1), common)
    torch.testing.assert_close(p.paths(4, gen())(x), q.paths(4, gen())(x), rtol=0, atol=0)


@pytest.mark.parametrize("metric_noise", [(0.04, 0.5), (1e-4, 3.0)])
def test_repeated_points_equal_one_pooled_observation(metric_noise):
    v1, v2 = metric_noise
    x, y = rand(4, 2), randn(4, 1, seed=1)
    noise = tensor([[v1], [v2], [0.1], [0.2]])
    x[1] = x[0]
    pooled = (y[0] / v1 + y[1] / v2) / (1 / v1 + 1 / v2)
    p = Posterior(x, y, noise, hyper(1, 2), unit(1))
    q = Posterior(
        x[[0, 2, 3]],
        torch.stack([pooled, y[2], y[3]]),
        tensor([[1 / (1 / v1 + 1 / v2)], [0.1], [0.2]]),
        hyper(1, 2),
        unit(1),
    )
    points = torch.cat([rand(5, 2, seed=3), x])
    for ours, want in zip(p.marginal(points), q.marginal(points)):
        torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-10)


def test_one_control_moves_all_arms_but_not_their_differences():
    """The common error is as unknown as it was; differences between arms are known without it."""
    x = tensor([[0.0], [1.0]])
    h = Hyperparameters(tensor([[0.01]]), tensor([100.0]), tensor([0.0]))  # nearly no prior
    y, own, control = tensor([[1.0], [3.0]]), 0.01, 4.0
    noise = torch.full((2, 1), own + control, dtype=f64)
    joint = Posterior(x, y, noise, h, unit(1), tensor([[[0.0, control], [control, 0.0]]]))
    alone = Posterior(x, y, noise, h, unit(1))

    def difference(p):
        c = p.covariance(x)[0]
        return float(c[0, 0] + c[1, 1] - 2 * c[0, 1])

    # 1 / var = 1 / prior + 1 / noise of the difference: 200 and 2 own, or 2 (own + control).
    assert difference(joint) == pytest.approx(1 / (1 / 200 + 1 / (2 * own)), rel=1e-6)
    assert difference(alone) == pytest.approx(1 / (1 / 200 + 1 / (2 * own + 2 * control)), rel=1e-6)
    # Of the sum: 200 and 2 own + 4 control, so a level is known no better than the control is.
    c = joint.covariance(x)[0]
    assert float(c.sum()) == pytest.approx(1 / (1 / 200 + 1 / (2 * own + 4 * control)), rel=1e-6)


def test_marginal_takes_any_leading_axes_and_tiles(monkeypatch):
    x = rand(12, 2)
    p = Posterior(x, randn(12, 3), 0.1 + rand(12, 3), hyper(3, 2), odd_units(3))
    points = rand(5, 7, 2, seed=4)
    mean, var = p.marginal(points)
    assert mean.shape == var.shape == (5, 7, 3)
    single = p.marginal(points[2, 3])
    torch.testing.assert_close(single[0], mean[2, 3], rtol=1e-12, atol=0)
    torch.testing.assert_close(single[1], var[2, 3], rtol=1e-10, atol=0)
    widest = []
    cross = Posterior.cross

    def watched(self, at, metrics):
        widest.append(cross(self, at, metrics))
        return widest[-1]

    monkeypatch.setattr(Posterior, "cross", watched)
    monkeypatch.setattr(posterior, "_TILE_ELEMENTS", 12 * 4)  # four points at a time
    tiled = p.marginal(points)
    torch.testing.assert_close(tiled[0], mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(tiled[1], var, rtol=1e-10, atol=0)
    assert len(widest) == 9 * 3  # metric by metric
    assert max(k.numel() for k in widest) <= 12 * 4
    empty = p.marginal(points[:0])
    assert empty[0].shape == (0, 7, 3)


def test_jitter_belongs_to_the_row_that_needs_it():
    """Two exact readings of one point beside a hopeless third: the third must not blur them."""
    x = tensor([[0.2], [0.2], [0.8]])
    y, noise = tensor([[1.0], [1.0], [5.0]]), tensor([[0.0], [0.0], [1e12]])
    h = Hyperparameters(tensor([[0.3]]), tensor([1.0]), tensor([0.0]))
    mean, var = Posterior(x, y, noise, h, unit(1)).marginal(x[:1])
    assert float(mean) == pytest.approx(1.0, abs=1e-5)
    assert 0 < float(var) < 1e-5


def test_variance_is_positive_also_where_nothing_is_left_to_know():
    x = rand(30, 2)
    nothing = torch.zeros(30, 1, dtype=f64)
    p = Posterior(x, randn(30, 1), nothing, hyper(1, 2), odd_units(1))
    _, var = p.marginal(x)
    assert float(var.min()) > 0
    assert float(var.max()) < 1e-8 * float(p.standardiser.scale.square())


# --- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_paths_have_the_exact_mean_and_covariance(shared):
    n, metrics, repeats, num = 6, 2, 300, 16
    x, y = rand(n, 2), randn(n, metrics, seed=1)
    noise = 0.05 + 0.3 * rand(n, metrics, seed=2)
    noise[3, 1] = torch.inf
    common = low_rank(metrics, n, size=0.7)
    common[1, 3], common[1, :, 3] = 0.0, 0.0
    noise = noise + (common.diagonal(dim1=-2, dim2=-1).mT if shared else 0.0)
    p = Posterior(
        x,
        y,
        noise,
        hyper(metrics, 2),
        odd_units(metrics),
        off_diagonal(common) if shared else None,
    )
    points = torch.cat([x[:3], rand(3, 2, seed=3)])
    mean, _ = p.marginal(points)
    scale = p.standardiser.scale
    # Paths of one call share their frequencies, so a call is one independent repetition.
    g = gen(7)
    draws = torch.stack([p.paths(num, g)(points) for _ in range(repeats)])  # (R, P, N, m)
    assert draws.shape == (repeats, num, 6, metrics)
    centred = (draws - mean) / scale
    per_call = centred.mean(1)
    error = per_call.std(0) / math.sqrt(repeats)
    assert bool((per_call.mean(0).abs() < 5 * error).all())
    moments = torch.einsum("rpim,rpjm->rmij", centred, centred) / num
    error = moments.std(0) / math.sqrt(repeats)
    want = p.covariance(points) / scale.square()[:, None, None]
    assert bool(((moments.mean(0) - want).abs() < 5 * error).all())
    assert float(error.max()) < 0.03  # or the two lines above say little
    # Metrics are drawn independently of each other.
    across = torch.einsum("rpi,rpj->rij", centred[..., 0], centred[..., 1]) / num
    assert bool((across.mean(0).abs() < 5 * across.std(0) / math.sqrt(repeats)).all())


@pytest.mark.parametrize("shared", [False, True])
def test_paths_and_marginals_are_differentiable_also_on_training_points(shared):
    x = rand(3, 2)
    common = off_diagonal(low_rank(2, 3)) if shared else None
    p = Posterior(x, randn(3, 2), 0.3 + rand(3, 2), hyper(2, 2), unit(2), common)
    paths = p.paths(2, gen())
    points = torch.cat([x[1:2], rand(2, 2, seed=1)]).requires_grad_()
    assert torch.autograd.gradcheck(paths, points)
    assert torch.autograd.gradcheck(p.marginal, points)


def test_paths_gradients_on_many_training_points_are_finite():
    x = torch.cat([rand(40, 3), rand(1, 3).expand(5, 3)])
    p = Surrogate().fit(x, randn(45, 2), 0.1 + rand(45, 2))
    points = x.clone().requires_grad_()
    p.paths(3, gen())(points).sum().backward()
    assert bool(points.grad.isfinite().all())


def test_paths_are_functions():
    """One generator, one set of functions; any subset of points sees the same functions."""
    p = Posterior(rand(9, 2), randn(9, 3), 0.1 + rand(9, 3), hyper(3, 2), odd_units(3))
    points = rand(40, 2, seed=5)
    paths = p.paths(6, gen(3))
    whole = paths(points)
    assert paths.num_paths == 6
    assert whole.shape == (6, 40, 3)
    assert whole.equal(paths(points))
    assert whole.equal(p.paths(6, gen(3))(points))
    assert not whole.equal(p.paths(6, gen(4))(points))
    assert bool((whole[0] != whole[1]).any())
    order = torch.randperm(40, generator=gen())[:13]
    torch.testing.assert_close(paths(points[order]), whole[:, order], rtol=1e-10, atol=1e-12)
    parts = torch.cat([paths(part) for part in points.split(7)], dim=1)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    assert paths.tile >= 1


def test_paths_interpolate_what_is_known():
    x, y = rand(7, 2), randn(7, 2, seed=1)
    noise = torch.full((7, 2), 1e-10, dtype=f64)
    draws = Posterior(x, y, noise, hyper(2, 2), unit(2)).paths(50, gen())(x)
    torch.testing.assert_close(draws, y.expand(50, 7, 2), rtol=0, atol=1e-4)
    away = Posterior(x, y, noise, hyper(2, 2), unit(2)).paths(50, gen())(rand(3, 2, seed=9))
    assert float(away.std(0).min()) > 1e-3


def test_paths_without_a_generator_follow_the_default_one():
    p = Posterior(rand(4, 2), randn(4, 1), 0.1 + rand(4, 1), hyper(1, 2), unit(1))
    state = torch.get_rng_state()
    try:
        torch.manual_seed(5)
        first = p.paths(3)(p.x)
        torch.manual_seed(5)
        assert first.equal(p.paths(3)(p.x))
    finally:
        torch.set_rng_state(state)


# --- the fit --------------------------------------------------------------------------------


def prior_functions(num, n, lengthscale, seed):
    """``num`` functions from the prior at ``n`` uniform points, ``(n, dims)``, ``(n, num)``."""
    x = rand(n, len(lengthscale), seed=seed)
    k = torch.from_numpy(k_numpy(x.numpy(), x.numpy(), np.array(lengthscale)))
    root = torch.linalg.cholesky(k + 1e-10 * torch.eye(n, dtype=f64))
    return x, root @ randn(n, num, seed=seed + 1)


def log_posterior(p, mean, var, h, shared=None):
    """Log density of data and hyperparameters, ``(metrics,)``, written out again."""
    n, dims = p.x.shape
    y = (mean - p.standardiser.shift) / p.standardiser.scale
    noise = (var / p.standardiser.scale.square()).clamp_min(1e-6)
    total = []
    for m in range(mean.shape[1]):
        length, out, constant = (field[m].numpy() for field in h)
        matrix = out * k_numpy(p.x.numpy(), p.x.numpy(), length) + np.diag(noise[:, m].numpy())
        if shared is not None:
            matrix = matrix + off_diagonal(shared)[m].numpy() / float(p.standardiser.scale[m]) ** 2
        value = stats.multivariate_normal(np.full(n, constant), matrix).logpdf(y[:, m].numpy())
        value += stats.lognorm(0.6, scale=0.35 * math.sqrt(dims)).logpdf(length).sum()
        value += stats.lognorm(0.7, scale=1.4).logpdf(out) + stats.norm.logpdf(constant)
        total.append(value)
    return np.array(total)


def data(n=30, metrics=2, dims=2, seed=0):
    x, f = prior_functions(metrics, n, [0.3 + 0.4 * i for i in range(dims)], seed)
    var = 0.01 + 0.05 * rand(n, metrics, seed=seed + 2)
    return x, f + var.sqrt() * randn(n, metrics, seed=seed + 3), var


def objective(n=30, dims=2, shared=False, seed=0):
    """One metric's likelihood, with what it was made from."""
    x, mean, var = data(n=n, metrics=1, dims=dims, seed=seed)
    common = low_rank(1, n, size=0.3) if shared else None
    if shared:
        var = var + common.diagonal(dim1=-2, dim2=-1).mT
    own = off_diagonal(common)[0] if shared else None
    medians = likelihood.as_vectors(default_hyperparameters(1, dims, x))[0]
    one = likelihood.MarginalLikelihood(x, mean[:, 0], var[:, 0], own, medians)
    return one, (x, mean, var, own)


@law
@given(n=st.integers(1, 40), dims=st.integers(1, 4), shared=st.booleans(), seed=st.integers(0, 999))
def test_the_likelihood_and_its_gradient_are_gpytorchs(n, dims, shared, seed):
    ours, (x, mean, var, own) = objective(n, dims, shared, seed)
    at = 0.7 * randn(dims + 2, seed=seed + 1)
    h = likelihood.as_hyperparameters([at], x)
    p = Posterior(x, mean, var, h, unit(1), None if own is None else own[None])
    model = p.as_gpytorch()
    model.train()
    value = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    with exactly:
        loss = -n * value(model(*model.train_inputs), model.train_targets).sum()
    loss.backward()
    # Their parameters go through softplus; the chain rule takes both to logarithms.
    kernel, raw = model.covar_module, torch.nn.functional.softplus
    want = []
    for value_, leaf in (
        (kernel.base_kernel.lengthscale, kernel.base_kernel.raw_lengthscale),
        (kernel.outputscale, kernel.raw_outputscale),
    ):
        slope = torch.autograd.functional.jvp(raw, leaf.detach(), torch.ones_like(leaf))[1]
        want.append((leaf.grad / slope * value_).detach().flatten())
    want = torch.cat([*want, model.mean_module.constant.grad])
    got_loss, got = ours.loss_and_gradient(at)
    assert got_loss == pytest.approx(loss.item(), rel=1e-8, abs=1e-8)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    assert ours.loss(at) == pytest.approx(got_loss, rel=1e-12)


def test_the_gradient_is_that_of_differences_at_a_compiled_size():
    ours, _ = objective(n=520, dims=3)  # large enough for the compiled kernels
    at, step = 0.3 * randn(5, seed=6), 1e-5
    _, got = ours.loss_and_gradient(at)
    for i in range(5):
        away = step * torch.eye(5, dtype=f64)[i]
        want = (ours.loss(at + away) - ours.loss(at - away)) / (2 * step)
        assert float(got[i]) == pytest.approx(want, rel=1e-5, abs=1e-4)


def test_a_loss_that_cannot_be_had_is_infinite():
    ours, _ = objective()
    assert ours.loss(tensor([0.0, 0.0, 800.0, 0.0])) == math.inf


def test_fit_recovers_the_lengthscales_of_its_prior():
    x, f = prior_functions(6, 80, [0.2, 1.0], seed=20)
    var = torch.full_like(f, 1e-3)
    p = Surrogate().fit(x, f + var.sqrt() * randn(80, 6, seed=22), var)
    assert p.fit_succeeded
    lengthscales = (
        p.hyperparameters.lengthscale.log().mean(0).exp()
    )  # geometric mean of six functions
    assert 0.15 < float(lengthscales[0]) < 0.27
    assert 0.75 < float(lengthscales[1]) < 1.35


@pytest.mark.parametrize("shared", [False, True])
def test_fit_is_the_maximum_of_the_log_posterior(shared):
    x, mean, var = data(metrics=3)
    common = low_rank(3, 30, size=0.3) if shared else None
    if shared:
        var = var + common.diagonal(dim1=-2, dim2=-1).mT
    p = Surrogate().fit(x, mean, var, common)
    assert p.fit_succeeded
    best = log_posterior(p, mean, var, p.hyperparameters, common)
    start = log_posterior(p, mean, var, default_hyperparameters(3, 2, x), common)
    assert (best > start).all()
    length, out, constant = p.hyperparameters
    step = 0.1
    for sign in (-step, step):
        steps = [
            Hyperparameters(length * torch.exp(sign * tensor([1.0, 0.0])), out, constant),
            Hyperparameters(length * torch.exp(sign * tensor([0.0, 1.0])), out, constant),
            Hyperparameters(length, out * math.exp(sign), constant),
            Hyperparameters(length, out, constant + sign),
        ]
        for other in steps:
            assert (log_posterior(p, mean, var, other, common) < best + 1e-4).all()


def test_metrics_are_fitted_each_as_if_alone():
    x, mean, var = data(metrics=3)
    together = Surrogate().fit(x, mean, var)
    for m in range(3):
        alone = Surrogate().fit(x, mean[:, m : m + 1], var[:, m : m + 1])
        for a, b in zip(together.hyperparameters, alone.hyperparameters):
            torch.testing.assert_close(a[m : m + 1], b, rtol=0.02, atol=0.02)


def test_fit_twice_is_bit_equal():
    x, mean, var = data()
    common = 0.1 * low_rank(2, 30, size=0.1)
    for shared in (None, common):
        a, b = Surrogate().fit(x, mean, var, shared), Surrogate().fit(x, mean, var, shared)
        for left, right in zip(a.hyperparameters, b.hyperparameters):
            assert left.equal(right)
        for left, right in zip(a.marginal(x), b.marginal(x)):
            assert left.equal(right)


def test_warm_start_finds_the_same_optimum():
    x, mean, var = data()
    surrogate = Surrogate()
    cold = surrogate.fit(x, mean, var)
    assert all(map(torch.equal, surrogate.hyperparameters, cold.hyperparameters))
    warm = surrogate.fit(x, mean, var)
    start = Hyperparameters(tensor([[3.0, 0.1]] * 2), tensor([4.0] * 2), tensor([1.0] * 2))
    far = Surrogate(start).fit(x, mean, var)
    cold_value = log_posterior(cold, mean, var, cold.hyperparameters).sum()
    for other in (warm, far):
        value = log_posterior(other, mean, var, other.hyperparameters).sum()
        assert value > cold_value - 1e-3
        torch.testing.assert_close(other.marginal(x)[0], cold.marginal(x)[0], rtol=0, atol=0.01)
    assert log_posterior(warm, mean, var, warm.hyperparameters).sum() >= cold_value - 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("shared", [False, True])
def test_the_unit_of_a_metric_does_not_matter(scale, shared):
    x, mean, var = data()
    common = low_rank(2, 30, size=0.2)
    var = var + common.diagonal(dim1=-2, dim2=-1).mT
    factor = tensor([1.0, scale])  # one metric in another unit, the other as it was
    p = Surrogate().fit(x, mean, var, common if shared else None)
    q = Surrogate().fit(
        x,
        mean * factor,
        var * factor.square(),
        common * factor.square()[:, None, None] if shared else None,
    )
    points = rand(20, 2, seed=9)
    for power, ours, theirs in zip((1, 2), p.marginal(points), q.marginal(points)):
        torch.testing.assert_close(theirs / factor**power, ours, rtol=1e-6, atol=1e-7)
    a, b = p.paths(3, gen())(points), q.paths(3, gen())(points)
    torch.testing.assert_close(b / factor, a, rtol=1e-5, atol=1e-6)


def test_adding_a_constant_to_a_metric_adds_it_to_the_posterior():
    x, mean, var = data()
    p, q = Surrogate().fit(x, mean, var), Surrogate().fit(x, mean + 100.0, var)
    torch.testing.assert_close(q.marginal(x)[0] - 100, p.marginal(x)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(q.marginal(x)[1], p.marginal(x)[1], rtol=1e-5, atol=0)


def _cases():
    n = 12
    x, noisy = rand(n, 2), 0.01 * randn(n, 2, seed=1)
    small = torch.full((n, 2), 1e-4, dtype=f64)
    twice = torch.cat([x[:4], x[:4], x[:4]])
    spread = torch.logspace(-16, 6, n, dtype=f64).unsqueeze(-1).expand(n, 2)
    big = rand(200, 3)
    return {
        "constant metric": (x, torch.full((n, 2), 0.1, dtype=f64), small),
        "all zero": (x, torch.zeros(n, 2, dtype=f64), small),
        "zero variances": (x, noisy, torch.zeros(n, 2, dtype=f64)),
        "constant and zero variances": (x, torch.full((n, 2), 0.1, dtype=f64), small * 0),
        "one zero variance": (x, noisy, small.index_fill(0, torch.tensor([3]), 0.0)),
        "one point": (x[:1], noisy[:1], small[:1]),
        "one point without noise": (x[:1], noisy[:1], small[:1] * 0),
        "two points": (x[:2], noisy[:2], small[:2]),
        "duplicate points": (twice, noisy, small),
        "duplicates that contradict": (twice, noisy, small * 1e-12),
        "duplicates and zero variances": (twice, noisy, small * 0),
        "huge noise": (x, noisy, small * 1e14),
        "tiny noise": (x, noisy, torch.full((n, 2), 1e-16, dtype=f64)),
        "every size of noise": (x, noisy, spread),
        "an outlier": (x, noisy.index_fill(0, torch.tensor([2]), 1e4), small),
        "points close together": (0.5 + 1e-7 * x, noisy, small),
        "200 points": (big, torch.sin(3 * big[:, :2]), torch.full((200, 2), 1e-8, dtype=f64)),
        "one coordinate never moves": (x * tensor([1.0, 0.0]), noisy, small),
        "float32 and int": (x.float(), torch.ones(n, 2, dtype=torch.int64), small.float()),
    }


@pytest.mark.parametrize("name", list(_cases()))
@pytest.mark.parametrize("shared", [False, True])
def test_any_evidence_gives_a_usable_posterior(name, shared):
    x, mean, var = _cases()[name]
    common = None
    if shared:  # one control behind all rows, as large as half of the smallest variance
        half = var.double().amin(0) / 2
        common = half[:, None, None] * torch.ones(2, len(x), len(x), dtype=f64)
    p = Surrogate().fit(x, mean, var, common)
    points = torch.cat([x.double(), rand(5, x.shape[1], seed=4)])
    m, v = p.marginal(points)
    draws = p.paths(3, gen())(points)
    assert bool(m.isfinite().all())
    assert bool(v.isfinite().all())
    assert float(v.min()) > 0
    assert bool(draws.isfinite().all())
    assert m.dtype == v.dtype == draws.dtype == f64
    inside = mean.double()
    slack = 3 * (float(inside.max() - inside.min()) + float(var.max()) ** 0.5) + 1e-9
    assert float(m.max()) <= float(inside.max()) + slack
    assert float(m.min()) >= float(inside.min()) - slack


def test_more_noise_never_says_less_variance():
    x, mean, var = data()
    h = Surrogate().fit(x, mean, var).hyperparameters
    some = Posterior(x, mean, var, h, unit(2)).marginal(rand(9, 2))[1]
    more = Posterior(x, mean, 2 * var, h, unit(2)).marginal(rand(9, 2))[1]
    assert bool((more > some).all())


def test_a_failed_fit_keeps_the_start_and_says_so(monkeypatch):
    x, mean, var = data()
    good = Surrogate().fit(x, mean, var)
    calls = []

    def fail(self, at):
        calls.append(at)
        raise FitError("no")

    monkeypatch.setattr(likelihood.MarginalLikelihood, "loss_and_gradient", fail)
    surrogate = Surrogate(good.hyperparameters)
    p = surrogate.fit(x, mean, var)
    assert len(calls) == 4  # two metrics from two starts
    assert good.fit_succeeded
    assert p.fit_succeeded is False
    for got, want in zip(p.hyperparameters, good.hyperparameters):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
    cold = Surrogate().fit(x, mean, var)
    assert cold.fit_succeeded is False
    for got, want in zip(cold.hyperparameters, default_hyperparameters(2, 2, x)):
        torch.testing.assert_close(got, want)
    assert float(cold.marginal(x)[1].min()) > 0


def test_a_subset_does_not_grow_because_one_reading_is_missing(monkeypatch):
    sizes, real = [], fit._maximise
    monkeypatch.setattr(fit, "MOST_FITTED", 50)
    monkeypatch.setattr(
        fit, "_maximise", lambda data, start: sizes.append(len(data.x)) or real(data, start)
    )
    x, mean = rand(200, 2, seed=1), randn(200, 4, seed=2)
    for metric in range(4):
        mean[7 + metric, metric] = torch.nan
    Surrogate().fit(x, mean, torch.ones_like(mean))
    assert 50 <= sizes[0] <= 54


@pytest.mark.parametrize("shared", [False, True])
def test_many_candidates_fit_by_a_subset_and_count_all(monkeypatch, shared):
    """Also where one metric was observed for a few alone; the optimum is that of the subset."""
    n, most = 160, 60
    x = rand(n, 2, seed=3)
    true = torch.stack([(5 * x[:, 0]).sin(), x[:, 1]], dim=1)
    mean = true + 0.1 * randn(n, 2, seed=4)
    mean[40:, 1] = torch.nan
    var = torch.full_like(mean, 0.01)
    common = 0.004 * torch.ones(2, n, n, dtype=f64) if shared else None
    full = Surrogate().fit(x, mean, var, common)
    monkeypatch.setattr(fit, "MOST_FITTED", most)
    few = Surrogate().fit(x, mean, var, common)
    assert few.x.shape == (n, 2)
    assert few.fit_succeeded
    assert not torch.equal(few.lengthscale, full.lengthscale)
    again = Surrogate(few.hyperparameters).condition(x, mean, var, common)
    points = rand(50, 2, seed=5)
    for ours, theirs in zip(few.marginal(points), again.marginal(points)):
        assert torch.equal(ours, theirs)
    spaced = torch.linspace(0, n - 1, most).round().long()
    rows = torch.cat([torch.arange(40), spaced]).unique()  # those of the second metric as well
    unit = few.standardiser.scale[0]
    y, noise = (mean[rows, 0] - few.standardiser.shift[0]) / unit, var[rows, 0] / unit.square()
    system = None if common is None else common[0][rows][:, rows] / unit.square()
    if system is not None:
        system = system - torch.diag(system.diagonal())
    medians = likelihood.as_vectors(default_hyperparameters(2, 2, x))[0]
    own = likelihood.MarginalLikelihood(x[rows], y, noise, system, medians)
    _, slope = own.loss_and_gradient(likelihood.as_vectors(few.hyperparameters)[0])
    _, elsewhere = own.loss_and_gradient(likelihood.as_vectors(full.hyperparameters)[0])
    assert float(slope.abs().max()) < 0.2 < float(elsewhere.abs().max())


def test_one_metrics_failure_is_not_the_others(monkeypatch):
    x, mean, var = data()
    good = Surrogate().fit(x, mean, var)
    honest = likelihood.MarginalLikelihood.loss_and_gradient
    first = (mean[:, 0] - good.standardiser.shift[0]) / good.standardiser.scale[0]

    def fail(self, at):
        if torch.equal(self.y, first):
            raise FitError("no")
        return honest(self, at)

    monkeypatch.setattr(likelihood.MarginalLikelihood, "loss_and_gradient", fail)
    p = Surrogate().fit(x, mean, var)
    assert p.fit_succeeded is False
    default = default_hyperparameters(2, 2, x)
    torch.testing.assert_close(p.hyperparameters.lengthscale[0], default.lengthscale[0])
    assert p.hyperparameters.lengthscale[1].equal(good.hyperparameters.lengthscale[1])


@pytest.mark.parametrize("where", [torch.nan, 20.0, -60.0])
def test_a_fit_that_runs_away_or_gets_worse_is_not_used(monkeypatch, where):
    x, mean, var = data()

    def wander(self, at):
        at[:-1] = where  # as if a step had led there
        return (-1e9 if math.isfinite(where) else math.nan), torch.zeros_like(at)

    monkeypatch.setattr(likelihood.MarginalLikelihood, "loss_and_gradient", wander)
    p = Surrogate().fit(x, mean, var)
    assert p.fit_succeeded is False
    torch.testing.assert_close(
        p.hyperparameters.lengthscale, default_hyperparameters(2, 2, x).lengthscale
    )


def test_a_start_that_cannot_be_evaluated_gives_way_to_the_default():
    x, mean, var = data()
    nowhere = Hyperparameters(
        *(torch.full_like(t, 1e200) for t in Surrogate().fit(x, mean, var).hyperparameters)
    )
    p = Surrogate(nowhere).fit(x, mean, var)
    q = Surrogate().fit(x, mean, var)
    assert p.fit_succeeded
    for got, want in zip(p.hyperparameters, q.hyperparameters):
        assert got.equal(want)


def test_an_unexpected_exception_is_not_swallowed_and_leaves_no_setting_behind(monkeypatch):
    def fail(self, at):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(likelihood.MarginalLikelihood, "loss_and_gradient", fail)
    with pytest.raises(ZeroDivisionError):
        Surrogate().fit(*data())
    assert settings_now() == AT_IMPORT


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_the_posterior_is_calibrated_where_the_prior_is_known(noise):
    x, f = prior_functions(300, 40, [0.5, 0.8], seed=90)
    y = f + math.sqrt(noise) * randn(40, 300, seed=92)
    h = Hyperparameters(
        tensor([[0.5, 0.8]] * 300), torch.ones(300, dtype=f64), torch.zeros(300).double()
    )
    p = Posterior(x[:28], y[:28], torch.full((28, 300), noise, dtype=f64), h, unit(300))
    mean, var = p.marginal(x[28:])
    ratio = ((f[28:] - mean).square() / var).mean(0)  # one average for each function
    error = float(ratio.std()) / math.sqrt(300)
    assert abs(float(ratio.mean()) - 1) < 5 * error
    assert error < 0.05


def test_the_fitted_posterior_is_calibrated_on_functions_of_a_prior():
    """z-scores at held-out points have unit variance, but for the plug-in of hyperparameters."""
    ratios, noise = [], 0.01
    for seed in range(8):
        x, f = prior_functions(6, 40, [0.5, 0.8], seed=100 + 10 * seed)
        y = f + math.sqrt(noise) * randn(40, 6, seed=107 + 10 * seed)
        mean, var = (
            Surrogate().fit(x[:28], y[:28], torch.full((28, 6), noise, dtype=f64)).marginal(x[28:])
        )
        ratios.append(((f[28:] - mean).square() / var).mean(0))
    ratio = torch.cat(ratios)  # one average for each of 48 functions
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.15
    assert abs(float(ratio.mean()) - 1) < 4 * error


# --- what must not change -------------------------------------------------------------------


def settings_now():
    s = gpytorch.settings
    return (
        torch.get_default_dtype(),
        torch.get_num_interop_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        s.max_cholesky_size.value(),
        s.fast_computations.covar_root_decomposition.on(),
        s.fast_computations.log_prob.on(),
        s.fast_computations.solves.on(),
        s.cholesky_jitter.value(torch.float64),
        s.min_fixed_noise.value(torch.float64),
        s.debug.on(),
    )


with contextlib.suppress(ImportError):
    import botorch  # noqa: F401  its import changes GPyTorch's settings, and other tests import it
AT_IMPORT = settings_now()  # before anything was fitted


def test_nothing_global_changes():
    x, mean, var = data()
    kept = [t.clone() for t in (x, mean, var)]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    p = Surrogate().fit(x, mean, var, 0.01 * low_rank(2, 30))
    p.paths(3, gen())(x)
    p.marginal(x)
    p.covariance(x)
    assert settings_now() == AT_IMPORT
    assert torch.get_rng_state().equal(state)
    assert torch.get_num_threads() == threads
    assert all(a.equal(b) for a, b in zip((x, mean, var), kept))


def test_a_users_default_dtype_changes_nothing():
    x, mean, var = data()
    want = Surrogate().fit(x, mean, var)
    torch.set_default_dtype(torch.float64)
    try:
        got = Surrogate().fit(x, mean, var)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.marginal(x)[0].equal(want.marginal(x)[0])


# --- input that cannot be used --------------------------------------------------------------

X, MEAN, VAR = rand(4, 2), randn(4, 3), rand(4, 3)


@pytest.mark.parametrize(
    ("given_", "error", "names"),
    [
        ((X[0], MEAN, VAR), ShapeError, r"\(2,\)"),
        ((X, MEAN[:3], VAR[:3]), ShapeError, r"\(4, 2\), \(3, 3\)"),
        ((X, MEAN, VAR[:, :2]), ShapeError, r"\(4, 3\) and \(4, 2\)"),
        ((X, MEAN[:, 0], VAR[:, 0]), ShapeError, r"\(4,\)"),
        ((X, MEAN, VAR, torch.zeros(3, 4, 5)), ShapeError, r"\(3, 4, 4\).*\(3, 4, 5\)"),
        ((X, MEAN, VAR, torch.zeros(4, 4)), ShapeError, r"\(3, 4, 4\).*\(4, 4\)"),
        ((X, MEAN.to("meta"), VAR), ShapeError, "meta"),
        ((X, MEAN, VAR.to("meta")), ShapeError, "var on meta"),
        ((X.to("meta"), MEAN, VAR), ShapeError, "x on meta"),
        ((X, MEAN, VAR, torch.zeros(3, 4, 4, device="meta")), ShapeError, "meta"),
        ((X[:0], MEAN[:0], VAR[:0]), FitError, r"\[0, 0, 0\]"),
        ((X, MEAN * tensor([1, torch.nan, 1]), VAR), FitError, r"\[4, 0, 4\]"),
        ((X, MEAN, VAR * tensor([1, torch.nan, 1])), FitError, r"\[4, 0, 4\]"),
        ((X, MEAN.index_fill(0, torch.tensor([1]), torch.inf), VAR), FitError, "3 infinite means"),
        ((X, MEAN.index_fill(0, torch.tensor([1]), -torch.inf), VAR), FitError, "3 infinite"),
        ((X, MEAN, VAR.index_fill(0, torch.tensor([1]), -1e-9)), FitError, "3 negative variances"),
        ((X * torch.inf, MEAN, VAR), FitError, r"inf"),
        ((X * torch.nan, MEAN, VAR), FitError, r"nan"),
    ],
)
def test_fit_refuses(given_, error, names):
    surrogate = Surrogate()
    with pytest.raises(error, match=names):
        surrogate.fit(*given_)
    assert surrogate.hyperparameters is None


def test_an_infinite_variance_is_no_reading():
    var = VAR.clone()
    var[1, 0] = torch.inf
    mean = MEAN.clone()
    mean[1, 0] = torch.nan
    p, q = Surrogate().fit(X, MEAN, var), Surrogate().fit(X, mean, VAR)
    for a, b in zip(p.marginal(X), q.marginal(X)):
        assert a.equal(b)


def test_fit_refuses_a_start_of_another_size():
    x, mean, var = data()
    start = default_hyperparameters(3, 2, x)
    with pytest.raises(ShapeError, match=r"\(3, 2\), the data are \(2, 2\)"):
        Surrogate(start).fit(x, mean, var)


def test_evidence_that_contradicts_its_own_shared_noise_is_refused():
    common = torch.ones(3, 4, 4, dtype=f64)
    with pytest.raises(FitError, match="not positive definite"):
        Surrogate().fit(X, MEAN, 1e-3 * VAR, 1e3 * common)


@pytest.mark.parametrize(
    "points",
    [torch.zeros(3), torch.zeros(4, 3), torch.zeros(()), torch.zeros(4, 2, device="meta")],
)
def test_posterior_refuses_points_of_another_space(points):
    p = Surrogate().fit(X, MEAN, VAR)
    for call in (p.marginal, p.covariance, p.paths(2, gen())):
        with pytest.raises(ShapeError, match=r"expected points \(\.\.\., 2\) on cpu, got"):
            call(points)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 2), (3, 4, 2)])
def test_joint_quantities_need_one_list_of_points(shape):
    p = Surrogate().fit(X, MEAN, VAR)
    for call in (p.covariance, p.paths(2, gen())):
        with pytest.raises(ShapeError, match="flatten the leading axes"):
            call(torch.zeros(*shape, dtype=f64))


@pytest.mark.parametrize("num", [0, -1])
def test_paths_refuse_a_count_below_one(num):
    with pytest.raises(ShapeError, match=f"got {num}"):
        Surrogate().fit(X, MEAN, VAR).paths(num)


def test_leave_one_out_densities_are_those_of_each_row_given_all_others():
    root = randn(6, 6)
    covariance, residual = root @ root.T + torch.eye(6, dtype=f64), randn(6, seed=1)
    observed = tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(residual[:, None], factor)[:, 0]
    density = leave_one_out_log_density(factor, weights, observed)
    for row in range(6):
        others = [k for k in range(6) if k != row]
        gain = torch.linalg.solve(covariance[others][:, others], covariance[others, row])
        var = covariance[row, row] - gain @ covariance[others, row]
        expected = torch.distributions.Normal(gain @ residual[others], var.sqrt())
        expected = expected.log_prob(residual[row]) + 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(density[row], expected * observed[row])
