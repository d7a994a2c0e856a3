"""Figures over candidates, interval levels and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.tables import Cell, Table
from .canvas import (
    BLUE,
    GREEN,
    METRIC_LOOKS,
    MUTED,
    SIGNED,
    SKY,
    VERMILLION,
    Figure,
    figure,
    intervals,
    line,
    markers,
    number,
    points,
)


def coverage_curve(rows: Table, low: Sequence[float], high: Sequence[float]) -> Figure:
    """Nominal levels against the shares that were covered, a line per metric."""
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
    x = {"title": "nominal level", "tickformat": ".0%", "range": [0, 1]}
    y = {"title": "share covered", "tickformat": ".0%", "range": [0, 1]}
    return figure(data, 300, x, y)


def shares_of_parameters(rows: Table, names: Sequence[str], num_functions: int) -> Figure:
    """Total effects with their intervals: parameters from top to bottom, functions side by side."""
    num = len(rows.rows)
    spread = 0.5 / max(1, num_functions)
    data = []
    for i, (color, _, symbol) in zip(range(num_functions), METRIC_LOOKS):
        shift = spread * (i - (num_functions - 1) / 2)
        at = [k + shift for k in range(num)]
        bands = [rows.column(f"f{i}_{key}") for key in ("mean", "low", "high")]
        data.append(intervals(bands, at, color, symbol, hovertemplate="%{x:.1%}<extra></extra>"))
    x: dict[str, Any] = {
        "title": "share of the variance",
        "tickformat": ".0%",
        "rangemode": "tozero",
        "zeroline": True,
    }
    return figure(data, 90 + (22 + 10 * num_functions) * num, x, _candidates(names))


def estimated_gains(rows: Table, best: str, min_prob: float) -> Figure:
    """Candidates by their estimated gains, the highest lower bound on top."""
    names = rows.column("candidate")
    feasible = [number(prob) >= min_prob for prob in rows.column("prob")]
    bands = [rows.column(key) for key in ("mean", "low", "high")]
    groups = (
        ([n != best and not ok for n, ok in zip(names, feasible)], MUTED, "circle-open"),
        ([n != best and ok for n, ok in zip(names, feasible)], BLUE, "circle"),
        ([n == best for n in names], VERMILLION, "star"),
    )
    data = []
    for member, color, symbol in groups:
        at = [i for i, chosen in enumerate(member) if chosen]
        group = [[band[i] for i in at] for band in bands]
        hover = "%{text}: %{x:+.2%}<extra></extra>"
        more: dict[str, Any] = {"text": [names[i] for i in at], "hovertemplate": hover}
        data.append(intervals(group, at, color, symbol, **more))
    x = {"title": "estimated gain over base", "tickformat": SIGNED, "zeroline": True}
    return figure(data, 90 + 20 * len(names), x, _candidates(names))


def evidence_forest(rows: Table, best: str) -> Figure:
    """Per candidate, its own evidence above its posterior."""
    names = rows.column("candidate")
    at = range(len(names))
    hover = "%{text}: %{x:+.2%} ± %{error_x.array:.2%}<extra></extra>"
    data = []
    for key, shift, color, symbol in (
        ("own", -0.18, SKY, "circle"),
        ("posterior", 0.18, BLUE, "diamond"),
    ):
        trace = points(
            rows.column(key),
            [i + shift for i in at],
            rows.column(f"{key}_half"),
            color,
            symbol,
            "x",
            text=names,
            hovertemplate=hover,
        )
        data.append(trace)
    data[1]["marker"] |= {"color": [VERMILLION if n == best else BLUE for n in names]}
    if any(c.key == "truth" for c in rows.columns):
        truth = markers(rows.column("truth"), [*at], GREEN, "line-ns-open", 13)
        truth["marker"] |= {"line": {"width": 2.5}}
        truth |= {"text": names, "hovertemplate": "%{text}, truth: %{x:+.2%}<extra></extra>"}
        data.append(truth)
    x = {"title": "delta against control", "tickformat": SIGNED, "zeroline": True}
    return figure(data, 90 + 24 * len(names), x, _candidates(names))


def _candidates(names: Sequence[Cell]) -> dict[str, Any]:
    """A vertical axis of candidates, the first on top."""
    at = [*range(len(names))]
    return {"tickvals": at, "ticktext": names, "range": [len(names) - 0.4, -0.6]}
