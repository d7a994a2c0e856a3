"""Calibration: new deltas against the predictions made from the rounds before them.

Residuals are whitened: in units of their predictive standard deviation (of the estimate and of the
new delta's own noise), with the error that the arms of a round share through their control taken
out. Where estimates and noise are right they are independent standard normals, so 80 % of them lie
within the 80 % interval, up to sampling error.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .facts import Facts
from .retrospect import Retrospect
from .tables import Table, Values, table

_LEVELS = (0.5, 0.8, 0.95)
#: Levels that are drawn.
CURVE = tuple(i / 20 for i in range(1, 20))
#: Most residuals of a metric that are drawn; all are counted.
MOST_POINTS = 600
# Half the middle half of a standard normal.
_QUARTILE = 0.6744897501960817


def residuals(past: Retrospect, metric: int) -> tuple[list[int], Tensor]:
    """Rounds and residuals of one metric, ``(n,)``; unknown ones are left out."""
    rounds: list[int] = []
    parts = [torch.empty(0, dtype=torch.float64)]
    for moment in past.moments:
        if moment.z is not None:
            z = moment.z[:, metric]
            z = z[z.isfinite()]
            rounds += [moment.round] * len(z)
            parts.append(z)
    return rounds, torch.cat(parts)


def share_within(z: Tensor, level: float) -> float:
    """Share of residuals within the two-sided interval of a level; NaN of none."""
    edge = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    return float((z.abs() <= edge).double().mean()) if len(z) else math.nan


def sampling_interval(level: float, num: int) -> tuple[float, float]:
    """Where the share of so many independent residuals lies with 95 %, if the level is right."""
    if not num:
        return math.nan, math.nan
    half = 1.96 * math.sqrt(level * (1 - level) / num)
    return max(0.0, level - half), min(1.0, level + half)


def coverage(facts: Facts, past: Retrospect) -> Table:
    """Per metric: how many of the new deltas lay within their prediction intervals."""
    metrics = facts.problem.metrics
    each = [residuals(past, m)[1] for m in range(len(metrics))]
    widest = _LEVELS[-1]
    bands = [sampling_interval(widest, len(z)) for z in each]
    several = [z if len(z) > 1 else torch.full((2,), torch.nan) for z in each]
    return table(
        ("metric", "metric", "text", metrics),
        ("num", "new deltas", "whole", map(len, each)),
        *(
            (f"c{v}", f"within {v:.0%} intervals", "prob", [share_within(z, v) for z in each])
            for v in _LEVELS
        ),
        (
            "expected",
            f"expected within {widest:.0%}",
            "text",
            [f"{a:.1%} … {b:.1%}" if a == a else None for a, b in bands],
        ),
        ("mean", "mean residual", "number", [z.mean() for z in each]),
        ("std", "standard deviation", "number", [z.std() for z in several]),
        ("robust", "robust deviation", "number", [z.abs().median() / _QUARTILE for z in several]),
    )


def curve(facts: Facts, past: Retrospect) -> Table:
    """Level by level, the share of new deltas within the interval of each metric."""
    columns: list[Values] = [("level", "level", "prob", CURVE)]
    for m, name in enumerate(facts.problem.metrics):
        z = residuals(past, m)[1]
        columns.append((f"m{m}", name, "prob", [share_within(z, level) for level in CURVE]))
    return table(*columns)


def by_round(facts: Facts, past: Retrospect) -> Table:
    """Per round that is compared: the root mean square of its residuals, metric by metric."""
    compared = [(moment.round, moment.z) for moment in past.moments if moment.z is not None]
    rms = [z.square().nanmean(0).sqrt().tolist() for _, z in compared]
    return table(
        ("round", "round", "whole", [r for r, _ in compared]),
        ("arms", "arms", "whole", [len(z) for _, z in compared]),
        *(
            (f"m{m}", f"{name}: root mean square", "number", [row[m] for row in rms])
            for m, name in enumerate(facts.problem.metrics)
        ),
    )
