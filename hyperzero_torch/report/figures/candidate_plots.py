"""Rows to figures over candidates, levels and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.tables import Cell, Table
from .canvas import (
    BLUE,
    GREEN,
    MUTED,
    PURPLE,
    SKY,
    VERMILLION,
    Figure,
    figure,
    line,
    points,
)

_SIGNED = "+.3~%"
#: How metrics (or functions) are told apart in one plot: colour, dash, symbol.
METRIC_LOOKS = (
    (BLUE, "solid", "circle"),
    (VERMILLION, "dash", "square"),
    (GREEN, "dot", "diamond"),
    (PURPLE, "dashdot", "triangle-up"),
    ("#E69F00", "longdash", "cross"),
    (SKY, "longdashdot", "x"),
)


def coverage_curve(rows: Table, low: Sequence[float], high: Sequence[float]) -> Figure:
    """Claimed levels against the shares that were covered, a line per metric."""
    level = rows.column("level")
    data = [
        line([0, 1], [0, 1], MUTED, "dot", hoverinfo="skip"),
        line(level, low, MUTED, "solid", hoverinfo="skip"),
        line(level, high, MUTED, "solid", hoverinfo="skip"),
    ]
    for edge in data[1:]:
        edge["line"]["width"] = 1
    for column, (color, dash, symbol) in zip(rows.columns[1:], METRIC_LOOKS):
        hover = "%{x:.0%} intervals: %{y:.1%} covered<extra></extra>"
        trace = line(level, rows.column(column.key), color, dash, hovertemplate=hover)
        trace |= {"mode": "lines+markers", "marker": {"symbol": symbol, "size": 6, "color": color}}
        data.append(trace)
    x = {"title": "claimed level", "tickformat": ".0%", "range": [0, 1]}
    y = {"title": "share covered", "tickformat": ".0%", "range": [0, 1]}
    return figure(data, 300, x, y)


def shares_of_parameters(rows: Table, names: Sequence[str], num_functions: int) -> Figure:
    """Total effects with their intervals: parameters from top to bottom, functions side by side."""
    at = range(len(rows.rows))
    spread = 0.5 / max(1, num_functions)
    data = []
    for i, (color, _, symbol) in zip(range(num_functions), METRIC_LOOKS):
        shift = spread * (i - (num_functions - 1) / 2)
        mean, low, high = (rows.column(f"{key}{i}") for key in ("mean", "low", "high"))
        trace = points(mean, [a + shift for a in at], [], color, symbol, axis="x")
        trace["error_x"] |= {
            "symmetric": False,
            "array": [number(h) - number(m) for h, m in zip(high, mean)],
            "arrayminus": [number(m) - number(v) for m, v in zip(mean, low)],
        }
        trace["hovertemplate"] = "%{x:.1%}<extra></extra>"
        data.append(trace)
    x: dict[str, Any] = {
        "title": "share of the variance",
        "tickformat": ".0%",
        "rangemode": "tozero",
        "zeroline": True,
    }
    return figure(data, 90 + (22 + 10 * num_functions) * len(at), x, _candidates(names))


def believed_gains(rows: Table, best: str, min_prob: float) -> Figure:
    """Candidates by what is believed of their gain, best on top."""
    names, mean = rows.column("candidate"), rows.column("mean")
    data = []
    for chosen, color, symbol in ((0, MUTED, "circle-open"), (1, BLUE, "circle"), (2, "", "")):
        at = [
            i
            for i, (name, prob) in enumerate(zip(names, rows.column("prob")))
            if chosen == (2 if name == best else int(number(prob) >= min_prob))
        ]
        if chosen == 2:
            color, symbol = VERMILLION, "star"
        low, high = rows.column("low"), rows.column("high")
        trace = points([mean[i] for i in at], at, [], color, symbol, axis="x")
        trace["error_x"] |= {
            "symmetric": False,
            "array": [number(high[i]) - number(mean[i]) for i in at],
            "arrayminus": [number(mean[i]) - number(low[i]) for i in at],
        }
        trace["text"] = [names[i] for i in at]
        trace["hovertemplate"] = "%{text}: %{x:+.2%}<extra></extra>"
        data.append(trace)
    x = {"title": "believed gain over base", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 90 + 20 * len(names), x, _candidates(names))


def evidence_forest(rows: Table, best: str) -> Figure:
    """Per candidate, its own evidence above what the posterior makes of it."""
    names = rows.column("candidate")
    at = range(len(names))
    hover = "%{text}: %{x:+.2%} ± %{error_x.array:.2%}<extra></extra>"
    more: dict[str, Any] = {"axis": "x", "text": names, "hovertemplate": hover}
    data = [
        points(rows.column("own"), [i - 0.18 for i in at], rows.column("own_half"), SKY, **more),
        points(
            rows.column("posterior"),
            [i + 0.18 for i in at],
            rows.column("posterior_half"),
            BLUE,
            "diamond",
            **more,
        ),
    ]
    data[1]["marker"] |= {"color": [VERMILLION if n == best else BLUE for n in names]}
    if any(c.key == "truth" for c in rows.columns):
        marker = {"symbol": "line-ns-open", "size": 13, "color": GREEN, "line": {"width": 2.5}}
        truth: dict[str, Any] = {"type": "scatter", "mode": "markers", "marker": marker}
        truth |= {"text": names, "x": rows.column("truth"), "y": [*at]}
        data.append(truth | {"hovertemplate": "%{text}, truth: %{x:+.2%}<extra></extra>"})
    x = {"title": "delta against control", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 90 + 24 * len(names), x, _candidates(names))


def _candidates(names: Sequence[Cell]) -> dict[str, Any]:
    """A vertical axis of candidates, the first on top."""
    at = [*range(len(names))]
    return {"tickvals": at, "ticktext": names, "range": [len(names) - 0.4, -0.6]}


def number(cell: Cell) -> float:
    """A cell as a number, NaN where nothing is known."""
    return float("nan") if cell is None else float(cell)
