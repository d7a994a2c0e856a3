"""Figures of transfer: weights and evidence by round, and the similarity of domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..data.tables import Table
from .canvas import (
    INK,
    METRIC_LOOKS,
    MUTED,
    SHAPES,
    Figure,
    Key,
    figure,
    label,
    line,
    over_rounds,
    short,
)

#: Most sources in a plot.
MOST_DRAWN = len(METRIC_LOOKS)
# Dissimilar is pale and similar is blue; a negative correlation is orange.
_UNSIGNED = ("#f3ead9", "#b2cde8", "#5a9bd0", "#0b5d9c")
_SIGNED = ("#b35806", "#e08214", "#fdb863", "#f3ead9", "#b2cde8", "#5a9bd0", "#0b5d9c")


def lines_by_round(rows: Table, columns: Sequence[tuple[str, str]], y: dict[str, Any]) -> Figure:
    """A line for each of these columns, ``(key, name)``."""
    x = rows.column("round")
    data = []
    for (key, name), (color, dash, symbol) in zip(columns, METRIC_LOOKS):
        hover = f"round %{{x}}, {label(name)}: %{{y:.3~g}}<extra></extra>"
        marker = {"symbol": symbol, "size": 6, "color": color}
        data.append(line(x, rows.column(key), color, dash, hovertemplate=hover, marker=marker))
        data[-1]["mode"] = "lines+markers" if len(x) <= 60 else "lines"
    return over_rounds(data, 280, y, x)


def e_value_by_round(rows: Table) -> Figure:
    """The log e-value of the sources, and the threshold from which they count."""
    x = rows.column("round")
    drawn = lines_by_round(rows, [("log_e_value", "log e-value")], {"title": "log e-value"})
    hover = "threshold: %{y:.3~g}<extra></extra>"
    drawn["data"].append(line(x, rows.column("needed"), MUTED, "dash", hovertemplate=hover))
    return drawn


def keys_of(names: Sequence[str]) -> tuple[Key, ...]:
    """The legend of ``lines_by_round``."""
    return tuple(Key(n, color, SHAPES[dash]) for n, (color, dash, _) in zip(names, METRIC_LOOKS))


def heat_map(
    names: Sequence[str], value: Tensor, text: Sequence[Sequence[str]], signed: bool
) -> Figure:
    """A heat map of domains against domains, with the numbers in it.

    Args:
        names: of the domains.
        value: ``(domains, domains)``, NaN where it is unknown.
        text: the text in the cells, free of markup but for line breaks.
        signed: whether values lie in [-1, 1] rather than [0, 1].
    """
    colors, low = (_SIGNED, -1.0) if signed else (_UNSIGNED, 0.0)
    # Positions instead of names: shortened names may coincide, and would share a row.
    at = list(range(len(names)))
    rows: list[list[float]] = value.tolist()
    trace = {
        "type": "heatmap",
        "x": at,
        "y": at,
        "z": [[None if math.isnan(v) else v for v in row] for row in rows],
        "text": [list(row) for row in text],
        "zmin": low,
        "zmax": 1.0,
        "colorscale": [[i / (len(colors) - 1), c] for i, c in enumerate(colors)],
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "showscale": False,
        "customdata": [[f"{label(a)} and {label(b)}" for b in names] for a in names],
        "hovertemplate": "%{customdata}: %{text}<extra></extra>",
    }
    notes = [
        {
            "x": j,
            "y": i,
            "text": text[i][j],
            "showarrow": False,
            "font": {"size": 11, "color": _legible(rows[i][j], colors, low)},
        }
        for i in at
        for j in at
    ]
    ticks = {"tickvals": at, "ticktext": [short(n, 16) for n in names], "showgrid": False}
    height = max(220, 60 * len(names) + 110)
    drawn = figure([trace], height, ticks, ticks | {"autorange": "reversed"})
    drawn["layout"] |= {"annotations": notes}
    return drawn


def _legible(value: float, colors: Sequence[str], low: float) -> str:
    """Black or white, whichever has more contrast with the colour of its cell.

    One of them always has a contrast of at least 4.5 (sqrt(21) where both are equal).
    Source: WCAG 2.2, 1.4.3 and the definition of relative luminance.
    """
    if math.isnan(value):
        return INK
    place = (value - low) / (1 - low) * (len(colors) - 1)
    at = min(max(int(place), 0), len(colors) - 2)
    ends = [[int(colors[k][i : i + 2], 16) for i in (1, 3, 5)] for k in (at, at + 1)]
    mixed = [(a + (place - at) * (b - a)) / 255 for a, b in zip(*ends)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in mixed]
    luminance = sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722)))
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"
