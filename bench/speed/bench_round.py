"""A complete round, against the same steps built from BoTorch's parts.

Ours: refit from last hour's hyperparameters, a thousand joint draws over the bucket by Algorithm 1,
and eight proposals from a million points. Theirs: ``fit_gpytorch_mll``, a thousand
``draw_matheron_paths`` over the bucket, eight over the points, winners by the same rule. BoTorch
gets a hundredth of the points, and its time is multiplied: its rate does not depend on N.
"""

from __future__ import annotations

import time
import warnings

import pytest
import torch

from hyperzero_torch.surrogate import Surrogate
from hyperzero_torch.thompson import propose, select_paths
from hyperzero_torch.thompson.winners import best_of

from . import given
from .conftest import Timed

N, BUCKET, DRAWS, PROPOSALS, STARTS = 1_000_000, 1000, 1000, 8, 4
CHUNK = 1000  # where BoTorch's paths are fastest


@pytest.mark.parametrize("who", ["float64", "mixed", "BoTorch"])
def bench_round(timed: Timed, who):
    points, n = timed.size(N), max(50, timed.size(BUCKET))
    seen, asked = given.evidence(n, timed.device), given.problem()
    question = f"a whole round, bucket of {n}, {given.METRICS} metrics, N = {points:,}"
    generator = timed.generator()
    parts: dict[str, float] = {}

    def lap(name: str, since: float) -> float:
        timed.wait()
        now = time.perf_counter()
        parts[name] = now - since
        return now

    def ours() -> None:
        at = time.perf_counter()
        posterior = Surrogate(start).fit(*seen)
        at = lap("refit", at)
        select_paths(posterior.paths(DRAWS, generator), seen.x, asked, 1.0)
        at = lap("select", at)
        dtype = torch.float64 if who == "float64" else torch.float32
        propose(posterior, asked, points, PROPOSALS, generator, "joint", STARTS, dtype)
        lap("propose", at)

    if who != "BoTorch":
        before = given.Evidence(*(field[: n * 9 // 10] for field in seen))
        start = Surrogate().fit(*before).hyperparameters
        timed(question, who, "ours", 1, ours, 3)
        timed.benchmark.extra_info["parts"] = parts
        return

    pytest.importorskip("botorch")
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.sampling.pathwise import draw_matheron_paths
    from gpytorch.mlls import ExactMarginalLogLikelihood

    few = max(CHUNK, points // 100)

    def theirs() -> None:
        at = time.perf_counter()
        model = SingleTaskGP(*seen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        model.eval()
        at = lap("refit", at)
        with torch.no_grad():
            for _ in range(DRAWS // 100):  # a hundred at a time: all at once would take 33 GB
                draws = draw_matheron_paths(model, torch.Size([100]))
                best_of(asked.evaluate(draws(seen.x)))
            at = lap("select", at)
            draws = draw_matheron_paths(model, torch.Size([PROPOSALS]))
            x = torch.rand(few, given.DIMS, dtype=torch.float64, device=timed.device)
            for part in x.split(CHUNK):
                best_of(asked.evaluate(draws(part)))
        lap("propose", at)
        parts["propose"] *= points / few

    timed(question, "BoTorch's parts", "peer", 1, theirs, 1)
    timed.benchmark.extra_info |= {"parts": parts, "median": sum(parts.values())}
