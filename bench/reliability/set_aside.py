"""Are ordinary readings ever set aside as absurd, and is a wrong unit named?

    python -m bench.reliability.set_aside [--studies 12]

Studies of 24 hours with 13 arms: real differences between arms, a rhythm of eight between the
busiest and the quietest hour, in traffic and in level. Rows that are set aside, by metric and by
users of an arm and hour. Then the hour in which a squared standard error sent as the variance is
named, and how often a right variance is doubted.
Writes bench/results/set_aside.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperzero_torch.study.readings import plausibility, units
from hyperzero_torch.study.readings.plausibility import Cells
from hyperzero_torch.study.readings.units import Sample

BENCH = Path(__file__).parents[1]
ARMS, HOURS, RHYTHM = 13, 24, 8.0
USERS = (2, 10, 50, 500)  # of an arm and hour
HOURS_OF_UNITS, USERS_FOR_UNITS = 6, 500

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _pareto(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.pareto(2.5, n) + 1


FAMILIES: dict[str, Draw] = {
    "Bernoulli 5 %": lambda rng, n: (rng.random(n) < 0.05) * 1.0,
    "Bernoulli 0.02 %": lambda rng, n: (rng.random(n) < 2e-4) * 1.0,
    "Poisson": lambda rng, n: rng.poisson(3.0, n) * 1.0,
    "lognormal, sigma 2": lambda rng, n: rng.lognormal(0, 2, n),
    "Pareto, index 2.5": _pareto,
    "lognormal of 3 %": lambda rng, n: (rng.random(n) < 0.03) * rng.lognormal(3, 1.5, n),
    "Pareto of 1 %": lambda rng, n: (rng.random(n) < 0.01) * _pareto(rng, n),
    "profit near 0": lambda rng, n: rng.normal(0.001, 5, n),
    "heavy profit": lambda rng, n: rng.lognormal(0, 2, n) - rng.lognormal(0, 2, n),
}


class Hour(NamedTuple):
    """Readings of one metric in one hour, each ``(arms,)``."""

    round: NDArray[np.int64]
    share: NDArray[np.float64]
    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    var: NDArray[np.float64]


def hours(family: str, users: float, num_hours: int, seed: int) -> Iterator[Hour]:
    """A study's readings by hour; ``users`` of an arm on average."""
    rng = np.random.default_rng(seed)
    effect = np.concatenate([[1.0], rng.uniform(0.7, 1.5, ARMS - 1)])
    share = np.concatenate([[0.2], np.full(ARMS - 1, 0.8 / (ARMS - 1))])
    for hour in range(num_hours):
        level = RHYTHM ** ((np.sin(2 * np.pi * hour / 24) - 1) / 2)
        count = np.maximum(1, rng.poisson(2 * users * level * share * ARMS))
        values = FAMILIES[family](rng, int(count.sum()))
        if not family.startswith("Bernoulli"):
            values = values * level * np.repeat(effect, count)
        parts = np.split(values, np.cumsum(count)[:-1])
        mean = np.array([p.mean() for p in parts])
        var = np.array([p.var(ddof=1) if len(p) > 1 else 0.0 for p in parts])
        yield Hour(np.full(ARMS, hour), share, count * 1.0, mean, var)


def judged(new: Hour, before: Sequence[Hour] = ()) -> NDArray[np.object_]:
    """Verdicts on new readings beside believed ones."""
    columns = [np.concatenate([*(h[i] for h in before), new[i]]) for i in range(5)]
    is_new = np.arange(len(columns[0])) >= len(columns[0]) - len(new.count)
    return plausibility.judge(Cells(*columns, is_new))[-len(new.count) :]


def false_verdicts(family: str, users: float, studies: int, num_hours: int = HOURS) -> int:
    """The number of rows set aside."""
    bad = 0
    for seed in range(studies):
        believed: list[Hour] = []
        for new in hours(family, users, num_hours, seed):
            right = judged(new, believed) == ""
            bad += int((~right).sum())
            believed.append(Hour(*(field[right] for field in new)))
    return bad


def sample(family: str, users: float, num_hours: int, seed: int, unit: str = "") -> Sample:
    """A study's readings with variances in the given unit."""
    parts = list(hours(family, users, num_hours, seed))
    slot, _, count, mean, var = (np.concatenate(column) for column in zip(*parts))
    var = {"": var, "mean": var / count, "sum": var * count, "deviation": np.sqrt(var)}[unit]
    return Sample(slot, np.tile(np.arange(ARMS), num_hours), count, mean, var)


def named_after(family: str, seed: int) -> int | None:
    """Hours until a squared standard error is named; None where it is not within six."""
    for num_hours in range(1, HOURS_OF_UNITS + 1):
        unit = units.wrong_unit(sample(family, USERS_FOR_UNITS, num_hours, seed, "mean"))
        if unit.code == units.OF_MEAN:
            return num_hours
    return None


def measure(studies: int) -> dict[str, Any]:
    """All measurements."""
    rows = studies * HOURS * ARMS
    record: dict[str, Any] = {"studies": studies, "rows": rows, "absurd": {}, "units": {}}
    for family in FAMILIES:
        record["absurd"][family] = {n: false_verdicts(family, n, studies) for n in USERS}
        doubted = sum(
            bool(units.wrong_unit(sample(family, USERS_FOR_UNITS, num_hours, seed)).code)
            for seed in range(studies)
            for num_hours in (1, 2, HOURS_OF_UNITS)
        )
        named = [named_after(family, seed) for seed in range(min(studies, 20))]
        record["units"][family] = {"doubted": doubted, "checks": 3 * studies, "named": named}
    return record


def table(path: Path = BENCH / "results" / "set_aside.json") -> str:
    """Rows set aside by chance, and hours until a wrong unit is named."""
    record = json.loads(path.read_text())
    head = [f"rows set aside of {record['rows']:,}, {n} users an arm and hour" for n in USERS]
    lines = [
        f"| metric | {' | '.join(head)} | right variances doubted | wrong ones named within 3 "
        "hours | 6 hours |",
        "|" + " --- |" * (len(USERS) + 4),
    ]
    for family, counts in record["absurd"].items():
        unit = record["units"][family]
        named = unit["named"]
        within = [sum(n is not None and n <= most for n in named) for most in (3, HOURS_OF_UNITS)]
        cells = [str(counts[str(n)]) for n in USERS]
        cells += [f"{unit['doubted']} of {unit['checks']}"]
        cells += [f"{n} of {len(named)}" for n in within]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=12)
    path = BENCH / "results" / "set_aside.json"
    path.write_text(json.dumps(measure(parser.parse_args().studies)) + "\n")
    print(table(path))


if __name__ == "__main__":
    main()
