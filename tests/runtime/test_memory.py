"""What cannot fit is refused before any work; what turns out too large shrinks, once."""

from __future__ import annotations

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.runtime import memory
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.stats import evidence
from hyperzero_torch.surrogate import factors, standardise
from hyperzero_torch.surrogate import posterior as posterior_room
from hyperzero_torch.thompson import propose, select_paths

f64 = torch.float64
CPU = torch.device("cpu")


@pytest.fixture
def little(monkeypatch):
    """A machine with 300 MiB left."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 300 * 2**20)


def out_of_memory(monkeypatch, where, name, times):
    """The first calls of a function run out of memory."""
    real, left = getattr(where, name), [times]

    def fails(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, fails)


def test_this_machine_tells_how_much_is_free():
    free = memory.free_bytes(CPU)
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("1000", "400", 630), ("max", "400", None), ("10", "90", 0)]
)
def test_a_container_s_limit_counts(tmp_path, limit, used, left):
    (tmp_path / "limit").write_text(f"{limit}\n")
    (tmp_path / "used").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text("anon 7\ncaches 30\n")
    assert memory.container_free(str(tmp_path), "limit", "used", "caches") == left
    assert memory.container_free(str(tmp_path), "none", "used", "caches") is None


@pytest.mark.usefixtures("little")
def test_a_fit_that_cannot_fit_is_refused_with_its_estimate():
    n = 3000
    x = torch.rand(n, 2, dtype=f64)
    mean = torch.zeros(n, 1, dtype=f64)
    with pytest.raises(hz.SizeError, match=r"1 metrics to 3000 candidates.* 824 MiB.* 300 MiB are"):
        hz.Surrogate().fit(x, mean, mean + 1)


@pytest.mark.usefixtures("little")
def test_evidence_and_paths_that_cannot_fit_are_refused(fitted):
    with pytest.raises(hz.SizeError, match="1000000 candidates"):
        hz.Evidence(1_000_000, 16)
    evidence.init(1_000_000, 8)  # 183 MiB
    posterior = fitted(GuardrailWorld(0, 2), num=16)
    with pytest.raises(hz.SizeError, match="1000000 paths"):
        posterior.paths(1_000_000)


def test_errors_that_too_many_candidates_share_are_refused_before_they_are_made(monkeypatch):
    world = GuardrailWorld(0, 2, delay=0)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=16))
    for _, readings in world.serve(tuner.ask(0)):
        tuner.tell(readings)
    bucket, every = tuner.bucket(), torch.zeros(10_000, dtype=torch.long)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**32)
    with pytest.raises(hz.SizeError, match=r"what 10000 candidates share .* needs about 4.47 GiB"):
        bucket.shared(every)
    assert bucket.shared(every[:3]).shape == (2, 3, 3)


def test_where_nobody_tells_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    memory.require(2**60, CPU, "this", "do less")


def test_out_of_memory_shrinks_the_tile_once_and_changes_nothing(monkeypatch, fitted):
    world = GuardrailWorld(0, 2)
    posterior = fitted(world, num=20)
    x = world.problem.space.sobol(100, seed=1)
    monkeypatch.setattr(posterior_room, "_TILE_ELEMENTS", 20 * 64)  # two tiles

    def work():
        generator = torch.Generator().manual_seed(0)
        chosen = select_paths(posterior.paths(50, generator), x, world.problem, 1.0)
        best = propose(posterior, world.problem, 200, 3, generator)
        return (*posterior.marginal(x), chosen.winners, best.x)

    want = work()
    for room, name in ((hz.Posterior, "cross"), (hz.Paths, "__call__")):
        with monkeypatch.context() as patch:
            out_of_memory(patch, room, name, 1)
            for result, right in zip(work(), want):
                torch.testing.assert_close(result, right, rtol=1e-9, atol=1e-12)


def test_the_cpu_s_own_error_is_known():
    tiles = []

    def work(tile):
        tiles.append(tile)
        if tile == 80:
            torch.empty(10**16)
        return tile

    assert memory.in_tiles(work, 80, CPU) == 10
    assert tiles == [80, 10]
    with pytest.raises(RuntimeError, match="something else"):
        memory.in_tiles(lambda tile: (_ for _ in ()).throw(RuntimeError("something else")), 80, CPU)


def test_where_small_tiles_do_not_fit_either_it_is_said(monkeypatch, fitted):
    world = GuardrailWorld(0, 2)
    posterior = fitted(world, num=20)
    x = world.problem.space.sobol(100, seed=1)
    monkeypatch.setattr(posterior_room, "_TILE_ELEMENTS", 20 * 64)
    out_of_memory(monkeypatch, hz.Posterior, "cross", 2)
    with pytest.raises(
        hz.DeviceMemoryError, match="cpu ran out of memory in a tile of 8"
    ) as caught:
        posterior.marginal(x)
    assert isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "magma: MAGMA_ERR_DEVICE_ALLOC in magma_dpotrf",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ],
)
def test_the_libraries_behind_pytorch_run_out_of_memory_too(text):
    tiles = []

    def work(tile):
        tiles.append(tile)
        if tile == 80:
            raise RuntimeError(text)
        return tile

    assert memory.in_tiles(work, 80, CPU) == 10
    assert tiles == [80, 10]


def test_a_card_s_tiles_follow_from_its_whole_memory(monkeypatch):
    card = torch.device("cuda", 0)
    for total, elements in ((2**33, 2**25), (2**40, 2**28), (2**20, 2**21)):
        memory._total.cache_clear()
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, t=total: (1, t))
        assert memory.elements(card, 2**21) == elements
    memory._total.cache_clear()
    assert memory.elements(CPU, 2**21) == 2**21


@pytest.mark.parametrize("shared", [False, True])
def test_with_many_candidates_metrics_are_factorised_in_turn_with_the_same_result(
    monkeypatch, shared
):
    x = torch.rand(40, 2, dtype=f64, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([x[:, 0].sin(), x[:, 1], x.sum(1).cos()], 1)
    mean[3, 1] = torch.nan
    system = 0.001 * torch.ones(3, 40, 40, dtype=f64) if shared else None

    def fitted():
        posterior = hz.Surrogate().fit(x, mean, torch.full_like(mean, 0.01), system)
        values = (posterior.cholesky, posterior.weights, posterior.leave_one_out())
        return [*values, posterior.lengthscale, *posterior.marginal(x)]

    want = fitted()
    monkeypatch.setattr(factors, "MOST_AT_ONCE", 1)
    for result, right in zip(fitted(), want):
        assert torch.equal(result, right)


def test_fifty_thousand_candidates_are_not_refused_for_memory_that_they_do_not_need():
    """A card of 139 GiB holds four metrics' factors of 50,000 candidates, and a fit of 40,000."""

    def gib(needed, num, metrics):
        like = torch.empty(num, metrics, dtype=f64, device="meta")
        return needed(like, None) * metrics * num**2 * 8 / 2**30

    assert gib(standardise.to_condition, 50_000, 1) < 60
    assert gib(standardise.to_condition, 50_000, 4) < 139
    assert gib(standardise.to_fit, 40_000, 4) < 139
    assert gib(standardise.to_fit, 3000, 1) * 2**10 > 823  # as before, with fewer
