"""One thread: these tensors are small, and threads that wait for each other take long."""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for subprocesses
os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported, where it is installed

import pytest
import torch
from hypothesis import settings

import hyperzero_torch as hz

torch.set_num_threads(1)
# Two processes share the machine: how long one example takes is no property of the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


# They spend most of their time asleep, or wait for a browser, a notebook or a cluster.
WAITING = (
    "bench/test_reliability.py",
    "cli/test_ending.py",
    "docs/test_notebooks.py",
    "integrations/test_examples.py",
    "integrations/test_ray_cluster.py",
    "live/test_alerts.py",
    "live/test_loop_faults.py",
    "report/test_report_browser.py",
    "report/test_report_watch.py",
    "transfer/test_transfer_report.py",
)


def pytest_collection_modifyitems(items):
    """Tests that wait come first, in one process, while the others compute."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(WAITING))


def pytest_collection_finish():
    """Modules and collected tests stay until the end; the collector need not visit them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # of the 700 that Python begins with: a thirtieth of the time


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
