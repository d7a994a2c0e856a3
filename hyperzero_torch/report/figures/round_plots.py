"""Figures whose axis is the round: rows to plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.tables import Cell, Kind, Table, name_of
from .candidate_plots import METRIC_LOOKS, number
from .canvas import (
    BLUE,
    FILLS,
    GREEN,
    INK,
    MUTED,
    SKY,
    VERMILLION,
    Figure,
    Key,
    band,
    figure,
    label,
    line,
    points,
    step,
)

_SIGNED = "+.3~%"
_PERCENT = ".3~%"
#: Residuals farther out are drawn at the edge.
_FARTHEST = 6.0


def believed_by_round(rows: Table, key: str, kind: Kind, title: str) -> Figure:
    """What was believed of the watched candidate, hour by hour; ``key`` "" is its gain."""
    mean, low, high = ("mean", "low", "high") if not key else (key, f"{key}_low", f"{key}_high")
    x = rows.column("round")
    form = {"signed": _SIGNED, "percent": _PERCENT}.get(kind, ".4~g")
    hover = "before round %{x}: %{y:" + form + "}<extra></extra>"
    data = [
        *band(x, rows.column(low), rows.column(high), BLUE),
        line(x, rows.column(mean), BLUE, hovertemplate=hover),
    ]
    if len(x) == 1:  # a line of one point is none
        data[-1] |= {"mode": "markers", "marker": {"size": 7, "color": BLUE}}
    if not key:
        text, gain = rows.column("chosen"), rows.column("chosen_gain")
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": gain,
                "text": text,
                "marker": {"symbol": "star", "size": 10, "color": VERMILLION},
                "hovertemplate": "before round %{x}: %{text}, %{y:+.2%}<extra></extra>",
            }
        )
    y: dict[str, Any] = {"title": title, "tickformat": form, "zeroline": True, "nticks": 6}
    return figure(data, 280, {"title": "round"} | axis_of_rounds(x), y | {"rangemode": "tozero"})


def residuals_by_round(
    each: Sequence[tuple[str, Sequence[int], Sequence[float]]], edge: float
) -> Figure:
    """Standardised residuals of every metric; most lie between the lines of a level."""
    data: list[dict[str, Any]] = []
    for i, ((name, rounds, z), (color, _, symbol)) in enumerate(zip(each, METRIC_LOOKS)):
        beside = 0.5 * (i - (len(each) - 1) / 2) / len(each)  # metrics do not hide each other
        shown = [max(-_FARTHEST, min(_FARTHEST, value)) for value in z]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [r + beside for r in rounds],
                "y": shown,
                "marker": {"color": color, "symbol": symbol, "size": 6, "opacity": 0.75},
                "hovertemplate": f"round %{{x:.0f}}, {label(name)}: %{{y:.2f}}<extra></extra>",
            }
        )
    x = [r for _, rounds, _ in each for r in rounds]
    ends = [min(x, default=0), max(x, default=1)]
    data += [line(ends, [v, v], MUTED, "dash", hoverinfo="skip") for v in (-edge, edge)]
    y: dict[str, Any] = {"title": "standardised residual", "zeroline": True}
    return figure(data, 300, {"title": "round"} | axis_of_rounds(ends), y)


def gain_by_round(rows: Table, oracle: float | None) -> Figure:
    """True gain of what was recommended, hour by hour."""
    x = rows.column("round")
    hover = "round %{x}: %{y:+.2%} (%{text})<extra></extra>"
    names = {"text": rows.column("candidate"), "hovertemplate": hover}
    data = [step(x, rows.column("gain"), VERMILLION) | names]
    if oracle is not None:
        hover = "oracle: %{y:+.2%}<extra></extra>"
        data.append(line([x[0], x[-1]], [oracle, oracle], GREEN, "dash", hovertemplate=hover))
    y = {"title": "true gain over base", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 300, {"title": "round"} | axis_of_rounds(x), y | {"rangemode": "tozero"})


def violation_by_round(rows: Table) -> Figure:
    """True violation of what was recommended, and of all that was served."""
    x = rows.column("round")
    hover = {"hovertemplate": "round %{x}: %{y:.3%}<extra></extra>"}
    data = [
        step(x, rows.column("exposed"), BLUE, "dot") | hover,
        step(x, rows.column("violation"), VERMILLION) | hover,
    ]
    y: dict[str, Any] = {"title": "violation", "tickformat": _PERCENT, "rangemode": "tozero"}
    largest = max((c for t in data for c in t["y"] if isinstance(c, float)), default=0.0)
    if largest <= 0:  # all is well; an axis from -1 to 1 would say less
        y["range"] = [-0.0002, 0.002]
    return figure(data, 240, {"title": "round"} | axis_of_rounds(x), y)


def traffic_by_round(rows: Table, best: str) -> tuple[Figure, list[Key]]:
    """Shares stacked up to 1: the control at the bottom, the long tail on top."""
    x = rows.column("round")
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    used = 0
    for column in rows.columns[1:]:
        pattern = ""
        if column.key == "others":
            color = "#c9c9c9"
        elif column.label == best and best != name_of(0):
            color = VERMILLION
        elif column.label == name_of(0):
            color = "#7d7d7d"
        else:
            color, pattern = FILLS[used % len(FILLS)], "/" if used >= len(FILLS) else ""
            used += 1
        marker: dict[str, Any] = {"color": color, "line": {"width": 0}}
        if pattern:
            marker["pattern"] = _stripes(color)
        trace = {"type": "bar", "x": x, "y": rows.column(column.key), "marker": marker}
        hover = f"round %{{x}}, {column.label}: %{{y:.1%}}<extra></extra>"
        data.append(trace | {"hovertemplate": hover})
        keys.append(Key(column.label, color, "striped" if pattern else "square"))
    y = {"title": "share of traffic", "tickformat": ".0%", "range": [0, 1]}
    drawn = figure(data, 340, {"title": "round"} | axis_of_rounds(x), y)
    drawn["layout"] |= {"barmode": "stack", "bargap": 0.06 if len(x) <= 60 else 0}
    return drawn, keys


def hourly_funnel(rows: Table, believed: float, truth: float | None) -> Figure:
    """One candidate's deltas hour by hour, and how the pooled one closes in."""
    x, pooled, half = (rows.column(key) for key in ("round", "pooled", "pooled_half"))
    low = [number(p) - number(h) for p, h in zip(pooled, half)]
    high = [number(p) + number(h) for p, h in zip(pooled, half)]
    hover = "round %{x}: %{y:+.2%} ± %{error_y.array:.2%}<extra></extra>"
    pooled_hover = "pooled up to round %{x}: %{y:+.2%}<extra></extra>"
    data = [
        *band(x, low, high, VERMILLION),
        points(x, rows.column("delta"), rows.column("half"), SKY, hovertemplate=hover),
        line(x, pooled, VERMILLION, hovertemplate=pooled_hover),
    ]
    if len(x) == 1:  # a line of one point is none
        data[-1] |= {
            "mode": "markers",
            "marker": {"size": 8, "color": VERMILLION, "symbol": "diamond"},
        }
    ends = [number(x[0]) - 0.5, number(x[-1]) + 0.5] if x else []
    for value, color, dash, what in (
        (believed, INK, "dash", "posterior"),
        (truth, GREEN, "dot", "truth"),
    ):
        if value is not None and x:
            hover = f"{what}: %{{y:+.2%}}<extra></extra>"
            data.append(line(ends, [value, value], color, dash, hovertemplate=hover))
    y = {"title": "delta against control", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 300, {"title": "round"} | axis_of_rounds(x), y)


