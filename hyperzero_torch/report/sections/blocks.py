"""What a section can hold."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ..data.facts import Facts
from ..data.tables import Table
from ..figures.canvas import Figure, Key


class Tile(NamedTuple):
    """One number that matters."""

    label: str
    value: str
    note: str = ""


class Plot(NamedTuple):
    """A figure with its legend, and the numbers in it.

    On screens narrower than ``min_width`` pixels it scrolls inside its frame.
    """

    title: str
    figure: Figure
    table: Table
    keys: tuple[Key, ...] = ()
    is_wide: bool = True
    min_width: int = 0


class Sheet(NamedTuple):
    """A table that is open to all."""

    title: str
    table: Table
    is_wide: bool = False


Block: TypeAlias = str | list[Tile] | Plot | Sheet


class Section(NamedTuple):
    """A heading and what stands under it; a string is a paragraph."""

    key: str
    title: str
    blocks: list[Block]


def nothing_known(facts: Facts) -> str:
    """The sentence in place of a plot."""
    return f"Nothing is known of the candidates yet: {facts.known.why_not}."
