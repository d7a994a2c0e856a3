"""Standard normals in mirrored pairs, z and -z: means of functions linear in z are exact."""

from __future__ import annotations

import torch
from torch import Tensor


def sobol_normals(num: int, num_metrics: int, seed: int) -> Tensor:
    """``(num, num_metrics)`` quasi-random normals on the CPU, from a scrambled Sobol sequence.

    A few hundred give probabilities as thousands of independent draws would. Row ``num // 2 + i``
    is minus row ``i``; an odd ``num`` gives one row less.
    """
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        num_metrics, scramble=True, seed=seed
    )
    uniform = engine.draw(num // 2, dtype=torch.float64)
    half = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    return torch.cat([half, -half])


def antithetic_normals(num: int, num_metrics: int, generator: torch.Generator) -> Tensor:
    """``(num, num_metrics)`` independent but for the mirror images, on the generator's device.

    Row ``num // 2 + i`` is minus row ``i``; an odd ``num`` gives one row less.

    Source: Hammersley and Morton (1956), antithetic variates.
    """
    shape = (num // 2, num_metrics)
    half = torch.randn(shape, dtype=torch.float64, device=generator.device, generator=generator)
    return torch.cat([half, -half])
