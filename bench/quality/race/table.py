"""Draw the race's tables and figure from the JSON lines under bench/results.

    python -m bench.quality.race.table [--figure bench/figures/race.svg]

Scores are mean shares of the oracle's gain when the hour begins, 0 if the recommendation truly
violates; candidates are ranked by LCB, or in one column by mean. The paired difference on the same
worlds, ours less theirs, is given in parentheses, in points with its 95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .judge import TOLERANCE
from .records import OURS, Race, load, load_limits
from .run import RESULTS

FIGURE = Path(__file__).parents[2] / "figures" / "race.svg"


def table(race: Race, limit: dict[str, float] | None = None) -> str:
    """One race as a Markdown table; ``limit`` as ``race.limit`` writes it."""
    hours = race.hours()
    last = hours[-1]
    titles = [
        "contender",
        "worlds",
        *(f"hour {hour}" for hour in hours),
        f"by mean, hour {last}",
        f"violating, hour {last}",
        "exposed violation",
        "CPU s a round",
    ]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for name in race.contenders():
        score = race.column(name, "score")
        by_mean = race.column(name, "score_mean")[:, last].mean()
        cells = [
            f"**{name}**" if name == OURS else name,
            str(len(score)),
            *(_score(race, name, hour) for hour in hours),
            f"{100 * by_mean:.1f} %",
            f"{100 * race.violating(name, last):.0f} %",
            f"{100 * race.column(name, 'exposed_violation').mean():.3f} %",
            f"{race.column(name, 'seconds').mean():.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if limit is not None:
        scores = [f"{100 * limit[str(hour)]:.1f} %" for hour in hours]
        cells = [*scores, scores[-1]]  # a single candidate is recommended by either criterion
        lines.append(f"| *knows the answer* | | {' | '.join(cells)} | | | |")
    return "\n".join(lines)


def ablation(race: Race) -> str:
    """Ours with one feature off at a time, on the same worlds."""
    *_, before, last = race.hours()
    lines = [
        f"| off | worlds | hour {before} | hour {last} | costs at hour {last} | violating | "
        "exposed violation |",
        "|" + " --- |" * 7,
    ]
    seeds = set.intersection(*(set(race.runs[name]) for name in (OURS, *race.variants())))
    for name in [OURS, *race.variants()]:
        rows = [i for i, seed in enumerate(sorted(race.runs[name])) if seed in seeds]
        score, violation, exposed = (
            race.column(name, column)[rows]
            for column in ("score", "violation", "exposed_violation")
        )
        mean, half, _ = race.advantage(name, last)
        options = ", ".join(f"`{option}`" for option in name.split("@")[1:])
        lines.append(
            f"| {options or 'none'} | {len(score)} | {100 * score[:, before].mean():.1f} % "
            f"| {100 * score[:, last].mean():.1f} % "
            f"| {'' if name == OURS else f'{100 * mean:+.1f} ± {100 * half:.1f} points'} "
            f"| {100 * (violation[:, last] > TOLERANCE).mean():.0f} % "
            f"| {100 * exposed.mean():.3f} % |"
        )
    return "\n".join(lines)


def _score(race: Race, name: str, hour: int) -> str:
    """Mean score, and our advantage on the same worlds."""
    score = f"{100 * race.column(name, 'score')[:, hour].mean():.1f} %"
    mean, half, shared = race.advantage(name, hour)
    if name == OURS or not shared:
        return score
    spread = f" ± {100 * half:.0f}" if shared > 1 else ""
    return f"{score} ({100 * mean:+.0f}{spread})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    races = load(options.results)
    if not races:
        parser.exit(1, f"no race_*.jsonl in {options.results}; run bench.quality.race.run first\n")
    limits = load_limits(options.results)
    for race in races.values():
        print(f"### {race.title}\n\n{table(race, limits.get(race.title))}\n")
        if race.variants() and race.title.startswith("guardrail"):
            print(f"{ablation(race)}\n")
    try:
        from .figure import draw
    except ModuleNotFoundError as error:
        parser.exit(0, f"no figure: {error.name} is missing; pip install -e .[peers]\n")
    draw(list(races.values()), options.figure)
    print(f"wrote {options.figure.name}")


if __name__ == "__main__":
    main()
