"""Figures of the posterior over theta: maps of two parameters, slices of any number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...problem.space import Choice, Float, Int, Value
from ..data.facts import Facts
from ..data.surfaces import GRID
from ..data.tables import Kind, name_of
from .canvas import (
    BLUE,
    GREEN,
    GRID_COLOR,
    INK,
    MUTED,
    VERMILLION,
    Figure,
    band,
    figure,
    line,
    points,
    short,
)

_MOST_MARKS = 300
# Cividis in eight steps: evenly lighter, with every kind of colour vision.
_SEQUENTIAL = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369",
    "#e1cc55", "#fee838",
)  # fmt: skip
# Orange is refused, blue is allowed, and what lies between is undecided.
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
    """Values ``(41 * 41,)`` over the plane, with candidates, base, recommended and oracle.

    ``border`` is a second surface and the height at which a line is drawn.
    """
    grid = theta.reshape(GRID, GRID, 2)
    x, y = grid[:, 0, 0].tolist(), grid[0, :, 1].tolist()
    colors = _DIVERGING if diverging else _SEQUENTIAL
    scale = [[i / (len(colors) - 1), c] for i, c in enumerate(colors)]
    number = {"percent": ".3~%", "signed": "+.3~%"}.get(kind, ".3~g")
    bar = {"orientation": "h", "thickness": 9, "len": 1, "y": 1.01, "yanchor": "bottom"}
    bar |= {
        "ticklabelposition": "outside top",
        "tickformat": number,
        "outlinewidth": 0,
        "nticks": 6,
    }
    surface: dict[str, Any] = {
        "type": "contour",
        "x": x,
        "y": y,
        "z": _rows(values),
        "colorscale": scale,
        "colorbar": bar,
        "ncontours": 18,
        "line": {"width": 0},
        "hovertemplate": "%{x:.4~g}, %{y:.4~g}: %{z:" + number + "}<extra></extra>",
    }
    if diverging:
        top = float(values.nan_to_num(0.0).abs().max()) or 1.0
        surface |= {"zmin": -top, "zmax": top, "zauto": False}
    data = [surface]
    if border is not None:
        height = border[1]
        level = {"coloring": "none", "start": height, "end": height, "size": 1}
        data.append(
            {
                "type": "contour",
                "x": x,
                "y": y,
                "z": _rows(border[0]),
                "contours": level | {"type": "levels", "showlabels": False},
                "autocontour": False,
                "line": {
                    "color": "#111111" if diverging else "#ffffff",
                    "width": 2,
                    "dash": "dash",
                },
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


def _rows(values: Tensor) -> list[list[float | None]]:
    """One row per y, to five digits: a map needs no more."""
    grid = values.reshape(GRID, GRID).T.tolist()
    return [[None if v != v else float(f"{v:.5g}") for v in row] for row in grid]


def _marks(facts: Facts) -> list[dict[str, Any]]:
    """Who lies where; the recommended on top of all."""
    ids = facts.by_weight(_MOST_MARKS)
    theta = facts.bucket.theta
    names: list[Sequence[str]] = [[name_of(c) for c in ids], ["base"]]
    where = [theta[ids], theta[:1]]
    looks: list[dict[str, Any]] = [
        {"symbol": "circle", "size": 5, "color": "#ffffff", "line": _edge("#333333", 0.8)},
        {"symbol": "square", "size": 11, "color": "#111111", "line": _edge("#ffffff", 1.6)},
    ]
    if facts.oracle is not None:
        names.append(["oracle"])
        where.append(facts.oracle.theta.reshape(1, -1))
        looks.append({"symbol": "diamond", "size": 13, "color": GREEN})
        looks[-1]["line"] = _edge("#ffffff", 1.6)
    if facts.best.candidate_id:
        best = facts.best.candidate_id
        names.append([f"recommended: {name_of(best)}"])
        where.append(theta[best : best + 1])
        looks.append({"symbol": "star", "size": 17, "color": VERMILLION})
        looks[-1]["line"] = _edge("#ffffff", 1.6)
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": at[:, 0].tolist(),
            "y": at[:, 1].tolist(),
            "text": name,
            "marker": look,
            "cliponaxis": False,
            "hovertemplate": "%{text} (%{x:.4~g}, %{y:.4~g})<extra></extra>",
        }
        for name, at, look in zip(names, where, looks)
    ]


def _edge(color: str, width: float) -> dict[str, Any]:
    return {"color": color, "width": width}


def slice_of(
    facts: Facts, param: int, theta: Tensor, values: Tensor, kind: Kind, title: str
) -> Figure:
    """Mean, low and high ``(3, n)`` along one parameter; lines where base and others stand."""
    parameter = facts.problem.space.parameters[param]
    x = theta[:, param].tolist()
    mean, low, high = (_plain(row) for row in values)
    number = {"percent": ".3~%", "signed": "+.3~%"}.get(kind, ".4~g")
    hover = "%{x:.4~g}: %{y:" + number + "}<extra></extra>"
    finite = values[values.isfinite()]
    bottom, top = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if isinstance(parameter, Choice):
        trace = points(x, mean, [], BLUE, hovertemplate="%{y:" + number + "}<extra></extra>")
        trace["error_y"] |= {
            "symmetric": False,
            "array": _plain(values[2] - values[0]),
            "arrayminus": _plain(values[0] - values[1]),
        }
        data = [trace]
    else:
        data = [*band(x, low, high, BLUE), line(x, mean, BLUE, hovertemplate=hover)]
        if isinstance(parameter, Int) and len(x) <= 30:
            data[-1] |= {"mode": "lines+markers", "marker": {"size": 6}}
    if kind != "signed":  # a slack: below the line it is refused
        data.insert(0, line([x[0], x[-1]], [0, 0], MUTED, hoverinfo="skip"))
        data[0]["line"]["width"] = 1
        bottom, top = min(bottom, 0.0), max(top, 0.0)
    for value, color, dash, symbol in _standing(facts, param):
        if isinstance(parameter, Choice):  # a line would hide the error bar
            look = {"color": color, "size": 15, "symbol": symbol, "line": _edge(color, 2)}
            spot = {"type": "scatter", "mode": "markers", "marker": look, "hoverinfo": "skip"}
            data.append(spot | {"x": [value], "y": [mean[int(value)]]})
        else:
            data.append(line([value, value], [bottom, top], color, dash, hoverinfo="skip"))
            data[-1]["line"]["width"] = 1.5
    y = {"title": title, "tickformat": number, "nticks": 6}
    return figure(data, 250, _axis(parameter), y | {"zeroline": kind == "signed"})


def _standing(facts: Facts, param: int) -> list[tuple[float, str, str, str]]:
    """Where the base, the oracle and the recommended stand on one parameter, and their looks."""
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
        text = [short(_said(o), 14) for o in parameter.options]
        return axis | {"tickvals": at, "ticktext": text, "range": [-0.5, parameter.width - 0.5]}
    low, high = float(parameter.low), float(parameter.high)
    axis |= {"tickformat": "~g", "nticks": 6}
    if isinstance(parameter, Float) and parameter.log:
        return axis | {"type": "log", "range": [math.log10(low), math.log10(high)]}
    margin = 0.5 if isinstance(parameter, Int) else 0.0
    return axis | {"range": [low - margin, high + margin]}


def _said(option: Value) -> str:
    return str(option)
