"""What ``test_ranks`` runs under torchrun: a study's rounds, kernels cut into small tiles."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

import hyperzero_torch as hz
from hyperzero_torch import surrogate
from hyperzero_torch.simulate import GuardrailWorld, run
from hyperzero_torch.thompson import propose, select, select_paths, sharing


def small_tiles() -> None:
    sys.modules["hyperzero_torch.thompson.select"]._TILE_ELEMENTS = 2 * 40 * 7
    sys.modules["hyperzero_torch.thompson.select"]._BLOCK_ELEMENTS = 2 * 40 * 16
    sys.modules["hyperzero_torch.thompson.propose"]._CHUNK_ELEMENTS = 3 * 3 * 200
    surrogate.paths._TILE_ELEMENTS = 2**16


def decisions(small: bool) -> dict[str, list]:
    if small:
        small_tiles()
    torch.set_num_threads(1)
    world = GuardrailWorld(3, 2)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(num_samples=500, num_draws=100), seed=5)
    for _ in run(tuner, world, num_rounds=5):
        pass
    plans = [[*plan.candidates, *plan.shares] for plan in tuner.history.plans.values()]
    space = world.problem.space
    x = space.sobol(40, seed=1)
    y = world.true_delta(space.from_unit(x))
    posterior = hz.Surrogate().fit(x, y, torch.full_like(y, 1e-4))
    generator = torch.Generator().manual_seed(0)
    decided = {"plans": plans}
    for caution in (0.0, 1.0):
        chosen = select(*posterior.marginal(x), world.problem, 101, generator, caution)
        decided[f"select, caution {caution}"] = [field.tolist() for field in chosen]
        chosen = select_paths(posterior.paths(101, generator), x, world.problem, caution)
        decided[f"select_paths, caution {caution}"] = [field.tolist() for field in chosen]
    for starts in (0, 2):
        best = propose(posterior, world.problem, 700, 3, generator, num_starts=starts)
        decided[f"propose, {starts} starts"] = [field.tolist() for field in best]
    return decided


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    alone = decisions(small=False) if rank == 0 else {}  # a group that nobody shares is left alone
    with sharing() if dist.is_initialized() else nullcontext():
        both = [decisions(small=False), decisions(small=True)]
    assert rank or both[0] == alone
    (Path(sys.argv[1]) / f"rank_{rank}.json").write_text(json.dumps(both))
    if dist.is_initialized():
        dist.destroy_process_group()
