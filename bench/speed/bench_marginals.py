"""Mean and variance at many points, against BoTorch and against the triangular solve alone."""

from __future__ import annotations

import pytest
import torch

from . import given
from .conftest import Timed

N, BUCKET, CHUNK = 100_000, 1000, 512
PEERS = {
    "BoTorch `posterior(X).variance`, 4000 at once": 4000,
    "BoTorch, 300 at once, `fast_pred_var` (its fastest)": 300,
}


@pytest.mark.parametrize("who", ["float64", "mixed", "solve float64", "solve float32", *PEERS])
def bench_marginals(timed: Timed, who):
    """Evaluation is in chunks, so rates do not depend on N; BoTorch gets a tenth of the points."""
    points = timed.size(N)
    seen = given.evidence(BUCKET, timed.device)
    question = f"mean and variance, n = {BUCKET}, {given.METRICS} metrics, N = {points:,}"
    x = torch.rand(
        points,
        given.DIMS,
        generator=timed.generator(),
        dtype=torch.float64,
        device=timed.device,
    )
    with torch.no_grad():
        if who in PEERS:
            pytest.importorskip("botorch")
            import gpytorch

            model, size = given.botorch(seen), PEERS[who]
            few = x[: max(size, points // 10)]

            def theirs() -> None:
                for part in few.split(size):
                    with gpytorch.settings.fast_pred_var(size < 1000):
                        posterior = model.posterior(part)
                        _ = posterior.mean, posterior.variance

            timed(question, who, "peer", len(few), theirs, 3)
            return
        posterior = given.ours(seen)
        if who.startswith("solve"):
            dtype = getattr(torch, who.split()[1])
            factor = posterior.evaluation(dtype).cholesky
            k = torch.rand(given.METRICS, CHUNK, BUCKET, dtype=dtype, device=timed.device).mT
            times = max(1, points // CHUNK)

            def limit() -> None:
                for _ in range(times):
                    torch.linalg.solve_triangular(factor, k, upper=False)

            timed(question, f"triangular {who} alone", "limit", times * CHUNK, limit, 3)
            return
        dtype = torch.float64 if who == "float64" else torch.float32
        at = x.to(dtype)
        timed.benchmark.extra_info["limit"] = f"triangular solve {str(dtype)[6:]} alone"
        timed(question, who, "ours", points, lambda: posterior.marginal(at), 3)
        if who == "mixed":
            few = x[:20_000]
            mean, var = posterior.marginal(few)
            mean32, var32 = posterior.marginal(few.float())
            timed.benchmark.extra_info |= {
                "largest error of the mean, posterior std": float(
                    ((mean32 - mean).abs() / var.sqrt()).max()
                ),
                "largest relative error of the variance": float(((var32 - var).abs() / var).max()),
            }
