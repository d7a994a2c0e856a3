"""Figures whose horizontal axis is the round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...study.journal.trace import DriftFound, RolledBack
from ..data.facts import Facts
from ..data.tables import Cell, Kind, Table, name_of
from .canvas import (
    BLUE,
    FILLS,
    GREEN,
    INK,
    METRIC_LOOKS,
    MUTED,
    PERCENT,
    PURPLE,
    SHAPES,
    SIGNED,
    SKY,
    VERMILLION,
    Figure,
    Key,
    axis_of_rounds,
    band,
    bars,
    figure,
    label,
    line,
    markers,
    number,
    over_rounds,
    points,
    stacked,
    step,
)

#: Residuals farther out are drawn at the edge.
_FARTHEST = 6.0
#: Most sources in a plot.
MOST_DRAWN = len(METRIC_LOOKS)
_MOST_EVENTS = 40  # of each kind, the latest


def estimate_by_round(rows: Table, prefix: str, kind: Kind, title: str) -> Figure:
    """An estimate for the tracked candidate, round by round; the gain has an empty prefix."""
    mean, low, high = (rows.column(f"{prefix}{key}") for key in ("mean", "low", "high"))
    x = rows.column("round")
    form = {"signed": SIGNED, "percent": PERCENT}.get(kind, ".4~g")
    hover = "before round %{x}: %{y:" + form + "}<extra></extra>"
    data = [*band(x, low, high, BLUE), line(x, mean, BLUE, hovertemplate=hover)]
    if len(x) == 1:  # a single point makes no line
        data[-1] |= {"mode": "markers", "marker": {"size": 7, "color": BLUE}}
    if not prefix:
        best = markers(x, rows.column("best_gain"), VERMILLION, "star", 10)
        hover = "before round %{x}: %{text}, %{y:+.2%}<extra></extra>"
        data.append(best | {"text": rows.column("best"), "hovertemplate": hover})
    y: dict[str, Any] = {"title": title, "tickformat": form, "zeroline": True, "nticks": 6}
    return over_rounds(data, 280, y | {"rangemode": "tozero"}, x)


def residuals_by_round(
    each: Sequence[tuple[str, Sequence[int], Sequence[float]]], edge: float
) -> Figure:
    """Standardised residuals of every metric, and the lines between which most should lie."""
    data: list[dict[str, Any]] = []
    for i, ((name, rounds, z), (color, _, symbol)) in enumerate(zip(each, METRIC_LOOKS)):
        beside = 0.5 * (i - (len(each) - 1) / 2) / len(each)  # metrics do not hide each other
        shown = [max(-_FARTHEST, min(_FARTHEST, value)) for value in z]
        trace = markers([r + beside for r in rounds], shown, color, symbol, 6)
        trace["marker"]["opacity"] = 0.75
        hover = f"round %{{x:.0f}}, {label(name)}: %{{y:.2f}}<extra></extra>"
        data.append(trace | {"hovertemplate": hover})
    x = [r for _, rounds, _ in each for r in rounds]
    ends = [min(x, default=0), max(x, default=1)]
    data += [line(ends, [v, v], MUTED, "dash", hoverinfo="skip") for v in (-edge, edge)]
    return over_rounds(data, 300, {"title": "standardised residual", "zeroline": True}, ends)


def gain_by_round(rows: Table, oracle: float | None) -> Figure:
    """True gain of each round's recommendation."""
    x = rows.column("round")
    hover = "round %{x}: %{y:+.2%} (%{text})<extra></extra>"
    names = {"text": rows.column("candidate"), "hovertemplate": hover}
    data = [step(x, rows.column("gain"), VERMILLION) | names]
    if oracle is not None:
        hover = "oracle: %{y:+.2%}<extra></extra>"
        data.append(line([x[0], x[-1]], [oracle, oracle], GREEN, "dash", hovertemplate=hover))
    y = {"title": "true gain over base", "tickformat": SIGNED, "zeroline": True}
    return over_rounds(data, 300, y | {"rangemode": "tozero"}, x)


