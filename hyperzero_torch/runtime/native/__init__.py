"""Compiled kernels for the CPU, for work that is large; their PyTorch twins are the definition.

A caller asks ``usable`` and goes its own way where it says no: on other devices, for other dtypes,
under autograd, ``torch.compile`` or ``vmap``, for small work, and where no C compiler is found.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .build import library

#: Elements of work from which a kernel is used.
LEAST_WORK = 2**16
# Elements of a covariance for which one more thread is worth its start.
_A_THREADS_WORK = 2**17
# Users of a part for each arm: sums of their own for every thread should not outgrow the users.
_USERS_AN_ARM = 8
_SUFFIX = {torch.float64: "f64", torch.float32: "f32"}


def usable(work: int, *tensors: Tensor) -> bool:
    """Whether the kernels can do this.

    Args:
        work: elements of it.
        tensors: every floating tensor that a kernel reads or writes, or that these are made from.
    """
    if work < LEAST_WORK or torch.compiler.is_compiling():
        return False
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) != 1 or not dtypes <= set(_SUFFIX):
        return False
    if any(t.device.type != "cpu" for t in tensors):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    if any(_has_tangent(t) for t in tensors):
        return False
    try:
        for t in tensors:
            t.data_ptr()
    except RuntimeError:  # no storage of its own: inside vmap, or fake
        return False
    return library() is not None


def _has_tangent(tensor: Tensor) -> bool:
    """Whether forward differentiation is under way."""
    return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def summarise(values: Tensor, arm: Tensor, num_arms: int) -> tuple[Tensor, Tensor]:
    """Count ``(parts, arms)``, and shift, sum and sum of squares ``(parts, arms, 3, metrics)``.

    Of each part of the users by itself, sums being of (value - shift).

    Raises:
        IndexError: an arm out of range.
    """
    values, arm = values.contiguous(), arm.contiguous()
    users, metrics = values.shape
    parts = _parts(users, users // max(1, _USERS_AN_ARM * num_arms))
    count = arm.new_zeros(len(parts), num_arms)
    sums = values.new_zeros(len(parts), num_arms, 3, metrics, dtype=torch.float64)
    kernel = _kernel("summarise", values)

    def one(number: int) -> int:
        part = parts[number]
        wrong: int = kernel(
            *_all(values[part], arm[part], part.stop - part.start, metrics, num_arms),
            *_all(count[number], sums[number]),
        )
        return wrong

    if any(wrong >= 0 for wrong in _run(one, len(parts))):
        raise IndexError("arm out of range")
    return count, sums


def stream(
    moments: tuple[Tensor, Tensor, Tensor],
    control: tuple[Tensor, Tensor, Tensor],
    state: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Pool a round into ``state`` in place, see ``stats.evidence.stream``; all contiguous."""
    rows, metrics = state[0].shape
    parts = _parts(rows)
    kernel = _kernel("stream", state[0])

    def one(number: int) -> None:
        part = parts[number]
        kernel(
            *_all(part.stop - part.start, metrics, *(t[part] for t in moments)),
            *_all(*control, *(t[part] for t in state)),
        )

    _run(one, len(parts))


def covariance(x: Tensor, data: Tensor, out: Tensor) -> None:
    """Matern 5/2 of ``x (points, dims)`` with ``data (dims, n)``, into ``out (points, n)``.

    Both scaled by sqrt(5) / lengthscale; ``out`` is contiguous.
    """
    x, data = x.contiguous(), data.contiguous()
    parts = _parts(len(x), 1 + out.numel() // _A_THREADS_WORK)
    kernel = _kernel("covariance", x)

    def one(number: int) -> None:
        part = parts[number]
        rows = x[part]
        kernel(*_all(rows, len(rows), x.shape[1], data, data.shape[1], out[part]))

    _run(one, len(parts))


def slopes(x: Tensor, weight: Tensor) -> Tensor:
    """The twin of ``surrogate.kernels.matern52_slopes``, ``(1 + dims,)``.

    ``x (n, dims)`` scaled by sqrt(5) / lengthscale, ``weight (n, n)`` symmetric.
    """
    x, data, weight = x.contiguous(), x.T.contiguous(), weight.contiguous()
    num = min(torch.get_num_threads(), 1 + weight.numel() // _A_THREADS_WORK)
    out = x.new_empty(num, 1 + x.shape[1], dtype=torch.float64)
    kernel = _kernel("slopes", x)
    # Rows in turn: their parts of the triangle differ.
    _run(lambda first: kernel(*_all(x, data, *x.shape, weight, first, num, out[first])), num)
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
    parts = _parts(len(x))
    kernel = _kernel("paths", x)

    def one(number: int) -> None:
        part = parts[number]
        rows = x[part]
        kernel(
            *_all(rows, len(rows), x.shape[1], data, data.shape[1], update, len(update)),
            *_all(omega, omega.shape[1], cosines, sines, out[part]),
        )

    _run(one, len(parts))
    return out


def _parts(rows: int, most: int | None = None) -> list[slice]:
    """Equal parts of the rows, one per thread of PyTorch's, ``most`` at most."""
    num = max(1, min(torch.get_num_threads(), rows if most is None else most))
    return [slice(rows * k // num, rows * (k + 1) // num) for k in range(num)]


def _run(work: Callable[[int], Any], num: int) -> list[Any]:
    """``work(0)`` to ``work(num - 1)`` at the same time; a foreign call holds no lock."""
    if num == 1:
        return [work(0)]
    with ThreadPoolExecutor(num) as pool:  # for each call: a pool kept would not survive a fork
        return list(pool.map(work, range(num)))


def _kernel(name: str, like: Tensor) -> Any:
    found = library()
    assert found is not None  # ``usable`` said so
    return getattr(found, f"{name}_{_SUFFIX[like.dtype]}")  # the same object every time


def _all(*given: Tensor | int) -> tuple[Any, ...]:
    """Arguments as C has them: the address of each tensor, 64 bits for each number."""
    return tuple(
        ctypes.c_void_p(g.data_ptr()) if isinstance(g, Tensor) else ctypes.c_int64(g) for g in given
    )
