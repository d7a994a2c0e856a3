"""Loadings by their logits: the prior, and the most probable loadings under it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Largest loading: no domain is a copy of another.
MAX_LOADING = 0.999
#: Prior standard deviation of logit(r / MAX_LOADING) of a domain in its family.
LOGIT_STD = 0.7
_ITERATIONS = 20


def logit(loading: Tensor) -> Tensor:
    """logit(r / MAX_LOADING), clamped to what float64 resolves."""
    part = (loading / MAX_LOADING).clamp(1e-6, 1 - 1e-6)
    return part.log() - torch.log1p(-part)


def shifted(loading: Tensor, by: Tensor) -> Tensor:
    """Loadings moved by this many standard deviations of their logit-normal prior."""
    return MAX_LOADING * (logit(loading) + LOGIT_STD * by).sigmoid()


def most_probable(
    loss: Callable[[Tensor], Tensor],
    median: Tensor,
    logit_std: Tensor | float,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise ``loss(loading)`` plus the prior over logits; zeros of ``median`` stay zero."""
    free = median > 0
    centre = logit(torch.where(free, median, 0.5))
    logits = logit(torch.where(free, median if start is None else start, 0.5)).clone()
    logits.requires_grad_(True)

    def penalised() -> Tensor:
        loading = torch.where(free, MAX_LOADING * logits.sigmoid(), 0.0)
        deviation = torch.where(free, (logits - centre) / logit_std, 0.0)
        return loss(loading) + 0.5 * deviation.square().sum()

    minimise(logits, penalised)
    best = logits.detach()
    best = torch.where(best.isfinite(), best, centre)
    return torch.where(free, MAX_LOADING * best.sigmoid(), 0.0)


def minimise(parameters: Tensor, loss: Callable[[], Tensor]) -> None:
    """L-BFGS in place."""
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=_ITERATIONS, tolerance_grad=1e-2, tolerance_change=1e-3,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        optimiser.zero_grad()
        with torch.enable_grad():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
