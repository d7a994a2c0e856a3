"""A plot of the time of a round by part: python -m bench.speed.breakdown

From bench/results/speed_round.json to bench/figures/round.svg (with matplotlib).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("refit", "select", "propose")


def draw(results: Path, figure: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "round"
    import matplotlib.pyplot as plt

    contenders = [result["extra_info"] for result in json.loads(results.read_text())["benchmarks"]]
    picture, panel = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for row, (result, colour) in enumerate(zip(contenders, ("#0072B2", "#56B4E9", "#999999"))):
        for group, part in enumerate((*PARTS, "whole")):
            seconds = result["median"] if part == "whole" else result["parts"][part]
            label = result["who"] if group == 0 else None
            at = group + 0.26 * (row - 1)
            panel.barh(at, seconds, height=0.24, color=colour, label=label)
            panel.annotate(f" {seconds:.3g} s", (seconds, at), va="center", fontsize=7)
    panel.set(xscale="log", xlabel="seconds, on a logarithmic axis", xlim=(0.1, None))
    panel.set_yticks(range(len(PARTS) + 1), [*PARTS, "whole"])
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(figure, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results/speed_round.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "bench/figures/round.svg")
    options = parser.parse_args()
    draw(options.results, options.figure)


if __name__ == "__main__":
    main()
