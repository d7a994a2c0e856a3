"""Transfer as a figure: mean score by hour with the 95 % band of the mean.

A column per family; what helps and the peers stand above, what misleads below, each with the cold
start.

python -m bench.transfer.figure
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .run import RESULTS
from .table import Runs, in_order, load, recorded, title

FIGURES = Path(__file__).parents[1] / "figures"
# Okabe and Ito's colours, which colour-blind readers can distinguish; the cold start is black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999")
_BAND = 2  # lines whose band is drawn: all of them would hide each other


def draw(paths: list[Path], path: Path) -> None:
    """Write the figure as SVG, the same bytes for the same numbers."""
    mpl.rcParams["svg.hashsalt"] = "transfer"
    everyone = in_order({kind for results in paths for kind in load(results)} - {"cold"})
    halves = ([k for k in everyone if _helps(k) is helps] for helps in (True, False))
    rows = [half for half in halves if half] or [[]]
    figure = Figure(figsize=(5.6 * len(paths), 3.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(paths), squeeze=False, sharex="col", sharey=True)
    for kinds, panels in zip(rows, grid):
        style = {"cold": "black"} | dict(zip(kinds, _COLOURS * len(kinds)))
        lines: dict[str, Line2D] = {}
        for panel, results in zip(panels, paths):
            lines = _panel(panel, load(results), style) | lines
            panel.grid(alpha=0.2)
        panels[0].set_ylabel("share of the oracle's gain")
        order = [kind for kind in style if kind in lines]
        panels[0].legend([lines[kind] for kind in order], order, loc="lower right", fontsize=8)
    for panel, results in zip(grid[0], paths):
        panel.set_title(title(results))
    for panel in grid[-1]:
        panel.set_xlabel("hour")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _helps(kind: str) -> bool:
    """Whether the sources of this kind are what they say."""
    return kind.rpartition("/")[2].startswith(("related", "identical"))


def _panel(panel: Axes, runs: Runs, style: dict[str, str]) -> dict[str, Line2D]:
    """One family's kinds, by their colours; the lines by kind."""
    lines = {}
    for rank, (kind, colour) in reversed(list(enumerate(style.items()))):  # cold on top
        if kind not in runs:
            continue
        hours = min(len(run["score"]) for run in runs[kind].values())
        score = np.array([run["score"][:hours] for run in runs[kind].values()])
        mean, half = score.mean(0), np.zeros(hours)
        if len(score) > 1:
            half = 1.96 * score.std(0, ddof=1) / math.sqrt(len(score))
        dash = ":" if "@" in kind else "--" if "/" in kind else "-"
        width = 2.4 if rank < _BAND else 1.4
        (lines[kind],) = panel.plot(mean, dash, color=colour, linewidth=width)
        if rank < _BAND:
            panel.fill_between(range(hours), mean - half, mean + half, color=colour, alpha=0.1)
    panel.axhline(0.9, color="#999999", linewidth=0.8, linestyle=":")
    panel.set(xlim=(0, None), ylim=(0, 1.02))
    return lines


if __name__ == "__main__":
    draw(recorded(RESULTS), FIGURES / "transfer.svg")
    print(f"wrote {FIGURES / 'transfer.svg'}")
