"""The frame, lines, markers and axes that all figures are made of.

A figure is a plain dictionary, ``{"data": [...], "layout": {...}}``, which plotly.js draws in the
reader's browser; nothing here imports plotly. Colours that depend on light or dark are written
``"@ink"`` and resolved there. Everything that a user names goes through ``label``, since plotly
renders a subset of HTML in every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ..data.tables import Cell

Figure: TypeAlias = dict[str, Any]

# Okabe and Ito's palette, distinguishable with every kind of colour vision.
GREEN, VERMILLION, PURPLE = "#009E73", "#D55E00", "#CC79A7"
FILLS = ("#0072B2", "#E69F00", GREEN, "#56B4E9", "#CC79A7", "#F0E442")
# Its blues are lighter in the dark theme, where thin lines would have too little contrast.
BLUE, SKY = "@blue", "@sky"
INK, MUTED, GRID_COLOR, PAPER = "@ink", "@muted", "@grid", "@paper"
SIGNED, PERCENT = "+.3~%", ".3~%"  # d3 formats of axes and tooltips
#: How metrics (or functions) are distinguished in one plot: colour, dash, symbol.
METRIC_LOOKS = (
    (BLUE, "solid", "circle"),
    (VERMILLION, "dash", "square"),
    (GREEN, "dot", "diamond"),
    (PURPLE, "dashdot", "triangle-up"),
    ("#E69F00", "longdash", "cross"),
    (SKY, "longdashdot", "x"),
)
# How a legend shows a dash and a symbol of plotly's.
SHAPES = {
    "solid": "solid",
    "dash": "dashed",
    "dot": "dotted",
    "dashdot": "dashdot",
    "longdash": "longdash",
    "longdashdot": "dashdot",
}
SPOTS = {
    "circle": "circle",
    "square": "square",
    "diamond": "diamond",
    "triangle-up": "triangle",
    "cross": "plus",
    "x": "cross",
}
_CLEAR = "rgba(0,0,0,0)"
_MOST_MARKERS = 60  # rounds that are marked one by one


class Key(NamedTuple):
    """An entry of a legend, which stands outside the plot: ``shape`` names a CSS class."""

    label: str
    color: str
    shape: str


def label(text: str) -> str:
    """A user's text made inert in plotly: no tags, no entities, no ``%{...}`` templates."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%", "&#37;")):
        text = text.replace(raw, safe)
    return text


def short(text: str, most: int = 28) -> str:
    """A label that leaves room for the plot."""
    return label(text if len(text) <= most else text[: most - 1] + "…")


def figure(data: list[Any], height: int, x: dict[str, Any], y: dict[str, Any]) -> Figure:
    """The frame that all plots share; ``x`` and ``y`` are axes, their title a plain string."""
    axes: dict[str, Any] = {
        "gridcolor": GRID_COLOR,
        "zerolinecolor": MUTED,
        "linecolor": GRID_COLOR,
    }
    axes |= {"automargin": True, "ticks": "", "zeroline": False}
    layout = {
        "height": height,
        "autosize": True,
        "margin": {"l": 48, "r": 14, "t": 10, "b": 40},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"color": MUTED, "size": 12, "family": "inherit"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GRID_COLOR, "font": {"color": INK}},
        "hovermode": "closest",
        "dragmode": False,  # a finger that moves over a plot scrolls the page
        "showlegend": False,
        "xaxis": axes | _titled(x),
        "yaxis": axes | _titled(y),
    }
    return {"data": data, "layout": layout}


def _titled(axis: dict[str, Any]) -> dict[str, Any]:
    return axis | {"title": {"text": axis["title"]}} if "title" in axis else axis


def line(
    x: Sequence[Cell], y: Sequence[Cell], color: str, dash: str = "solid", **more: Any
) -> dict[str, Any]:
    """A line without markers."""
    style = {"color": color, "width": 2, "dash": dash}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": style} | more


