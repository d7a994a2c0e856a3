"""What does `import hyperzero_torch` add to `import torch, gpytorch`?

    python -m bench.speed.import_time [--repeats 15]

Fresh processes import in turn: torch and gpytorch alone; these and then the package; torch and then
the package, which is all that it imports of the two. Each process says how long its own imports
took, by the clock and in seconds of CPU (which other work on the machine disturbs less), so the
start of Python does not count. Every import was done once before, so that no file is compiled or
read for the first time. Writes bench/results/import_time.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "import_time.json"
BASE, PACKAGE, ALONE = (
    "torch, gpytorch",
    "torch, gpytorch, hyperzero_torch",
    "torch, hyperzero_torch",
)
ORDERS = (BASE, PACKAGE, ALONE)
_CODE = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def seconds(modules: str) -> dict[str, float]:
    """That one fresh process takes to import these."""
    command = [sys.executable, "-c", _CODE.format(modules)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(("wall", "cpu"), map(float, done.stdout.split())))


def measure(repeats: int) -> dict[str, list[dict[str, float]]]:
    """Seconds by what is imported, the kinds in turn so that a busy moment hits all alike."""
    for modules in ORDERS:
        seconds(modules)
    found: dict[str, list[dict[str, float]]] = {modules: [] for modules in ORDERS}
    for _ in range(repeats):
        for modules in ORDERS:
            found[modules].append(seconds(modules))
    return found


def table(path: Path = RESULTS) -> str:
    """Medians, and what the package adds."""
    found = json.loads(path.read_text())["seconds"]
    lines = [
        "| import | processes | median by the clock | on top | median of CPU | on top |",
        "|" + " --- |" * 6,
    ]
    for modules in ORDERS:
        cells = []
        for clock in ("wall", "cpu"):
            median, base = (
                statistics.median(one[clock] for one in found[which]) for which in (modules, BASE)
            )
            cells += [f"{median:.2f} s", "" if modules == BASE else f"{median - base:+.2f} s"]
        lines.append(f"| `{modules}` | {len(found[modules])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = {"seconds": measure(options.repeats)}
    options.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(options.results))


if __name__ == "__main__":
    main()
