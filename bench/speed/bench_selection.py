"""Algorithm 1: a thousand draws over a large bucket, against drawing that many normals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hyperzero_torch as hz
from hyperzero_torch.thompson import select

from .conftest import Timed

DRAWS, CANDIDATES, METRICS, WIDTH = 1000, 10_000, 8, 32
NORMALS_AT_ONCE = 2**22


def problem(objective) -> hz.Problem:
    return hz.Problem(
        space=hz.SearchSpace([hz.Float("theta", 0.0, 1.0)]),
        base={"theta": 0.5},
        metrics=[f"metric_{i}" for i in range(METRICS)],
        objective=objective,
        constraints=["metric_6 >= -1%", "metric_7 >= -2%"],
    )


class Network(nn.Module):
    """Three layers over all metrics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(METRICS, WIDTH),
            nn.Tanh(),
            nn.Linear(WIDTH, WIDTH),
            nn.Tanh(),
            nn.Linear(WIDTH, 1),
        ).double()

    def forward(self, delta):
        return self.layers(delta)[..., 0]


@pytest.mark.parametrize(
    "who", ["normals", "linear", "linear, caution 1", "network", "network's products"]
)
def bench_selection(timed: Timed, who):
    candidates = timed.size(CANDIDATES)
    question = f"selection, {DRAWS} draws x {candidates:,} candidates x {METRICS} metrics"
    generator = timed.generator()
    device = timed.device
    work = DRAWS * candidates * METRICS
    if who == "normals":
        sizes = [min(NORMALS_AT_ONCE, work - s) for s in range(0, work, NORMALS_AT_ONCE)]

        def normals() -> None:
            for size in sizes:
                torch.randn(size, dtype=torch.float64, generator=generator, device=device)

        timed(question, "drawing the normals", "limit", work, normals, 3)
        return
    net = Network().to(device)
    if who == "network's products":
        rows = NORMALS_AT_ONCE // METRICS
        x, h = (torch.rand(rows, w, dtype=torch.float64, device=device) for w in (METRICS, WIDTH))

        def products() -> None:
            with torch.no_grad():
                for _ in range(max(1, work // NORMALS_AT_ONCE)):
                    _ = net.layers[0](x), net.layers[2](h), net.layers[4](h)

        timed(question, "the network's matrix products", "limit", work, products, 3)
        return
    shape = (candidates, METRICS)
    mean = 0.01 * torch.randn(shape, dtype=torch.float64, generator=generator, device=device)
    var = torch.full_like(mean, 1e-5)
    asked = problem("metric_0 + 0.5 * metric_1" if who.startswith("linear") else net)
    caution = 1.0 if "caution" in who else 0.0
    named = "objective of three layers" if who == "network" else f"{who} objective"
    run = lambda: select(mean, var, asked, DRAWS, generator, caution)  # noqa: E731
    timed(question, named, "ours", work, run, 3)
    if who == "network":
        timed.benchmark.extra_info["limit"] = "the network's matrix products"
