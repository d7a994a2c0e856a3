"""Growth of time and memory with the bucket, the samples, the metrics and the draws.

    python -m bench.speed.growth [--quick] [--device cuda]

Each point runs in its own process, which reports the seconds of its work and the increase of its
peak memory. The exponent is fitted to the upper half of a series, where constant costs are
negligible. Raw numbers are written to bench/results/growth.json, the plot to
bench/figures/growth.svg (with matplotlib).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
RESULTS, FIGURE = ROOT / "bench/results/growth.json", ROOT / "bench/figures/growth.svg"


class Series(NamedTuple):
    """One line of the plot: its label, its sizes, and a function that prepares the timed call.

    ``more``: sizes for large devices only.
    """

    label: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, str], Callable[[], Any]]
    more: tuple[int, ...] = ()


def evidence_update(bucket: int, device: str) -> Callable[[], Any]:
    import torch

    from hyperzero_torch.stats import evidence

    from .bench_streaming import METRICS, moments

    treatment, control = moments(bucket, torch.float64, device)
    state = evidence.init(bucket, METRICS, device=device)
    return lambda: evidence.stream(state, treatment, control)


def exact_posterior(bucket: int, device: str) -> Callable[[], Any]:
    from . import given

    seen = given.evidence(bucket, device)
    first_metric = given.Evidence(seen.x, seen.mean[:, :1], seen.var[:, :1])
    return lambda: given.ours(first_metric)


def fit(bucket: int, device: str) -> Callable[[], Any]:
    from hyperzero_torch.surrogate import Surrogate

    from . import given

    seen = given.evidence(bucket, device)
    return lambda: Surrogate().fit(*seen)


def selection(
    candidates: int, device: str, draws: int = 200, metrics: int = 4
) -> Callable[[], Any]:
    import torch

    import hyperzero_torch as hz
    from hyperzero_torch.thompson import select

    problem = hz.Problem(
        space=hz.SearchSpace([hz.Float("theta", 0.0, 1.0)]),
        base={"theta": 0.5},
        metrics=[f"metric_{i}" for i in range(metrics)],
        objective="metric_0",
        constraints=[f"metric_{metrics - 1} >= -1%"],
    )
    generator = torch.Generator(device).manual_seed(0)
    like = {"generator": generator, "dtype": torch.float64, "device": device}
    mean = 0.01 * torch.randn(candidates, metrics, **like)
    var = torch.full_like(mean, 1e-5)
    return lambda: select(mean, var, problem, draws, generator, 1.0)


def proposals(samples: int, device: str) -> Callable[[], Any]:
    import torch

    from hyperzero_torch.thompson import propose

    from . import given

    posterior = given.ours(given.evidence(100, device))
    generator = torch.Generator(device).manual_seed(0)
    return lambda: propose(posterior, given.problem(), samples, 4, generator, num_starts=4)


SERIES = {
    "update": Series(
        "evidence update, candidates (16 metrics)",
        (100, 1000, 10_000, 100_000, 1_000_000),
        evidence_update,
    ),
    "select": Series(
        "selection, candidates (200 draws, 4 metrics)",
        (100, 1000, 5000, 20_000, 100_000),
        selection,
    ),
    "posterior": Series(
        "exact posterior, candidates (1 metric)", (100, 300, 1000, 3000, 10_000, 20_000),
        exact_posterior, (50_000,),
    ),
    "fit": Series("fit from cold, candidates (4 metrics)", (100, 300, 1000, 2000), fit),
    "propose": Series(
        "proposals, samples (bucket of 100, 4 draws)",
        (10_000, 100_000, 1_000_000, 10_000_000),
        proposals,
        (100_000_000,),
    ),
    "metrics": Series(
        "selection, metrics (5000 candidates, 200 draws)",
        (2, 4, 8, 16, 32),
        lambda metrics, device: selection(5000, device, metrics=metrics),
    ),
    "draws": Series(
        "selection, draws (5000 candidates, 4 metrics)",
        (10, 100, 1000, 10_000),
        lambda draws, device: selection(5000, device, draws),
    ),
}  # fmt: skip


def measure_point(name: str, size: int, device: str = "cpu") -> dict[str, float]:
    """Seconds and MiB of one point, in this process; libraries are warm, the data are new."""
    import torch

    prepared = SERIES[name].prepare
    prepared(min(SERIES[name].sizes), device)()
    ready = prepared(size, device)

    def work() -> Any:
        result = ready()
        if device != "cpu":
            torch.accelerator.synchronize(device)
        return result

    before = _peak(device)
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    after = _peak(device)
    del result
    if seconds < 1:  # again, warm; the memory is that of the first run
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        seconds = sorted(times)[2]
    threads = torch.get_num_threads()
    mib = (after - before) / 2**20
    return {"size": size, "seconds": seconds, "mib": mib, "threads": threads}


def _peak(device: str) -> int:
    """Peak memory so far, in bytes."""
    if device == "cpu":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import torch

    return torch.cuda.max_memory_allocated(device)


def exponent(points: list[dict[str, float]], field: str) -> float | None:
    """Slope of the upper half in the log-log plot; None if there are too few points."""
    upper = [p for p in points if p[field] > 0][len(points) // 2 :]
    if len(upper) < 2:
        return None
    x = [math.log(p["size"]) for p in upper]
    y = [math.log(p[field]) for p in upper]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def draw(series: dict[str, list[dict[str, float]]], figure: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "growth"
    import matplotlib.pyplot as plt

    picture, panels = plt.subplots(1, 2, figsize=(11, 6.2), layout="constrained")
    colours = ("black", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
    for (name, points), colour, mark in zip(series.items(), colours, "os^vDPX"):
        for panel, field in zip(panels, ("seconds", "mib")):
            shown = [p for p in points if p[field] > 0]
            slope = exponent(points, field)
            label = f"{SERIES[name].label}" + ("" if slope is None else f": {slope:.2f}")
            panel.loglog(
                [p["size"] for p in shown], [p[field] for p in shown], color=colour, marker=mark,
                markersize=4, label=label,
            )  # fmt: skip
    for panel, title in zip(panels, ("seconds", "MiB of additional memory")):
        panel.set(xlabel="size", title=f"{title}, and the exponent")
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13))
        panel.grid(alpha=0.2)
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(figure, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smaller half of every series")
    parser.add_argument("--device", default="cpu", help="where to run, e.g. cuda")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--redraw", action="store_true", help="the figure only, from raw numbers")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure_point(options.point[0], int(options.point[1]), options.device)))
        return
    results: dict[str, list[dict[str, float]]] = {}
    if options.redraw:
        draw(json.loads(options.results.read_text()), options.figure)
        return
    for name, series in SERIES.items():
        sizes = series.sizes if options.device == "cpu" else series.sizes + series.more
        if options.quick:
            sizes = sizes[: (len(sizes) + 1) // 2]
        results[name] = []
        for size in sizes:
            command = [sys.executable, "-m", "bench.speed.growth", "--point", name, str(size)]
            command += ["--device", options.device]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                print(f"  {name} {size:,}: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            point = json.loads(done.stdout)
            results[name].append(point)
            print(
                f"  {name:10} {size:12,}  {point['seconds']:.3g} s  {point['mib']:.0f} MiB",
                flush=True,
            )
        slopes = {field: exponent(results[name], field) for field in ("seconds", "mib")}
        rounded = {field: None if s is None else round(s, 2) for field, s in slopes.items()}
        print(f"{series.label}: exponents {rounded}", flush=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")
    try:
        draw(results, options.figure)
    except ModuleNotFoundError as error:
        parser.exit(0, f"no figure: {error.name} is missing; pip install -e .[peers]\n")


if __name__ == "__main__":
    main()
