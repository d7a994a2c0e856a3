"""Bounded contributions of users to a domain's sums: clipped values, a bounded number of cells.

cell   one arm of one round (or of one package)
u      a user's value, clipped to [low, high] and mapped to [-1, 1]
sums   per cell and metric: n, sum u, sum (u^2 - 1/2), integers on a fine grid
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import InputError
from ...stats.moments import Moments
from .. import checks

#: Steps of the grid to one unit of u.
GRID = 2**20
_MOST = 2**62
_MOST_CELLS = 2**31


class Clip(NamedTuple):
    """Bounds of a user's value of one metric in one cell, in the metric's unit.

    They must not be derived from the data at hand: choose them from the metric's meaning, or from
    an earlier period.
    """

    low: float
    high: float


class Sums(NamedTuple):
    """Sums of cells in steps of the grid, int64: not private yet.

    ``count (cells, 1)`` or ``(cells, metrics)``; ``first`` and ``second (cells, metrics)`` are the
    sums of u and of u^2 - 1/2. ``clips`` are by metric, ``max_contributions`` is the largest number
    of cells that a user is in.
    """

    count: Tensor  # type: ignore[assignment]  # the field's name, over tuple.count
    first: Tensor
    second: Tensor
    clips: tuple[Clip, ...]
    max_contributions: int

    @property
    def sensitivity(self) -> float:
        """The largest L2 change by adding or removing one user, in steps of the grid."""
        metrics = self.first.shape[1]
        per_cell = GRID * math.sqrt(self.count.shape[1] + 1.25 * metrics)
        # Each value of a user, and each sum, is rounded to the grid: one step each.
        rounding = 2 * math.sqrt(self.count.shape[1] + 2 * metrics)
        return math.sqrt(self.max_contributions) * (per_cell + rounding)


def collect(
    values: Tensor,
    cell: Tensor,
    num_cells: int,
    clips: Sequence[Clip],
    user: Tensor | None = None,
    max_contributions: int = 1,
    generator: torch.Generator | None = None,
) -> Sums:
    """Clip users' values, bound their contributions, and sum.

    Args:
        values: ``(rows, metrics)``, in the metrics' units: a user's total in a cell.
        cell: ``(rows,)``, in ``[0, num_cells)``; which cells there are must not depend on users.
        num_cells: cells.
        clips: by metric.
        user: ``(rows,)`` whole numbers that identify users; None if every row is another user's.
        max_contributions: rows kept of a user with more, chosen at random.
        generator: of that choice.
    Raises:
        InputError: wrong shapes, values that are not finite, or a user twice in a cell.
    """
    flaws = checks.Flaws("these contributions")
    matrix = checks.matrix(flaws, "values", values, None)
    for what, given in (("cell", cell), ("user", user)):
        if not _is_whole(given) and not (what == "user" and given is None):
            flaws.add(f"{what} must be a tensor of whole numbers, got {checks.brief(given)}")
    checks.whole(flaws, "num_cells", num_cells, 1, _MOST_CELLS)
    checks.whole(flaws, "max_contributions", max_contributions, 1, _MOST_CELLS)
    if generator is not None and not isinstance(generator, torch.Generator):
        flaws.add(f"generator must be a torch.Generator, got {type(generator).__name__}")
    flaws.throw()
    values, cell = matrix, cell.long()
    bounds = _check_clips(clips, values.shape[1] if values.ndim == 2 else -1)
    rows = len(values)
    if cell.shape != (rows,) or (user is not None and user.shape != (rows,)):
        raise InputError(
            f"expected cell and user ({rows},) beside values {tuple(values.shape)}, got "
            f"{tuple(cell.shape)} and {None if user is None else tuple(user.shape)}"
        )
    if not bool(values.isfinite().all()) or (rows and not 0 <= int(cell.min()) <= int(cell.max())):
        raise InputError("values must be finite and cells >= 0; a user without events has value 0")
    if rows and int(cell.max()) >= num_cells:
        raise InputError(f"cells must lie in [0, {num_cells}), got {int(cell.max())}")
    if user is not None:
        pairs = torch.stack([user.long(), cell.long()], -1)
        if len(torch.unique(pairs, dim=0)) < rows:
            raise InputError("a user occurs twice in a cell; sum a user's values in a cell first")
        kept = _first_of_each(user.long(), max_contributions, generator)
        values, cell = values[kept], cell[kept]
    low, high = bounds.unbind(-1)
    u = (2 * (torch.minimum(torch.maximum(values, low), high) - low) / (high - low) - 1) * GRID
    first = u.round().long()
    second = ((first.double() / GRID).square() * GRID - GRID / 2).round().long()
    zero = torch.zeros(num_cells, values.shape[1], dtype=torch.int64)
    ones = torch.full((len(cell), 1), GRID, dtype=torch.int64)
    return Sums(
        torch.zeros(num_cells, 1, dtype=torch.int64).index_add(0, cell, ones),
        zero.index_add(0, cell, first),
        zero.index_add(0, cell, second),
        tuple(Clip(*c) for c in clips),
        max_contributions,
    )


def from_moments(moments: Moments, clips: Sequence[Clip], max_contributions: int = 1) -> Sums:
    """Sums from moments that the platform made of values *clipped to the same bounds*.

    The clipping itself cannot be checked; moments that no clipped values can have are refused.

    Args:
        moments: each field ``(cells, metrics)``, in the metrics' units.
        clips: by metric.
        max_contributions: largest number of cells that a user is in, as the platform states it.
    Raises:
        InputError: wrong shapes, moments that contradict the clipping, or deltas, whose sensitivity
            is not bounded.
    Source: Bhatia and Davis (2000), the largest variance within bounds.
    """
    # The effect of one user on a delta is not bounded.
    what = "the moments of clipped values per arm (deltas cannot be made private)"
    checks.expect(moments, Moments, what)
    flaws = checks.Flaws("these moments")
    checks.whole(flaws, "max_contributions", max_contributions, 1, _MOST_CELLS)
    flaws.throw()
    bounds = _check_clips(clips, moments.mean.shape[-1] if moments.mean.ndim == 2 else -1)
    low, high = bounds.unbind(-1)
    count, mean, m2 = (field.double() for field in moments)
    filled = count > 0
    slack = 1e-9 * (high - low)
    room = (high - mean).clamp_min(0) * (mean - low).clamp_min(0)
    fits = (mean >= low - slack) & (mean <= high + slack)
    fits &= (m2 >= 0) & (m2 <= count * (room + 1e-9 * (high - low).square()))
    if not bool((fits | ~filled).all()) or not bool((count >= 0).all()):
        rows = checks.shown(checks.rows_of(filled & ~fits))
        raise InputError(
            f"cells {rows} have a mean or variance that no values within {list(clips)} can have; "
            "clip every user's value before averaging"
        )
    u = torch.where(filled, 2 * (mean - low) / (high - low) - 1, 0.0)
    square = count * u.square() + torch.where(filled, m2, 0.0) * (2 / (high - low)).square()
    grid = [count * GRID, count * u * GRID, (square - count / 2) * GRID]
    if any(bool((g.abs() > _MOST / 2).any()) for g in grid):
        raise InputError("counts are too large for the grid; split the cells")
    n, first, second = (g.round().long() for g in grid)
    return Sums(n, first, second, tuple(Clip(*c) for c in clips), max_contributions)


def _is_whole(given: Any) -> bool:
    if not isinstance(given, Tensor) or given.layout != torch.strided:
        return False
    number = given.dtype != torch.bool and not given.is_complex()
    return number and bool((given == given.long()).all())


def _first_of_each(user: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    """Rows, at most ``most`` of each user, chosen at random."""
    order = torch.randperm(len(user), generator=generator)
    order = order[torch.argsort(user[order], stable=True)]
    _, sizes = torch.unique_consecutive(user[order], return_counts=True)
    start = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return order[torch.arange(len(user)) - start < most]


def _check_clips(clips: Any, num_metrics: int) -> Tensor:
    flaws = checks.Flaws("these bounds")
    if isinstance(clips, Mapping | str) or not isinstance(clips, Sequence):
        flaws.add(f"clips must be a list with a Clip for each metric, got {type(clips).__name__}")
        flaws.throw()
    if num_metrics < 0:
        flaws.add("values must be (rows, metrics)")
    if wrong := [c for c in clips if not isinstance(c, Sequence) or len(c) != 2]:
        flaws.add(f"a Clip is a pair of low and high, got {checks.shown(map(checks.brief, wrong))}")
        flaws.throw()
    bounds = checks.matrix(flaws, "clips", list(map(tuple, clips)), (num_metrics, 2))
    flaws.throw()
    if not bool(bounds.isfinite().all()) or not bool((bounds[:, 0] < bounds[:, 1]).all()):
        flaws.add(f"each Clip needs finite low < high, got {list(clips)}")
    flaws.throw()
    return bounds
