"""Quasi-random standard normals with exact means."""

from __future__ import annotations

import torch
from torch import Tensor


def normals(num: int, num_metrics: int, seed: int) -> Tensor:
    """``(num, metrics)`` quasi-random normals, each with its mirror image: exact means."""
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        num_metrics, scramble=True, seed=seed
    )
    uniform = engine.draw(num // 2, dtype=torch.float64)
    half = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    return torch.cat([half, -half])
