"""When entries were written, by the clock of the process that wrote them."""

from __future__ import annotations

import sqlalchemy as sa

from .schema import entries
from .sql import SqlJournal


def planned_at(journal: SqlJournal, study: str, after: int = -1) -> dict[int, str]:
    """When rounds above ``after`` were planned, as the journal has it: ISO 8601, UTC."""
    query = sa.select(entries.c.round, entries.c.at).where(
        entries.c.study == study, entries.c.kind == "planned", entries.c.round > after
    )
    with journal.database.transaction() as connection:
        return {int(round_): str(at) for round_, at in connection.execute(query)}


def decided_at(journal: SqlJournal, study: str, after: int = 0) -> list[str]:
    """When decisions were written, in their order, without the first ``after`` of them."""
    query = (
        sa.select(entries.c.at)
        .where(entries.c.study == study, entries.c.kind == "decided")
        .order_by(entries.c.entry)
        .offset(after)
    )
    with journal.database.transaction() as connection:
        return [str(at) for (at,) in connection.execute(query)]
