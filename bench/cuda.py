"""All figures for CUDA, in one process of at most eight minutes, from a bare checkout.

    python -m bench.cuda [--minutes 8] [--scale 1] [--device cuda] [--results bench/results]
                         [--wheels FOLDER] [--only PART ...]

First what has to be right, then the rows of the table, most important first, then BoTorch on the
same card, then growth. Each result is printed and written as soon as there is one, so a run that is
stopped keeps what it has. A check or row that fails is reported, and the others continue. The rows
need torch and numpy alone. The check of whole studies needs the wheels of ``bench.device.wheels``;
``--wheels`` installs them from the folder, without a network. ``make cuda-tables`` then redraws the
tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = ("checks", "rows", "peers", "growth")
FILES = {part: f"speed_cuda_{part}.json" for part in PARTS[1:]} | {"checks": "cuda_checks.json"}
# A row is repeated until it has taken so long, or so often.
_SECONDS, _TIMES = 5.0, 21


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="nothing starts after these")
    parser.add_argument("--scale", type=float, default=1.0, help="of the questions' sizes")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    parser.add_argument("--wheels", type=Path, help="a folder of bench.device.wheels")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    options = parser.parse_args(arguments)
    if not (options.minutes > 0 and options.scale > 0):
        parser.error("--minutes and --scale must be above 0")
    end = time.monotonic() + 60 * options.minutes
    if options.wheels is not None:
        from bench.device.wheels import install

        sys.path.insert(0, str(install(options.wheels)))
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; its rows stay 'not measured'")
    device = torch.empty(0, device=options.device).device
    folder = options.results.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for part in (part for part in PARTS if part in options.only):
        if part == "checks":
            check(device, folder, end)
        else:
            measure(part, device, options.scale, folder, end)


def check(device: Any, folder: Path, end: float) -> None:
    """What has to be right; the file has every check and what was found."""
    from bench.device.checks import checks

    results: list[dict[str, Any]] = []
    for name, work in checks(device):
        if time.monotonic() >= end:
            print(f"{name}: no time left", flush=True)
            continue
        right, found = True, ""
        try:
            found = work()
        except ImportError as error:
            right, found = None, f"not checked: {error}"
        except Exception as error:
            right, found = False, f"{type(error).__name__}: {error}"
        results.append({"check": name, "right": right, "found": found})
        mark = {True: "right", False: "WRONG", None: "skipped"}[right]
        print(f"{mark}: {name}: {found}", flush=True)
        _write(folder / FILES["checks"], {"machine_info": machine(device), "checks": results})


def measure(part: str, device: Any, scale: float, folder: Path, end: float) -> None:
    """Time the rows of a part within the time; each is written when it is there."""
    from bench.device import rows

    sizes = rows.Sizes().scaled(scale)
    chosen = {
        "rows": lambda: rows.rows(device, sizes),
        "peers": lambda: rows.peers(device, sizes),
        "growth": lambda: rows.growth(device, scale),
    }[part]()
    results: list[dict[str, Any]] = []
    for row in chosen:
        title = f"{row.question}: {row.who}"
        if time.monotonic() >= end:
            print(f"no time left: {title}", flush=True)
            continue
        try:
            times, mib = timed(row.prepare, device, end)
        except Exception as error:
            print(f"FAILED: {title}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        median = statistics.median(times)
        print(f"{median:.4g} s, {mib:,.0f} MiB: {title}", flush=True)
        info = {"who": row.who, "role": row.role, "work": row.work, "median": median, "mib": mib}
        results.append(
            {
                "group": f"{row.question}, {device.type}",
                "name": row.who,
                "extra_info": info | {"scale": scale, "threads": _threads()},
                "stats": {"data": times},
            }
        )
        report = {"machine_info": machine(device), "benchmarks": results}
        _write(folder / FILES[part], report)


def timed(
    prepare: Callable[[], Callable[[], Any]], device: Any, end: float
) -> tuple[list[float], float]:
    """Seconds of each call after a first one, and MiB of peak memory beside the inputs."""
    import torch

    on_card = device.type == "cuda"
    wait = (lambda: torch.cuda.synchronize(device)) if on_card else (lambda: None)
    with torch.no_grad():
        run = prepare()
        wait()
        before = torch.cuda.memory_allocated(device) if on_card else 0
        if on_card:
            torch.cuda.reset_peak_memory_stats(device)
        times: list[float] = []
        for number in range(_TIMES + 1):
            start = time.perf_counter()
            result = run()
            wait()
            seconds = time.perf_counter() - start
            del result
            if number or seconds > _SECONDS:  # a long one is not repeated
                times.append(seconds)
            if sum(times) > _SECONDS or (times and time.monotonic() >= end):
                break
        peak = torch.cuda.max_memory_allocated(device) if on_card else 0
    if on_card:
        del run
        torch.cuda.empty_cache()
    return times, (peak - before) / 2**20


def machine(device: Any) -> dict[str, Any]:
    """Where the figures come from."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": name,
        "cpu": {"brand_raw": platform.processor()},
        "packages": {"torch": torch.__version__},
        "cuda": torch.version.cuda,
    }


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(draft, path)


if __name__ == "__main__":
    main()
