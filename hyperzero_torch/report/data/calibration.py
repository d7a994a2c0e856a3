"""Does the uncertainty tell the truth? New deltas against what was believed before they came.

Residuals are whitened: in units of their predictive spread (of belief and of the new delta's own
noise), each freed of what the other arms of its round explain, since they share one control. Where
belief and noise are as claimed they are independent standard normals, so that a level of 80 % must
cover 80 % of them, up to the luck of their number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .facts import Facts
from .retrospect import Past
from .tables import Kind, Table, table

_LEVELS = (0.5, 0.8, 0.95)
#: Levels that are drawn.
CURVE = tuple(i / 20 for i in range(1, 20))
#: Most residuals of a metric that are drawn; all are counted.
MOST_POINTS = 600
# Half the middle half of a standard normal.
_QUARTILE = 0.6744897501960817


def residuals(past: Past, metric: int) -> tuple[list[int], Tensor]:
    """Rounds and residuals of one metric, ``(n,)``, those that are not known left out."""
    rounds: list[int] = []
    found = []
    for moment in past.moments:
        if moment.z is not None:
            z = moment.z[:, metric]
            z = z[z.isfinite()]
            rounds += [moment.round] * len(z)
            found.append(z)
    return rounds, torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


def covered(z: Tensor, level: float) -> float:
    """Share of residuals within the two-sided interval of a level; NaN of none."""
    edge = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    return float((z.abs() <= edge).double().mean()) if len(z) else math.nan


def luck(level: float, num: int) -> tuple[float, float]:
    """Where the share of so many independent residuals lies with 95 %, if the level is true."""
    if not num:
        return math.nan, math.nan
    half = 1.96 * math.sqrt(level * (1 - level) / num)
    return max(0.0, level - half), min(1.0, level + half)


def coverage(facts: Facts, past: Past) -> Table:
    """Per metric: how many of the new deltas lay within their prediction intervals."""
    columns: list[tuple[str, str, Kind]] = [
        ("metric", "metric", "text"),
        ("num", "new deltas", "whole"),
    ]
    columns += [(f"c{level}", f"within {level:.0%} intervals", "prob") for level in _LEVELS]
    columns += [
        ("luck", f"{_LEVELS[-1]:.0%} if true", "text"),
        ("mean", "mean residual", "number"),
        ("std", "spread", "number"),
        ("robust", "robust spread", "number"),
    ]
    rows: list[tuple[object, ...]] = []
    for m, name in enumerate(facts.problem.metrics):
        _, z = residuals(past, m)
        low, high = luck(_LEVELS[-1], len(z))
        several = len(z) > 1
        rows.append(
            (
                name,
                len(z),
                *(covered(z, level) for level in _LEVELS),
                f"{low:.1%} … {high:.1%}" if len(z) else None,
                float(z.mean()) if len(z) else math.nan,
                float(z.std()) if several else math.nan,
                float(z.abs().median()) / _QUARTILE if several else math.nan,
            )
        )
    return table(columns, rows)


def curve(facts: Facts, past: Past) -> Table:
    """Level by level, the share of new deltas within the interval of each metric."""
    each = [residuals(past, m)[1] for m in range(facts.problem.num_metrics)]
    columns: list[tuple[str, str, Kind]] = [("level", "level", "prob")]
    columns += [(f"m{m}", name, "prob") for m, name in enumerate(facts.problem.metrics)]
    return table(columns, [(level, *(covered(z, level) for z in each)) for level in CURVE])


def by_round(facts: Facts, past: Past) -> Table:
    """Per round that is compared: the spread of its residuals, metric by metric."""
    columns: list[tuple[str, str, Kind]] = [("round", "round", "whole"), ("arms", "arms", "whole")]
    columns += [(f"m{m}", f"spread of {n}", "number") for m, n in enumerate(facts.problem.metrics)]
    rows = []
    for moment in past.moments:
        if moment.z is not None:
            spread = moment.z.square().nanmean(0).sqrt().tolist()
            rows.append((moment.round, len(moment.z), *spread))
    return table(columns, rows)
