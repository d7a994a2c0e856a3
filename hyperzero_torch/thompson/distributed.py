"""Several processes make one plan: ``with sharing():`` divides large work among the ranks.

    torch.distributed.init_process_group(...)      # e.g. under torchrun
    with hz.thompson.sharing():
        plan = tuner.ask()

Inside, ``select``, ``select_paths`` and ``propose`` are collective: every rank has to call them,
with the same arguments and generators of the same seed. Each rank works on its share of the tiles
and gets all results. Tiles do not depend on the number of ranks, and the results are the same to
the last bit where every process has the same number of threads. Outside, a process works alone,
whatever process groups exist.
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


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank in the sharing group, and the number of processes; (0, 1) outside."""
    group = _GROUP.get()
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def gather_parts(
    parts: Sequence[Tensor], work: Callable[[Tensor], Tensor], num_rows: int, width: int
) -> Tensor:
    """Apply ``work`` to every part and concatenate the results along dim 1.

    Rank r of R works on parts r, r + R, r + 2 R, ... and broadcasts its results to all others.

    Args:
        parts: each ``(N_i, dims)``, the same on every rank.
        work: maps a part to ``(num_rows, N_i, width)``.
    Returns:
        ``(num_rows, sum of N_i, width)``, in the parts' own dtype.
    """
    rank, size = rank_and_world_size()
    # In the parts' own dtype, which every rank knows, whatever an objective returns.
    own = [work(part).to(part.dtype) for part in parts[rank::size]]
    group = _GROUP.get()
    if group is None:
        return torch.cat(own, dim=1)
    results: list[Tensor] = [parts[0]] * len(parts)
    for source in range(min(size, len(parts))):
        lengths = [len(part) for part in parts[source::size]]
        if source == rank:
            packed = torch.cat(own, dim=1).contiguous()
        else:
            packed = parts[0].new_empty(num_rows, sum(lengths), width)
        dist.broadcast(packed, src=dist.get_global_rank(group, source), group=group)
        results[source::size] = torch.split(packed, lengths, dim=1)
    return torch.cat(results, dim=1)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of ``values`` over ranks, in place; unchanged outside a group."""
    group = _GROUP.get()
    if group is not None:
        dist.all_reduce(values, group=group)
    return values
