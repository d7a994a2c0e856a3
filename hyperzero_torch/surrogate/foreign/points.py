"""What every foreign posterior checks of points."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ShapeError


def check_points(x: Tensor, dims: int, device: torch.device, ndim: int | None = None) -> None:
    """Refuse what are no points of the unit cube on a posterior's device.

    Args:
        x: ``(..., dims)``.
        dims: of the cube.
        device: of the posterior.
        ndim: 2 for ``(N, dims)``, 3 for ``(paths, S, dims)``; None for any leading axes.
    Raises:
        ShapeError: another width, device or number of axes.
    """
    is_wrong = x.ndim < 1 or x.shape[-1] != dims or x.device != device
    if is_wrong or (ndim is not None and x.ndim != ndim):
        lead = {None: "...", 2: "N", 3: "paths, S"}[ndim]
        raise ShapeError(
            f"expected points ({lead}, {dims}) on {device}, got {tuple(x.shape)} on {x.device}"
        )
