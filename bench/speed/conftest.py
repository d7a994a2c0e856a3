"""What every benchmark shares: sizes that can be scaled, who is timed, and the machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

# SciPy's own pool of threads is idle here but busy-waits on the cores that PyTorch needs: without
# this BoTorch's fits take up to twice as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

from bench.processes import versions

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
        """Median of ``rounds`` after a warm-up; ``role`` is "ours", "peer" or "limit"."""
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
        """Wait until the device has finished."""
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
        """Skip a contender that runs on the CPU only."""
        if self.device.type != "cpu":
            pytest.skip("for the CPU")

    def size(self, full: int) -> int:
        """A size of the question, scaled."""
        return max(1, round(full * self.scale))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--scale", type=float, default=1.0, help="factor of the sizes; 0.01 for a quick check"
    )
    parser.addoption("--device", default="cpu", help="where to run, e.g. cuda")


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest) -> Timed:
    option = request.config.getoption
    return Timed(benchmark, option("--scale"), torch.device(option("--device")))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    machine_info["packages"] = versions(PACKAGES)
    machine_info["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    if config.getoption("--device") != "cpu":
        machine_info["device"] = torch.cuda.get_device_name(config.getoption("--device"))
