"""Tables that plots are drawn from and readers can check: typed cells under labelled columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from ...study.history import CONTROL

#: "signed" is a percentage with its sign, "prob" a percentage with one digit.
Kind: TypeAlias = Literal["text", "whole", "number", "percent", "signed", "prob"]
Cell: TypeAlias = str | float | None
#: Key, label and kind of a column, and its values.
Values: TypeAlias = tuple[str, str, Kind, Iterable[object]]
#: Half the width of a 95 % interval, in standard deviations.
SIGMAS = 1.96
#: Most rows of a table by round, and so most marks of a plot over rounds.
MOST_ROUNDS = 240


class Column(NamedTuple):
    """``key`` is for plots, ``label`` for readers."""

    key: str
    label: str
    kind: Kind


class Table(NamedTuple):
    """Rows under columns; None where a value is unknown. ``faded`` rows count for less."""

    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]
    faded: tuple[int, ...] = ()

    def column(self, key: str) -> list[Cell]:
        """One column's cells."""
        index = [c.key for c in self.columns].index(key)
        return [row[index] for row in self.rows]

    def head(self, num: int) -> Table:
        """The first rows."""
        return self._replace(rows=self.rows[:num])


def table(*columns: Values) -> Table:
    """A table from its columns, all of one length; whatever is not finite becomes None."""
    cells = [[as_cell(value) for value in values] for *_, values in columns]
    names = tuple(Column(key, label, kind) for key, label, kind, _ in columns)
    return Table(names, list(zip(*cells, strict=True)))


def from_rows(columns: Iterable[tuple[str, str, Kind]], rows: Sequence[Sequence[object]]) -> Table:
    """A table from its rows, for tables of events."""
    return table(*((*column, [row[i] for row in rows]) for i, column in enumerate(columns)))


def interval(
    label: str, kind: Kind, bands: Iterable[Iterable[object]], prefix: str = ""
) -> list[Values]:
    """Columns for the mean, low and high of a quantity; ``prefix`` goes before their keys."""
    labels = (label, "low", "high")
    keys = (f"{prefix}mean", f"{prefix}low", f"{prefix}high")
    return [(key, name, kind, values) for key, name, values in zip(keys, labels, bands)]


def as_cell(value: object) -> Cell:
    """A number, a text, or None for what is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def show(cell: Cell, kind: Kind) -> str:
    """A cell as a reader sees it: fractions in percent, an unknown value as a dash."""
    if isinstance(cell, str):
        return cell
    if cell is None or not math.isfinite(cell):
        return "–"
    if kind == "whole":
        return f"{cell:.0f}"
    if kind == "prob":
        return f"{100 * cell:.1f} %"
    if kind in ("percent", "signed"):
        digits = 2 if abs(cell) >= 1e-3 or cell == 0 else 3
        value = round(100 * cell, digits) + 0.0  # + 0.0: no "-0.00"
        sign = "+" if kind == "signed" else ""
        return f"{value:{sign}.{digits}f} %"
    return f"{cell:.4g}"


def show_interval(low: float, high: float, kind: Kind) -> str:
    """Both ends of an interval."""
    return f"{show(low, kind)} … {show(high, kind)}"


def blocks(rounds: Sequence[int], most: int = MOST_ROUNDS) -> list[list[int]]:
    """Ascending rounds in at most so many blocks of neighbours, all but the last equally large."""
    size = max(1, -(-len(rounds) // most))
    return [list(rounds[i : i + size]) for i in range(0, len(rounds), size)]


def in_words(rounds: Sequence[int], what: str) -> str:
    """A sentence on the blocks, empty where each is one round."""
    size = len(blocks(rounds)[0]) if rounds else 1
    return "" if size == 1 else f" {len(rounds)} rounds are drawn in blocks of {size}: {what}."


def name_of(candidate: int) -> str:
    """How a report calls a candidate."""
    return "control" if candidate == CONTROL else f"c{candidate}"


def parameter_value(value: object) -> str | float:
    """A parameter as a cell: options as text, numbers as numbers."""
    if isinstance(value, str | bool):
        return str(value)
    return float(value)  # type: ignore[arg-type]
