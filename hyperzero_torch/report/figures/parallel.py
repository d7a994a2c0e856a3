"""Parallel coordinates: a line per candidate through all parameters, as ordinary lines.

Plotly's own parallel coordinates need WebGL and code made at run time, which the page's policy
forbids; lines also print, and keep their dash for those who do not see colours.
"""

from __future__ import annotations

from typing import Any

import torch

from ...problem.space import Choice, Float, Int
from ...study.history import CONTROL
from ..data import tables
from ..data.facts import Facts
from ..data.tables import Kind, Table, name_of, show
from .canvas import BLUE, INK, MUTED, VERMILLION, Figure, Key, figure, short

#: Most parameters side by side; those that matter most, in their own order.
MOST_AXES = 12
_AXIS_WIDTH = 92  # pixels, so that names can be read; a narrow screen scrolls


def rows(facts: Facts, params: list[int]) -> Table:
    """The most promising candidates with their theta, the base last."""
    beliefs = tables.beliefs(facts)
    ids = [int(str(name)[1:]) for name in beliefs.column("candidate")]
    space = facts.problem.space
    columns: list[tuple[str, str, Kind]] = [("candidate", "candidate", "text")]
    columns += [(f"p{i}", space.names[i], "number") for i in params]
    columns += [("gain", "believed gain", "signed"), ("prob", "P(feasible)", "prob")]
    served = space.to_parameters(facts.bucket.theta[[*ids, CONTROL]])
    gain = [*beliefs.column("mean"), 0.0]
    prob = [*beliefs.column("prob"), float(facts.belief.prob_feasible[CONTROL])]
    return tables.table(
        columns,
        [
            (
                name_of(c) if c != CONTROL else "base",
                *(tables.parameter_value(p[space.names[i]]) for i in params),
                g,
                q,
            )
            for c, p, g, q in zip([*ids, CONTROL], served, gain, prob)
        ],
    )


def draw(facts: Facts, lines: Table, params: list[int]) -> tuple[Figure, int]:
    """A vertical axis for every parameter and one for the gain; with the least width in pixels."""
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
    best = facts.best.candidate_id
    prob = lines.column("prob")
    kinds: dict[str, list[int]] = {"below": [], "safe": [], "base": [], "best": []}
    for row, candidate in enumerate(ids):
        safe = float(prob[row] or 0.0) >= facts.config.min_prob_feasible
        kind = "safe" if safe else "below"
        kind = "base" if candidate == CONTROL else "best" if candidate == best else kind
        kinds[kind].append(row)
    looks: dict[str, tuple[str, str, float, float]] = {
        "below": (MUTED, "dot", 1, 0.7),
        "safe": (BLUE, "solid", 1.2, 0.6),
        "base": (INK, "dash", 2, 1),
        "best": (VERMILLION, "solid", 3, 1),
    }
    data = [
        _trace(lines, heights, kinds[kind], *look) for kind, look in looks.items() if kinds[kind]
    ]
    x = {
        "tickvals": [*range(num)],
        "ticktext": [*(short(facts.problem.space.names[i], 16) for i in params), "gain"],
        "range": [-0.35, num - 0.55],
        "showgrid": True,
        "gridcolor": MUTED,
        "tickangle": 0 if num <= 5 else -30,
    }
    drawn = figure(data, 360, x, {"visible": False, "range": [-0.09, 1.09]})
    drawn["layout"]["margin"] |= {"l": 12}
    drawn["layout"]["annotations"] = [
        one
        for at, ends in enumerate([*(_ends(facts, i) for i in params), _gains(low, high)])
        for one in _annotations(at, ends)
    ]
    return drawn, _AXIS_WIDTH * num


def keys(facts: Facts) -> tuple[Key, ...]:
    """What the lines mean."""
    least = facts.config.min_prob_feasible
    found = [Key("recommended", VERMILLION, "solid")] if facts.best.candidate_id else []
    found += [Key(f"P(feasible) ≥ {least:g}", BLUE, "solid"), Key("below", MUTED, "dotted")]
    return (*found, Key("base", INK, "dashed"))


def _heights(facts: Facts, param: int) -> torch.Tensor:
    """Where every candidate stands on an axis, 0 to 1, ``(candidates,)``."""
    parameter, theta = facts.problem.space.parameters[param], facts.bucket.theta[:, param]
    if isinstance(parameter, Choice):
        return theta / (parameter.width - 1)
    if isinstance(parameter, Int):
        return (theta - parameter.low) / (parameter.high - parameter.low)
    return parameter.to_unit(theta).squeeze(-1)


def _ends(facts: Facts, param: int) -> list[tuple[float, str]]:
    """What is written beside an axis: its ends, or all options."""
    parameter = facts.problem.space.parameters[param]
    if isinstance(parameter, Choice):
        top = parameter.width - 1
        at = range(parameter.width) if parameter.width <= 6 else (0, top)
        return [(i / top, short(str(parameter.options[i]), 11)) for i in at]
    assert isinstance(parameter, Float | Int)  # there is no other kind
    return [(0.0, f"{parameter.low:.4g}"), (1.0, f"{parameter.high:.4g}")]


def _gains(low: float, high: float) -> list[tuple[float, str]]:
    return [(0.0, show(low, "signed")), (1.0, show(high, "signed"))]


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
    """Some of the lines as one trace, interrupted between them."""
    names, gain, prob = (lines.column(key) for key in ("candidate", "gain", "prob"))
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for row in at:
        x += [*range(heights.shape[1]), None]
        y += [*(round(v, 4) for v in heights[row].tolist()), None]
        said = f"{names[row]}: {show(gain[row], 'signed')}, P {show(prob[row], 'prob')}"
        text += [said] * (heights.shape[1] + 1)
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
