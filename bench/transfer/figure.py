"""Transfer as a figure: mean score by hour with the 95 % band of the mean, a panel per family.

python -m bench.transfer.figure
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .run import RESULTS
from .table import in_order, load, recorded, title

FIGURES = Path(__file__).parents[1] / "figures"
# Okabe and Ito's colours, told apart by the colour-blind; the cold start is black and thick.
_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#999999")
_BAND = 3  # lines whose band is drawn: all of them would hide each other


def draw(paths: list[Path], path: Path) -> None:
    """Write the figure as SVG, the same bytes for the same numbers."""
    mpl.rcParams["svg.hashsalt"] = "transfer"
    figure = Figure(figsize=(5.6 * len(paths), 4.4), layout="constrained")
    panels = figure.subplots(1, len(paths), squeeze=False, sharey=True).ravel()
    everyone = in_order({kind for p in paths for kind in load(p)})
    style = {
        kind: (_COLOURS[i % len(_COLOURS)], "-" if "/" not in kind and "@" not in kind else "--")
        for i, kind in enumerate(k for k in everyone if k != "cold")
    } | {"cold": ("black", "-")}
    found: dict[str, Line2D] = {}
    for panel, one in zip(panels, paths):
        runs = load(one)
        for rank, kind in reversed(list(enumerate(in_order(set(runs))))):  # cold on top
            hours = min(len(run["score"]) for run in runs[kind].values())
            score = np.array([run["score"][:hours] for run in runs[kind].values()])
            mean, half = score.mean(0), np.zeros(hours)
            if len(score) > 1:
                half = 1.96 * score.std(0, ddof=1) / math.sqrt(len(score))
            colour, dash = style[kind]
            width = 2.4 if rank < _BAND else 1.2
            (line,) = panel.plot(mean, dash, color=colour, linewidth=width, label=kind)
            found[kind] = line
            if rank < _BAND:
                panel.fill_between(range(hours), mean - half, mean + half, color=colour, alpha=0.1)
        panel.axhline(0.9, color="#999999", linewidth=0.8, linestyle=":")
        panel.set(title=title(one), xlabel="hour", xlim=(0, None), ylim=(0, 1.02))
        panel.grid(alpha=0.2)
    panels[0].set_ylabel("share of the oracle's gain")
    order = [kind for kind in everyone if kind in found]
    figure.legend(
        [found[kind] for kind in order], order, loc="outside lower center", ncols=3 * len(paths)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(recorded(RESULTS), FIGURES / "transfer.svg")
    print(f"wrote {FIGURES / 'transfer.svg'}")
