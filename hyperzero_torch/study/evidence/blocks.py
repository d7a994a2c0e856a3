"""Evidence block by block: all but the latest rounds are pooled once, in blocks.

A block is pooled from its own rounds alone. The latest rounds are pooled again every time. So the
work of a round does not grow with the age of the study, and the readings of a settled block can be
deleted without changing any estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...stats.evidence import EvidenceState
from ...stats.exposure import Exposure
from ...stats.windows import Sums
from ..decisions import Discount
from ..history import History
from ..journal import pack_array, unpack_array
from .arms import Levels
from .pooling import Block, Pooling, pool, retained_precision

#: Settled blocks by number, each with the key of its inputs; compacted ones are -1, -2, ..., and
#: that of an earlier study is far below.
BlockCache: TypeAlias = dict[int, tuple[object, Block]]
_CARRIED = -(2**40)


def settled(history: History, pooling: Pooling) -> dict[int, list[int]]:
    """Rounds of each settled block that has not been compacted, by the block's number.

    Blocks are counted by planned rounds. The latest full one, and those not yet full, are live.
    """
    size = pooling.block_rounds
    if size is None:
        return {}
    rounds = sorted(history.plans)
    blocks = {b: rounds[b * size : (b + 1) * size] for b in range(len(rounds) // size - 1)}
    remaining = {b: [r for r in of if r in history.tables] for b, of in blocks.items()}
    return {b: of for b, of in remaining.items() if of}


def settle(history: History, pooling: Pooling, rounds: Sequence[int]) -> Block:
    """Pool a settled block in its final form: only discounts that split it are applied."""
    status = history.status
    tables = [(r, history.tables[r]) for r in rounds if r not in status.excluded_rounds]
    block, _ = pool(tables, pooling, len(history.metrics), _splitting(status.discounts, rounds))
    # Seven digits are enough for a second-order correction, and take half the space in a journal.
    loadings = block.control_loadings
    return block._replace(control_loadings=loadings._replace(part=loadings.part.float()))


def blocks(history: History, pooling: Pooling, cache: BlockCache) -> tuple[list[Block], list[int]]:
    """All settled blocks with today's discounts, compacted ones first; and the live rounds.

    Args:
        history: the study's facts.
        pooling: how deltas are pooled.
        cache: blocks that were pooled before; new and changed ones are added.
    """
    status = history.status
    settled_blocks = [*_carried(history, cache), *_compacted(history, cache)]
    done: set[int] = set()
    for number, rounds in settled(history, pooling).items():
        made_from = (
            pooling,
            sum(len(history.tables[r].messages) for r in rounds),
            sum(history.tables[r].num_judgements for r in rounds),
            len(rounds),
            tuple(r for r in rounds if r in status.excluded_rounds),
            tuple(_splitting(status.discounts, rounds)),
        )
        if number not in cache or cache[number][0] != made_from:
            cache[number] = (made_from, settle(history, pooling, rounds))
        settled_blocks.append((rounds, cache[number][1]))
        done.update(rounds)
    discounted = [
        block.discounted(_retained(status.discounts, rounds[-1], len(history.metrics)))
        for rounds, block in settled_blocks
    ]
    return discounted, [r for r in sorted(history.tables) if r not in done]


def _splitting(discounts: Sequence[Discount], rounds: Sequence[int]) -> list[Discount]:
    """Discounts that begin within these rounds, so that they treat them differently."""
    return [d for d in discounts if rounds[0] < d.before <= rounds[-1]]


def to_compacted(block: Block) -> dict[str, Any]:
    """A block as plain JSON values, for ``Compacted.evidence``."""
    state, loadings, levels = block.state, block.control_loadings, block.levels
    arrays = {
        "candidate": block.candidates,
        "weight": state.weight,
        "mean": state.mean,
        "spread": state.spread,
        "num_rounds": block.num_rounds,
        "exposed_row": loadings.candidate,
        "exposed_round": loadings.round,
        "exposed_part": loadings.part,
        "users": levels.users,
        "hours": levels.hours,
        "total": levels.total,
        "dispersion": block.dispersion,
        "power": block.round_precision,
        "power_rounds": block.num_precision_rounds,
    }
    if any(bool(field.any()) for field in block.waiting):
        arrays["waiting"] = torch.stack(tuple(block.waiting))
    return {name: pack_array(array.numpy()) for name, array in arrays.items()}


def from_compacted(evidence: Mapping[str, Any]) -> Block:
    """The block that ``to_compacted`` packed."""
    arrays = {name: torch.from_numpy(unpack_array(packed)) for name, packed in evidence.items()}
    waiting = arrays.get("waiting")
    if waiting is None:  # none, or a journal from before there were windows
        waiting = torch.zeros(len(Sums._fields), *arrays["weight"].shape, dtype=torch.float64)
    return Block(
        candidates=arrays["candidate"],
        state=EvidenceState(arrays["weight"], arrays["mean"], arrays["spread"]),
        num_rounds=arrays["num_rounds"],
        control_loadings=Exposure(
            arrays["exposed_row"], arrays["exposed_round"], arrays["exposed_part"]
        ),
        levels=Levels(arrays["users"], arrays["hours"], arrays["total"]),
        dispersion=arrays["dispersion"],
        round_precision=arrays["power"],
        num_precision_rounds=arrays["power_rounds"],
        waiting=Sums(*waiting),
    )


def _carried(history: History, cache: BlockCache) -> list[tuple[Sequence[int], Block]]:
    """The block of an earlier study, with its last round."""
    carried = history.carried
    if carried is None:
        return []
    if _CARRIED not in cache:
        cache[_CARRIED] = (None, from_compacted(carried.evidence))
    return [([carried.round], cache[_CARRIED][1])]


def _compacted(history: History, cache: BlockCache) -> list[tuple[Sequence[int], Block]]:
    """Blocks whose readings were compacted, with their rounds."""
    for number, entry in enumerate(history.compacted):
        if -1 - number not in cache:
            cache[-1 - number] = (None, from_compacted(entry.evidence))
    return [(e.rounds, cache[-1 - i][1]) for i, e in enumerate(history.compacted)]


def _retained(discounts: Sequence[Discount], last: int, num_metrics: int) -> Tensor:
    """Precision that evidence of rounds up to ``last`` retains, ``(metrics,)``, in (0, 1]."""
    later = [d for d in discounts if d.before > last]
    return retained_precision(later, torch.tensor([last]), num_metrics)[0]
