"""A price on expected violation: the least that keeps a plan's expectation within a limit."""

from __future__ import annotations

import torch
from torch import Tensor

_BISECTIONS = 60
_LARGEST_PRICE = 1e12


def priced(shares: Tensor, violation: Tensor, most: float) -> Tensor:
    """Shares ``(A,)`` whose expected violation is at most ``most``, by the least price.

    Args:
        shares: as they would be without a budget.
        violation: ``(A,)`` expected violation of each arm.
        most: of the sum of shares times violations; at or below 0 only arms without any remain.
    """
    if float(shares @ violation) <= most:
        return shares
    if most <= 0:
        return torch.where(violation > 0, 0.0, shares)
    low, high = 0.0, 1.0
    while float((shares / (1 + high * violation)) @ violation) > most and high < _LARGEST_PRICE:
        high *= 2
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        if float((shares / (1 + price * violation)) @ violation) > most:
            low = price
        else:
            high = price
    within = shares / (1 + high * violation)
    total = float(within @ violation)
    if total > most:  # beyond the largest price, or by rounding
        within = torch.where(violation > 0, within * (most / total), within)
    return within
