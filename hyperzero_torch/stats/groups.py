"""Ids of groups, checked before a card adds by them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError


def check_ids(ids: Tensor, num: int, what: str) -> None:
    """Raise ``ShapeError`` unless every id on a card lies in ``[0, num)``.

    On a card an id out of range ends all CUDA work of the process. The check waits for the card
    once. It is left out on the CPU, which refuses such an id by itself, and in a compiled graph.
    """
    if ids.device.type == "cpu" or torch.compiler.is_compiling() or not ids.numel():
        return
    low, high = torch.stack(torch.aminmax(ids)).tolist()
    if low < 0 or high >= num:
        raise out_of_range(what, num, low, high)


def out_of_range(what: str, num: int, low: int, high: int) -> ShapeError:
    """The error for ids that are no group's."""
    return ShapeError(f"{what} must lie in [0, {num}), got {low} to {high}")
