"""The nearest point of a region: where a step that left it is put back."""

from __future__ import annotations

import torch
from torch import Tensor

from .region import Region

_SWEEPS = 200
_MARGIN = 1e-9
_RUNGS = 32


def nearest(region: Region, v: Tensor) -> Tensor:
    """Points ``v (n, k)`` moved into the region; those that hold already stay as they are.

    Distance is measured in theta, each parameter by its range. Whole numbers are kept where the
    other parameters can make up for it. Where the projection does not hold after snapping, the
    way from a point of the region to it is searched, and its last point that holds is taken: the
    result always holds, and is the nearest of all only as far as the projection is.
    """
    with torch.no_grad():
        out = v.double().clone()
        bad = ~region.holds(out)
        if not bool(bad.any()):
            return v
        anchor = region.starts[0].to(out.device)
        z = region.to_z(out[bad])
        z = torch.where(z.isnan(), anchor, z)
        whole = region.tensor("whole", out)
        moved = _project(region, z, ~whole) if not bool(whole.all()) else z
        lost = ~region.holds(region.to_v(moved))
        if bool(lost.any()):
            target = moved[lost]
            if bool(whole.any()):
                target = _project(region, z[lost], torch.ones_like(whole))
            moved[lost] = _search(region, anchor, target)
        out[bad] = region.snap(region.to_v(moved))
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
    if len(normals):  # what is left of the distance to an equality
        z = (z - ((z - middle) @ normals.T) @ normals).clamp(0.0, 1.0)
    return torch.where(free, z, start)


def _search(region: Region, anchor: Tensor, target: Tensor) -> Tensor:
    """From ``anchor (k,)``, which holds, to ``target (n, k)``: the last point that holds."""
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
