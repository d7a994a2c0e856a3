"""Drift, roll-backs and rounds set aside, as marks on every plot whose axis is the round."""

from __future__ import annotations

from typing import Any

from ...study.decisions import DRIFT, ROLLED_BACK
from ..data.facts import Facts
from ..data.tables import Cell
from .canvas import INK, PURPLE, VERMILLION, Figure, Key

_MOST = 40  # of each kind, the latest


def put(facts: Facts, drawn: Figure, shown: list[Cell]) -> Figure:
    """The figure with its marks, as far as they lie within the rounds that are shown."""
    rounds = [float(r) for r in shown if isinstance(r, int | float)]
    if not rounds:
        return drawn
    low, high = min(rounds) - 0.5, max(rounds) + 1.5
    drift, back, aside = (_within(r, low, high) for r in _rounds(facts))
    if not (drift or back or aside):
        return drawn
    traces = []
    if aside:
        traces.append(_spots(aside, "set aside", INK, "x-thin-open", 8, 0.91))
    if drift:
        traces += _lines(drift, "drift noticed", VERMILLION, "dashdot", "triangle-down")
    if back:
        traces += _lines(back, "rolled back to", PURPLE, "longdash", "triangle-left")
    axis = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    return {
        "data": [*drawn["data"], *traces],
        "layout": drawn["layout"] | {"yaxis2": axis},
    }


def keys(facts: Facts) -> tuple[Key, ...]:
    """What the marks mean, for legends."""
    drift, back, aside = _rounds(facts)
    found = [Key("drift noticed", VERMILLION, "dashed")] if drift else []
    found += [Key("rolled back to", PURPLE, "longdash")] if back else []
    found += [Key("round set aside", INK, "cross")] if aside else []
    return tuple(found)


def _rounds(facts: Facts) -> tuple[list[int], list[int], list[int]]:
    """When drift was noticed, to which rounds the study returned, which rounds do not count."""
    decisions = facts.history.decisions
    drift = [d.round for d in decisions if d.kind == DRIFT]
    back = [d.details["to_round"] for d in decisions if d.kind == ROLLED_BACK]
    return drift[-_MOST:], back[-_MOST:], sorted(facts.history.status.excluded_rounds)


def _within(rounds: list[int], low: float, high: float) -> list[int]:
    return [r for r in rounds if low <= r <= high]


def _spots(
    rounds: list[int], what: str, color: str, symbol: str, size: int, height: float = 0.985
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounds,
        "y": [height] * len(rounds),
        "yaxis": "y2",
        "marker": {"symbol": symbol, "size": size, "color": color} | _edge(symbol),
        "hovertemplate": what + ": round %{x}<extra></extra>",
        "cliponaxis": False,
    }


def _edge(symbol: str) -> dict[str, Any]:
    """Thin symbols are all edge, others have none."""
    return {"line": {"width": 2 if symbol.endswith("open") else 0}}


def _lines(
    rounds: list[int], what: str, color: str, dash: str, symbol: str
) -> list[dict[str, Any]]:
    """One trace for all lines, interrupted between them, and their heads."""
    x = [one for r in rounds for one in (r, r, None)]
    y = [one for _ in rounds for one in (0, 1, None)]
    style = {"color": color, "width": 1.5, "dash": dash}
    line: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": x, "y": y, "yaxis": "y2"}
    return [line | {"line": style, "hoverinfo": "skip"}, _spots(rounds, what, color, symbol, 10)]
