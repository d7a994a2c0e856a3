"""Which metrics a term depends on: named in an expression, observed for a callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .terms import Term

# Deltas at which a callable is tried: its dependence may show only far from 0, or only near it.
_SCALES = (1e-4, 1e-2, 0.1, 0.5, 2.0)
_NUM_POINTS = 32


def uses(term: Term, metrics: Sequence[str], levels: Callable[[Tensor], Tensor]) -> Tensor:
    """Whether a term's value depends on each metric, bool ``(metrics,)``.

    A callable is evaluated with one metric after another replaced by other values. One that fails,
    or that shows no dependence at all, is taken to depend on every metric.

    Args:
        term: the objective or a constraint.
        metrics: their names.
        levels: from deltas to levels, both ``(..., metrics)``.
    """
    if term.expression is not None:
        return torch.tensor([name in term.expression.metrics for name in metrics])
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(_SCALES), _NUM_POINTS, len(metrics))
    scale = torch.tensor(_SCALES, dtype=torch.float64)[:, None, None]
    here, other = scale * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
    depends = []
    try:
        with torch.no_grad():
            value = term(here, levels(here))
            for m in range(len(metrics)):
                moved = here.clone()
                moved[..., m] = other[..., m]
                changed = term(moved, levels(moved))
                depends.append(not torch.equal(value.nan_to_num(), changed.nan_to_num()))
    except Exception:  # the user's code, at deltas that it may not be made for
        depends = []
    return torch.tensor(depends if any(depends) else [True] * len(metrics))
