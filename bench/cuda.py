"""All speed benchmarks and the growth on CUDA, in one run of at most eight minutes.

    python -m bench.cuda [--device cuda] [--minutes 8] [--scale 1] [--results bench/results]
                         [--only QUESTION ...] [-k CONTENDERS]

The benchmarks are those of ``bench/speed``, on the device and against BoTorch on the same device.
Each writes its raw JSON when it ends, so a stopped run keeps what it has measured; if one fails, it
is reported and the others continue. Then ``python -m bench.tables`` redraws the tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from bench.speed.table import FILES

ROOT = Path(__file__).parents[1]


GROWTH = "growth"
NAMES = (*FILES, GROWTH)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="no benchmark starts after these")
    parser.add_argument("--scale", type=float, default=1.0, help="of the questions' sizes")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="QUESTION")
    parser.add_argument("-k", dest="contenders", help="of the questions, as pytest's -k")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; its rows stay 'not measured'")
    if not (options.minutes > 0 and options.scale > 0):
        parser.error("--minutes and --scale must be above 0")
    folder = options.results.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = commands(folder, options.device, options.scale, options.only, options.contenders)
    measure(jobs, folder, 60 * options.minutes)


def commands(
    folder: Path, device: str, scale: float, only: Sequence[str], contenders: str | None = None
) -> dict[str, list[str]]:
    """Python's arguments for each file of results, in the order in which they run."""
    on = ["--device", device]
    chosen = ["-k", contenders] if contenders else []
    jobs = {}
    for name in (n for n in FILES if n in only):
        file = f"speed_cuda_{name}.json"
        jobs[file] = [
            *("-m", "pytest", f"bench/speed/bench_{name}.py", "-q", "--benchmark-quiet"),
            *("--benchmark-disable-gc", "--scale", str(scale), *on, *chosen),
            f"--benchmark-json={folder / file}",
        ]
    if GROWTH in only:
        growth = [*on, "--results", str(folder / "growth_cuda.json")]
        growth += ["--figure", str(folder.parent / "figures/growth_cuda.svg")]
        quick = ["--quick"] if scale < 1 else []
        jobs["growth_cuda.json"] = ["-m", "bench.speed.growth", *growth, *quick]
    return jobs


def measure(jobs: Mapping[str, Sequence[str]], folder: Path, seconds: float) -> None:
    """Run the jobs one after the other within the time, and print the result of each."""
    end = time.monotonic() + seconds
    for name, job in jobs.items():
        begun, left = time.monotonic(), end - time.monotonic()
        if left <= 0:
            print(f"{name}: no time left", flush=True)
            continue
        path = folder / name
        before = _changed(path)
        try:
            done = subprocess.run(
                [sys.executable, *job], cwd=ROOT, capture_output=True, text=True, timeout=left
            )
            lines = (done.stdout + done.stderr).strip().splitlines() or [""]
            state = lines[-1] if done.returncode == 0 else "\n    ".join(["FAILED", *lines[-15:]])
        except subprocess.TimeoutExpired:
            state = "stopped: the time was up"
        print(f"{name}: {time.monotonic() - begun:.0f} s, {state}", flush=True)
        if name.startswith("speed") and _changed(path) != before:
            print(*medians(path), sep="", end="", flush=True)


def medians(path: Path) -> Iterator[str]:
    """A line per contender in a file of pytest-benchmark; an empty file is removed.

    The file is created before the first contender has run, so a stopped run leaves an empty one.
    """
    if not path.stat().st_size:
        path.unlink()
        return
    for result in json.loads(path.read_text())["benchmarks"]:
        yield f"    {result['extra_info']['median']:.4g} s  {result['group']}: {result['name']}\n"


def _changed(path: Path) -> int | None:
    """When a file was last written to; None if there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


if __name__ == "__main__":
    main()
