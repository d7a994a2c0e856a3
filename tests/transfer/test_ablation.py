"""Which parameters carry over: told in nats, and right about worlds of known make."""

import torch
from support.family_of_surfaces import aligned, cold, filling

from hyperzero_torch.surrogate.kernels import matern52
from hyperzero_torch.transfer.model import target
from hyperzero_torch.transfer.model.ablation import contributions, without_each_parameter
from hyperzero_torch.transfer.model.family import gather_family

COLUMNS = {"first": slice(0, 1), "second": slice(1, 2)}
BASE = torch.tensor([0.5, 0.5], dtype=torch.float64)


def functions(generator, num):
    """Smooth functions of one variable, as values at what they are called with."""
    knots = torch.linspace(0, 1, 12, dtype=torch.float64).unsqueeze(1)
    ell = torch.tensor([[0.4]], dtype=torch.float64)
    k = matern52(knots, knots, ell)[0] + 1e-9 * torch.eye(12, dtype=torch.float64)
    weights = torch.cholesky_solve(
        torch.linalg.cholesky(k) @ torch.randn(12, num, dtype=torch.float64, generator=generator),
        torch.linalg.cholesky(k),
    )
    return lambda x, i: matern52(x.unsqueeze(1), knots, ell)[0] @ weights[:, i]


def fit_of(seed):
    """Nats by parameter where domains agree about the first and go their own ways in the second."""
    generator = torch.Generator().manual_seed(seed)
    of = functions(generator, 4)
    phase = 3 * torch.rand((), dtype=torch.float64, generator=generator)
    domains = []
    for i in range(4):
        x = torch.rand(60, 2, dtype=torch.float64, generator=generator)
        mean = 0.02 * (2 * (4 * x[:, 0] + phase).sin() + of(x[:, 1], i)).unsqueeze(1)
        mean = mean + 0.002 * torch.randn(60, 1, dtype=torch.float64, generator=generator)
        domains.append(aligned(f"domain_{i}", x, mean, 0.002**2))
    north = domains.pop()
    own = cold(north.x[:15], north.mean[:15], north.var[:15])
    family = gather_family(domains, filling())
    fitted = target.fit_target(family, own)
    less = dict(zip(COLUMNS, without_each_parameter(family, BASE, [*COLUMNS.values()])))
    nothing = contributions(family, fitted.target, torch.zeros_like(fitted.loading), less)
    assert all(float(value.abs().max()) < 1e-9 for value in nothing.values())
    return fitted, contributions(family, fitted.target, fitted.loading, less)


def test_the_parameter_that_domains_share_carries_more_than_the_other():
    trials = [fit_of(seed) for seed in range(5)]
    first, second = (torch.tensor([float(nats[name][0]) for _, nats in trials]) for name in COLUMNS)
    assert all(float(fitted.loading[0, -1]) > 0 for fitted, _ in trials)
    assert float(first.min()) > 1.0
    assert float((first > second).double().mean()) >= 0.8
    assert float(first.sum()) > 1.5 * float(second.sum())
