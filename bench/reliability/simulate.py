"""Ten thousand simulated studies in which everything goes wrong: does any invariant break?

    python -m bench.reliability.simulate [--seeds 10200] [--first 0] [--workers 2]

One seed schedules a study of hours on a simulated clock: one to three loops, an operator, and the
faults of ``simulation/faults.py`` at their I/O calls. The real loop, journal, fence, lease and
commands run; a small model stands in for the Gaussian process, and every twentieth study has a real
SQLite file. After every step the invariants of ``simulation/invariants.py`` are checked. A seed
that fails is run again with ever fewer faults, and kept in bench/results/simulate_failures.jsonl
with those that it takes; ``--replay`` runs those again. Writes bench/results/simulate.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.processes import single_threaded_pool

from .simulation.faults import KINDS, Fault
from .simulation.run import Outcome, simulate
from .simulation.shrink import shrunk

RESULTS = Path(__file__).parents[1] / "results" / "simulate.jsonl"
FAILURES = RESULTS.with_name("simulate_failures.jsonl")
_CHUNK = 100


def chunk(first: int, number: int) -> dict[str, Any]:
    """The sums over so many seeds, as one line of the results."""
    torch.set_num_threads(1)
    begin = time.process_time()
    faults: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    deaths: set[int] = set()
    failures = []
    for seed in range(first, first + number):
        outcome = simulate(seed)
        faults += outcome.faults + outcome.operations
        facts.update(outcome.facts)
        deaths |= outcome.deaths
        if outcome.violation is not None:
            failures.append(kept(outcome))
    return {
        "first": first,
        "seeds": number,
        "violations": len(failures),
        "seconds": round(time.process_time() - begin, 1),
        "faults": dict(sorted(faults.items())),
        "facts": dict(sorted(facts.items())),
        "deaths": sorted(deaths),
        "failures": failures,
    }


def kept(outcome: Outcome) -> dict[str, Any]:
    """A failing seed with the faults that it takes to fail."""
    assert outcome.violation is not None
    name, text = outcome.violation
    faults = [asdict(fault) for fault in shrunk(outcome.seed, name)]
    return {"seed": outcome.seed, "invariant": name, "why": text, "faults": faults}


def replay(path: Path) -> int:
    """Run the failures that were kept; returns how many still fail."""
    failing = 0
    for line in path.read_text().splitlines():
        record = json.loads(line)
        outcome = simulate(record["seed"], [Fault(**fault) for fault in record["faults"]])
        failing += outcome.violation is not None
        print(record["seed"], outcome.violation or "holds now", flush=True)
    return failing


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--failures", type=Path, default=FAILURES)
    parser.add_argument("--replay", action="store_true", help="only the failures that were kept")
    options = parser.parse_args(argv)
    if options.replay:
        sys.exit(min(1, replay(options.failures)))
    starts = range(options.first, options.first + options.seeds, _CHUNK)
    lines, violations, faults = [], 0, 0
    with single_threaded_pool(options.workers) as pool:
        ends = options.first + options.seeds
        runs = [pool.submit(chunk, start, min(_CHUNK, ends - start)) for start in starts]
        for run in runs:
            line = run.result()
            failures = line.pop("failures")
            for failure in failures:
                with options.failures.open("a") as file:
                    print(json.dumps(failure), file=file)
            lines.append(line)
            violations += line["violations"]
            faults += num_faults(line["faults"])
            done = line["first"] + line["seeds"] - options.first
            print(f"{done} seeds: {faults:,} faults, {violations} violations", flush=True)
            options.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if violations:
        sys.exit(f"{violations} seeds break an invariant; see {options.failures}")


def table(results: Path = RESULTS) -> str:
    """Every kind of fault with its number, and what was checked."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    faults: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    deaths: set[int] = set()
    for line in lines:
        faults.update(line["faults"])
        facts.update(line["facts"])
        deaths.update(line["deaths"])
    seeds, violations = (sum(line[name] for line in lines) for name in ("seeds", "violations"))
    minutes = sum(line["seconds"] for line in lines) / 60
    gone = _without_gap(deaths)
    return "\n".join(
        [
            "| what happens | times |",
            "| --- | --- |",
            *(f"| {name} | {number:,} |" for name, number in _ordered(faults)),
            f"| all faults, without what the operator does | {num_faults(faults):,} |",
            "",
            f"{seeds:,} seeds, {facts['rounds']:,} rounds served, {facts['calls']:,} I/O calls, "
            f"{facts['steps']:,} steps with every invariant checked, {facts['plans made anew']:,} "
            f"plans made anew: {violations} violations. Processes died at each of the first "
            f"{gone} I/O calls of a study. {minutes:.0f} minutes of one processor.",
        ]
    )


def num_faults(happened: Mapping[str, int]) -> int:
    """How many faults there were; what an operator does, or is refused, is none."""
    return sum(n for name, n in happened.items() if not name.startswith("operator: "))


def _ordered(faults: Counter[str]) -> Iterable[tuple[str, int]]:
    order = {name: number for number, name in enumerate(KINDS)}
    return sorted(faults.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))


def _without_gap(deaths: set[int]) -> int:
    number = 1
    while number in deaths:
        number += 1
    return number - 1


if __name__ == "__main__":
    main()
