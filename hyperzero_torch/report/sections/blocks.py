"""The blocks that a section holds, and the sentences that several sections share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from ...study.health import Card
from ...tuner.verdict import Verdict
from ..data.decisions import MOST_ROWS
from ..data.facts import Facts
from ..data.tables import Table
from ..figures import round_plots
from ..figures.canvas import Figure, Key


class Tile(NamedTuple):
    """One number that matters."""

    label: str
    value: str
    note: str = ""


class Plot(NamedTuple):
    """A figure with its legend, and the table of its numbers.

    On screens narrower than ``min_width`` pixels it scrolls inside its frame.
    """

    title: str
    figure: Figure
    table: Table
    keys: tuple[Key, ...] = ()
    is_wide: bool = True
    min_width: int = 0


class Sheet(NamedTuple):
    """A table that is always open."""

    title: str
    table: Table
    is_wide: bool = False


class Answer(NamedTuple):
    """The verdict, and the cards of health behind it."""

    verdict: Verdict
    health: tuple[Card, ...]


Block: TypeAlias = str | list[Tile] | Plot | Sheet | Answer


class Section(NamedTuple):
    """A heading and its blocks; a string is a paragraph."""

    key: str
    title: str
    blocks: list[Block]


def plot_by_round(
    facts: Facts,
    title: str,
    figure: Figure,
    rows: Table,
    keys: Iterable[Key] = (),
    is_wide: bool = True,
) -> Plot:
    """A plot over rounds, with drift, rollbacks and excluded rounds marked."""
    drawn = round_plots.with_events(facts, figure, rows.column("round"))
    return Plot(title, drawn, rows, (*keys, *round_plots.event_keys(facts)), is_wide)


def latest_first(title: str, rows: Table) -> Sheet:
    """The first rows of a table of events, over the whole width."""
    return Sheet(title, rows.head(MOST_ROWS), is_wide=True)


def no_estimates(facts: Facts) -> str:
    """The sentence in place of a plot."""
    return f"There are no estimates yet: {facts.model.why_not}."


def limited(num: int, total: int, what: str, which: str = "") -> str:
    """A sentence on what is not drawn, empty where all is."""
    return "" if num >= total else f" {num} of {total} {what} are drawn{which}."
