"""What has to hold on a real card before it is timed: results are the CPU's, plans are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.speed import given
from hyperzero_torch.stats import evidence, moments

f64 = torch.float64
# Largest difference from the CPU, relative to the largest value.
TOLERANCE = 1e-9


def checks(device: torch.device) -> Iterator[tuple[str, Callable[[], str]]]:
    """Each check's name, and a function that returns what was found or raises."""
    yield "mean and variance are the CPU's", lambda: _close(_marginals(device))
    yield "one joint draw is the CPU's", lambda: _close(_paths(device))
    yield "moments are the CPU's", lambda: _close(_moments(device))
    yield "the streaming update is the CPU's", lambda: _close(_stream(device))
    yield "an arm out of range is refused", lambda: _refused(device)
    yield "the same ask twice, and after resume: bit for bit", lambda: _same_plans(device)


def _close(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> str:
    worst = 0.0
    for got, want in pairs:
        size = float(want.abs().max()) or 1.0
        worst = max(worst, float((got.cpu() - want).abs().max()) / size)
    if not worst <= TOLERANCE:
        raise AssertionError(f"relative difference {worst:.2g}, at most {TOLERANCE:g} is expected")
    return f"largest relative difference {worst:.2g}"


def _both(device: torch.device) -> tuple[Any, Any, torch.Tensor]:
    x = torch.rand(5000, given.DIMS, dtype=f64, generator=torch.Generator().manual_seed(1))
    here = given.ours(given.evidence(300))
    return here, given.ours(given.evidence(300)).to(device), x


def _marginals(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    here, there, x = _both(device)
    return list(zip(there.marginal(x.to(device)), here.marginal(x)))


def _paths(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    _, there, x = _both(device)
    paths = there.paths(2, torch.Generator(device).manual_seed(0))
    return [(paths(x.to(device)), paths.on_cpu()(x))]


def _moments(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    values = 100 + torch.randn(50_000, 3, dtype=f64, generator=generator)
    arm = torch.randint(50, (50_000,), generator=generator)
    got = moments.summarise(values.to(device), arm.to(device), 50)
    return list(zip(got, moments.summarise(values, arm, 50)))


def _stream(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    fields = [20 + torch.rand(500, 4, dtype=f64, generator=generator) for _ in range(3)]
    states = []
    for place in (device, torch.device("cpu")):
        treatment = moments.Moments(*(field.to(place) for field in fields))
        control = moments.Moments(*(field[:1] for field in treatment))
        state = evidence.init(500, 4, device=place)
        evidence.stream(state, treatment, control)
        states.append(state)
    return list(zip(*states))


def _refused(device: torch.device) -> str:
    import hyperzero_torch as hz

    try:
        moments.summarise(torch.ones(2, 1, device=device), torch.tensor([0, 7], device=device), 3)
    except hz.ShapeError as error:
        return str(error)
    raise AssertionError("no error")


def _same_plans(device: torch.device) -> str:
    from bench.device import launches

    first, second = (launches.plans(str(device)) for _ in range(2))
    resumed = launches.plans(str(device), resume=True)
    for name, other in (("asked again", second), ("resumed", resumed)):
        for number, (plan, same) in enumerate(zip(first, other)):
            if plan.shares != same.shares or not torch.equal(plan.theta, same.theta):
                raise AssertionError(f"the plan of round {number} differs when {name}")
    return f"{len(first)} plans"
