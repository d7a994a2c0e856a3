"""Compaction: readings of settled blocks are replaced by the evidence pooled from them.

A settled block is pooled from its own rounds alone, so deleting its readings changes no estimate,
bit for bit. The readings cannot be recovered: rounds of a compacted block can no longer be excluded
or corrected, and the study cannot be rolled back to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .evidence.blocks import settle, settled, to_compacted
from .evidence.pooling import Pooling
from .history import History
from .journal import Compacted


@dataclass(frozen=True)
class CompactionSummary:
    """What was, or would be, compacted.

    Args:
        rounds: rounds whose readings are deleted, ascending.
        rows: number of these readings.
        messages: number of the messages with these readings.
        kept_from: the first round that keeps its readings; None where no round does.
        why_not: why nothing can be compacted; None where something can.
    """

    rounds: tuple[int, ...]
    rows: int
    messages: int
    kept_from: int | None
    why_not: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def compact(
    history: History, pooling: Pooling, keep: int
) -> tuple[list[Compacted], CompactionSummary]:
    """Entries that compact every settled block older than the latest ``keep`` rounds.

    Raises:
        ConfigError: ``keep`` is not a whole number >= 0.
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise ConfigError(f"keep is a number of rounds, 0 or more, got {keep!r}")
    older = sorted(history.plans)[: max(0, len(history.plans) - keep)]
    before = older[-1] if older else -1
    blocks = [rounds for rounds in settled(history, pooling).values() if rounds[-1] <= before]
    entries = []
    for rounds in blocks:
        tables = [history.tables[r] for r in rounds]
        entries.append(
            Compacted(
                rounds=tuple(rounds),
                messages=tuple(sorted({m for t in tables for m in t.messages})),
                rows=sum(int((t.revision >= 0).sum()) for t in tables),
                evidence=to_compacted(settle(history, pooling, rounds)),
            )
        )
    deleted = tuple(r for rounds in blocks for r in rounds)
    why_not = None if deleted else _why_not(history, pooling, keep)
    summary = CompactionSummary(
        rounds=deleted,
        rows=sum(e.rows for e in entries),
        messages=len({m for e in entries for m in e.messages}),
        kept_from=next((r for r in history.tables if r not in set(deleted)), None),
        why_not=why_not,
    )
    return entries, summary


def _why_not(history: History, pooling: Pooling, keep: int) -> str:
    if pooling.block_rounds is None:
        return "block_rounds is None, so rounds are never settled; set it, e.g. to 168"
    return (
        f"no block of {pooling.block_rounds} rounds is settled and older than the latest {keep} "
        f"of {len(history.plans)} rounds; a block settles one block after it is full"
    )
