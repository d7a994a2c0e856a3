"""Local random search: clouds of shrinking width around the best points so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..problem.space import SearchSpace

#: Standard deviations of the clouds, in units of the cube's edge.
WIDTHS = (0.1, 0.03, 0.01)


def local_search(
    space: SearchSpace,
    points: Tensor,
    best_rows: Callable[[Tensor], tuple[Tensor, Tensor]],
    num_points: int,
    generator: torch.Generator,
    widths: Sequence[float] = WIDTHS,
) -> tuple[Tensor, Tensor]:
    """Maximise one or several functions over a space, each by a search of its own.

    For every width each search draws ``num_points`` points around its best points in turn,
    ``snap(best + width * N(0, I))``, and keeps the best of these and the points that it came from.
    The values never fall where a point has the same value in any batch.

    Args:
        points: ``(N, dims)`` in the unit cube, where all searches begin.
        best_rows: maps points ``(N, dims)`` to the rows of the best, ``(searches, kept)``, and
            their values, the same shape. It decides which of two equal points comes first.
        num_points: new points of each search for each width.
        generator: on the device of ``points``; used once for each width.
    Returns:
        The best points ``(searches, kept, dims)`` and their values ``(searches, kept)``.
    """
    rows, values = best_rows(points)
    for width in widths:
        centres = points[rows]
        shape = (len(rows), num_points, points.shape[1])
        noise = torch.randn(shape, dtype=points.dtype, device=points.device, generator=generator)
        around = centres[:, torch.arange(num_points, device=points.device) % rows.shape[1]]
        cloud = space.snap((around + width * noise).clamp(0, 1))
        points = torch.cat([centres.flatten(0, 1), cloud.flatten(0, 1)])
        rows, values = best_rows(points)
    return points[rows], values
