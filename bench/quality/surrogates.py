"""What a right and a wrong surrogate gain and cost: on surfaces, and in whole studies.

    python -m bench.quality.surrogates surfaces [--seeds 20]
    python -m bench.quality.surrogates race [--worlds 30] [--dims 2,4] [--workers 1] [--minutes 20]

``surfaces``: 40 candidates of a Sobol design in four dimensions, noise a tenth of the deltas'
spread and a common control. Three kinds of surfaces: ``smooth`` (squared exponential), ``additive``
(a sum of functions of one parameter each), and ``kink`` (smooth, with a ridge along which the slope
jumps). Error, coverage and log density are over 400 other points; the gain is that of the best of
them by the posterior mean, over the best possible gain.

``race``: every surrogate plans and recommends for 31 hours in guardrail worlds, all else being the
default. Runs that the files already have are skipped; ``--minutes`` ends a race early. Kernels that
have no name in the package come from ``kernels.py``. ``saas`` needs the extra of that name, and
about eight minutes for a race.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hyperzero_torch as hz
from bench.processes import single_threaded_pool
from hyperzero_torch.simulate import GuardrailWorld, run
from hyperzero_torch.surrogate.foreign import choose

from .race.judge import TOLERANCE

RESULTS = Path(__file__).parents[1] / "results"
SURFACES, RACE = RESULTS / "surrogates_surfaces.jsonl", RESULTS / "surrogates_race.jsonl"
#: Kernels without a name in the package.
KERNELS = {
    "periodic": "bench.quality.kernels:periodic",
    "spectral mixture": "bench.quality.kernels:spectral",
    "deep kernel": "bench.quality.kernels:deep",
}
NAMES = (
    *("matern", "rbf", "additive", "linear+matern", "quadratic+matern"),
    *("multitask", "ensemble", "saas", *KERNELS),
)
KINDS = ("smooth", "additive", "kink")
#: The kernel that a kind of surface comes from.
RIGHT = {"smooth": "rbf", "additive": "additive"}
ROUNDS = 31
_DIMS, _NUM, _NUM_AT = 4, 40, 400
_SIZE = 0.02


def surface_of(kind: str, seed: int) -> Callable[[Tensor], Tensor]:
    """Two metrics over the unit cube, ``(N, 4)`` to ``(N, 2)``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if kind == "additive":
        omega, phase, size = (
            normal(2, _DIMS, 60) / 0.2,
            6.3 * normal(2, _DIMS, 60),
            normal(2, _DIMS, 60),
        )

        def additive(x: Tensor) -> Tensor:
            waves = (x[:, None, :, None] * omega + phase).cos() * size
            return _SIZE * waves.sum((-1, -2)) / math.sqrt(30 * _DIMS)

        return additive
    omega, phase, size = normal(2, _DIMS, 100) / 0.8, 6.3 * normal(2, 100), normal(2, 100)
    slope, at = normal(2, _DIMS), 0.3 + 0.4 * torch.rand(2, _DIMS, generator=generator).double()

    def smooth(x: Tensor) -> Tensor:
        waves = (torch.einsum("nd,mdf->nmf", x, omega) + phase).cos() * size
        value = waves.sum(-1) / math.sqrt(50)
        if kind == "kink":
            along = ((x[:, None] - at) * slope / slope.norm(dim=-1, keepdim=True)).sum(-1)
            value = 0.5 * value - 4 * along.abs()
        return _SIZE * value

    return smooth


def measure_surface(job: tuple[str, int, str]) -> dict[str, Any]:
    """One surrogate on one surface."""
    kind, seed, name = job
    surface = surface_of(kind, seed)
    engine = torch.quasirandom.SobolEngine(_DIMS, scramble=True, seed=seed)
    x = engine.draw(_NUM, dtype=torch.float64)
    generator = torch.Generator().manual_seed(10_000 + seed)
    at = torch.rand(_NUM_AT, _DIMS, generator=generator, dtype=torch.float64)
    truth, base = surface(at), surface(torch.full((1, _DIMS), 0.5, dtype=torch.float64))
    noise = 0.1 * truth.std(0)
    normal = torch.randn(_NUM + 1, 2, generator=generator, dtype=torch.float64)
    mean = surface(x) - base + noise * (normal[1:] + normal[:1]) / math.sqrt(2)
    var = noise.square().expand_as(mean).clone()
    shared = (noise.square() / 2)[:, None, None].expand(2, _NUM, _NUM).clone()
    start = time.process_time()
    posterior = (choose(KERNELS.get(name, name), _DIMS) or hz.Surrogate()).fit(x, mean, var, shared)
    seconds = time.process_time() - start
    truth = truth - base
    centre, spread = posterior.marginal(at)
    error = truth - centre
    density = -0.5 * (error.square() / spread + (2 * math.pi * spread).log())
    best = truth[:, 0].max()
    return {
        "kind": kind, "seed": seed, "surrogate": name,
        "error": float((error.square().mean(0).sqrt() / truth.std(0)).mean()),
        "covered": float((error.abs() < 1.96 * spread.sqrt()).double().mean()),
        "density": float((density + truth.std(0).log()).mean()),
        "gain": float(truth[centre[:, 0].argmax(), 0] / best) if best > 0 else math.nan,
        "seconds": seconds,
    }  # fmt: skip


