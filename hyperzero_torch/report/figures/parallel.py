"""Parallel coordinates: a line per candidate through all parameters.

Plotly's own parallel coordinates need WebGL and code made at run time, which the page's content
policy forbids. Ordinary lines also print, and their dashes distinguish them without colour.
"""

from __future__ import annotations

from typing import Any

import torch

from ...problem.space import Choice, Int
from ...study.history import CONTROL
from ..data.facts import Facts
from ..data.tables import Table, show
from .canvas import BLUE, INK, MUTED, VERMILLION, Figure, Key, figure, short

#: Most parameters side by side: those with the largest sensitivity, in their own order.
MOST_AXES = 12
_AXIS_WIDTH = 92  # pixels, so that names can be read; a narrow screen scrolls


def draw(facts: Facts, lines: Table, params: list[int]) -> tuple[Figure, int]:
    """A vertical axis for every parameter and one for the gain; and the least width in pixels."""
    ids = [0 if name == "base" else int(str(name)[1:]) for name in lines.column("candidate")]
    gain = [0.0 if g is None else float(g) for g in lines.column("gain")]
    low, high = min(gain), max(gain)
    span = (high - low) or 1.0
    heights = torch.stack(
        [
            *(_heights(facts, i)[ids] for i in params),
            (torch.tensor(gain, dtype=torch.float64) - low) / span,
        ],
        dim=-1,
    )
    num = heights.shape[1]
    # Colour, dash, width, opacity; and the lines that look so.
    below = (MUTED, "dot", 1.0, 0.7)
    feasible = (BLUE, "solid", 1.2, 0.6)
    base = (INK, "dash", 2.0, 1.0)
    recommended = (VERMILLION, "solid", 3.0, 1.0)
    looks: dict[tuple[str, str, float, float], list[int]]
    looks = {below: [], feasible: [], base: [], recommended: []}
    for row, (candidate, prob) in enumerate(zip(ids, lines.column("prob"))):
        is_feasible = float(prob or 0.0) >= facts.config.min_prob_feasible
        look = feasible if is_feasible else below
        look = recommended if candidate == facts.best.candidate_id else look
        looks[base if candidate == CONTROL else look].append(row)
    data = [_trace(lines, heights, rows, *look) for look, rows in looks.items() if rows]
    x = {
        "tickvals": [*range(num)],
        "ticktext": [*(short(facts.problem.space.names[i], 16) for i in params), "gain"],
        "range": [-0.35, num - 0.55],
        "showgrid": True,
        "gridcolor": MUTED,
        "tickangle": 0 if num <= 5 else -30,
    }
    gains = [(0.0, show(low, "signed")), (1.0, show(high, "signed"))]
    drawn = figure(data, 360, x, {"visible": False, "range": [-0.09, 1.09]})
    drawn["layout"]["margin"] |= {"l": 12}
    drawn["layout"]["annotations"] = [
        annotation
        for at, ends in enumerate([*(_ends(facts, i) for i in params), gains])
        for annotation in _annotations(at, ends)
    ]
    return drawn, _AXIS_WIDTH * num


def keys(facts: Facts) -> tuple[Key, ...]:
    """The lines' entries of a legend."""
    least = facts.config.min_prob_feasible
    best = (Key("recommended", VERMILLION, "solid"),) if facts.best.candidate_id else ()
    feasible = Key(f"P(feasible) ≥ {least:g}", BLUE, "solid")
    return (*best, feasible, Key("below", MUTED, "dotted"), Key("base", INK, "dashed"))


def _heights(facts: Facts, param: int) -> torch.Tensor:
    """Every candidate's height on an axis, 0 to 1, ``(candidates,)``."""
    parameter, theta = facts.problem.space.parameters[param], facts.bucket.theta[:, param]
    if isinstance(parameter, Choice):
        return theta / (parameter.width - 1)
    if isinstance(parameter, Int):
        return (theta - parameter.low) / (parameter.high - parameter.low)
    return parameter.to_unit(theta).squeeze(-1)


def _ends(facts: Facts, param: int) -> list[tuple[float, str]]:
    """Labels beside an axis and their heights: its ends, or all options."""
    parameter = facts.problem.space.parameters[param]
    if isinstance(parameter, Choice):
        top = parameter.width - 1
        at = range(parameter.width) if parameter.width <= 6 else (0, top)
        return [(i / top, short(str(parameter.options[i]), 11)) for i in at]
    return [(0.0, f"{parameter.low:.4g}"), (1.0, f"{parameter.high:.4g}")]


def _annotations(at: int, ends: list[tuple[float, str]]) -> list[dict[str, Any]]:
    return [
        {
            "x": at,
            "y": y,
            "text": text,
            "showarrow": False,
            "yshift": -11 if y == 0 else 11 if y == 1 else 0,
            "xshift": 0 if y in (0, 1) else 4,
            "xanchor": "center" if y in (0, 1) else "left",
            "font": {"size": 11, "color": MUTED},
            "bgcolor": "@paper",
        }
        for y, text in ends
    ]


def _trace(
    lines: Table,
    heights: torch.Tensor,
    at: list[int],
    color: str,
    dash: str,
    width: float,
    opacity: float,
) -> dict[str, Any]:
    """These rows' lines as one trace, interrupted between them."""
    names, gain, prob = (lines.column(key) for key in ("candidate", "gain", "prob"))
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for row in at:
        x += [*range(heights.shape[1]), None]
        y += [*(round(v, 4) for v in heights[row].tolist()), None]
        values = f"{show(gain[row], 'signed')}, P(feasible) {show(prob[row], 'prob')}"
        text += [f"{names[row]}: {values}"] * (heights.shape[1] + 1)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "text": text,
        "line": {"color": color, "dash": dash, "width": width},
        "opacity": opacity,
        "hovertemplate": "%{text}<extra></extra>",
    }
