"""The race as a figure: mean score by hour with the 95 % band of the mean, a panel per world."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .records import OURS, Race, interval

_COLUMNS = 3
# Okabe and Ito's colours, which colour-blind readers can distinguish; ours is black and thick.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#999999")
_DASHES = ("-", "--", ":")


def draw(races: list[Race], path: Path) -> None:
    """Write the figure as SVG, the same bytes for the same numbers."""
    mpl.rcParams["svg.hashsalt"] = "race"
    columns = min(_COLUMNS, len(races))
    rows = math.ceil(len(races) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    names = sorted({name for race in races for name in race.runs} - {OURS})
    style = {
        name: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)])
        for i, name in enumerate(names)
    }
    for panel, race in zip(panels, races):
        for name in reversed(race.contenders()):  # ours on top
            score = race.column(name, "score")
            bounds = np.array([interval(column) for column in score.T])
            mean, half = bounds[:, 0], np.nan_to_num(bounds[:, 1])
            colour, dash = ("black", "-") if name == OURS else style[name]
            hour = np.arange(len(mean))
            width = 2.4 if name == OURS else 1.2
            panel.plot(hour, mean, dash, color=colour, linewidth=width, label=name)
            panel.fill_between(hour, mean - half, mean + half, color=colour, alpha=0.08, lw=0)
        panel.set(title=race.title, xlabel="hour", xlim=(0, None), ylim=(0, 1.02))
        panel.grid(alpha=0.2)
    for panel in panels[len(races) :]:
        panel.remove()
    panels[0].set_ylabel("share of the oracle's gain")
    handles: dict[str, Line2D] = {}
    for panel in panels[: len(races)]:
        handles |= {str(line.get_label()): line for line in panel.get_lines()}
    order = sorted(handles, key=lambda name: (name != OURS, name))
    figure.legend([handles[n] for n in order], order, loc="outside lower center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
