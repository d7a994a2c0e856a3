"""Estimates over theta: maps of two parameters, slices of any number; and maps of domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...problem.space import Choice, Float, Int
from ..data.facts import Facts
from ..data.surfaces import GRID
from ..data.tables import Kind, name_of
from .canvas import (
    BLUE,
    GREEN,
    GRID_COLOR,
    INK,
    MUTED,
    PERCENT,
    SIGNED,
    VERMILLION,
    Figure,
    band,
    figure,
    intervals,
    label,
    line,
    markers,
    short,
)

_MOST_MARKS = 300
# Cividis in eight steps: evenly lighter, with every kind of colour vision.
_SEQUENTIAL = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369",
    "#e1cc55", "#fee838",
)  # fmt: skip
# Orange is infeasible or negative, blue is feasible or positive, and pale is near the border.
_DIVERGING = ("#b35806", "#e08214", "#fdb863", "#f3ead9", "#b2cde8", "#5a9bd0", "#0b5d9c")


def map_of(
    facts: Facts,
    theta: Tensor,
    values: Tensor,
    kind: Kind,
    *,
    diverging: bool = False,
    border: tuple[Tensor, float] | None = None,
) -> Figure:
    """Values ``(41 * 41,)`` over the plane, with candidates, base, oracle and recommended.

    ``border`` is a second surface and the height at which a line is drawn.
    """
    grid = theta.reshape(GRID, GRID, 2)
    x, y = grid[:, 0, 0].tolist(), grid[0, :, 1].tolist()
    colors = _DIVERGING if diverging else _SEQUENTIAL
    form = {"percent": PERCENT, "signed": SIGNED}.get(kind, ".3~g")
    bar = {"orientation": "h", "thickness": 9, "len": 1, "y": 1.01, "yanchor": "bottom"}
    bar |= {"ticklabelposition": "outside top", "tickformat": form, "outlinewidth": 0, "nticks": 6}
    surface: dict[str, Any] = {
        "type": "contour",
        "x": x,
        "y": y,
        "z": _rows(values),
        "colorscale": _scale(colors),
        "colorbar": bar,
        "ncontours": 18,
        "line": {"width": 0},
        "hovertemplate": "%{x:.4~g}, %{y:.4~g}: %{z:" + form + "}<extra></extra>",
    }
    if diverging:
        top = float(values.nan_to_num(0.0).abs().max()) or 1.0
        surface |= {"zmin": -top, "zmax": top, "zauto": False}
    data = [surface]
    if border is not None:
        height = border[1]
        level = {"coloring": "none", "start": height, "end": height, "size": 1}
        ink = "#111111" if diverging else "#ffffff"
        data.append(
            {
                "type": "contour",
                "x": x,
                "y": y,
                "z": _rows(border[0]),
                "contours": level | {"type": "levels", "showlabels": False},
                "autocontour": False,
                "line": {"color": ink, "width": 2, "dash": "dash"},
                "showscale": False,
                "hoverinfo": "skip",
            }
        )
    space = facts.problem.space
    drawn = figure(
        data + _marks(facts), 400, _axis(space.parameters[0]), _axis(space.parameters[1])
    )
    drawn["layout"]["margin"] |= {"t": 32}
    for axis in ("xaxis", "yaxis"):
        drawn["layout"][axis] |= {"showgrid": False, "showline": False}
    return drawn


def _scale(colors: Sequence[str]) -> list[list[Any]]:
    return [[i / (len(colors) - 1), color] for i, color in enumerate(colors)]


def _rows(values: Tensor) -> list[list[float | None]]:
    """One row per y, to five digits: a map needs no more."""
    grid = values.reshape(GRID, GRID).T.tolist()
    return [[None if v != v else float(f"{v:.5g}") for v in row] for row in grid]


def _marks(facts: Facts) -> list[dict[str, Any]]:
    """Candidates, base and oracle; the recommended candidate on top of all."""
    ids, theta, best = facts.by_weight(_MOST_MARKS), facts.bucket.theta, facts.best.candidate_id
    shown: list[tuple[list[str], Tensor, str, str, float]] = [
        ([name_of(c) for c in ids], theta[ids], "#ffffff", "circle", 5),
        (["base"], theta[:1], "#111111", "square", 11),
    ]
    if facts.oracle is not None:
        shown.append((["oracle"], facts.oracle.theta.reshape(1, -1), GREEN, "diamond", 13))
    if best:
        name = f"recommended: {name_of(best)}"
        shown.append(([name], theta[best : best + 1], VERMILLION, "star", 17))
    traces = []
    for names, at, color, symbol, size in shown:
        trace = markers(at[:, 0].tolist(), at[:, 1].tolist(), color, symbol, size)
        edge = _edge("#333333", 0.8) if symbol == "circle" else _edge("#ffffff", 1.6)
        trace["marker"] |= {"line": edge}
        hover = "%{text} (%{x:.4~g}, %{y:.4~g})<extra></extra>"
        traces.append(trace | {"text": names, "cliponaxis": False, "hovertemplate": hover})
    return traces


def _edge(color: str, width: float) -> dict[str, Any]:
    return {"color": color, "width": width}


def slice_of(
    facts: Facts, param: int, theta: Tensor, values: Tensor, kind: Kind, title: str
) -> Figure:
    """Mean, low and high ``(3, n)`` along one parameter, with the base, oracle and recommended."""
    parameter = facts.problem.space.parameters[param]
    x = theta[:, param].tolist()
    mean, low, high = (_plain(row) for row in values)
    form = {"percent": PERCENT, "signed": SIGNED}.get(kind, ".4~g")
    finite = values[values.isfinite()]
    bottom, top = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if isinstance(parameter, Choice):
        hover = "%{y:" + form + "}<extra></extra>"
        data = [intervals((mean, low, high), x, BLUE, axis="y", hovertemplate=hover)]
    else:
        hover = "%{x:.4~g}: %{y:" + form + "}<extra></extra>"
        data = [*band(x, low, high, BLUE), line(x, mean, BLUE, hovertemplate=hover)]
        if isinstance(parameter, Int) and len(x) <= 30:
            data[-1] |= {"mode": "lines+markers", "marker": {"size": 6}}
    if kind != "signed":  # a slack is infeasible below 0
        data.insert(0, line([x[0], x[-1]], [0, 0], MUTED, hoverinfo="skip"))
        data[0]["line"]["width"] = 1
        bottom, top = min(bottom, 0.0), max(top, 0.0)
    for value, color, dash, symbol in _references(facts, param):
        if isinstance(parameter, Choice):  # a line would hide the error bar
            spot = markers([value], [mean[int(value)]], color, symbol, 15)
            spot["marker"] |= {"line": _edge(color, 2)}
            data.append(spot | {"hoverinfo": "skip"})
        else:
            data.append(line([value, value], [bottom, top], color, dash, hoverinfo="skip"))
            data[-1]["line"]["width"] = 1.5
    y = {"title": title, "tickformat": form, "nticks": 6}
    return figure(data, 250, _axis(parameter), y | {"zeroline": kind == "signed"})


def _references(facts: Facts, param: int) -> list[tuple[float, str, str, str]]:
    """Base, oracle and recommended on one parameter: value, colour, dash, symbol."""
    theta = facts.bucket.theta
    spots = [(float(theta[0, param]), INK, "dot", "circle-open")]
    if facts.oracle is not None:
        at = float(facts.oracle.theta.reshape(-1)[param])
        spots.append((at, GREEN, "dash", "diamond-open"))
    if facts.best.candidate_id:
        at = float(theta[facts.best.candidate_id, param])
        spots.append((at, VERMILLION, "solid", "star-open"))
    return spots


def _plain(values: Tensor) -> list[float | None]:
    return [None if v != v else v for v in values.tolist()]


def _axis(parameter: Float | Int | Choice) -> dict[str, Any]:
    """The axis of one parameter, in the user's units."""
    axis: dict[str, Any] = {"title": short(parameter.name, 40), "gridcolor": GRID_COLOR}
    if isinstance(parameter, Choice):
        at = [*range(parameter.width)]
        text = [short(str(option), 14) for option in parameter.options]
        return axis | {"tickvals": at, "ticktext": text, "range": [-0.5, parameter.width - 0.5]}
    low, high = float(parameter.low), float(parameter.high)
    axis |= {"tickformat": "~g", "nticks": 6}
    if isinstance(parameter, Float) and parameter.log:
        return axis | {"type": "log", "range": [math.log10(low), math.log10(high)]}
    margin = 0.5 if isinstance(parameter, Int) else 0.0
    return axis | {"range": [low - margin, high + margin]}


def heat_map(
    names: Sequence[str], value: Tensor, text: Sequence[Sequence[str]], signed: bool
) -> Figure:
    """A heat map of domains against domains, with the numbers in it.

    Args:
        value: ``(domains, domains)``, NaN where it is unknown.
        text: the text in the cells, free of markup but for line breaks.
        signed: whether values lie in [-1, 1] rather than [0, 1].
    """
    colors, low = (_DIVERGING, -1.0) if signed else (_DIVERGING[3:], 0.0)
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
        "colorscale": _scale(colors),
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
