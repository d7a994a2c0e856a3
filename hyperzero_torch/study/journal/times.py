"""When entries were written, by the clock of the process that wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .base import Journal
from .memory import MemoryJournal

if TYPE_CHECKING:  # SQLAlchemy only where it is used
    from .sql import SqlJournal


@dataclass(frozen=True)
class Times:
    """When rounds were planned and decisions written, where the journal knows it.

    Args:
        planned: by round: ISO 8601, UTC.
        decided: of the decisions, in their order.
    """

    planned: Mapping[int, str] = field(default_factory=dict)
    decided: Sequence[str] = ()


def times_of(journal: Journal, study: str) -> Times:
    """The times of a study; none where its journal keeps none, as one in memory."""
    if isinstance(journal, MemoryJournal):
        return Times()
    from .sql import SqlJournal

    if not isinstance(journal, SqlJournal):
        return Times()
    return Times(planned_at(journal, study), decided_at(journal, study))


def planned_at(journal: SqlJournal, study: str, after: int = -1) -> dict[int, str]:
    """When rounds above ``after`` were planned, as the journal has it: ISO 8601, UTC."""
    import sqlalchemy as sa

    from .schema import entries

    query = sa.select(entries.c.round, entries.c.at).where(
        entries.c.study == study, entries.c.kind == "planned", entries.c.round > after
    )
    with journal.database.transaction() as connection:
        return {int(round_): str(at) for round_, at in connection.execute(query)}


def decided_at(journal: SqlJournal, study: str, after: int = 0) -> list[str]:
    """When decisions were written, in their order, without the first ``after`` of them."""
    import sqlalchemy as sa

    from .schema import entries

    query = (
        sa.select(entries.c.at)
        .where(entries.c.study == study, entries.c.kind == "decided")
        .order_by(entries.c.entry)
        .offset(after)
    )
    with journal.database.transaction() as connection:
        return [str(at) for (at,) in connection.execute(query)]