def violation_by_round(rows: Table) -> Figure:
    """True violation of each round's recommendation, and over all of its traffic."""
    x = rows.column("round")
    hover = {"hovertemplate": "round %{x}: %{y:.3%}<extra></extra>"}
    data = [
        step(x, rows.column("exposed"), BLUE, "dot") | hover,
        step(x, rows.column("violation"), VERMILLION) | hover,
    ]
    y: dict[str, Any] = {"title": "violation", "tickformat": PERCENT, "rangemode": "tozero"}
    largest = max((c for t in data for c in t["y"] if isinstance(c, float)), default=0.0)
    if largest <= 0:  # without violations plotly's axis would go from -1 to 1
        y["range"] = [-0.0002, 0.002]
    return over_rounds(data, 240, y, x)


def exposure_by_round(rows: Table) -> Figure:
    """Violation over all who took part: by today's estimates, expected, and without limits."""
    x = rows.column("round")
    hover = {"hovertemplate": "round %{x}: %{y:.3%}<extra></extra>"}
    data = [
        step(x, rows.column("without"), MUTED, "dot") | hover,
        step(x, rows.column("expected"), BLUE, "dash") | hover,
        step(x, rows.column("violation"), VERMILLION) | hover,
    ]
    y: dict[str, Any] = {"title": "violation", "tickformat": PERCENT, "rangemode": "tozero"}
    if not any(isinstance(c, float) and c > 0 for t in data for c in t["y"]):
        y["range"] = [-0.0002, 0.002]
    return over_rounds(data, 260, y, x)


def traffic_by_round(rows: Table, best: str) -> tuple[Figure, list[Key]]:
    """Shares stacked up to 1: the control at the bottom, all others together on top."""
    x = rows.column("round")
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    used = 0
    for column in rows.columns[1:]:
        is_striped = False
        if column.key == "others":
            color = "#c9c9c9"
        elif column.label == name_of(0):
            color = "#7d7d7d"
        elif column.label == best:
            color = VERMILLION
        else:
            color, is_striped = FILLS[used % len(FILLS)], used >= len(FILLS)
            used += 1
        hover = f"round %{{x}}, {column.label}: %{{y:.1%}}<extra></extra>"
        data.append(bars(x, rows.column(column.key), color, hover, is_striped))
        keys.append(Key(column.label, color, "striped" if is_striped else "square"))
    y = {"title": "share of traffic", "tickformat": ".0%", "range": [0, 1]}
    return stacked(over_rounds(data, 340, y, x), 0.06 if len(x) <= 60 else 0), keys


def funnel_by_round(rows: Table, posterior: float, truth: float | None) -> Figure:
    """One candidate's deltas by round, and how its pooled delta converges."""
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
    if len(x) == 1:  # a single point makes no line
        marker = {"size": 8, "color": VERMILLION, "symbol": "diamond"}
        data[-1] |= {"mode": "markers", "marker": marker}
    ends = [number(x[0]) - 0.5, number(x[-1]) + 0.5] if x else []
    for value, color, dash, name in (
        (posterior, INK, "dash", "posterior"),
        (truth, GREEN, "dot", "truth"),
    ):
        if value is not None and x:
            hover = f"{name}: %{{y:+.2%}}<extra></extra>"
            data.append(line(ends, [value, value], color, dash, hovertemplate=hover))
    y = {"title": "delta against control", "tickformat": SIGNED, "zeroline": True}
    return over_rounds(data, 300, y, x)


def arms_by_round(rows: Table) -> Figure:
    """Arms with readings and arms without."""
    x = rows.column("round")
    arms, waiting = rows.column("arms"), rows.column("waiting")
    arrived = [number(a) - number(w) for a, w in zip(arms, waiting)]
    data = [
        bars(x, arrived, SKY, "round %{x}: %{y} arrived<extra></extra>"),
        bars(x, waiting, VERMILLION, "round %{x}: %{y} waiting<extra></extra>", True),
    ]
    y = {"title": "arms", "rangemode": "tozero"}
    return stacked(over_rounds(data, 240, y, x), 0.15 if len(x) <= 60 else 0)


def arrivals(rows: Table) -> Figure:
    """Readings by the rounds that they were late."""
    x = rows.column("late")
    hover = "%{x} rounds late: %{y}<extra></extra>"
    data = [
        bars(x, rows.column("first"), SKY, hover),
        bars(x, rows.column("revised"), VERMILLION, hover, True),
    ]
    y = {"title": "readings", "rangemode": "tozero"}
    x_axis = {"title": "rounds late"} | axis_of_rounds(x)
    return stacked(figure(data, 240, x_axis, y), 0.15)


