"""Inputs that several benchmarks share, the same for us and for BoTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

import hyperzero_torch as hz
from hyperzero_torch.surrogate import Hyperparameters, Posterior, Standardiser

DIMS, METRICS = 4, 4
f64 = torch.float64


class Evidence(NamedTuple):
    """A tested bucket: ``x (n, dims)``, ``mean`` and ``var`` ``(n, metrics)``, standardised."""

    x: Tensor
    mean: Tensor
    var: Tensor


def evidence(n: int, device: torch.device | str = "cpu", seed: int = 0) -> Evidence:
    """Smooth functions of ``x`` with noise of known variance, twice as large at some points."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=f64)

    x = rand(n, DIMS)
    phase = 2 + 3 * rand(DIMS, METRICS)
    true = (x @ phase + 6 * rand(METRICS)).sin() + 0.5 * (x.square() @ phase).cos()
    var = 0.05 * (1 + rand(n, METRICS))
    noise = torch.randn(n, METRICS, generator=generator, dtype=f64)
    return Evidence(*(field.to(device) for field in (x, true + var.sqrt() * noise, var)))


def ours(given: Evidence) -> Posterior:
    """Our posterior under fixed hyperparameters, those of ``botorch_kernel``."""
    metrics = given.mean.shape[1]
    zero, one = given.x.new_zeros(metrics), given.x.new_ones(metrics)
    hyperparameters = Hyperparameters(given.x.new_full((metrics, DIMS), 0.6), one, zero)
    return Posterior(*given, hyperparameters, Standardiser(zero, one))


def botorch(given: Evidence) -> Any:
    """The same posterior as a batched ``SingleTaskGP`` with known noise, in evaluation mode."""
    from botorch.models import SingleTaskGP

    model = SingleTaskGP(*given, covar_module=botorch_kernel(), outcome_transform=None)
    model.to(given.x).eval()
    return model


def botorch_kernel() -> Any:
    from gpytorch.kernels import MaternKernel, ScaleKernel

    batch = torch.Size([METRICS])
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=DIMS, batch_shape=batch), batch_shape=batch
    )
    kernel.outputscale = 1.0
    kernel.base_kernel.lengthscale = 0.6
    return kernel.double()


def problem() -> hz.Problem:
    """Two of the metrics are to be gained, two are guardrails."""
    return hz.Problem(
        space=hz.SearchSpace([hz.Float(f"theta_{i}", 0.0, 1.0) for i in range(DIMS)]),
        base={f"theta_{i}": 0.5 for i in range(DIMS)},
        metrics=[f"metric_{i}" for i in range(METRICS)],
        objective="metric_0 + 0.5 * metric_1",
        constraints=["metric_2 >= -10%", "metric_3 >= -20%"],
    )
