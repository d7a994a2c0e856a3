"""Thin metrics: deltas of a few conversions an hour, and harmless arms that are stopped.

    python -m bench.reliability.thin [--studies 400] [--stopped 8] [--workers 2]

Users of four arms and a control arrive with a daily rhythm, peak to trough 8. A share of them
converts, so that the control has 0.5 to 100 conversions an hour, and a conversion is worth 1
(Bernoulli, Poisson), a lognormal or a Pareto value, or nothing half of the time (zero-inflated).

Deltas: bias of the pooled delta in its standard deviations and coverage of its 95 % interval after
1, 3 and 7 days, where nothing changes and where the arm adds 10 %. Stops: how many of 16 harmless
arms the guard of a default configuration (``metric >= -5 %``, 1 %) ever stops in a week, at three
levels of traffic; variances are believed from the first hour on, which stops more, not less.
Writes bench/results/thin.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import hyperzero_torch as hz
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling, pool
from hyperzero_torch.study.round_table import RoundTable
from hyperzero_torch.tuner.guardrails import slacks

BENCH = Path(__file__).parents[1]
RESULT = BENCH / "results" / "thin.json"
FAMILIES = ("Bernoulli", "Poisson", "lognormal", "Pareto", "zero-inflated")
CONVERSIONS = (0.5, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the control, an hour
EFFECTS = (0.0, 0.1)
DAYS = (1, 3, 7)
TRAFFIC = (1.0, 0.1, 0.01)
RHYTHM = 8.0  # peak to trough
USERS = 20_000  # an hour, in all arms
SHARES = (0.3, 0.2, 0.2, 0.2, 0.1)  # the control's first
FEWEST = 50  # studies with a delta, for a cell to be shown
ARMS = 16
ALPHA = 0.01

Array = NDArray[np.float64]


def values(family: str, size: int, rng: np.random.Generator) -> Array:
    """What so many conversions are worth."""
    if family == "lognormal":
        return rng.lognormal(0, 1, size)
    if family == "Pareto":
        return rng.pareto(2.5, size) + 1
    if family == "zero-inflated":
        return np.where(rng.random(size) < 0.5, 0, rng.lognormal(0, 1.5, size))
    return np.ones(size)


def readings(
    family: str, users: Array, rate: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Count, mean and sample variance of cells of ``users`` who convert at a ``rate``."""
    users = np.maximum(users.round(), 2)
    if family == "Poisson":
        conversions = rng.poisson(users * rate)
    else:
        conversions = rng.binomial(users.astype(int), rate)
    cell = np.repeat(np.arange(conversions.size), conversions.ravel())
    worth = values(family, len(cell), rng)
    total, square = (
        np.bincount(cell, w, conversions.size).reshape(users.shape) for w in (worth, worth**2)
    )
    if family == "Poisson":  # of users with several conversions the square is not the sum's
        pairs = rng.poisson(users * rate**2)  # ordered pairs by the same user
        square = square + pairs
    mean = total / users
    return users, mean, (square - users * mean**2).clip(0) / (users - 1)


def traffic(hours: int) -> Array:
    """Relative traffic of each hour, mean 1."""
    hour = np.arange(hours)
    level = np.exp(np.log(RHYTHM) / 2 * np.sin(2 * np.pi * hour / 24))
    return level / level.mean()


def tables(cells: tuple[Array, Array, Array]) -> list[tuple[int, RoundTable]]:
    """Rounds with readings, cells ``(hours, arms, studies)``: each study is a metric."""
    rounds = []
    for hour, (count, mean, var) in enumerate(zip(*cells)):
        table = RoundTable(range(len(count)), count.shape[1])
        table.count, table.mean, table.var = count, mean, var
        table.revision[:] = 0
        rounds.append((hour, table))
    return rounds


def deltas(family: str, conversions: float, effect: float, studies: int) -> dict[str, Any]:
    """Bias over standard deviation, coverage, and studies with a delta, by day."""
    rng = np.random.default_rng([FAMILIES.index(family), int(10 * conversions), int(10 * effect)])
    shape = (24 * DAYS[-1], len(SHARES), studies)
    users = USERS * traffic(shape[0])[:, None, None] * np.array(SHARES)[:, None]
    rate = conversions / (USERS * SHARES[0]) * (1 + effect * np.eye(len(SHARES))[1])[:, None]
    cells = readings(family, *(np.broadcast_to(a, shape) for a in (users, rate)), rng)
    cell: dict[str, Any] = {}
    for day in DAYS:
        state = pool(tables(cells)[: 24 * day], Pooling.of(hz.TunerConfig()), studies)[0].state
        weight, mean, spread = (field[1].numpy() for field in state)
        known = weight > 0
        cell[str(day)] = {"studies": int(known.sum())}
        if known.sum() < FEWEST:
            continue
        error, std = mean[known] - effect, np.sqrt(spread[known]) / weight[known]
        cell[str(day)] |= {
            "bias": float(error.mean() / error.std()),
            "coverage": float((abs(error) < 1.959964 * std).mean()),
            "std": float(error.std()),
        }
    return cell


