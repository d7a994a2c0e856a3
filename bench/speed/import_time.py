"""How much time does `import hyperzero_torch` add to `import torch, gpytorch`?

    python -m bench.speed.import_time [--repeats 15]

Fresh processes import in turn: torch and gpytorch, then the package; torch, then the package, which
imports only torch of the two. Each process times each step, by the clock and in CPU seconds (which
other work on the machine affects less), without the start of Python. Every import is done once
before, so that no file is compiled or read for the first time. The machine's load at the start of
each process is recorded: other work makes the clock slower, so the minimum over all processes is
the best estimate. Writes bench/results/import_time.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "import_time.json"
# Steps of a process; the last is what the package adds to those before.
ORDERS = (("torch, gpytorch", "hyperzero_torch"), ("torch", "hyperzero_torch"))
_CODE = """
import json, time
def now(): return {{"wall": time.perf_counter(), "cpu": time.process_time()}}
laps = [now()]
import {}
laps.append(now())
import {}
laps.append(now())
print(json.dumps([{{k: b[k] - a[k] for k in a}} for a, b in zip(laps, laps[1:])]))
"""

Step = dict[str, float]


def seconds(steps: tuple[str, str]) -> list[Step]:
    """Seconds that one fresh process takes for each step, and the machine's load before."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-c", _CODE.format(*steps)]
    # With this variable every process would compile the package again.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [step | {"load": load} for step in json.loads(done.stdout)]


def measure(repeats: int) -> dict[str, list[list[Step]]]:
    """Steps of each process by imports; the orders alternate, so that load affects both."""
    for steps in ORDERS:
        seconds(steps)
    runs: dict[str, list[list[Step]]] = {"; ".join(steps): [] for steps in ORDERS}
    for _ in range(repeats):
        for steps in ORDERS:
            runs["; ".join(steps)].append(seconds(steps))
    return runs


def table(path: Path = RESULTS) -> str:
    """Per step the median and the minimum by the clock, and the median of CPU seconds."""
    results = json.loads(path.read_text())["seconds"]
    lines = [
        "| import | processes | median by the clock | least by the clock | median of CPU |",
        "|" + " --- |" * 5,
    ]
    for steps in ORDERS:
        runs = results["; ".join(steps)]
        for number, modules in enumerate(steps):
            wall, cpu = ([run[number][clock] for run in runs] for clock in ("wall", "cpu"))
            name = f"then `{modules}`" if number else f"`{modules}`"
            times = (statistics.median(wall), min(wall), statistics.median(cpu))
            cells = " | ".join(f"{'+' if number else ''}{time:.2f} s" for time in times)
            lines.append(f"| {name} | {len(runs)} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = {"seconds": measure(options.repeats)}
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(options.results))


if __name__ == "__main__":
    main()
