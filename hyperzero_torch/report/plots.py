"""Rows to figures: one function per plot of the report, but for those over theta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    line,
    points,
    step,
)
from .tables import Cell, Table, name_of

_SIGNED = "+.3~%"
_PERCENT = ".3~%"


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
    return figure(data, 300, {"title": "round"} | _rounds(x), y | {"rangemode": "tozero"})


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
    return figure(data, 240, {"title": "round"} | _rounds(x), y)


def believed_gains(rows: Table, best: str, min_prob: float) -> Figure:
    """Candidates by what is believed of their gain, best on top."""
    names, mean = rows.column("candidate"), rows.column("mean")
    data = []
    for chosen, color, symbol in ((0, MUTED, "circle-open"), (1, BLUE, "circle"), (2, "", "")):
        at = [
            i
            for i, (name, prob) in enumerate(zip(names, rows.column("prob")))
            if chosen == (2 if name == best else int(_number(prob) >= min_prob))
        ]
        if chosen == 2:
            color, symbol = VERMILLION, "star"
        low, high = rows.column("low"), rows.column("high")
        trace = points([mean[i] for i in at], at, [], color, symbol, axis="x")
        trace["error_x"] |= {
            "symmetric": False,
            "array": [_number(high[i]) - _number(mean[i]) for i in at],
            "arrayminus": [_number(mean[i]) - _number(low[i]) for i in at],
        }
        trace["text"] = [names[i] for i in at]
        trace["hovertemplate"] = "%{text}: %{x:+.2%}<extra></extra>"
        data.append(trace)
    x = {"title": "believed gain over base", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 90 + 20 * len(names), x, _candidates(names))


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
            marker["pattern"] = {
                "shape": pattern,
                "bgcolor": color,
                "fgcolor": "#ffffff",
                "fillmode": "replace",
                "size": 7,
                "solidity": 0.25,
            }
        trace = {"type": "bar", "x": x, "y": rows.column(column.key), "marker": marker}
        hover = f"round %{{x}}, {column.label}: %{{y:.1%}}<extra></extra>"
        data.append(trace | {"hovertemplate": hover})
        keys.append(Key(column.label, color, "striped" if pattern else "square"))
    y = {"title": "share of traffic", "tickformat": ".0%", "range": [0, 1]}
    drawn = figure(data, 340, {"title": "round"} | _rounds(x), y)
    drawn["layout"] |= {"barmode": "stack", "bargap": 0.06 if len(x) <= 60 else 0}
    return drawn, keys


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


def hourly_funnel(rows: Table, believed: float, truth: float | None) -> Figure:
    """One candidate's deltas hour by hour, and how the pooled one closes in."""
    x, pooled, half = (rows.column(key) for key in ("round", "pooled", "pooled_half"))
    low = [_number(p) - _number(h) for p, h in zip(pooled, half)]
    high = [_number(p) + _number(h) for p, h in zip(pooled, half)]
    hover = "round %{x}: %{y:+.2%} ± %{error_y.array:.2%}<extra></extra>"
    pooled_hover = "pooled up to round %{x}: %{y:+.2%}<extra></extra>"
    data = [
        *band(x, low, high, VERMILLION),
        points(x, rows.column("delta"), rows.column("half"), SKY, hovertemplate=hover),
        line(x, pooled, VERMILLION, hovertemplate=pooled_hover),
    ]
    for value, color, dash, what in (
        (believed, INK, "dash", "posterior"),
        (truth, GREEN, "dot", "truth"),
    ):
        if value is not None and x:
            hover = f"{what}: %{{y:+.2%}}<extra></extra>"
            data.append(line([x[0], x[-1]], [value, value], color, dash, hovertemplate=hover))
    y = {"title": "delta against control", "tickformat": _SIGNED, "zeroline": True}
    return figure(data, 300, {"title": "round"} | _rounds(x), y)


def waiting_by_round(rows: Table) -> Figure:
    """Arms served and, of these, arms still silent."""
    x = rows.column("round")
    arms, waiting = rows.column("arms"), rows.column("waiting")
    arrived = [_number(a) - _number(w) for a, w in zip(arms, waiting)]
    data = [
        {"type": "bar", "x": x, "y": y, "marker": {"color": color}, "hovertemplate": hover}
        for y, color, hover in (
            (arrived, SKY, "round %{x}: %{y} arrived<extra></extra>"),
            (waiting, VERMILLION, "round %{x}: %{y} waiting<extra></extra>"),
        )
    ]
    y = {"title": "arms", "rangemode": "tozero"}
    drawn = figure(data, 240, {"title": "round"} | _rounds(x), y)
    drawn["layout"] |= {"barmode": "stack", "bargap": 0.15 if len(x) <= 60 else 0}
    return drawn


def _candidates(names: Sequence[Cell]) -> dict[str, Any]:
    """A vertical axis of candidates, the first on top."""
    at = [*range(len(names))]
    return {"tickvals": at, "ticktext": names, "range": [len(names) - 0.4, -0.6]}


def _rounds(x: Sequence[Cell]) -> dict[str, Any]:
    """Whole rounds only: no tick at round 1.5."""
    few = len(x) and _number(x[-1]) - _number(x[0]) < 10
    return {"tick0": 0, "dtick": 1} if few else {"nticks": 12}


def _number(cell: Cell) -> float:
    return float("nan") if cell is None else float(cell)
