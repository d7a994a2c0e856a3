"""Evidence block by block: all but the latest rounds are pooled once, in blocks.

A study may run for a year. A block is pooled from its own rounds alone, without regard to what came
later; the latest rounds are pooled anew every time. So a round's work does not grow with the age of
the study, and readings whose block is settled can be let go of without changing any estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...stats.evidence import EvidenceState, Exposure
from ..decisions import Discount
from ..history import History
from ..journal import EVIDENCE, pack_array, unpack_array
from .pooling import Block, Levels, Pooling, kept, pool

#: Settled blocks under their number, each with what it was pooled from; -1, -2, ... are compacted.
Memo: TypeAlias = dict[int, tuple[object, Block]]


def settled(history: History, pooling: Pooling) -> dict[int, list[int]]:
    """Rounds of each settled block that has not been compacted, by the block's number.

    Blocks are counted by planned rounds. The latest full one, and those not yet full, are live.
    """
    size = pooling.block_rounds
    if size is None:
        return {}
    rounds = sorted(history.plans)
    blocks = {b: rounds[b * size : (b + 1) * size] for b in range(len(rounds) // size - 1)}
    left = {b: [r for r in of if r in history.tables] for b, of in blocks.items()}
    return {b: of for b, of in left.items() if of}


def settle(history: History, pooling: Pooling, rounds: Sequence[int]) -> Block:
    """Pool a settled block as it is kept: with the discounts that split it, others come later."""
    tables = [(r, history.tables[r]) for r in rounds if r not in history.status.excluded_rounds]
    split = [d for d in history.status.discounts if rounds[0] < d.before <= rounds[-1]]
    block, _ = pool(tables, pooling, len(history.metrics), split)
    # Of a correction of second order seven digits are plenty: half the size in a journal.
    return block._replace(
        control_loadings=block.control_loadings._replace(part=block.control_loadings.part.float())
    )


def blocks(history: History, pooling: Pooling, memo: Memo) -> tuple[list[Block], list[int]]:
    """All settled blocks, those compacted first, each as it counts today; and the live rounds.

    Args:
        history: the study's facts.
        pooling: how.
        memo: blocks that were pooled before; those that changed, or are new, are added.
    """
    standing = history.status
    found = [
        block.discounted(_kept_whole(standing.discounts, rounds[-1], len(history.metrics)))
        for rounds, block in _compacted(history, memo)
    ]
    done: set[int] = set()
    for number, rounds in settled(history, pooling).items():
        stamp = (
            pooling,
            sum(len(history.tables[r].messages) for r in rounds),
            len(rounds),
            tuple(r for r in rounds if r in standing.excluded_rounds),
            tuple(d for d in standing.discounts if rounds[0] < d.before <= rounds[-1]),
        )
        if number not in memo or memo[number][0] != stamp:
            memo[number] = (stamp, settle(history, pooling, rounds))
        kept = _kept_whole(standing.discounts, rounds[-1], len(history.metrics))
        found.append(memo[number][1].discounted(kept))
        done.update(rounds)
    return found, [r for r in sorted(history.tables) if r not in done]


def to_compacted(block: Block) -> dict[str, Any]:
    """A block as plain JSON values, for ``Compacted.evidence``."""
    state, exposed, levels = block.state, block.control_loadings, block.levels
    arrays = [block.candidates, *state, block.num_rounds, *exposed, *levels, *block[5:]]
    return {name: pack_array(array.numpy()) for name, array in zip(EVIDENCE, arrays)}


def _compacted(history: History, memo: Memo) -> list[tuple[Sequence[int], Block]]:
    """Blocks whose readings were let go of, with their rounds."""
    for number, entry in enumerate(history.compacted):
        if -1 - number not in memo:
            c, w, m, s, n, row, slot, part, users, hours, total, *rest = (
                torch.from_numpy(unpack_array(entry.evidence[name])) for name in EVIDENCE
            )
            block = Block(
                c, EvidenceState(w, m, s), n, Exposure(row, slot, part),
                Levels(users, hours, total), *rest,
            )  # fmt: skip
            memo[-1 - number] = (None, block)
    return [(e.rounds, memo[-1 - i][1]) for i, e in enumerate(history.compacted)]


def _kept_whole(discounts: Sequence[Discount], last: int, num_metrics: int) -> Tensor:
    """How much of its precision evidence of rounds up to ``last`` keeps, ``(metrics,)``."""
    return kept([d for d in discounts if d.before > last], torch.tensor([last]), num_metrics)[0]
