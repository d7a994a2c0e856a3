"""Kernels as a device wants them: one graph, few recompilations, no waiting for the host."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

import hyperzero_torch as hz
from hyperzero_torch.stats import delta, evidence, moments
from hyperzero_torch.stats.moments import Moments
from hyperzero_torch.surrogate import Hyperparameters, Posterior, Standardiser
from hyperzero_torch.surrogate.kernels import features, matern52
from hyperzero_torch.thompson import select
from hyperzero_torch.thompson.winners import best_of

f64 = torch.float64
# What makes the host wait for a device: a value read, or a size that only the device knows.
WAITS = {
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.masked_select",
    "aten.is_nonzero",
    "aten.equal",
    "aten.unique",
    "aten._unique2",
    "aten.repeat_interleave",
}


class Waits(TorchDispatchMode):
    """Counts the operations that would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        by_mask = name in ("aten.index", "aten.index_put_") and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        if name in WAITS or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


def some_moments(n, m=3):
    return Moments(20 + rand(n, m).mul(10).floor(), 1 + rand(n, m), rand(n, m))


def a_posterior(n=12):
    hyper = Hyperparameters(0.5 + rand(3, 2), 1 + rand(3), rand(3))
    unit = Standardiser(torch.zeros(3, dtype=f64), torch.ones(3, dtype=f64))
    return Posterior(rand(n, 2), rand(n, 3), 0.1 + rand(n, 3), hyper, unit)


def a_problem():
    return hz.Problem(
        space=hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)]),
        base={"a": 0.5, "b": 0.5},
        metrics=["x", "y", "z"],
        objective="x + 0.5 * y",
        constraints=["z <= 10%"],
    )


PROBLEM = a_problem()
POSTERIOR = a_posterior()
PATHS = POSTERIOR.paths(4, torch.Generator().manual_seed(0))


def stream(state, treatment, control):
    evidence.stream(state, treatment, control)
    return state


# Each kernel with inputs for a bucket of n.
KERNELS = {
    "moments.summarise": lambda n: (moments.summarise, rand(n, 3), torch.arange(n) % 4, 4),
    "moments.merge": lambda n: (moments.merge, some_moments(n), some_moments(n)),
    "moments.subtract": lambda n: (moments.subtract, some_moments(n), some_moments(n)),
    "moments.moderate": lambda n: (moments.moderate, some_moments(n), torch.arange(n) % 2, 2),
    "delta.ratio": lambda n: (delta.ratio, some_moments(n), some_moments(1)),
    "evidence.summarise": lambda n: (
        evidence.summarise,
        torch.arange(n),
        delta.Delta(rand(n, 3), rand(n, 3)),
        rand(n),
        n,
    ),
    "evidence.merge": lambda n: (
        evidence.merge,
        evidence.EvidenceState(rand(n, 3), rand(n, 3), rand(n, 3)),
        evidence.EvidenceState(rand(n, 3), rand(n, 3), rand(n, 3)),
    ),
    "evidence.stream": lambda n: (
        stream,
        evidence.EvidenceState(rand(n, 3), rand(n, 3), rand(n, 3)),
        some_moments(n),
        some_moments(1),
    ),
    "matern52": lambda n: (matern52, rand(n, 2), rand(5, 2, seed=1), 0.5 + rand(3, 2)),
    "features": lambda n: (features, rand(n, 2), rand(8, 2), 0.5 + rand(3, 2)),
    "marginal": lambda n: (POSTERIOR.marginal, rand(n, 2)),
    "paths": lambda n: (PATHS, rand(n, 2)),
    "evaluate": lambda n: (PROBLEM.evaluate, rand(4, n, 3)),
    "best_of": lambda n: (best_of, hz.Outcome(rand(4, n), rand(4, n, 2) - 0.5)),
}


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_one_graph_that_is_not_compiled_anew_as_the_bucket_grows(name):
    """One graph for the first size and one for all others; and it says what eager says."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = None
    with torch.no_grad():
        for n in (6, 9, 14, 23):
            function, *inputs = KERNELS[name](n)
            compiled = compiled or torch.compile(function, fullgraph=True, backend=counter)
            results = compiled(*inputs)
            function, *inputs = KERNELS[name](n)  # stream writes into its inputs
            for got, want in zip(flat(results), flat(function(*inputs)), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("name", [k for k in KERNELS if k != "best_of"])
def test_a_kernel_never_waits_for_the_device(name):
    function, *inputs = KERNELS[name](9)
    with Waits() as waits, torch.no_grad():
        function(*inputs)
    assert not waits.counts


def test_the_count_counts():
    with Waits() as waits:
        mask = rand(4) > 0.5
        _ = rand(4)[mask]
        _ = float(rand(1))
        _ = mask.nonzero()
    assert sum(waits.counts.values()) == 3


def test_selection_looks_only_where_looking_is_free(monkeypatch):
    """On the CPU it asks whether all draws are settled; elsewhere it works everything out."""
    from hyperzero_torch.thompson import winners

    mean, var = 0.3 * rand(7, 3), 0.1 * rand(7, 3)

    def work():
        return select(mean, var, PROBLEM, 50, torch.Generator().manual_seed(0), 1.0)

    want = work()
    monkeypatch.setattr(winners, "_all_on_cpu", lambda mask: False)  # as on a device
    with Waits() as waits:
        results = work()
    assert not waits.counts
    for got, right in zip(results, want):
        assert torch.equal(got, right)