def measure_race(job: tuple[int, int, str]) -> dict[str, Any]:
    """One study: the score of each hour's recommendation, and what users were exposed to."""
    import logging
    import warnings

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    dims, seed, name = job
    world = GuardrailWorld(seed, dims)
    tuner = hz.Tuner(world.problem, seed=seed, surrogate=KERNELS.get(name, name))
    start, oracle = time.process_time(), world.oracle().gain
    rows = list(run(tuner, world, ROUNDS))
    return {
        "dims": dims, "seed": seed, "surrogate": name,
        "score": [r.gain / oracle if r.violation <= TOLERANCE else 0.0 for r in rows],
        "violating": [r.violation > TOLERANCE for r in rows],
        "exposed": [r.exposed_violation for r in rows],
        "fallbacks": sum(d.kind == "fallback" for d in tuner.decisions),
        "seconds": time.process_time() - start,
    }  # fmt: skip


def table() -> str:
    """Surfaces and the race, losing rows too."""
    rows = _read(SURFACES)
    lines = [
        "| surfaces | surrogate | number | error over spread | 95 % intervals cover | log density, "
        "nats above the default's | share of the best gain | seconds a fit |",
        "|" + " --- |" * 8,
    ]
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        default = {r["seed"]: r["density"] for r in of_kind if r["surrogate"] == "matern"}
        for name in NAMES:
            part = [r for r in of_kind if r["surrogate"] == name and r["seed"] in default]
            if not part:
                continue
            gains = [r["density"] - default[r["seed"]] for r in part]
            right = " (the right one)" if RIGHT.get(kind) == name else ""
            cells = [
                f"{_mean(part, 'error'):.3f}",
                f"{100 * _mean(part, 'covered'):.1f} %",
                "0" if name == "matern" else _with_error(gains, 3),
                f"{100 * _mean(part, 'gain'):.1f} %",
                f"{_mean(part, 'seconds'):.2f}",
            ]
            lines.append(f"| {kind} | {name}{right} | {len(part)} | {' | '.join(cells)} |")
    races = _read(RACE)
    lines += [
        "",
        "| dims | surrogate | worlds | hour 20 | hour 30 | hour 30 beside the default | "
        "violating at hour 30 | exposed violation | rounds left to the default | CPU seconds a "
        "round |",
        "|" + " --- |" * 10,
    ]
    for dims in sorted({r["dims"] for r in races}):
        of_dims = [r for r in races if r["dims"] == dims]
        default = {r["seed"]: r["score"][30] for r in of_dims if r["surrogate"] == "matern"}
        for name in NAMES:
            part = [r for r in of_dims if r["surrogate"] == name]
            if not part:
                continue
            beside = [r["score"][30] - default[r["seed"]] for r in part if r["seed"] in default]
            cells = [
                *(f"{100 * statistics.mean(r['score'][h] for r in part):.1f} %" for h in (20, 30)),
                "0" if name == "matern" else _with_error([100 * b for b in beside], 1),
                f"{100 * statistics.mean(r['violating'][30] for r in part):.0f} %",
                f"{100 * statistics.mean(statistics.mean(r['exposed']) for r in part):.3f} %",
                str(sum(r["fallbacks"] for r in part)),
                f"{_mean(part, 'seconds') / ROUNDS:.2f}",
            ]
            lines.append(f"| {dims} | {name} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], field: str) -> float:
    return statistics.mean(r[field] for r in rows if math.isfinite(r[field]))


def _with_error(values: list[float], digits: int) -> str:
    if len(values) < 2:
        return f"{statistics.fmean(values):+.{digits}f}" if values else ""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):+.{digits}f} ± {error:.{digits}f}"


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("surfaces", "race"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--dims", default="2,4")
    parser.add_argument("--surrogates", default=",".join(NAMES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    names = options.surrogates.split(",")
    work: Callable[[Any], dict[str, Any]]
    if options.what == "surfaces":
        work, path, fields = measure_surface, SURFACES, ("kind", "seed", "surrogate")
        jobs: list[Any] = [(k, s, n) for s in range(options.seeds) for k in KINDS for n in names]
    else:
        work, path, fields = measure_race, RACE, ("dims", "seed", "surrogate")
        dims = [int(d) for d in options.dims.split(",")]
        jobs = [(d, s, n) for s in range(options.worlds) for d in dims for n in names]
    done = {tuple(row[name] for name in fields) for row in _read(path)}
    jobs = [job for job in jobs if job not in done]
    end = time.monotonic() + 60 * options.minutes
    with single_threaded_pool(options.workers) as pool, path.open("a") as file:
        for first in range(0, len(jobs), options.workers):
            if time.monotonic() > end:
                break
            for row in pool.map(work, jobs[first : first + options.workers]):
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(first, len(jobs), *(row[name] for name in fields), row["seconds"], flush=True)
    print(table())


if __name__ == "__main__":
    main()
