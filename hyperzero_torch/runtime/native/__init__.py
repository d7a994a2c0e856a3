"""Compiled CPU kernels for large work; the PyTorch code beside each call is their definition.

Callers ask ``usable`` first and run the PyTorch code where it is False: on other devices, for other
dtypes, under autograd, ``torch.compile`` or ``vmap``, for small work, and without a C compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..operands import plain
from .build import library

#: Elements of work from which a kernel is used.
LEAST_WORK = 2**16
# Elements of a covariance that are worth starting one more thread.
_WORK_PER_THREAD = 2**17
# Users per arm in a thread's part, so that the threads' sums stay smaller than the data.
_USERS_PER_ARM = 8
_SUFFIX = {torch.float64: "f64", torch.float32: "f32"}


def usable(work: int, *tensors: Tensor) -> bool:
    """Whether the compiled kernels can be used.

    Args:
        work: elements to go over.
        tensors: every floating tensor that a kernel reads or writes, or that these are made from.
    """
    if work < LEAST_WORK or tensors[0].device.type != "cpu":
        return False
    return plain(*tensors) and library() is not None


def summarise(values: Tensor, arm: Tensor, num_arms: int) -> tuple[Tensor, Tensor]:
    """Count ``(parts, arms)``, and shift, sum and sum of squares ``(parts, arms, 3, metrics)``.

    One row for each part of the users; sums are of (value - shift). An arm out of range is an
    ``IndexError``.
    """
    values, arm = values.contiguous(), arm.contiguous()
    users, metrics = values.shape
    parts = _parts(users, users // max(1, _USERS_PER_ARM * num_arms))
    count = arm.new_zeros(len(parts), num_arms)
    sums = values.new_zeros(len(parts), num_arms, 3, metrics, dtype=torch.float64)
    kernel = _kernel("summarise", values)

    def run(part: slice, own_count: Tensor, own_sums: Tensor) -> int:
        rows = (values[part], arm[part], part.stop - part.start)
        return int(kernel(*_c(*rows, metrics, num_arms, own_count, own_sums)))

    if any(invalid_row >= 0 for invalid_row in _in_threads(run, parts, count, sums)):
        raise IndexError("arm out of range")
    return count, sums


def stream(
    moments: tuple[Tensor, Tensor, Tensor],
    control: tuple[Tensor, Tensor, Tensor, Tensor],
    state: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Pool a round into ``state`` in place, see ``stats.evidence.stream``; all contiguous."""
    rows, metrics = state[0].shape
    kernel = _kernel("stream", state[0])

    def run(part: slice) -> None:
        own, pooled = ([t[part] for t in fields] for fields in (moments, state))
        kernel(*_c(part.stop - part.start, metrics, *own, *control, *pooled))

    _in_threads(run, _parts(rows))


def update(
    candidates: Tensor, mean: Tensor, var: Tensor, users: Tensor, state: tuple[Tensor, ...]
) -> None:
    """Pool deltas ``(arms, metrics)`` into ``state`` in place, see ``stats.evidence.pool``.

    ``users (arms, 1)`` or ``(arms, metrics)``; candidates lie in range; ``state`` is contiguous.
    """
    arms, metrics = mean.shape
    # Kept until the call returns: the kernel is given their addresses.
    fields = [field.contiguous() for field in (candidates, mean, var, users)]
    kernel = _kernel("update", mean)
    kernel(*_c(arms, metrics, *fields, int(users.shape[1] == metrics > 1), *state))


def covariance(x: Tensor, data: Tensor, out: Tensor) -> None:
    """Matern 5/2 of ``x (points, dims)`` with ``data (dims, n)``, into ``out (points, n)``.

    Both scaled by sqrt(5) / lengthscale; ``out`` is contiguous.
    """
    x, data = x.contiguous(), data.contiguous()
    kernel = _kernel("covariance", x)

    def run(part: slice) -> None:
        rows = x[part]
        kernel(*_c(rows, len(rows), x.shape[1], data, data.shape[1], out[part]))

    _in_threads(run, _parts(len(x), 1 + out.numel() // _WORK_PER_THREAD))


def slopes(x: Tensor, weight: Tensor) -> Tensor:
    """``surrogate.kernels.matern52_slopes`` in C, ``(1 + dims,)``.

    ``x (n, dims)`` scaled by sqrt(5) / lengthscale, ``weight (n, n)`` symmetric.
    """
    x, data, weight = x.contiguous(), x.T.contiguous(), weight.contiguous()
    num = min(torch.get_num_threads(), 1 + weight.numel() // _WORK_PER_THREAD)
    out = x.new_empty(num, 1 + x.shape[1], dtype=torch.float64)
    kernel = _kernel("slopes", x)

    def run(first: int) -> None:
        # Threads take rows in turn, since rows of a triangle differ in length.
        kernel(*_c(x, data, *x.shape, weight, first, num, out[first]))

    _in_threads(run, range(num))
    return out.sum(0).to(x)


def paths(
    x: Tensor, data: Tensor, update: Tensor, omega: Tensor, cosines: Tensor, sines: Tensor
) -> Tensor:
    """Paths at points, ``(points, paths)`` in float64.

    ``x (points, dims)`` and ``data (dims, n)`` scaled by sqrt(5) / lengthscale, ``omega (dims,
    waves)`` for points scaled so; ``update (paths, n)``, ``cosines`` and ``sines (paths, waves)``.
    """
    x, data, update = x.contiguous(), data.contiguous(), update.contiguous()
    omega, cosines, sines = omega.contiguous(), cosines.contiguous(), sines.contiguous()
    out = x.new_empty(len(x), len(update), dtype=torch.float64)
    kernel = _kernel("paths", x)

    def run(part: slice) -> None:
        rows = x[part]
        kernel(
            *_c(rows, len(rows), x.shape[1], data, data.shape[1], update, len(update)),
            *_c(omega, omega.shape[1], cosines, sines, out[part]),
        )

    _in_threads(run, _parts(len(x)))
    return out


def _parts(rows: int, most: int | None = None) -> list[slice]:
    """Equal parts of the rows, one per PyTorch thread, at most ``most``."""
    num = max(1, min(torch.get_num_threads(), rows if most is None else most))
    return [slice(rows * k // num, rows * (k + 1) // num) for k in range(num)]


def _in_threads(work: Callable[..., Any], *arguments: Sequence[Any] | Tensor) -> list[Any]:
    """``map(work, *arguments)``, each call in a thread; C code runs without the GIL."""
    num = len(arguments[0])
    if num == 1:
        return list(map(work, *arguments))
    with ThreadPoolExecutor(num) as pool:  # a new one each time: a pool does not survive a fork
        return list(pool.map(work, *arguments))


def _kernel(name: str, like: Tensor) -> Any:
    kernels = library()
    if kernels is None:
        raise RuntimeError("there are no compiled kernels here; ask usable() first")
    return getattr(kernels, f"{name}_{_SUFFIX[like.dtype]}")  # the same object every time


def _c(*arguments: Tensor | int) -> tuple[Any, ...]:
    """Arguments for C: the address of each tensor, 64 bits for each number."""
    return tuple(
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int64(a)
        for a in arguments
    )
