"""The cost of looking at the results every hour, with and without a confidence sequence.

    python -m bench.reliability.peeking [--streams 20000] [--user-streams 2000]

Streams of 500 looks with a known truth. Type-I error: how often the interval excludes a true null
at any look, for 1.96 standard errors and for the confidence sequence. Width: that of the sequence
over that of the ordinary interval. Detection: looks until a harm is proven. Writes
bench/results/peeking.json.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyperzero_torch.stats import delta, moments, sequential

BENCH = Path(__file__).parents[1]
LOOKS, DAY = 500, 24
ALPHA = 0.05
Z = {2: 1.959964, 1: 1.644854}  # the ordinary interval at alpha
RHYTHM = 8.0  # traffic at the peak over that at night
SPREAD = 1.0  # of the logarithm of a user's value: skewness 6, coefficient of variation 1.3
USERS = 300  # an arm and hour, on average over the day
HARMS = (2.5, 4.0, 8.0)  # in standard errors at the last look; 2.5: power of 80 % there
PLANNED = (24, 500)  # look at which the sequence is narrowest


def traffic(kind: str, looks: int = LOOKS) -> Tensor:
    """Relative traffic of each look, mean 1."""
    hour = torch.arange(looks, dtype=torch.float64)
    swing = (RHYTHM - 1) / (RHYTHM + 1) if kind != "equal" else 0.0
    share = 1 + swing * (2 * math.pi * hour / DAY).cos()
    return share / share.mean()


def normal_streams(
    kind: str, streams: int, generator: torch.Generator, looks: int = LOOKS
) -> tuple[Tensor, Tensor]:
    """Pooled estimates of 0 and their variances, ``(streams, looks)``; 1 / looks at the last."""
    step = traffic(kind, looks)
    noise = torch.randn(streams, looks, dtype=torch.float64, generator=generator) * step.sqrt()
    information = step.cumsum(0)
    return noise.cumsum(1) / information, (1 / information).expand(streams, looks)


def user_streams(
    streams: int, generator: torch.Generator, looks: int = LOOKS, chunk: int = 20
) -> tuple[Tensor, Tensor]:
    """The same from hourly deltas of users with log-normal values, weighted by users."""
    count = (USERS * traffic("rhythm", looks)).round()
    parts = []
    for start in range(0, streams, chunk):
        num = min(chunk, streams - start)
        sides = [_hourly(num, count, generator) for _ in range(2)]
        lift = delta.ratio(*sides)
        weight = count.cumsum(0)
        mean = (count * lift.mean).cumsum(1) / weight
        var = (count.square() * lift.var).cumsum(1) / weight.square()
        parts.append((mean, var))
    return torch.cat([m for m, _ in parts]), torch.cat([v for _, v in parts])


def _hourly(num: int, count: Tensor, generator: torch.Generator) -> moments.Moments:
    """Moments of one arm's users in each hour, ``(num, looks)``."""
    mean = torch.empty(num, len(count), dtype=torch.float64)
    m2 = torch.empty_like(mean)
    for look, users in enumerate(count.long().tolist()):
        value = torch.randn(num, users, generator=generator).mul_(SPREAD).exp_().double()
        mean[:, look] = value.mean(1)
        m2[:, look] = value.var(1) * (users - 1)
    return moments.Moments(count.expand_as(mean), mean, m2)


def planned_var(kind: str, look: int, looks: int = LOOKS) -> float:
    """The variance expected at a look, as known before the first one."""
    share = float(traffic(kind, looks)[:look].sum())
    if kind != "users":
        return 1 / share
    return 2 * math.expm1(SPREAD**2) / (USERS * share)


def type_one(
    kind: str, mean: Tensor, var: Tensor, sides: int, looks: int = LOOKS
) -> dict[str, Any]:
    """How often the true null, 0, is excluded at any look."""
    standard = mean / var.sqrt()
    off = standard.abs() if sides == 2 else -standard
    planned = planned_var(kind, looks, looks)
    radius = sequential.radius(var, ALPHA, planned, sides)
    beyond = (mean.abs() if sides == 2 else -mean) > radius
    return {
        "kind": kind,
        "sides": sides,
        "streams": len(mean),
        "fixed": float((off > Z[sides]).any(1).double().mean()),
        "fixed_last": float((off[:, -1] > Z[sides]).double().mean()),
        "sequence": float(beyond.any(1).double().mean()),
    }


def width(sides: int, planned: int, looks: tuple[int, ...]) -> list[dict[str, Any]]:
    """Radius of the sequence over that of the ordinary interval at the same look."""
    at = torch.tensor(looks, dtype=torch.float64)
    ratio = sequential.critical_value(at / planned, ALPHA, sides) / Z[sides]
    return [
        {"sides": sides, "planned": planned, "look": look, "ratio": value}
        for look, value in zip(looks, ratio.tolist())
    ]


