"""The hierarchical model against the dense joint Gaussian that it stands for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.family_of_surfaces import LENGTHSCALE, drawn, family, filling, normal_log_density

from hyperzero_torch.surrogate.kernels import matern52
from hyperzero_torch.transfer.model import coregionalization
from hyperzero_torch.transfer.model.family import gather_family
from hyperzero_torch.transfer.model.inducing import (
    OFFSET_VAR,
    Reduced,
    Spectrum,
    at_points,
    choose,
    most_informative,
    reduce,
    spectrum,
)

DIMS = 2
ELL = LENGTHSCALE.expand(1, DIMS)


def believed(known, r):
    """Mean ``(metrics, m)`` and covariance ``(metrics, m, m)`` of a new domain's ``u``.

    Args:
        known: the posterior of ``g``.
        r: ``(metrics,)`` its own share.
    """
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(known.precision))
    mean = r.unsqueeze(-1) * (covariance @ known.information.unsqueeze(-1)).squeeze(-1)
    unit = torch.eye(covariance.shape[-1], dtype=r.dtype, device=r.device)
    return mean, unit - r.square()[:, None, None] * (unit - covariance)


def small(shares, rows=7, seed=0, noise=0.2):
    """Domains observed at the inducing points themselves, where nothing is approximated."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(rows, DIMS, dtype=torch.float64, generator=generator)
    inducing = choose(z, ELL, rows)
    x = inducing.z
    r = torch.tensor(shares, dtype=torch.float64)
    y = drawn(x, r, generator) + noise * torch.randn(
        len(shares), len(x), dtype=torch.float64, generator=generator
    )
    var = torch.full_like(y, noise**2)
    projected = inducing.project(x)
    reduced = [reduce(projected, row[None], v[None], None, OFFSET_VAR) for row, v in zip(y, var)]
    spectra = [spectrum(one) for one in reduced]
    together = Spectrum(*(torch.stack(fields, dim=1) for fields in zip(*spectra)))
    return inducing, x, y, var, together, reduced


def dense(x, var, r):
    """Covariance of all domains' evidence, one after the other, as the model has it."""
    k = matern52(x, x, ELL)[0]
    num, n = var.shape
    total = torch.zeros(num * n, num * n, dtype=torch.float64)
    for d in range(num):
        for e in range(num):
            block = (1.0 if d == e else float(r[d] * r[e])) * k
            if d == e:
                block = block + torch.diag(var[d]) + OFFSET_VAR
            total[d * n : (d + 1) * n, e * n : (e + 1) * n] = block
    return total


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.0, 0.98), min_size=2, max_size=4), st.integers(0, 1000))
def test_the_evidence_is_that_of_the_dense_gaussian(shares, seed):
    _, x, y, var, spectra, reduced = small(shares, seed=seed)
    evidence, wanted = [], []
    for r in (shares, [0.0] * len(shares), [0.5] * len(shares)):
        r = torch.tensor(r, dtype=torch.float64)
        constant = sum(float(one.constant) for one in reduced)
        size = y.numel() * math.log(2 * math.pi) / 2
        evidence.append(float(coregionalization.log_evidence(spectra, r[None])) + constant - size)
        wanted.append(normal_log_density(y.flatten(), dense(x, var, r)))
    assert evidence == pytest.approx(wanted, rel=1e-5, abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 0.98), st.floats(0.1, 0.98), st.integers(0, 1000))
