"""Worker processes for benchmarks, and the versions of the packages that ran."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version


def single_threaded_pool(workers: int | None) -> ProcessPoolExecutor:
    """Fresh processes in which torch uses one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the new processes when they import torch
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        # Otherwise glibc returns each tile's memory at once, which takes a quarter of the time.
        os.environ.setdefault(name, str(2**32))
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:  # an optional package
            continue
    return installed
