"""Whether a study has decisions of a kind, without reading the study."""

from __future__ import annotations

import sqlalchemy as sa

from .schema import decisions
from .sql import SqlJournal


def has_decisions(journal: SqlJournal, study: str, kind: str) -> bool:
    """Whether the journal holds a decision of this kind; its values are not checked."""
    query = sa.select(decisions.c.entry).where(decisions.c.study == study, decisions.c.kind == kind)
    with journal.database.transaction() as connection:
        return connection.execute(query.limit(1)).first() is not None