def test_what_is_believed_of_the_target_is_the_dense_conditional(share, own, seed):
    inducing, x, y, var, spectra, _ = small([share] * 3, seed=seed)
    r = torch.full((1, 3), share, dtype=torch.float64)
    mean, covariance = believed(
        coregionalization.shared_posterior(spectra, r), torch.tensor([own], dtype=torch.float64)
    )
    root = inducing.root[0]
    k = matern52(x, x, ELL)[0]
    cross = torch.cat([share * own * k] * 3, dim=1)
    system = dense(x, var, r[0])
    wanted = cross @ torch.linalg.solve(system, y.flatten())
    left = k - cross @ torch.linalg.solve(system, cross.T)
    torch.testing.assert_close(root @ mean[0], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(root @ covariance[0] @ root.T, left, rtol=1e-4, atol=1e-5)


def test_pseudo_observations_say_what_the_sources_say():
    _, _, _, _, spectra, _ = small([0.95] * 3, seed=3)
    known = coregionalization.shared_posterior(
        spectra, torch.full((1, 3), 0.95, dtype=torch.float64)
    )
    own = torch.tensor([0.9], dtype=torch.float64)
    pseudo = coregionalization.pseudo_observations(known, own)
    mean, covariance = believed(known, own)
    unit = torch.eye(len(pseudo.value[0]), dtype=torch.float64)
    gain = torch.linalg.inv(unit + pseudo.noise[0])
    torch.testing.assert_close(gain @ pseudo.value[0], mean[0], rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(unit - gain, covariance[0], rtol=1e-3, atol=2e-3)


def test_sources_of_no_share_say_nothing():
    _, _, _, _, spectra, _ = small([0.9] * 3)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    known = coregionalization.shared_posterior(spectra, zero)
    assert float(known.information.abs().max()) == 0.0
    mean, covariance = believed(known, torch.tensor([0.9], dtype=torch.float64))
    assert float(mean.abs().max()) == 0.0
    torch.testing.assert_close(covariance[0], torch.eye(len(mean[0]), dtype=torch.float64))


def test_rows_that_tell_most_come_first_and_repeats_tell_nothing_new():
    x = torch.tensor([[0.1, 0.1], [0.9, 0.9], [0.1, 0.1]], dtype=torch.float64)
    noise = torch.tensor([1e-4, 1e-2, 10.0], dtype=torch.float64)
    rows = most_informative(x, noise, ELL, 3)
    assert rows.tolist()[:2] == [0, 1]
    assert 2 not in rows.tolist()


def test_evidence_at_points_says_of_them_what_it_said_and_of_others_nothing_more():
    generator = torch.Generator().manual_seed(2)
    m = 6
    root = torch.randn(m, m, dtype=torch.float64, generator=generator)
    information = torch.randn(m, dtype=torch.float64, generator=generator)
    whole = Reduced(root @ root.T, information, torch.zeros((), dtype=torch.float64))
    points = 0.4 * torch.randn(2, m, dtype=torch.float64, generator=generator)
    less = at_points(whole, points)
    unit = torch.eye(m, dtype=torch.float64)

    def believed(reduced):
        covariance = torch.linalg.inv(unit + reduced.precision)
        return covariance @ reduced.information, covariance

    for reduced in (whole, less):
        mean, covariance = believed(reduced)
        if reduced is whole:
            at, spread = points @ mean, points @ covariance @ points.T
    mean, covariance = believed(less)
    assert torch.allclose(points @ mean, at, rtol=2e-2, atol=1e-3)
    assert torch.allclose(points @ covariance @ points.T, spread, rtol=2e-2, atol=1e-3)
    # Directions that the points do not see keep their prior.
    _, _, axes = torch.linalg.svd(points)
    unseen = axes[2:]
    assert torch.allclose(unseen @ covariance @ unseen.T, torch.eye(m - 2).double(), atol=1e-9)
    assert float((unseen @ mean).abs().max()) < 1e-9


def test_reduction_ignores_rows_that_were_not_observed():
    inducing = choose(filling(), ELL, 20)
    x = filling()[:10]
    y = torch.arange(10, dtype=torch.float64)
    noise = torch.full((10,), 0.1, dtype=torch.float64)
    noise[7:] = torch.inf
    y[7:] = torch.nan
    projected = inducing.project(x)
    whole = reduce(projected, y[None], noise[None], None, 1.0)
    part = reduce(projected[:, :7], y[None, :7], noise[None, :7], None, 1.0)
    for a, b in zip(whole, part):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95])
def test_the_share_is_found_from_the_agreement_of_the_sources(share):
    shares = []
    for seed in range(6):
        sources, *_ = family(share, num=6, seed=seed, rows=50, noise=0.2)
        shares.append(gather_family(sources, filling()).loading.mean())
    mean = float(torch.stack(shares).mean())
    # Six families of six: the average is within a tenth or so, more where little is shared.
    assert abs(mean**2 - share**2) < 0.2


def test_a_sources_unit_and_offset_change_nothing():
    sources, *_ = family(0.9, seed=1)
    plain = gather_family(sources, filling())
    moved = [s._replace(mean=1e3 * s.mean + 7.0, var=1e6 * s.var) for s in sources]
    scaled = gather_family(moved, filling())
    torch.testing.assert_close(scaled.loading, plain.loading, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scaled.spread, 1e3 * plain.spread, rtol=1e-4, atol=0)


def test_shuffled_settings_are_all_nugget_or_noise():
    sources, *_ = family(0.9, seed=2, rows=60, noise=0.1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    bad = sources[0]._replace(mean=sources[0].mean[order])
    gathered = gather_family([bad, *sources[1:]], filling())
    assert float(gathered.nugget[0, 0]) >= 1.0 > float(gathered.nugget[0, 1:].max())
    assert float(gathered.skill[0, 0]) < 0.2 * float(gathered.skill[0, 1:].min())


@pytest.mark.parametrize("share", [0.9, 0.97, 0.99])
def test_a_domains_own_part_is_neither_lost_nor_made_up_where_nearly_all_is_shared(share):
    shares = []
    for seed in range(8):
        sources, *_ = family(share, num=6, seed=seed, rows=50, noise=0.1)
        own = float(1 - gather_family(sources, filling()).loading.square().mean())
        shares.append(own / (1 - share**2))
    assert 0.75 < min(shares) <= max(shares) < 2.2
    assert 0.8 < sum(shares) / len(shares) < 1.5


def test_directions_that_nobody_speaks_of_are_left_out():
    inducing = choose(filling(), ELL, 20)
    x = filling()[:5]
    y = torch.arange(5, dtype=torch.float64)
    reduced = reduce(inducing.project(x), y[None], torch.full((1, 5), 0.1).double(), None, 1.0)
    reduced_spectrum = spectrum(reduced)
    assert reduced_spectrum.precision.shape[-1] <= 5
    whole = (
        reduced_spectrum.basis * reduced_spectrum.precision.unsqueeze(-2)
    ) @ reduced_spectrum.basis.mT
    torch.testing.assert_close(whole, reduced.precision, rtol=0, atol=1e-5)
    direction = (reduced_spectrum.basis @ reduced_spectrum.information.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(direction, reduced.information, rtol=0, atol=1e-4)
