"""Draw the race's tables and figure from the JSON lines under bench/results.

    python -m bench.quality.race.table [--figure bench/figures/race.svg]

Scores are mean shares of the oracle's gain when that hour begins, 0 where the recommendation truly
violates. The last column is the paired difference on the same worlds, ours less theirs, with its
95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .records import OURS, Race, load
from .run import RESULTS

FIGURE = Path(__file__).parents[2] / "figures" / "race.svg"


def table(race: Race) -> str:
    """One race as a Markdown table."""
    hours = race.hours()
    last = hours[-1]
    titles = [
        "contender",
        "worlds",
        *(f"hour {hour}" for hour in hours),
        f"violating, hour {last}",
        "exposed violation",
        "CPU s a round",
        f"{OURS} ahead, hour {last}",
    ]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for name in race.contenders():
        score = race.column(name, "score")
        mean, half, shared = race.advantage(name, last)
        spread = f" ± {100 * half:.1f}" if shared > 1 else ""
        cells = [
            f"**{name}**" if name == OURS else name,
            str(len(score)),
            *(f"{100 * score[:, hour].mean():.1f} %" for hour in hours),
            f"{100 * race.violating(name, last):.0f} %",
            f"{100 * race.column(name, 'exposed_violation').mean():.3f} %",
            f"{race.column(name, 'seconds').mean():.2f}",
            f"{100 * mean:+.1f}{spread} points" if name != OURS and shared else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    races = load(options.results)
    if not races:
        parser.exit(1, f"no race_*.jsonl in {options.results}; run bench.quality.race.run first\n")
    for race in races:
        print(f"### {race.title}\n\n{table(race)}\n")
    try:
        from .figure import draw
    except ModuleNotFoundError as error:
        parser.exit(0, f"no figure: {error.name} is missing; pip install -e .[peers]\n")
    draw(races, options.figure)
    print(f"wrote {options.figure.name}")


if __name__ == "__main__":
    main()
