"""Drift, rollbacks and excluded rounds as marks on every plot by round."""

from __future__ import annotations

from typing import Any

from ...study.journal.trace import DriftFound, RolledBack
from ..data.facts import Facts
from ..data.tables import Cell
from .canvas import INK, PURPLE, VERMILLION, Figure, Key, line, markers

_MOST = 40  # of each kind, the latest


def add(facts: Facts, drawn: Figure, shown: list[Cell]) -> Figure:
    """The figure with its marks, as far as they lie within the rounds that are shown."""
    rounds = [float(r) for r in shown if isinstance(r, int | float)]
    if not rounds:
        return drawn
    low, high = min(rounds) - 0.5, max(rounds) + 1.5
    drift, back, excluded = (_within(r, low, high) for r in _rounds(facts))
    if not (drift or back or excluded):
        return drawn
    traces = []
    if excluded:
        traces.append(_spots(excluded, "excluded", INK, "x-thin-open", 8, 0.91))
    if drift:
        traces += _lines(drift, "drift detected", VERMILLION, "dashdot", "triangle-down")
    if back:
        traces += _lines(back, "rolled back to", PURPLE, "longdash", "triangle-left")
    axis = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    return {
        "data": [*drawn["data"], *traces],
        "layout": drawn["layout"] | {"yaxis2": axis},
    }


def keys(facts: Facts) -> tuple[Key, ...]:
    """The marks' entries of a legend."""
    drift, back, excluded = _rounds(facts)
    legend = [Key("drift detected", VERMILLION, "dashdot")] if drift else []
    legend += [Key("rolled back to", PURPLE, "longdash")] if back else []
    legend += [Key("excluded round", INK, "cross")] if excluded else []
    return tuple(legend)


def _rounds(facts: Facts) -> tuple[list[int], list[int], list[int]]:
    """Rounds in which drift was detected, to which the study returned, and excluded ones."""
    traces = [(d.round, d.trace) for d in facts.history.decisions]
    drift = [round_ for round_, trace in traces if isinstance(trace, DriftFound)]
    back = [t.to_round for _, t in traces if isinstance(t, RolledBack) and t.to_round is not None]
    return drift[-_MOST:], back[-_MOST:], sorted(facts.history.status.excluded_rounds)


def _within(rounds: list[int], low: float, high: float) -> list[int]:
    return [r for r in rounds if low <= r <= high]


def _spots(
    rounds: list[int], name: str, color: str, symbol: str, size: int, height: float = 0.985
) -> dict[str, Any]:
    trace = markers(rounds, [height] * len(rounds), color, symbol, size)
    # Thin symbols are all edge, others have none.
    trace["marker"] |= {"line": {"width": 2 if symbol.endswith("open") else 0}}
    hover = name + ": round %{x}<extra></extra>"
    return trace | {"yaxis": "y2", "hovertemplate": hover, "cliponaxis": False}


def _lines(
    rounds: list[int], name: str, color: str, dash: str, symbol: str
) -> list[dict[str, Any]]:
    """One trace for all lines, interrupted between them, and their heads."""
    x = [end for r in rounds for end in (r, r, None)]
    lines = line(x, [0, 1, None] * len(rounds), color, dash, yaxis="y2", hoverinfo="skip")
    lines["line"]["width"] = 1.5
    return [lines, _spots(rounds, name, color, symbol, 10)]
