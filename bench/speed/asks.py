"""One whole ``ask`` with large buckets and with many metrics, in the default configuration.

    python -m bench.speed.asks [CASE ...] [--threads 2]

Every candidate has been served and read, none has retired, so that all of them compete and all are
fitted. The seconds of the ask that follows, those of the fit in it and the process's peak memory
are written to bench/results/asks.json, one case after the other.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld

RESULT = Path(__file__).parents[1] / "results" / "asks.json"


class Case(NamedTuple):
    """Candidates, arms of an hour, parameters, metrics, and the seconds that are wanted."""

    candidates: int
    arms: int
    dims: int
    metrics: int
    wanted: float


CASES = {
    "many_metrics": Case(1000, 1000, 4, 16, 4.0),
    "large_bucket": Case(5000, 500, 4, 4, 10.0),
    "larger_bucket": Case(20_000, 2000, 4, 4, 60.0),
}


def study(case: Case) -> tuple[hz.Tuner, int]:
    """A tuner whose candidates have all been read once, and the next round."""
    world = GuardrailWorld(
        0,
        case.dims,
        traffic=case.candidates / 50,
        num_gains=case.metrics - 2,
        num_guardrails=2,
        delay=0,
    )
    config = hz.TunerConfig(initial_candidates=case.candidates, max_arms=case.arms)
    tuner = hz.Tuner(world.problem, config, seed=0)
    rounds = -(-case.candidates // case.arms)
    late = [readings for r in range(rounds) for _, readings in world.serve(tuner.ask(r))]
    tuner.tell(hz.Readings.concat(late))
    return tuner, rounds


def measure(name: str) -> dict[str, Any]:
    """The figures of one case."""
    case = CASES[name]
    tuner, round_ = study(case)
    fit, seconds = hz.Surrogate.fit, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal seconds
        start = time.perf_counter()
        posterior = fit(*arguments)
        seconds += time.perf_counter() - start
        return posterior

    start, refused = time.perf_counter(), ""
    with mock.patch.object(hz.Surrogate, "fit", timed):
        try:
            tuner.ask(round_)
        except hz.SizeError as error:
            refused = str(error)
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        **case._asdict(),
        "seconds": round(whole, 2),
        "fit": round(seconds, 2),
        "peak_gib": round(peak, 2),
        "refused": refused,
        "threads": torch.get_num_threads(),
    }


def rows_of(path: Path = RESULT) -> dict[str, dict[str, Any]]:
    """What the file holds, by case."""
    return json.loads(path.read_text()) if path.exists() else {}


def table(path: Path = RESULT) -> str:
    """The seconds of each case beside those wanted."""
    lines = [
        "| candidates | arms an hour | metrics | one `ask` | its fit | wanted | peak memory |",
        "|" + " ---: |" * 7,
    ]
    rows = rows_of(path)
    lines += [
        f"| {row['candidates']:,} | {row['arms']:,} | {row['metrics']} | "
        + (
            f"refused: {row['refused'].partition(';')[0]} | - | {row['wanted']:g} s | - |"
            if row["refused"]
            else f"{row['seconds']:.1f} s | {row['fit']:.1f} s | {row['wanted']:g} s | "
            f"{row['peak_gib']:.1f} GiB |"
        )
        for row in (rows[name] for name in CASES if name in rows)
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure the named cases, or all; keep those of other cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for name in (name for name in CASES if name in (options.cases or CASES)):
        row = measure(name)
        rows = rows_of() | {name: row}
        RESULT.write_text(json.dumps({n: rows[n] for n in CASES if n in rows}, indent=1) + "\n")
        print(name, row, flush=True)
    print(table())


if __name__ == "__main__":
    main()
