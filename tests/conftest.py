"""One thread: these tensors are small, and threads that wait for each other take long."""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for subprocesses

import pytest
import torch
from hypothesis import settings

import hyperzero_torch as hz

torch.set_num_threads(1)
# Two processes share the machine: how long one example takes is no property of the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_collection_finish():
    """Modules and collected tests stay until the end; the collector need not visit them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def fitted():
    """A posterior of a world's true deltas, seen at Sobol points with known noise."""

    def fit(world, num=64, noise=0.004, seed=0):
        space = world.problem.space
        x = space.sobol(num, seed=seed)
        true = world.true_delta(space.from_unit(x))
        generator = torch.Generator().manual_seed(seed)
        y = true + noise * torch.randn(true.shape, dtype=torch.float64, generator=generator)
        return hz.Surrogate().fit(x, y, torch.full_like(y, noise**2))

    return fit