def stopped(family: str, conversions: float, level: float, studies: int) -> dict[str, int]:
    """Harmless arms ever stopped in a week of hourly looks, of all arms; a study is a metric."""
    metrics = [f"m{i}" for i in range(studies)]
    problem = hz.Problem(
        hz.SearchSpace([hz.Float("x", 0, 1)]),
        {"x": 0.5},
        metrics,
        metrics[0],
        [f"{m} >= -5%" for m in metrics],
    )
    # Users come by the first plan in all hours, so the later plans' split does not fit.
    config = hz.TunerConfig(initial_candidates=ARMS, srm_alpha=None)
    rng = np.random.default_rng([FAMILIES.index(family), int(10 * conversions), int(100 * level)])
    tuner = hz.Tuner(problem, config)
    # Without a model all arms have equal shares. Later plans go back to the control for want of
    # readings; users come by the first.
    plans = [tuner.ask() for _ in range(24 * DAYS[-1])]
    shares = np.array(plans[0].shares)[:, None]
    gone = torch.zeros(ARMS + 1, studies, dtype=torch.bool)
    for plan, flow in zip(plans, traffic(len(plans))):
        shape = (len(plan.shares), studies)
        users = np.broadcast_to(USERS * level * flow * shares, shape)
        rate = np.full(shape, conversions / (USERS * shares[0, 0]))
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, *readings(family, users, rate, rng)))
        gone |= slacks(problem, gather(tuner.history, Pooling.of(config)), ALPHA).upper < 0
    return {"stopped": int(gone.sum()), "arms": ARMS * studies}


def _deltas(job: tuple[str, float, float, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    family, conversions, effect, _ = job
    return {"family": family, "conversions": conversions, "effect": effect, "days": deltas(*job)}


def _stopped(job: tuple[str, float, float, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    family, conversions, level, _ = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        return {"family": family, "conversions": conversions, "traffic": level} | stopped(*job)


def table(path: Path = RESULT) -> str:
    """Bias and coverage by family and conversions an hour; harmless arms stopped."""
    results = json.loads(path.read_text())
    lines = []
    for effect in EFFECTS:
        what = "nothing changes" if effect == 0 else f"the arm adds {100 * effect:g} %"
        lines += [
            f"| {what}: bias in standard deviations, coverage after 1, 3, 7 days | "
            + " | ".join(f"{c:g} an hour" for c in CONVERSIONS)
            + " |",
            "|" + " --- |" * (1 + len(CONVERSIONS)),
        ]
        for family in FAMILIES:
            cells = [
                _cell(row["days"])
                for conversions in CONVERSIONS
                for row in results["deltas"]
                if (row["family"], row["conversions"], row["effect"])
                == (family, conversions, effect)
            ]
            lines.append(f"| {family} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        "| harmless arms ever stopped in a week | "
        + " | ".join(f"traffic {level:g}" for level in TRAFFIC)
        + " |",
        "|" + " --- |" * (1 + len(TRAFFIC)),
    ]
    for family in FAMILIES:
        cells = []
        for level in TRAFFIC:
            rows = [r for r in results["stopped"] if (r["family"], r["traffic"]) == (family, level)]
            cells.append(f"{sum(r['stopped'] for r in rows)} of {sum(r['arms'] for r in rows)}")
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(days: dict[str, Any]) -> str:
    return "<br>".join(
        f"{day['bias']:+.2f}, {100 * day['coverage']:.0f} %" if "bias" in day else "no delta yet"
        for day in days.values()
    )


def main() -> None:
    """Measure all cells, and print them as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=400, help="studies per cell of the deltas")
    parser.add_argument("--stopped", type=int, default=8, help="studies per cell of the stops")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("deltas", "stopped"), help="keep the other's numbers")
    arguments = parser.parse_args()

    def jobs(
        hourly: tuple[float, ...], last: tuple[float, ...], studies: int
    ) -> Iterator[tuple[str, float, float, int]]:
        for family in FAMILIES:
            for conversions in hourly:
                for value in last:
                    yield family, conversions, value, studies

    results: dict[str, Any] = json.loads(RESULT.read_text()) if arguments.only else {}
    results |= {"users": USERS, "shares": SHARES, "alpha": ALPHA}
    with ProcessPoolExecutor(arguments.workers) as workers:
        for name, run, hourly, last, studies in (
            ("deltas", _deltas, CONVERSIONS, EFFECTS, arguments.studies),
            ("stopped", _stopped, CONVERSIONS, TRAFFIC, arguments.stopped),
        ):
            if arguments.only not in (None, name):
                continue
            results[name] = []
            for row in workers.map(run, jobs(hourly, last, studies)):
                results[name].append(row)
                print(json.dumps(row), flush=True)
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
