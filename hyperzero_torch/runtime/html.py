"""Tables for notebooks: small HTML, every text of which is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from .plain import plain

MOST_ROWS = 200  # beyond, a notebook gets slow


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Iterable[object]],
    notes: Sequence[str] = (),
) -> str:
    """A table with a title and sentences below it.

    Args:
        title: above it.
        columns: their names; none for a table of names and values.
        rows: of cells; the first cell of each names it.
        notes: sentences.
    """
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    body = "".join(_row(row) for row in rows[:MOST_ROWS])
    more = [f"{len(rows) - MOST_ROWS} more rows"] if len(rows) > MOST_ROWS else []
    below = "".join(f"<div>{_text(note)}</div>" for note in (*more, *notes))
    thead = f"<thead><tr>{head}</tr></thead>" if columns else ""
    table = f"<table>{thead}<tbody>{body}</tbody></table>" if rows else ""
    return f"<div><div><strong>{_text(title)}</strong></div>{table}{below}</div>"


def _row(cells: Iterable[object]) -> str:
    first, *rest = (_text(_shown(cell)) for cell in cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>'


def _shown(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _text(text: str) -> str:
    return escape(plain(text))
