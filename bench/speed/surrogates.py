"""How fast is a GPyTorch kernel as surrogate, and does the ensemble of networks scale?

    python -m bench.speed.surrogates [--repeats 7]

``rbf``: 300 candidates, 4 metrics, 4 dimensions, a common control. The surrogate ``rbf`` beside
BoTorch's own fit of the same model (``SingleTaskGP`` with the same kernel, priors and mean, one
batch over the metrics, ``fit_gpytorch_mll``), which cannot know the control's common error. A round
is the fit, the marginals of all candidates, 64 joint draws at 600 points and 4 proposals refined by
slopes. Paths: 64 draws, evaluated at 10,000 points, beside the default model's.

``ensemble``: 20,000 candidates, 2 metrics, 10^6 points of proposals: marginals of all points.

Repeats are interleaved; minima and the ratios of minima count, because other processes disturb. For
the same reason CPU seconds count for the ensemble, whose work is shared by all threads.
Writes bench/results/surrogates_speed.json.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hyperzero_torch as hz
from bench.processes import versions
from hyperzero_torch.surrogate.foreign import choose

RESULT = Path(__file__).parents[1] / "results" / "surrogates_speed.json"
_NUM, _METRICS, _DIMS = 300, 4, 4
_PATHS, _POINTS, _SAMPLES = 64, 10_000, 600


def evidence(num: int, metrics: int, with_shared: bool = True) -> tuple[Tensor, ...]:
    """Smooth deltas of 2 %, noise a tenth of it."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = torch.rand(num, _DIMS, generator=generator, dtype=torch.float64)
    omega, phase, size = normal(50, _DIMS) / 0.7, 6.3 * normal(50), normal(50, metrics) / 5
    mean = 0.02 * (x @ omega.T + phase).cos() @ size + 0.002 * normal(num, metrics)
    var = torch.full_like(mean, 4e-6)
    if not with_shared:
        return x, mean, var
    return x, mean, var, torch.full((metrics, num, num), 4e-7, dtype=torch.float64)


def botorch_fit(x: Tensor, mean: Tensor, var: Tensor) -> Any:
    """BoTorch's fit of the model that ``rbf`` is, metrics as a batch of outputs."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.kernels import RBFKernel, ScaleKernel
    from gpytorch.means import ConstantMean
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import LogNormalPrior, NormalPrior

    batch = torch.Size([mean.shape[1]])
    kernel = ScaleKernel(
        RBFKernel(
            ard_num_dims=_DIMS, batch_shape=batch, lengthscale_prior=LogNormalPrior(-0.35, 0.6)
        ),
        batch_shape=batch,
        outputscale_prior=LogNormalPrior(0.336, 0.7),
    )
    centre = ConstantMean(batch_shape=batch, constant_prior=NormalPrior(0.0, 1.0))
    model = SingleTaskGP(
        *(x, mean, var),
        covar_module=kernel,
        mean_module=centre,
        outcome_transform=Standardize(mean.shape[1]),
    )
    return fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))


def _problem() -> hz.Problem:
    names = [f"w_{i}" for i in range(_DIMS)]
    space = hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in names])
    metrics = [f"m_{i}" for i in range(_METRICS)]
    return hz.Problem(space, dict.fromkeys(names, 0.5), metrics, "m_0", ["m_1 >= -1%"])


def play_round(fit: Callable[[], Any], x: Tensor, problem: hz.Problem) -> None:
    """What a round asks of a surrogate."""
    posterior, generator = fit(), torch.Generator().manual_seed(0)
    posterior.marginal(x)
    points = torch.rand(_SAMPLES, _DIMS, generator=generator, dtype=torch.float64)
    posterior.paths(_PATHS, generator)(points)
    hz.thompson.propose(posterior, problem, _SAMPLES, 4, generator=generator)


def measure_rbf(repeats: int) -> dict[str, list[float]]:
    """Seconds, by what was measured."""
    data, problem = evidence(_NUM, _METRICS), _problem()
    rbf = choose("rbf", _DIMS)
    assert rbf is not None
    posteriors = {"rbf": rbf.fit(*data), "default": hz.Surrogate().fit(*data)}
    points = torch.rand(_POINTS, _DIMS, dtype=torch.float64)

    def paths(name: str) -> Callable[[], Any]:
        return lambda: posteriors[name].paths(_PATHS, torch.Generator().manual_seed(0))(points)

    work: dict[str, Callable[[], Any]] = {
        "rbf_fit": lambda: rbf.fit(*data),
        "botorch_fit": lambda: botorch_fit(*data[:3]),
        "default_fit": lambda: hz.Surrogate().fit(*data),
        "rbf_round": lambda: play_round(lambda: rbf.fit(*data), data[0], problem),
        "rbf_paths": paths("rbf"),
        "default_paths": paths("default"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_ensemble(num: int, points: int) -> dict[str, float]:
    """Seconds of a fit to many candidates, and of the marginals of many points."""
    x, mean, var = evidence(num, 2, with_shared=False)
    at = torch.rand(points, _DIMS, dtype=torch.float64)
    start, cpu = time.perf_counter(), time.process_time()
    posterior = hz.surrogate.Ensemble().fit(x, mean, var)
    fitted, cpu_fitted = time.perf_counter(), time.process_time()
    centre, _ = posterior.marginal(at)
    return {
        "candidates": num, "points": points,
        "fit": fitted - start, "marginals": time.perf_counter() - fitted,
        "cpu_fit": cpu_fitted - cpu, "cpu_marginals": time.process_time() - cpu_fitted,
        "sum": float(centre.sum()),
    }  # fmt: skip


def table() -> str:
    """Ratios and what they should be."""
    record = json.loads(RESULT.read_text())
    best = {name: min(values) for name, values in record["rbf"].items()}
    rows = [
        ("a round with `rbf` / BoTorch's fit", best["rbf_round"] / best["botorch_fit"], "<= 1.5"),
        ("a fit of `rbf` / BoTorch's fit", best["rbf_fit"] / best["botorch_fit"], ""),
        ("paths of `rbf` / the default's", best["rbf_paths"] / best["default_paths"], "<= 3"),
        ("a fit of `rbf` / the default's", best["rbf_fit"] / best["default_fit"], ""),
    ]
    lines = ["| measured | value | wanted |", "| --- | --- | --- |"]
    lines += [f"| {what} | {value:.2f} | {wanted} |" for what, value, wanted in rows]
    large = record.get("ensemble")
    if large is not None:
        fit, marginals = large["cpu_fit"] / 2, large["cpu_marginals"] / 2
        lines.append(
            f"| `ensemble`: fit to {large['candidates']:,} candidates, marginals of "
            f"{large['points']:,} points: CPU seconds over two cores | {fit + marginals:.0f} s "
            f"({fit:.0f} + {marginals:.0f}) | <= 60 s |"
        )
    lines += [
        "",
        f"BoTorch's fit took {best['botorch_fit']:.2f} s at best, {len(record['rbf']['rbf_fit'])} "
        "repeats on a busy machine; "
        f"torch {record['versions']['torch']}, botorch {record['versions'].get('botorch', '-')}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("rbf", "ensemble"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record |= {"threads": options.threads, "versions": versions(("torch", "gpytorch", "botorch"))}
    if options.only != "ensemble":
        record["rbf"] = measure_rbf(options.repeats)
    if options.only != "rbf":
        record["ensemble"] = measure_ensemble(20_000, 10**6)
    RESULT.write_text(json.dumps(record) + "\n")
    print(table())


if __name__ == "__main__":
    main()
