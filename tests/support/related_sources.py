"""Domains with the target's own lifts, or with what a sign makes of them."""

import torch

from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.transfer import Source


def world(seed=1):
    return GuardrailWorld(seed, 2, traffic=4.0)


def source(name, place, sign=1.0, seed=0, num=60, std=0.003, metrics=None):
    """Another domain with the target's own lifts, or what ``sign`` makes of them."""
    space = place.problem.space
    x = space.sobol(num, seed=seed + 11)
    generator = torch.Generator().manual_seed(seed)
    true = sign * place.true_delta(space.from_unit(x))
    mean = true + std * torch.randn(true.shape, dtype=torch.float64, generator=generator)
    return Source(
        name=name,
        parameters=space.to_parameters(space.from_unit(x)),
        metrics=place.problem.metrics,
        mean=mean,
        var=torch.full_like(mean, std**2),
        base=place.problem.base,
    )


def related(place, num=2, sign=1.0):
    return [source(f"domain_{i}", place, sign, seed=i) for i in range(num)]
