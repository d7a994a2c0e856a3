"""Triton kernels that sum over covariances without storing them.

A program has one metric and a block of points. It goes over the data in blocks, and a block's
covariances stay in registers.
"""

import math

import torch
from torch import Tensor

from ...errors import MissingExtraError

try:
    import triton
    import triton.language as tl
except ImportError:
    raise MissingExtraError("a fused kernel", "triton", "fused") from None

# Elements that a thread keeps in registers. Larger blocks spill in float64.
_WIDTH = {torch.float32: 32, torch.float64: 16}


@triton.jit
def _scaled(x, scale, rows, live, x_row, x_col, dims: tl.constexpr):
    """A block of points, a vector for each dimension; it stays in registers."""
    point = ()
    for d in tl.static_range(dims):
        value = tl.load(x + rows * x_row + d * x_col, live, 0.0)
        point = point + (value * tl.load(scale + d),)  # type: ignore[assignment]  # noqa: RUF005
    return point


@triton.jit
def _matern(point, data, cols, ok, n, dims: tl.constexpr):
    """Correlations ``(points, cols)`` of a block of points with a block of the data."""
    square = tl.zeros((point[0].shape[0], cols.shape[0]), data.dtype.element_ty)
    for d in tl.static_range(dims):
        step = point[d][:, None] - tl.load(data + d * n + cols, ok, 0.0)[None, :]
        square += step * step
    r = tl.sqrt(square)
    return (1.0 + r + square * (1.0 / 3.0)) * tl.exp(-r)


@triton.jit
def _cosine(turns):
    """The cosine of angles in turns: a series of the sine, which has no slow path."""
    h = 0.25 - tl.abs(turns - tl.floor(turns + 0.5))
    s = h * h
    # (-1)^k (2 pi)^(2 k + 1) / (2 k + 1)!, as many as the dtype has digits.
    y = s * 3.8199525848482803 - 15.094642576822984
    if turns.dtype == tl.float64:
        y = s * 0.0011309237482517954 - 0.012031585942120619
        y = y * s + 0.10422916220813978
        y = y * s - 0.7181223017785001
        y = y * s + 3.8199525848482803
        y = y * s - 15.094642576822984
    y = y * s + 42.058693944897634
    y = y * s - 76.70585975306136
    y = y * s + 81.60524927607504
    y = y * s - 41.341702240399755
    return (y * s + 6.283185307179586) * h


@triton.jit
def _weighted(block, weights, path, num_paths, cols, ok, length):
    """A block ``(points, cols)`` times each path's weights, ``(paths, points, cols)``."""
    at = path[:, None] * length + cols[None, :]
    w = tl.load(weights + at, (path < num_paths)[:, None] & ok[None, :], 0.0)
    return block[None, :, :] * w[:, None, :]


