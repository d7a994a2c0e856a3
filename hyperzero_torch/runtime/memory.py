"""Memory limits: work that cannot fit is refused at once; tiles that are too large shrink once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from ..errors import DeviceMemoryError, SizeError

_Result = TypeVar("_Result")
# Smaller work is not checked.
_SMALL = 2**28
_SHRINK = 8
# A card's largest temporary: a 32nd of its memory in float64, and no more than 2 GiB, which keeps
# any card busy.
_BYTES_PER_ELEMENT_ON_CARD = 32 * 8
_MOST_ELEMENTS_ON_CARD = 2**28
# What the libraries behind PyTorch say when they cannot allocate: cuBLAS, cuSOLVER, MAGMA, CUDA.
_ALLOCATION_FAILED = (
    *("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
    *("CUSPARSE_STATUS_ALLOC_FAILED", "MAGMA_ERR_DEVICE_ALLOC", "MAGMA_ERR_HOST_ALLOC"),
    *("CUDA error: out of memory", "CUDA out of memory"),
)
# Files of a container's limit and usage, and the name of its file cache in ``memory.stat``.
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
)


def require(num_bytes: int, device: torch.device, what: str, instead: str) -> None:
    """Refuse work that does not fit into memory.

    Args:
        num_bytes: an estimate of the memory needed in addition to what is in use.
        device: where.
        what: the work, e.g. ``"a fit of 4 metrics to 50000 candidates"``.
        instead: advice for the error message, a clause.
    Raises:
        SizeError: more than is free.
    """
    if num_bytes < _SMALL:
        return
    free = free_bytes(device)
    if free is not None and num_bytes > free:
        raise SizeError(
            f"{what} needs about {_human(num_bytes)}, and {_human(free)} are free on {device}; "
            f"{instead}"
        )


def elements(device: torch.device, on_cpu: int) -> int:
    """Elements of the largest temporary of a work in tiles.

    On the CPU they fit into a cache. A card is given far more at once, by its whole memory and not
    by what is free: a tile's size can change the last bits, and the same card is to give the same
    plan.
    """
    if device.type != "cuda":
        return on_cpu
    return max(on_cpu, min(_MOST_ELEMENTS_ON_CARD, _total(device) // _BYTES_PER_ELEMENT_ON_CARD))


@cache
def _total(device: torch.device) -> int:
    _, total = torch.cuda.mem_get_info(device)
    return total


def in_tiles(work: Callable[[int], _Result], tile: int, device: torch.device) -> _Result:
    """``work(tile)``; where the device runs out of memory, once more with an eighth of the tile.

    ``work`` starts again from the beginning, so it must not draw from a generator.

    Raises:
        DeviceMemoryError: the smaller tile does not fit either.
    """
    try:
        return work(tile)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        tile = max(1, tile // _SHRINK)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        return work(tile)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        free = free_bytes(device)
        left = "" if free is None else f", {_human(free)} are free"
        raise DeviceMemoryError(
            f"{device} ran out of memory in a tile of {tile}{left}; free some, or work on fewer "
            "candidates, draws or samples at once"
        ) from error


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out; only PyTorch's own allocator for cards has an error class."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(m in text for m in _ALLOCATION_FAILED)


def free_bytes(device: torch.device) -> int | None:
    """Free memory on a device; None where it cannot be determined."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + idle)
    if device.type != "cpu":
        return None
    limits = [_available(), *(container_free(*files) for files in _CGROUPS)]
    return min((limit for limit in limits if limit is not None), default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def container_free(folder: str, limit: str, usage: str, cached: str) -> int | None:
    """Free memory of a container; its file cache counts as free.

    Args:
        folder: of the control group.
        limit: its file with the limit, in bytes; ``max`` is no limit.
        usage: its file with the memory in use, in bytes.
        cached: the name of the file cache in its ``memory.stat``.
    Returns:
        Bytes, at least 0; None where there is no such group or no limit.
    """
    try:
        most, used = (int((Path(folder) / name).read_text()) for name in (limit, usage))
        stat = (Path(folder) / "memory.stat").read_text()
    except (OSError, ValueError):  # no such container, or no limit ("max")
        return None
    numbers = dict(line.split() for line in stat.splitlines())
    return max(0, most - used + int(numbers.get(cached, 0)))


def _human(num_bytes: int) -> str:
    power = min(4, max(0, num_bytes.bit_length() - 1) // 10)
    return f"{num_bytes / 1024**power:.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
