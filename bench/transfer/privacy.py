"""What does privacy cost? The accountant's epsilon against the gain that a source still leads to.

    python -m bench.transfer.privacy [--seeds 20] [--figure bench/figures/transfer_privacy.svg]

A source serves one design for a day, fixed beforehand, in a guardrail world; every hour's sums are
released with noise so that the whole day costs epsilon (delta 1e-6) per user, a user being in every
hour. From the released evidence alone the best setting is chosen that is feasible with probability
0.9, as a start for another domain, and judged by the truth: its share of the oracle's gain, 0 where
none is chosen. Infinite epsilon (None in the file) is the same without noise. Noise is simulated,
so that a run can be repeated. Writes bench/results/transfer_privacy.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Configured, Planned
from hyperzero_torch.study.plan import Plan
from hyperzero_torch.study.reception import new_rows
from hyperzero_torch.transfer import align, from_bucket
from hyperzero_torch.transfer.model.source_posterior import fit_source
from hyperzero_torch.transfer.sharing.budget import Budget
from hyperzero_torch.transfer.sharing.noise import Clip, SimulatedNoise, private_history

RESULTS = Path(__file__).parents[1] / "results" / "transfer_privacy.json"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
DELTA, HOURS, CONTROL_SHARE = 1e-6, 24, 0.15
CLIP = Clip(-2.0, 3.4)  # four of its standard deviations about the highest and lowest hour
SAFE, NUM_POINTS, NUM_DRAWS = 0.9, 2048, 256


def study(world: GuardrailWorld, arms: int) -> History:
    """A day of one design."""
    space, problem = world.problem.space, world.problem
    x = torch.cat([space.to_unit(problem.base_theta)[None], space.sobol(arms, seed=1)])
    theta = space.from_unit(x)
    settings = space.to_parameters(theta)
    history = History(space.num_params, problem.metrics)
    history.extend([Configured({})])
    for c, (row, setting) in enumerate(zip(theta.tolist(), settings)):
        history.extend([CandidateAdded(c, 0, "design", tuple(row), setting)])
    shares = (CONTROL_SHARE, *((1 - CONTROL_SHARE) / arms,) * arms)
    ids, slots = tuple(range(arms + 1)), (1,) * (arms + 1)
    for t in range(HOURS):
        history.extend([Planned(t, ids, slots, shares)])
        for sent in world.serve(Plan(t, ids, tuple(settings), theta, slots, shares)):
            history.extend([new_rows(history, sent.readings)])
    return history


def gain_kept(world: GuardrailWorld, history: History) -> float:
    """Share of the oracle's gain at the setting that the evidence recommends."""
    problem, space = world.problem, world.problem.space
    try:
        source = from_bucket(problem, gather(history, Pooling("precision", HOURS)), "source")
    except hz.ConfigError:  # the noise leaves no evidence
        return 0.0
    posterior = fit_source(align(source, problem), problem).posterior
    if posterior.num_metrics < problem.num_metrics:
        return 0.0
    x = space.sobol(NUM_POINTS, seed=2)
    mean, var = posterior.marginal(x)
    normal = torch.randn(NUM_DRAWS, *mean.shape, generator=torch.Generator(), dtype=mean.dtype)
    draws = mean + var.sqrt() * normal
    safe = problem.evaluate(draws).feasible.double().mean(0) >= SAFE
    utility = torch.where(safe, problem.evaluate(mean).utility, -torch.inf)
    if not bool(safe.any()) or float(utility.max()) <= 0:
        return 0.0
    truth = world.truth(space.from_unit(x[utility.argmax()])[None])
    return float(truth.gain[0]) / world.oracle().gain


