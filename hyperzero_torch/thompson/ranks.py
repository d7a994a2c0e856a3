"""Several processes, one plan: under ``torchrun`` large work is divided among the ranks.

Every rank calls with the same arguments and generators seeded alike, does its share of the tiles,
and gets all results. Tiles are the same whatever the number of ranks, and so, to the last bit, are
the results: a plan does not depend on how many processes made it. Without an initialised process
group there is one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_number() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def of_all(
    parts: Sequence[Tensor], work: Callable[[Tensor], Tensor], num_rows: int, width: int
) -> Tensor:
    """``work`` of every part, side by side: each rank does every so-manieth part and tells all.

    Args:
        parts: each ``(N_i, dims)``, the same on every rank.
        work: maps a part to ``(num_rows, N_i, width)``.
        num_rows: of what ``work`` gives.
        width: of what ``work`` gives.
    Returns:
        ``(num_rows, sum of N_i, width)``.
    """
    rank, number = rank_and_number()
    mine = [work(part) for part in parts[rank::number]]
    if number == 1:
        return torch.cat(mine, dim=1)
    done: list[Tensor] = [parts[0]] * len(parts)
    for source in range(min(number, len(parts))):
        sizes = [len(part) for part in parts[source::number]]
        if source == rank:
            packed = torch.cat(mine, dim=1)
        else:
            packed = parts[0].new_empty(num_rows, sum(sizes), width)
        dist.broadcast(packed, src=source)
        done[source::number] = torch.split(packed, sizes, dim=1)
    return torch.cat(done, dim=1)


def summed(mine: Tensor) -> Tensor:
    """The sum over ranks; overwrites ``mine``."""
    if rank_and_number()[1] > 1:
        dist.all_reduce(mine)
    return mine
