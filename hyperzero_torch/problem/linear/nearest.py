"""The nearest feasible point, for points that violate a constraint."""

from __future__ import annotations

import torch
from torch import Tensor

from .region import Region

_SWEEPS = 200
_MARGIN = 1e-9
_RUNGS = 32


def nearest(region: Region, v: Tensor) -> Tensor:
    """Points ``v (n, k)`` moved into the region; feasible points are unchanged.

    Distance is measured in theta, each parameter by its range. Whole numbers are kept where the
    other parameters can compensate. Where the projection is infeasible after snapping, the result
    is the last feasible point on the line from a point of the region to the projection: it is
    always feasible, but not always the nearest.
    """
    if v.device.type != "cpu":  # hundreds of small steps, each of which would wait for a card
        return nearest(region, v.detach().cpu()).to(v.device)
    with torch.no_grad():
        out = v.double().clone()
        outside = ~region.holds(out)
        if not bool(outside.any()):
            return v
        anchor = region.starts[0].to(out.device)
        z = region.to_z(out[outside])
        z = torch.where(z.isnan(), anchor, z)
        whole = region.tensor("whole", out)
        moved = _project(region, z, ~whole) if not bool(whole.all()) else z
        infeasible = ~region.holds(region.to_v(moved))
        if bool(infeasible.any()):
            target = moved[infeasible]
            if bool(whole.any()):
                target = _project(region, z[infeasible], torch.ones_like(whole))
            moved[infeasible] = _search(region, anchor, target)
        out[outside] = region.snap(region.to_v(moved))
        return out.to(v.dtype)


def _project(region: Region, z: Tensor, free: Tensor) -> Tensor:
    """Dykstra's projection onto the rows and the box, over the ``free (k,)`` columns only.

    Source: Boyle and Dykstra (1986).
    """
    matrix, bound, room = (t.to(z.device) for t in region.halfspaces)
    fixed = torch.where(free, 0.0, region.to_z(region.to_v(z), snap=True))
    limits = bound - fixed @ matrix.T - torch.where(room > 1e3 * _MARGIN, _MARGIN, 0.0)
    rows = matrix * free
    square = rows.square().sum(1)
    pushes = z.new_zeros(len(z), len(rows))
    rest = torch.zeros_like(z)
    normals = torch.tensor(region.extent.normals, device=z.device)
    start = z
    middle = torch.tensor(region.extent.points.mean(0), device=z.device)
    for sweep in range(_SWEEPS):
        for r in torch.nonzero(square > 0).flatten().tolist():
            z = z + pushes[:, r : r + 1] * rows[r]
            pushes[:, r] = ((z @ rows[r] - limits[:, r]) / square[r]).clamp_min(0.0)
            z = z - pushes[:, r : r + 1] * rows[r]
        z, before = (z + rest).clamp(0.0, 1.0), z + rest
        rest = before - z
        if sweep % 4 == 0 and bool(region.holds(region.to_v(z)).all()):
            break
    if len(normals):  # the remaining distance to an equality
        z = (z - ((z - middle) @ normals.T) @ normals).clamp(0.0, 1.0)
    return torch.where(free, z, start)


def _search(region: Region, anchor: Tensor, target: Tensor) -> Tensor:
    """The last feasible point on the lines from a feasible ``anchor (k,)`` to ``target (n, k)``."""
    step = target - anchor

    def holds(part: Tensor) -> Tensor:
        return region.holds(region.to_v(anchor + part.unsqueeze(1) * step))

    low = target.new_zeros(len(target))
    for rung in range(1, _RUNGS + 1):
        part = torch.full_like(low, rung / _RUNGS)
        low = torch.where(holds(part), part, low)
    high = (low + 1 / _RUNGS).clamp_max(1.0)
    for _ in range(50):
        part = 0.5 * (low + high)
        inside = holds(part)
        low, high = torch.where(inside, part, low), torch.where(inside, high, part)
    return anchor + low.unsqueeze(1) * step
