"""Every speed question and the growth on CUDA, in one run of at most eight minutes.

    python -m bench.cuda [--device cuda] [--minutes 8] [--scale 1] [--results bench/results]

The benchmarks are those of ``bench/speed``, on the device and against BoTorch on the same device.
Each writes its raw JSON as it ends, so a run that is stopped leaves what it measured; a question
that fails says so and the others go on. Then ``python -m bench.tables`` draws the README's rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench.speed.table import FILES

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing is begun")
    parser.add_argument("--scale", type=float, default=1.0, help="of the questions' sizes")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; its rows stay 'not measured'")
    end = time.monotonic() + 60 * options.minutes
    options.results.mkdir(parents=True, exist_ok=True)
    folder = options.results.resolve()
    on = ["--device", options.device]
    jobs = {
        f"speed_cuda_{name}.json": [
            *("-m", "pytest", f"bench/speed/bench_{name}.py", "-q", "--benchmark-quiet"),
            *("--benchmark-disable-gc", "--scale", str(options.scale), *on),
            f"--benchmark-json={folder / f'speed_cuda_{name}.json'}",
        ]
        for name in FILES
    }
    growth = [*on, "--results", str(folder / "growth_cuda.json")]
    growth += ["--figure", str(folder.parent / "figures/growth_cuda.svg")]
    quick = ["--quick"] if options.scale < 1 else []
    jobs["growth_cuda.json"] = ["-m", "bench.speed.growth", *growth, *quick]
    for name, job in jobs.items():
        begun, left = time.monotonic(), end - time.monotonic()
        if left <= 0:
            print(f"{name}: no time left", flush=True)
            continue
        try:
            done = subprocess.run(
                [sys.executable, *job], cwd=ROOT, capture_output=True, text=True, timeout=left
            )
            said = (done.stdout + done.stderr).strip().splitlines() or [""]
            state = said[-1] if done.returncode == 0 else "\n    ".join(["FAILED", *said[-15:]])
        except subprocess.TimeoutExpired:
            state = "stopped: the time was up"
        print(f"{name}: {time.monotonic() - begun:.0f} s, {state}", flush=True)
        path = folder / name
        if path.exists() and name.startswith("speed"):
            for one in json.loads(path.read_text())["benchmarks"]:
                print(f"    {one['extra_info']['median']:.4g} s  {one['group']}: {one['name']}")


if __name__ == "__main__":
    main()
