"""What a default ``ask`` asks of a card: launches, waits and uploads, counted on a simulated one.

    python -m bench.device.launches [--results bench/results]

A study with the default configuration, four parameters, four metrics and two guardrails, in its
fifth round. Counts are exact and the same on every machine; they are no times. They are held in
``device_launches.json``, and a test refuses more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.device import guard

ROOT = Path(__file__).parents[2]
FILE = "device_launches.json"
ROUNDS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guard", nargs="?", type=Path, help="a library that is built already")
    parser.add_argument("--results", type=Path, help=f"a folder for {FILE}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        guard.load(options.guard or guard.build(Path(folder)))
    counts = count()
    print(json.dumps(counts))
    if options.guard is None:
        path = (options.results or ROOT / "bench/results") / FILE
        path.write_text(json.dumps(counts, indent=2) + "\n")


def count() -> dict[str, Any]:
    """The counts of the fifth round's ``ask``, in all and by file of the package."""
    import torch

    import hyperzero_torch as hz
    from bench.device.card import simulated

    torch.set_num_threads(1)
    with simulated() as record:
        tuner = hz.Tuner(_problem(), device="cuda")
        for _ in range(ROUNDS):
            tuner.tell(_reply(tuner.ask()))
        record.clear()
        tuner.ask()
        files: Counter[str] = Counter()
        for line, number in record.launches.items():
            files[line.partition(":")[0]] += number
        functions: Counter[str] = Counter()
        for line, number in record.waits.items():
            functions[f"{line.partition(':')[0]} {line.rpartition(' ')[2]}"] += number
        return {
            "torch": torch.__version__.partition("+")[0],
            **record.totals(),
            "launches by file": dict(files.most_common()),
            "waits by function": dict(functions.most_common()),
        }


def plans(device: str, resume: bool = False) -> list[Any]:
    """The plans of the study on a device; another tuner may continue it for each round."""
    import hyperzero_torch as hz

    journal = hz.MemoryJournal()
    tuner = hz.Tuner(_problem(), journal=journal, device=device)
    asked = []
    for _ in range(ROUNDS):
        asked.append(tuner.ask())
        tuner.tell(_reply(asked[-1]))
        if resume:
            tuner = hz.Tuner.resume(journal, device=device)
    return [*asked, tuner.ask()]


def _problem() -> Any:
    import hyperzero_torch as hz

    names = [f"w{i}" for i in range(4)]
    return hz.Problem(
        hz.SearchSpace([hz.Float(name, 0.0, 1.0) for name in names]),
        dict.fromkeys(names, 0.5),
        ["clicks", "shares", "time", "stays"],
        "clicks + 0.5 * shares",
        ["time >= -5%", "stays >= -5%"],
    )


def _reply(plan: Any) -> Any:
    import torch

    import hyperzero_torch as hz

    generator = torch.Generator().manual_seed(plan.round)
    a, b, c, d = plan.theta.T
    rows = [1 + 0.1 * a, 1 - 0.02 * b, 1 + 0.03 * c - 0.02 * d, 1 - 0.01 * a]
    mean = 10 * torch.stack(rows, -1)
    users = 5000.0 * torch.tensor(plan.shares).unsqueeze(-1).expand_as(mean)
    mean = mean + torch.randn(mean.shape, generator=generator, dtype=mean.dtype) / users.sqrt()
    return hz.Readings(plan.round, plan.candidate_ids, users, mean, torch.ones_like(mean))


if __name__ == "__main__":
    main()