def waiting_by_round(rows: Table) -> Figure:
    """Arms served and, of these, arms still silent."""
    x = rows.column("round")
    arms, waiting = rows.column("arms"), rows.column("waiting")
    arrived = [number(a) - number(w) for a, w in zip(arms, waiting)]
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": x, "y": y, "marker": {"color": color}, "hovertemplate": hover}
        for y, color, hover in (
            (arrived, SKY, "round %{x}: %{y} arrived<extra></extra>"),
            (waiting, VERMILLION, "round %{x}: %{y} waiting<extra></extra>"),
        )
    ]
    data[1]["marker"]["pattern"] = _stripes(VERMILLION)
    y = {"title": "arms", "rangemode": "tozero"}
    drawn = figure(data, 240, {"title": "round"} | axis_of_rounds(x), y)
    drawn["layout"] |= {"barmode": "stack", "bargap": 0.15 if len(x) <= 60 else 0}
    return drawn


def arrivals(rows: Table) -> Figure:
    """Readings by the rounds that they came late, and how many had come by then."""
    x = rows.column("late")
    hover = "%{x} rounds late: %{y}<extra></extra>"
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": x, "y": rows.column(key), "marker": look, "hovertemplate": hover}
        for key, look in (
            ("first", {"color": SKY}),
            ("revised", {"color": VERMILLION, "pattern": _stripes(VERMILLION)}),
        )
    ]
    y = {"title": "readings", "rangemode": "tozero"}
    drawn = figure(data, 240, {"title": "rounds late"} | axis_of_rounds(x), y)
    drawn["layout"] |= {"barmode": "stack", "bargap": 0.15}
    return drawn


def _stripes(color: str) -> dict[str, Any]:
    """A pattern, for those who do not tell colours apart."""
    stripes: dict[str, Any] = {"shape": "/", "bgcolor": color, "fgcolor": "#ffffff"}
    return stripes | {"fillmode": "replace", "size": 7, "solidity": 0.25}


def axis_of_rounds(x: Sequence[Cell]) -> dict[str, Any]:
    """Whole rounds only: no tick at round 1.5; and no more of them than are shown."""
    if not len(x):
        return {"nticks": 12}
    first, last = number(x[0]), number(x[-1])
    margin = max(0.6, 0.015 * (last - first))
    ends = {"range": [first - margin, last + margin]}
    return ends | ({"tick0": 0, "dtick": 1} if last - first < 10 else {"nticks": 12})
