"""Several processes, one plan: ``with sharing():`` divides large work among the ranks.

    torch.distributed.init_process_group(...)      # e.g. under torchrun
    with hz.thompson.sharing():
        plan = tuner.ask()

Inside, ``select``, ``select_paths`` and ``propose`` are collective: every rank has to call them,
with the same arguments and generators seeded alike. Each does its share of the tiles and gets all
results. Tiles are the same whatever the number of ranks, and so, to the last bit, are the results,
where every process has as many threads. Outside, a process works alone, whatever groups there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError

_GROUP: ContextVar[dist.ProcessGroup | None] = ContextVar("hyperzero_torch_group", default=None)


@contextmanager
def sharing(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Divide draws and samples among the processes of a group; all of them where it is None.

    Raises:
        ConfigError: ``torch.distributed`` has no process group yet.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "sharing needs a process group: call torch.distributed.init_process_group first, e.g. "
            "in a script that torchrun starts"
        )
    token = _GROUP.set(dist.group.WORLD if group is None else group)
    try:
        yield
    finally:
        _GROUP.reset(token)


def rank_and_number() -> tuple[int, int]:
    """This process's rank in the group that shares, and how many there are."""
    group = _GROUP.get()
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


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
    # In the parts' own dtype, which every rank knows, whatever an objective returns.
    mine = [work(part).to(part.dtype) for part in parts[rank::number]]
    group = _GROUP.get()
    if group is None:
        return torch.cat(mine, dim=1)
    done: list[Tensor] = [parts[0]] * len(parts)
    for source in range(min(number, len(parts))):
        sizes = [len(part) for part in parts[source::number]]
        if source == rank:
            packed = torch.cat(mine, dim=1).contiguous()
        else:
            packed = parts[0].new_empty(num_rows, sum(sizes), width)
        dist.broadcast(packed, src=dist.get_global_rank(group, source), group=group)
        done[source::number] = torch.split(packed, sizes, dim=1)
    return torch.cat(done, dim=1)


def summed(mine: Tensor) -> Tensor:
    """The sum over ranks; overwrites ``mine``."""
    group = _GROUP.get()
    if group is not None:
        dist.all_reduce(mine, group=group)
    return mine