@triton.jit
def paths_kernel(
    x, scale, data, update, omega, cosines, sines, out,
    num_points, n, waves, num_paths, x_row, x_col,
    dims: tl.constexpr, padded: tl.constexpr, points: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """``out[m, i, p] = sum_j k(x_i, X_j) update[m, p, j] + sum_f (cosine + sine of wave f)``."""
    metric = tl.program_id(1).to(tl.int64)
    scale += metric * dims
    data += metric * dims * n
    update += metric * num_paths * n
    cosines += metric * num_paths * waves
    sines += metric * num_paths * waves
    rows = tl.program_id(0).to(tl.int64) * points + tl.arange(0, points)
    live = rows < num_points
    point = _scaled(x, scale, rows, live, x_row, x_col, dims)
    path = tl.arange(0, padded)
    total = tl.zeros((padded, points, width), data.dtype.element_ty)
    for start in range(0, n, width):
        cols = start + tl.arange(0, width)
        ok = cols < n
        k = _matern(point, data, cols, ok, n, dims)
        total += _weighted(k, update, path, num_paths, cols, ok, n)
    for start in range(0, waves, width):
        cols = start + tl.arange(0, width)
        ok = cols < waves
        turns = tl.zeros((points, width), data.dtype.element_ty)
        for d in tl.static_range(dims):
            turns += point[d][:, None] * tl.load(omega + d * waves + cols, ok, 0.0)[None, :]
        total += _weighted(_cosine(turns), cosines, path, num_paths, cols, ok, waves)
        total += _weighted(_cosine(turns - 0.25), sines, path, num_paths, cols, ok, waves)
    at = (metric * num_points + rows)[None, :] * num_paths + path[:, None]
    tl.store(out + at, tl.sum(total, 2), (path < num_paths)[:, None] & live[None, :])


@triton.jit
def explained_kernel(
    x, scale, data, amplitude, inverse, weights, mean, explained,
    num_points, n, x_row, x_col,
    dims: tl.constexpr, points: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """``mean[m, i] = k_i w`` and ``explained[m, i] = |k_i inverse|^2``; inverse is L^-T."""
    metric = tl.program_id(1).to(tl.int64)
    scale += metric * dims
    data += metric * dims * n
    amplitude += metric * n
    weights += metric * n
    inverse += metric * n * n
    rows = tl.program_id(0).to(tl.int64) * points + tl.arange(0, points)
    live = rows < num_points
    point = _scaled(x, scale, rows, live, x_row, x_col, dims)
    squares = tl.zeros((points,), data.dtype.element_ty)
    expected = tl.zeros((points,), data.dtype.element_ty)
    for first in range(0, n, width):
        cols = first + tl.arange(0, width)
        half = tl.zeros((points, width), data.dtype.element_ty)
        # The inverse is an upper triangle: nothing is below the block's last column.
        for start in range(0, tl.minimum(first + width, n), depth):
            at = start + tl.arange(0, depth)
            ok = at < n
            k = _matern(point, data, at, ok, n, dims)
            k *= tl.load(amplitude + at, ok, 0.0)[None, :]
            places = at.to(tl.int64)[:, None] * n + cols[None, :]
            part = tl.load(inverse + places, ok[:, None] & (cols < n)[None, :], 0.0)
            half = tl.dot(k, part, half, input_precision="ieee", out_dtype=half.dtype)
            if start >= first:  # each block of the data once
                expected += tl.sum(k * tl.load(weights + at, ok, 0.0)[None, :], 1)
        squares += tl.sum(half * half, 1)
    tl.store(mean + metric * num_points + rows, expected, live)
    tl.store(explained + metric * num_points + rows, squares, live)


def paths(
    x: Tensor, scale: Tensor, data: Tensor, update: Tensor, omega: Tensor, waves: Tensor
) -> Tensor:
    """See the package."""
    (metrics, dims, n), num_paths, num_waves = data.shape, update.shape[1], omega.shape[1]
    cosines, sines = waves[..., :num_waves].contiguous(), waves[..., num_waves:].contiguous()
    turns = (omega / (2 * math.pi)).contiguous()
    out = x.new_empty(metrics, len(x), num_paths)
    blocks = path_blocks(x.dtype, dims, num_paths)
    with torch.cuda.device_of(x):
        paths_kernel[triton.cdiv(len(x), blocks["points"]), metrics](
            *(x, scale.contiguous(), data.contiguous(), update.contiguous()),
            *(turns, cosines, sines, out, len(x), n, num_waves, num_paths, *x.stride()),
            **blocks,
        )
    return out


def explained(
    x: Tensor, scale: Tensor, data: Tensor, amplitude: Tensor, inverse: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """See the package."""
    metrics, dims, n = data.shape
    mean, squares = (x.new_empty(metrics, len(x)) for _ in range(2))
    blocks = explained_blocks(x.dtype, dims)
    constants = (scale, data, amplitude, inverse, weights)
    with torch.cuda.device_of(x):
        explained_kernel[triton.cdiv(len(x), blocks["points"]), metrics](
            *(x, *(t.contiguous() for t in constants), mean, squares),
            *(len(x), n, *x.stride()),
            **blocks,
        )
    return mean, squares


def path_blocks(dtype: torch.dtype, dims: int, num_paths: int) -> dict[str, int]:
    """The sizes of a program of ``paths_kernel``."""
    padded = triton.next_power_of_2(num_paths)
    return {
        **{"dims": dims, "padded": padded, "points": _points(dims, 8)},
        **{"width": max(4, _WIDTH[dtype] // padded), "num_warps": 4},
    }


def explained_blocks(dtype: torch.dtype, dims: int) -> dict[str, int]:
    """The sizes of a program of ``explained_kernel``."""
    return {
        **{"dims": dims, "points": _points(dims, 16), "width": 64, "depth": _WIDTH[dtype]},
        **{"num_warps": 8, "num_stages": 2},
    }


def _points(dims: int, fewest: int) -> int:
    """Points of a block: their coordinates are in registers, so fewer where there are many."""
    return max(fewest, 64 // int(triton.next_power_of_2(triton.cdiv(dims, 4))))
