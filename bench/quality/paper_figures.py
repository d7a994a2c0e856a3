"""The paper's experiments again: Figures 5, 6 and 7 and the delays, from the race's JSON lines.

    make paper                                run the studies (2 hours; can be resumed), redraw
    python -m bench.quality.paper_figures     redraw figure_5, figure_6, figure_7 and delays

Worlds are those of ``race.worlds``, contenders those of ``race.registry``; each function names its
data. Lines are means over seeds with the 95 % band of the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .race.records import Race, interval, load
from .race.run import RESULTS

FIGURES = Path(__file__).parents[1] / "figures"
# Okabe and Ito's colours, which colour-blind readers can distinguish.
BLACK, ORANGE, SKY, GREEN, BLUE = "black", "#E69F00", "#56B4E9", "#009E73", "#0072B2"
DEFAULT, PAPER = "default", "TunerConfig.paper()"


def figure_5(races: dict[str, Race], figure: Any) -> None:
    """Gain and violation of the recommendation: ours, without deltas, synchronous."""
    race = races["race_paper_d2_x1"]
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (name, stem) in enumerate(((DEFAULT, "hyperzero"), (PAPER, "hyperzero_paper"))):
        own = stem if stem == "hyperzero" else "hyperzero_paper_own"
        variants = {"as it is": own, "synchronous": f"{stem}_sync", "without deltas": f"{stem}_raw"}
        gain, violation = panels[:, column]
        for (label, contender), colour in zip(variants.items(), (BLACK, ORANGE, BLUE)):
            _line(gain, _share(race, contender), colour, label)
            _line(violation, race.column(contender, "violation"), colour, label)
        gain.set(title=name)
        violation.set(xlabel="hour")
    panels[0, 0].set_ylabel("share of the oracle's gain")
    panels[1, 0].set_ylabel("violation of the constraint")
    panels[0, 0].legend(loc="lower right")


def figure_6(races: dict[str, Race], figure: Any) -> None:
    """Gain with proposals (p = 1) and without (p = 0), when the first bucket is small."""
    race = races["race_paper_d2_x1"]
    panels = figure.subplots(1, 2, sharey=True)
    few = "@initial_candidates=9"
    for panel, (name, stem) in zip(
        panels, ((DEFAULT, "hyperzero"), (PAPER, "hyperzero_paper_own"))
    ):
        _line(panel, _share(race, f"{stem}{few}"), BLACK, "p = 1")
        _line(panel, _share(race, f"{stem}{few}@proposal_probability=0"), ORANGE, "p = 0")
        panel.set(title=f"{name}, first bucket of 9", xlabel="hour")
    panels[0].set_ylabel("share of the oracle's gain")
    panels[0].legend(loc="lower right")


def figure_7(races: dict[str, Race], figure: Any) -> None:
    """Four parameters: estimated and true gain of the recommended candidate."""
    race = races["race_guardrail_d4_x1"]
    panels = figure.subplots(1, 2, sharey=True)
    for panel, contender in zip(panels, ("hyperzero", "qlognei")):
        hours = np.arange(race.column(contender, "score").shape[1])
        low, mean, high = (
            100 * race.column(contender, f"objective_{name}").mean(0)
            for name in ("lcb", "mean", "ucb")
        )
        panel.fill_between(hours, low, high, color=SKY, alpha=0.3, lw=0, label="LCB to UCB")
        panel.plot(hours, mean, color=BLUE, label="estimated mean")
        true = 100 * race.column(contender, "gain").mean(0)
        panel.plot(hours, true, color=BLACK, linestyle="--", label="true gain")
        num = len(race.runs[contender])
        print(
            f"  {contender:16} {num:3d} worlds  hour {hours[-1]}: estimated {mean[-1]:.2f} % in "
            f"[{low[-1]:.2f}, {high[-1]:.2f}], true {true[-1]:.2f} %"
        )
        panel.set(title=f"{contender}, {num} worlds", xlabel="hour")
        panel.grid(alpha=0.2)
    panels[0].set_ylabel("gain of the recommended candidate, %")
    panels[0].legend(loc="upper left")


def delays(races: dict[str, Race], figure: Any) -> None:
    """Readings 0, 3, 6 and 12 rounds late (and a random hour on top)."""
    panel = figure.subplots()
    names = {
        0: "race_paper_delay_0_d2_x1",
        3: "race_paper_d2_x1",
        6: "race_paper_delay_6_d2_x1",
        12: "race_paper_delay_12_d2_x1",
    }
    for (delay, name), colour in zip(names.items(), (GREEN, BLACK, ORANGE, BLUE)):
        _line(panel, _share(races[name], "hyperzero"), colour, f"{delay} rounds late")
    panel.set(xlabel="hour", ylabel="share of the oracle's gain")
    panel.legend(loc="lower right")


DRAWINGS: dict[str, tuple[Callable[[dict[str, Race], Any], None], tuple[float, float]]] = {
    "figure_5": (figure_5, (9, 6)),
    "figure_6": (figure_6, (9, 3.4)),
    "figure_7": (figure_7, (9, 3.4)),
    "delays": (delays, (6, 3.6)),
}


def _share(race: Race, contender: str) -> NDArray[np.float64]:
    """True gain over the oracle's, ``(runs, rounds)``."""
    gain: NDArray[np.float64] = race.column(contender, "gain")
    return gain / race.column(contender, "oracle_gain")


def _line(panel: Any, values: NDArray[np.float64], colour: str, label: str) -> None:
    bounds = np.array([interval(column) for column in values.T])
    mean, half = bounds[:, 0], np.nan_to_num(bounds[:, 1])
    hours = np.arange(len(mean))
    cells = "  ".join(f"hour {h}: {mean[h]:7.4f} ± {half[h]:.4f}" for h in (10, 20, 30))
    print(f"  {label:16} {len(values):3d} seeds  {cells}")
    panel.plot(hours, mean, color=colour, label=f"{label} ({len(values)} seeds)")
    panel.fill_between(hours, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
    panel.grid(alpha=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    options = parser.parse_args()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    races = load(options.results)
    options.figures.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "paper"  # the same bytes for the same numbers
    for name, (draw, size) in DRAWINGS.items():
        figure = Figure(figsize=size, layout="constrained")
        try:
            draw(races, figure)
        except KeyError as error:
            print(f"no {name}: {error} has not been run")
            continue
        figure.savefig(options.figures / f"{name}.svg", format="svg", metadata={"Date": None})
        print(f"wrote {name}.svg")


if __name__ == "__main__":
    main()