def released(history: History, epsilon: float, seed: int) -> tuple[History, float, float | None]:
    """The day as released at this budget, its noise multiplier, and the accountant's epsilon."""
    if epsilon == math.inf:
        return history, 0.0, None
    budget = Budget(epsilon, DELTA)
    noise = budget.noise_multiplier_for(HOURS)
    sampler = SimulatedNoise(torch.Generator().manual_seed(seed))
    clips = dict.fromkeys(history.metrics, CLIP)
    return private_history(history, clips, budget, "day", noise, sampler), noise, budget.spent()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--arms", type=int, default=32)
    parser.add_argument("--traffic", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, help="SVG file to draw; needs matplotlib")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.arms, *options.traffic) <= 0:
        parser.error("seeds, arms and traffic must be above 0")
    rows: list[dict[str, Any]] = []
    for traffic in options.traffic:
        for seed in range(options.seeds):
            world = GuardrailWorld(seed, 2, traffic=traffic)
            history = study(world, options.arms)
            for epsilon in EPSILONS:
                noised, noise, spent = released(history, epsilon, seed)
                row = {"traffic": traffic, "seed": seed, "noise_multiplier": noise}
                row |= {"epsilon": spent, "delta": DELTA, "kept": gain_kept(world, noised)}
                rows.append(row)
            kept = [round(r["kept"], 3) for r in rows[-len(EPSILONS) :]]
            print(f"traffic {traffic:g}, seed {seed}: kept {kept}", flush=True)
    options.results.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(options.results))
    if options.figure is not None:
        draw(curve(options.results), options.figure)


def curve(results: Path = RESULTS) -> dict[float, list[tuple[float, float, float, float]]]:
    """By traffic: epsilon as the accountant has it, the noise, gain kept, and its half-interval.

    The interval is of the mean over seeds, at 95 %; infinite for a single seed.
    """
    kept: dict[tuple[float, float], list[float]] = {}
    spent: dict[float, float] = {}
    for row in json.loads(results.read_text()):
        kept.setdefault((row["traffic"], row["noise_multiplier"]), []).append(row["kept"])
        spent[row["noise_multiplier"]] = math.inf if row["epsilon"] is None else row["epsilon"]
    points: dict[float, list[tuple[float, float, float, float]]] = {}
    for (traffic, noise), values in sorted(kept.items(), key=lambda item: spent[item[0][1]]):
        spread = statistics.stdev(values) if len(values) > 1 else math.inf
        half = 1.96 * spread / math.sqrt(len(values))
        point = (spent[noise], noise, statistics.mean(values), half)
        points.setdefault(traffic, []).append(point)
    return dict(sorted(points.items()))


def table(results: Path = RESULTS) -> str:
    """A row for each epsilon: the noise, and how much of the oracle's gain is kept."""
    curves = curve(results)
    seeds = len({row["seed"] for row in json.loads(results.read_text())})
    titles = [f"gain kept, traffic x {t:g}" for t in curves]
    lines = [
        f"| epsilon at delta {DELTA:g} | noise multiplier | {' | '.join(titles)} |",
        "|" + " --- |" * (2 + len(titles)),
    ]
    for points in zip(*curves.values()):
        epsilon, noise = points[0][:2]
        cells = [f"{100 * mean:.1f} ± {100 * half:.1f} %" for _, _, mean, half in points]
        named = "none (no noise)" if epsilon == math.inf else f"{epsilon:.3g}"
        lines.append(f"| {named} | {noise:.2f} | {' | '.join(cells)} |")
    lines += ["", f"Share of the oracle's gain, mean over {seeds} worlds with its 95 % interval."]
    return "\n".join(lines)


def draw(curves: dict[float, list[tuple[float, float, float, float]]], path: Path) -> None:
    """The gain kept over epsilon, a line for each amount of traffic; dashed is no noise."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "privacy"  # the same file for the same numbers
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    for (traffic, points), colour in zip(curves.items(), ("#D55E00", "#0072B2", "#009E73")):
        noised = [p for p in points if p[0] < math.inf]
        x, y = [p[0] for p in noised], [100 * p[2] for p in noised]
        axis.errorbar(
            x, y, [100 * p[3] for p in noised], color=colour, marker="o", capsize=2,
            label=f"traffic x {traffic:g}",
        )  # fmt: skip
        for point in points:
            if point[0] == math.inf:
                axis.axhline(100 * point[2], color=colour, linestyle="--", linewidth=1)
    axis.set_xscale("log", base=2)
    axis.set_xticks([e for e in EPSILONS if e < math.inf])
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel(f"epsilon at delta {DELTA:g}, by the accountant (dashed: no noise)")
    axis.set_ylabel("% of the oracle's gain kept")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