def lines_by_round(rows: Table, columns: Sequence[tuple[str, str]], y: dict[str, Any]) -> Figure:
    """A line for each of these columns, ``(key, name)``."""
    x = rows.column("round")
    data = []
    for (key, name), (color, dash, symbol) in zip(columns, METRIC_LOOKS):
        hover = f"round %{{x}}, {label(name)}: %{{y:.3~g}}<extra></extra>"
        marker = {"symbol": symbol, "size": 6, "color": color}
        data.append(line(x, rows.column(key), color, dash, hovertemplate=hover, marker=marker))
        data[-1]["mode"] = "lines+markers" if len(x) <= 60 else "lines"
    return over_rounds(data, 280, y, x)


def e_value_by_round(rows: Table) -> Figure:
    """The log e-value of the sources, and the threshold from which they count."""
    x = rows.column("round")
    drawn = lines_by_round(rows, [("log_e_value", "log e-value")], {"title": "log e-value"})
    hover = "threshold: %{y:.3~g}<extra></extra>"
    drawn["data"].append(line(x, rows.column("needed"), MUTED, "dash", hovertemplate=hover))
    return drawn


def keys_of(names: Sequence[str]) -> tuple[Key, ...]:
    """The legend of ``lines_by_round``."""
    return tuple(Key(n, color, SHAPES[dash]) for n, (color, dash, _) in zip(names, METRIC_LOOKS))


def with_events(facts: Facts, drawn: Figure, shown: list[Cell]) -> Figure:
    """A figure with drift, rollbacks, excluded rounds and new goals marked, where shown."""
    rounds = [float(r) for r in shown if isinstance(r, int | float)]
    if not rounds:
        return drawn
    low, high = min(rounds) - 0.5, max(rounds) + 1.5
    drift, back, excluded, goals = (_within(r, low, high) for r in _events(facts))
    if not (drift or back or excluded or goals):
        return drawn
    traces = []
    if excluded:
        traces.append(_spots(excluded, "excluded", INK, "x-thin-open", 8, 0.91))
    if drift:
        traces += _event_lines(drift, "drift detected", VERMILLION, "dashdot", "triangle-down")
    if back:
        traces += _event_lines(back, "rolled back to", PURPLE, "longdash", "triangle-left")
    if goals:
        traces += _event_lines(goals, "new goals from round", GREEN, "dot", "triangle-right")
    axis = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    return {
        "data": [*drawn["data"], *traces],
        "layout": drawn["layout"] | {"yaxis2": axis},
    }


def event_keys(facts: Facts) -> tuple[Key, ...]:
    """The events' entries of a legend."""
    drift, back, excluded, goals = _events(facts)
    legend = [Key("drift detected", VERMILLION, "dashdot")] if drift else []
    legend += [Key("rolled back to", PURPLE, "longdash")] if back else []
    legend += [Key("excluded round", INK, "cross")] if excluded else []
    legend += [Key("new goals", GREEN, "dotted")] if goals else []
    return tuple(legend)


def _events(facts: Facts) -> tuple[list[int], list[int], list[int], list[int]]:
    """Rounds with drift, those returned to, excluded ones, and the first under new goals."""
    traces = [(d.round, d.trace) for d in facts.history.decisions]
    drift = [round_ for round_, trace in traces if isinstance(trace, DriftFound)]
    back = [t.to_round for _, t in traces if isinstance(t, RolledBack) and t.to_round is not None]
    goals = [g.last_round + 1 for g in facts.history.goals if g.last_round is not None]
    excluded = sorted(facts.history.status.excluded_rounds)
    return drift[-_MOST_EVENTS:], back[-_MOST_EVENTS:], excluded, goals[-_MOST_EVENTS:]


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


def _event_lines(
    rounds: list[int], name: str, color: str, dash: str, symbol: str
) -> list[dict[str, Any]]:
    """One trace for all lines, interrupted between them, and their heads."""
    x = [end for r in rounds for end in (r, r, None)]
    lines = line(x, [0, 1, None] * len(rounds), color, dash, yaxis="y2", hoverinfo="skip")
    lines["line"]["width"] = 1.5
    return [lines, _spots(rounds, name, color, symbol, 10)]
