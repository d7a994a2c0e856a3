"""What every benchmark shares: sizes that can be scaled, who is timed, and the machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

# SciPy brings a pool of threads of its own, which has nothing to do here but waits busily and takes
# the cores from PyTorch's: without this BoTorch's fits take up to twice as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

PACKAGES = ("torch", "gpytorch", "botorch", "polars", "pandas", "numpy")


class Timed(NamedTuple):
    """Times one contender of a question.

    Args:
        benchmark: pytest-benchmark's fixture.
        scale: of the question's sizes; 1 for the numbers that are published.
        device: where the inputs lie.
    """

    benchmark: Any
    scale: float
    device: torch.device

    def __call__(
        self, question: str, who: str, role: str, work: int, run: Callable[[], Any], rounds: int = 5
    ) -> Any:
        """Median of ``rounds`` after one to warm up; ``role`` is "ours", "peer" or "limit"."""
        on_cpu = self.device.type == "cpu"
        self.benchmark.group = question if on_cpu else f"{question}, {self.device.type}"
        self.benchmark.extra_info |= {
            "who": who,
            "role": role,
            "work": work,
            "threads": torch.get_num_threads(),
            "scale": self.scale,
        }
        warm = 1 if rounds > 1 else 0
        timed = run if on_cpu else lambda: self._waited(run)
        result = self.benchmark.pedantic(timed, rounds=rounds, warmup_rounds=warm, iterations=1)
        stats = self.benchmark.stats
        if stats is not None:
            stats.extra_info["median"] = statistics.median(stats.stats.data)
        return result

    def wait(self) -> None:
        """Until the device has done what it was told to."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def _waited(self, run: Callable[[], Any]) -> Any:
        result = run()
        self.wait()
        return result

    def generator(self) -> torch.Generator:
        """Seeded, on the device."""
        return torch.Generator(self.device).manual_seed(0)

    def only_on_cpu(self) -> None:
        """Skip a contender that knows the CPU only."""
        if self.device.type != "cpu":
            pytest.skip("for the CPU")

    def size(self, full: int) -> int:
        """A size of the question, scaled."""
        return max(1, round(full * self.scale))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--scale", type=float, default=1.0, help="of the sizes; 0.01 to see that all runs"
    )
    parser.addoption("--device", default="cpu", help="where to run, e.g. cuda")


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest) -> Timed:
    option = request.config.getoption
    return Timed(benchmark, option("--scale"), torch.device(option("--device")))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a peer that is not timed here
            continue
    machine_info["packages"] = versions
    machine_info["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    if config.getoption("--device") != "cpu":
        machine_info["device"] = torch.cuda.get_device_name(config.getoption("--device"))
