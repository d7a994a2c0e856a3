"""The report's figures in a notebook: each function returns a Plotly figure.

    hz.plot.gains(tuner)              estimated gains of the most promising candidates
    hz.plot.figures(tuner)            every figure of the report, by its title

They are drawn from the same tables by the same code as the report. What the page shows beside a
figure, its title and its legend, is part of the figure here, and its colours are those of the light
or of the dark theme. plotly is imported when a figure is made (the extra ``report``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import ConfigError, MissingExtraError, RoundError
from ..tuner.recommend import Criterion
from .data.facts import Facts, collect
from .data.retrospect import look_back
from .figures.canvas import Key, label
from .sections import candidates, rounds, space
from .sections.all import sections
from .sections.blocks import Plot, Section

if TYPE_CHECKING:
    from ..tuner.tuner import Tuner

__all__ = [
    "calibration",
    "deltas",
    "figures",
    "gains",
    "parallel",
    "progress",
    "sensitivity",
    "surface",
    "traffic",
]


def __dir__() -> list[str]:
    """The figures alone, for completion in a notebook."""
    return sorted(__all__)


Theme: TypeAlias = Literal["light", "dark"]
# The style sheet's (html/page.css); a test compares them.
THEMES: dict[str, dict[str, str]] = {
    "light": {
        "ink": "#16181d",
        "muted": "#5d6470",
        "grid": "#e3e6ea",
        "paper": "#ffffff",
        "blue": "#0072B2",
        "sky": "#56B4E9",
    },
    "dark": {
        "ink": "#eceef1",
        "muted": "#a2a9b4",
        "grid": "#30353d",
        "paper": "#191c21",
        "blue": "#3b9ce0",
        "sky": "#a9dcf7",
    },
}
# How entries of a legend are drawn, by the CSS class that the page uses.
_LINES = {
    "solid": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot", "border": "dash",
}  # fmt: skip
_MARKERS = {
    "circle": "circle", "square": "square", "diamond": "diamond", "triangle": "triangle-up",
    "plus": "cross", "cross": "x", "star": "star", "ring": "circle-open", "bar": "line-ns-open",
}  # fmt: skip
_LEGEND_LINE = 24  # pixels


def figures(
    tuner: Tuner, *, criterion: Criterion = "lcb", theme: Theme = "light"
) -> dict[str, Any]:
    """Every figure of the report, in its order, by its title.

    Args:
        tuner: of the study.
        criterion: of the recommendation, see ``Tuner.recommend``.
        theme: ``"light"`` or ``"dark"``.
    Returns:
        Plotly figures. Of figures of one title, later ones have their section's name before it.
    Raises:
        RoundError: nothing was planned yet.
        MissingExtraError: plotly is not installed.
        ConfigError: an unknown criterion or theme.
    """
    made = _maker(theme)
    drawn: dict[str, Any] = {}
    for section in sections(collect(tuner, criterion=criterion)):
        for plot in _plots(section):
            title = plot.title if plot.title not in drawn else f"{section.title}: {plot.title}"
            drawn[title] = made(plot)
    return drawn


def gains(tuner: Tuner, *, criterion: Criterion = "lcb", theme: Theme = "light") -> Any:
    """Estimated gains over the base of the most promising candidates, with intervals."""
    return _first(candidates.effects, tuner, criterion, theme)


def traffic(tuner: Tuner, *, theme: Theme = "light") -> Any:
    """Planned share of the traffic by candidate and round."""
    return _first(rounds.traffic, tuner, "lcb", theme)


def progress(tuner: Tuner, *, criterion: Criterion = "lcb", theme: Theme = "light") -> Any:
    """Estimated gain by round of the recommended candidate, or of the most promising one."""

    def section(facts: Facts) -> Section:
        return rounds.progress(facts, look_back(facts))

    return _first(section, tuner, criterion, theme)


def deltas(tuner: Tuner, metric: str, *, theme: Theme = "light") -> Any:
    """Own evidence and posterior of a metric's delta, by candidate.

    Raises:
        ConfigError: the study has no such metric.
    """
    metrics = tuner.problem.metrics
    if metric not in metrics:
        raise ConfigError(f"the study's metrics are {list(metrics)}, got {metric!r:.60}")
    title = f"{metric} by candidate"
    return _first(candidates.deltas, tuner, "lcb", theme, lambda plot: plot.title == title)


def surface(tuner: Tuner, parameter: str | None = None, *, theme: Theme = "light") -> Any:
    """Gain over the space: a map of two parameters, or along one of them.

    Args:
        tuner: of the study.
        parameter: along which; None for the map, or for the first that the report draws.
        theme: ``"light"`` or ``"dark"``.
    Raises:
        ConfigError: the study has no such parameter.
    """
    names = tuner.problem.space.names
    if parameter is None:
        return _first(space.surface, tuner, "lcb", theme)
    if parameter not in names:
        raise ConfigError(f"the study's parameters are {list(names)}, got {parameter!r:.60}")
    title = f"Gain over base along {parameter}"
    return _first(space.surface, tuner, "lcb", theme, lambda plot: plot.title == title)


def sensitivity(tuner: Tuner, *, theme: Theme = "light") -> Any:
    """The effect of each parameter on the objective and the guardrails."""
    return _first(space.parameters, tuner, "lcb", theme)


def parallel(tuner: Tuner, *, theme: Theme = "light") -> Any:
    """Candidates over the parameters, as parallel coordinates."""
    title = "Candidates over the parameters"
    return _first(space.parameters, tuner, "lcb", theme, lambda plot: plot.title == title)


def calibration(tuner: Tuner, *, theme: Theme = "light") -> Any:
    """Whether prediction intervals contain as many new deltas as they should."""

    def section(facts: Facts) -> Section:
        return rounds.calibration(facts, look_back(facts))

    return _first(section, tuner, "lcb", theme)


def _first(
    section: Callable[[Facts], Section],
    tuner: Tuner,
    criterion: Criterion,
    theme: str,
    is_meant: Callable[[Plot], bool] = lambda plot: True,
) -> Any:
    made = _maker(theme)
    blocks = section(collect(tuner, criterion=criterion))
    for plot in _plots(blocks):
        if is_meant(plot):
            return made(plot)
    sentences = [block for block in blocks.blocks if isinstance(block, str)]
    why = " ".join(sentences[:1]) or "the report does not draw it"
    raise RoundError(f"there is no such figure of this study: {why}")


def _plots(section: Section) -> Iterable[Plot]:
    return (block for block in section.blocks if isinstance(block, Plot))


def _maker(theme: str) -> Callable[[Plot], Any]:
    """A function from a plot of the report to a Plotly figure."""
    if theme not in THEMES:
        raise ConfigError(f"theme is 'light' or 'dark', got {theme!r:.60}")
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise MissingExtraError("a figure", "plotly", "report") from None
    colors = THEMES[theme]

    def made(plot: Plot) -> Any:
        return Figure(_resolved(_whole(plot), colors), skip_invalid=False)

    return made


def _whole(plot: Plot) -> dict[str, Any]:
    """A figure with what the page shows beside it."""
    layout, keys = dict(plot.figure["layout"]), plot.keys
    data = [trace | {"showlegend": False} for trace in plot.figure["data"]]
    data += [_entry(key) for key in keys]
    room = _LEGEND_LINE * (1 + len(keys) // 3) if keys else 0
    margin = layout["margin"]
    # The figure's own top margin may hold a scale: the legend is above it.
    plotted = layout["height"] - margin["t"] - margin["b"]
    layout |= {
        "title": {"text": label(plot.title), "font": {"size": 15, "color": "@ink"}, "x": 0.01},
        "showlegend": bool(keys),
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1 + margin["t"] / plotted, "x": 0},
        "margin": margin | {"t": margin["t"] + 44 + room},
        "height": layout["height"] + 44 + room,
        "paper_bgcolor": "@paper",
        "plot_bgcolor": "@paper",
        "font": layout.get("font", {}) | {"family": "sans-serif"},
    }
    if plot.min_width:
        layout["width"] = plot.min_width
    return {"data": data, "layout": layout}


def _entry(key: Key) -> dict[str, Any]:
    """A trace without points that stands for an entry of the legend.

    White lines of a map, and white points, are seen on the page of either theme.
    """
    empty = {"type": "scatter", "x": [None], "y": [None], "name": label(key.label)}
    if key.shape in _LINES:
        color = "@muted" if key.shape == "border" else key.color
        line = {"color": color, "width": 2, "dash": _LINES[key.shape]}
        return empty | {"mode": "lines", "line": line, "showlegend": True}
    symbol = _MARKERS.get(key.shape, "square")
    marker = {"color": key.color, "symbol": symbol, "size": 9}
    marker["line"] = {"color": "@muted", "width": 1 if key.color == "#ffffff" else 0}
    return empty | {"mode": "markers", "marker": marker, "showlegend": True}


def _resolved(value: Any, colors: dict[str, str], key: str = "") -> Any:
    """A figure whose colours such as "@ink" or "#0072B2/0.2" are those of a theme."""
    if isinstance(value, dict):
        return {name: _resolved(v, colors, str(name)) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(v, colors, key) for v in value]
    if isinstance(value, str) and key.endswith("color") and value[:1] == "@":
        return _color(value, colors)
    return value


def _color(value: str, colors: dict[str, str]) -> str:
    name, _, opacity = value[1:].partition("/")
    color = name if name.startswith("#") else colors[name]
    if not opacity:
        return color
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({','.join(map(str, parts))},{opacity})"
