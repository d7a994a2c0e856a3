"""Standard normals in mirrored pairs."""

import pytest
import torch

from hyperzero_torch.stats.normals import antithetic_normals, sobol_normals


def draw(kind, seed=3):
    if kind == "sobol":
        return sobol_normals(512, 3, seed)
    return antithetic_normals(512, 3, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["sobol", "antithetic"])
def test_each_half_mirrors_the_other_and_has_the_moments_of_a_normal(kind):
    z = draw(kind)
    assert z.shape == (512, 3)
    assert z.dtype == torch.float64
    assert torch.equal(z[:256], -z[256:])
    covariance = z.T @ z / 512
    torch.testing.assert_close(covariance, torch.eye(3, dtype=z.dtype), atol=0.2, rtol=0)


@pytest.mark.parametrize("kind", ["sobol", "antithetic"])
def test_the_seed_decides_all(kind):
    assert torch.equal(draw(kind), draw(kind))
    assert not torch.equal(draw(kind), draw(kind, seed=4))


def test_quasi_random_normals_fill_the_line_more_evenly_than_independent_ones():
    levels = (torch.arange(512, dtype=torch.float64) + 0.5) / 512

    def discrepancy(z):
        return (torch.special.ndtr(z).sort(0).values - levels.unsqueeze(1)).abs().max()

    assert discrepancy(draw("sobol")) < 0.5 * discrepancy(draw("antithetic"))