def step(x: Sequence[Cell], y: Sequence[Cell], color: str, dash: str = "solid") -> dict[str, Any]:
    """A line of what holds for a whole round, each round marked where they are few."""
    drawn = line(x, y, color, dash)
    drawn["line"] |= {"shape": "hvh"}
    if len(x) <= _MOST_MARKERS:
        drawn |= {"mode": "lines+markers", "marker": {"size": 6, "color": color}}
    return drawn


def band(
    x: Sequence[Cell], low: Sequence[Cell], high: Sequence[Cell], color: str
) -> list[dict[str, Any]]:
    """The area between two lines."""
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip"}
    return [edge | {"y": high}, edge | {"y": low, "fill": "tonexty", "fillcolor": fade(color)}]


def fade(color: str) -> str:
    """A colour, translucent; resolved where the figure is drawn."""
    return f"{color}/0.2" if color.startswith("@") else f"@{color}/0.2"


def markers(
    x: Sequence[Cell], y: Sequence[Cell], color: str, symbol: str = "circle", size: float = 7
) -> dict[str, Any]:
    """Markers without lines."""
    marker = {"color": color, "size": size, "symbol": symbol}
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "marker": marker}


def points(
    x: Sequence[Cell],
    y: Sequence[Cell],
    half: Sequence[Cell],
    color: str,
    symbol: str = "circle",
    axis: str = "y",
    **more: Any,
) -> dict[str, Any]:
    """Markers with error bars of equal halves along one axis."""
    error = {"type": "data", "array": half, "color": color, "thickness": 1.5, "width": 0}
    return markers(x, y, color, symbol) | {f"error_{axis}": error} | more


def intervals(
    bands: Sequence[Sequence[Cell]],
    at: Sequence[Cell],
    color: str,
    symbol: str = "circle",
    axis: str = "x",
    **more: Any,
) -> dict[str, Any]:
    """Markers at the means of ``bands`` (mean, low, high), with bars to their ends."""
    mean, low, high = ([number(cell) for cell in band] for band in bands)
    above = [h - m for h, m in zip(high, mean)]
    x, y = (mean, at) if axis == "x" else (at, mean)
    trace = points(x, y, above, color, symbol, axis, **more)
    trace[f"error_{axis}"] |= {
        "symmetric": False,
        "arrayminus": [m - v for m, v in zip(mean, low)],
    }
    return trace


def bars(
    x: Sequence[Cell], y: Sequence[Cell], color: str, hover: str, striped: bool = False
) -> Any:
    """Bars; stripes distinguish them without colour."""
    marker: dict[str, Any] = {"color": color, "line": {"width": 0}}
    if striped:
        pattern = {"shape": "/", "bgcolor": color, "fgcolor": "#ffffff", "fillmode": "replace"}
        marker["pattern"] = pattern | {"size": 7, "solidity": 0.25}
    return {"type": "bar", "x": x, "y": y, "marker": marker, "hovertemplate": hover}


def stacked(drawn: Figure, gap: float) -> Figure:
    """The figure with its bars on top of each other."""
    drawn["layout"] |= {"barmode": "stack", "bargap": gap}
    return drawn


def over_rounds(data: list[Any], height: int, y: dict[str, Any], rounds: Sequence[Cell]) -> Figure:
    """A figure whose horizontal axis is the round."""
    return figure(data, height, {"title": "round"} | axis_of_rounds(rounds), y)


def axis_of_rounds(x: Sequence[Cell]) -> dict[str, Any]:
    """Ticks at whole rounds, and no range beyond the rounds that are shown."""
    if not len(x):
        return {"nticks": 12}
    first, last = number(x[0]), number(x[-1])
    margin = max(0.6, 0.015 * (last - first))
    ends = {"range": [first - margin, last + margin]}
    return ends | ({"tick0": 0, "dtick": 1} if last - first < 10 else {"nticks": 12})


def number(cell: Cell) -> float:
    """A cell as a number, NaN where it is unknown."""
    return float("nan") if cell is None else float(cell)