def detection(
    kind: str, mean: Tensor, var: Tensor, harm: float, planned: int, looks: int = LOOKS
) -> dict[str, Any]:
    """Looks until the upper bound of an arm that is worse by ``harm`` is below 0."""
    size = harm * math.sqrt(planned_var(kind, looks, looks))
    bound = sequential.upper(mean - size, var, ALPHA, planned_var(kind, planned, looks))
    sure = bound < 0
    first = torch.where(sure.any(1), sure.double().argmax(1) + 1, looks + 1)
    quantiles = first.double().quantile(torch.tensor([0.5, 0.9], dtype=torch.float64)).tolist()
    last = (mean[:, -1] - size) / var[:, -1].sqrt()
    return {
        "kind": kind,
        "harm": harm,
        "planned": planned,
        "found": float(sure.any(1).double().mean()),
        "median": quantiles[0],
        "late": quantiles[1],
        "fixed_last": float((last < -Z[1]).double().mean()),
    }


def measure(streams: int, user_streams_: int, seed: int = 0) -> dict[str, Any]:
    """All measurements."""
    generator = torch.Generator().manual_seed(seed)
    results: dict[str, Any] = {"looks": LOOKS, "alpha": ALPHA, "type_one": [], "detection": []}
    for kind in ("equal", "rhythm", "users"):
        if kind == "users":
            mean, var = user_streams(user_streams_, generator)
        else:
            mean, var = normal_streams(kind, streams, generator)
        results["type_one"] += [type_one(kind, mean, var, sides) for sides in (2, 1)]
        results["detection"] += [
            detection(kind, mean, var, harm, planned) for harm in HARMS for planned in PLANNED
        ]
        print(results["type_one"][-2:], flush=True)
    results["width"] = [
        row for sides in (2, 1) for row in width(sides, 500, (24, 50, 125, 250, 500, 1000))
    ]
    return results


LABELS = {
    "equal": "normal deltas, even traffic",
    "rhythm": "normal deltas, traffic 8 : 1 over the day",
    "users": "deltas of skewed users, traffic 8 : 1",
}


def table(path: Path = BENCH / "results" / "peeking.json") -> str:
    """Tables of type-I error, time to detection, and width."""
    results = json.loads(path.read_text())
    kinds = list(LABELS)
    level, looks = f"{100 * results['alpha']:g} %", results["looks"]
    lines = [
        f"| a true null, {looks} looks, alpha {level} | sides | streams | fixed-horizon test, "
        "last look | fixed-horizon test, every look | confidence sequence, every look |",
        "|" + " --- |" * 6,
    ]
    lines += [
        f"| {LABELS[r['kind']]} | {r['sides']} | {r['streams']} | {100 * r['fixed_last']:.1f} % "
        f"| {100 * r['fixed']:.1f} % | {100 * r['sequence']:.1f} % |"
        for r in results["type_one"]
    ]
    lines += [
        "",
        f"| a harm, in standard errors at look {looks} | deltas | tightest at look | proven at "
        "look (median) | 90 % by | found in all | one fixed-horizon test at the last look |",
        "|" + " --- |" * 7,
    ]
    lines += [
        f"| {r['harm']:g} | {LABELS[r['kind']]} | {r['planned']} | {_look(r['median'], looks)} "
        f"| {_look(r['late'], looks)} | {100 * r['found']:.0f} % | {100 * r['fixed_last']:.0f} % |"
        for r in sorted(results["detection"], key=lambda r: (kinds.index(r["kind"]), r["harm"]))
        if r["kind"] != "equal"
    ]
    shown = [r["look"] for r in results["width"] if r["sides"] == 2]
    lines += [
        "",
        f"| width over the ordinary interval's, at look | {' | '.join(map(str, shown))} |",
        "|" + " --- |" * (1 + len(shown)),
    ]
    for sides in (2, 1):
        ratios = [f"{r['ratio']:.2f}" for r in results["width"] if r["sides"] == sides]
        name = "two-sided" if sides == 2 else "one-sided"
        lines.append(f"| {name}, tightest at look {looks} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def _look(look: float, looks: int) -> str:
    return f"{look:.0f}" if look <= looks else f"after {looks}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--user-streams", type=int, default=2_000)
    options = parser.parse_args()
    path = BENCH / "results" / "peeking.json"
    path.write_text(json.dumps(measure(options.streams, options.user_streams)) + "\n")
    print(table(path))


if __name__ == "__main__":
    main()
