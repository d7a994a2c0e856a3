"""Gains of surrogates over the default, their standard errors, and which surrogate to take.

A standard error is that of a sum of independent differences. A surrogate is advised where it is
ahead of the default beyond noise (one-sided t test, ``_ALPHA`` for all surrogates together) and not
behind it in the other criterion.

Source: Vehtari, Gelman and Gabry (2017), section 5.1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

#: Name of the default model, which all others are compared with.
DEFAULT = "matern"
# Differences that a verdict needs at least, and the rate of wrong verdicts.
_LEAST = 8
_ALPHA = 0.05


class Gain(NamedTuple):
    """Log density above the default's, in nats: by metric, and in sum.

    ``error`` and ``total_error`` are standard errors; ``num`` is the number of differences.
    """

    by_metric: tuple[float, ...]
    error: tuple[float, ...]
    total: float
    total_error: float
    num: int

    def to_dict(self, metrics: Sequence[str]) -> dict[str, Any]:
        """Plain values; None where there is no number."""
        pairs = zip(self.by_metric, self.error)
        named = {name: _plain(*pair) for name, pair in zip(metrics, pairs)}
        return {"metrics": named, "sum": _plain(self.total, self.total_error), "num": self.num}


@dataclass(frozen=True)
class Contender:
    """A compared surrogate: its gains over the default, and what it took.

    ``num_failed`` of its fits failed; there the default stands in, as in a study. ``log_density``
    is the sum over metrics, by criterion, in the deltas' units.
    """

    name: str
    left_out: Gain
    ahead: Gain
    log_density: tuple[float, float]
    seconds: float
    num_failed: int
    why_failed: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Surrogates on a study's own evidence; ``advised`` is the one to take, ``advice`` says why.

    ``num_candidates`` were left out, of ``num_with_evidence``; ``rounds`` were predicted. ``own``
    is the surrogate that the study has.
    """

    metrics: tuple[str, ...]
    contenders: tuple[Contender, ...]
    advised: str
    advice: str
    num_candidates: int
    num_with_evidence: int
    rounds: tuple[int, ...]
    own: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {
            "own": self.own,
            "advised": self.advised,
            "advice": self.advice,
            "candidates_left_out": self.num_candidates,
            "candidates_with_evidence": self.num_with_evidence,
            "rounds_ahead": list(self.rounds),
            "surrogates": [
                {
                    "name": c.name,
                    "left_out": c.left_out.to_dict(self.metrics),
                    "ahead": c.ahead.to_dict(self.metrics),
                    "log_density": dict(zip(("left_out", "ahead"), map(_number, c.log_density))),
                    "failed_fits": c.num_failed,
                    "why_failed": c.why_failed,
                    "seconds": round(c.seconds, 3),
                }
                for c in self.contenders
            ],
        }


def gain_of(difference: Tensor) -> Gain:
    """Of differences ``(num, metrics)``, NaN where there is none."""
    seen = difference.isfinite()
    sums = difference.nansum(0).tolist()
    error = [_error_of_sum(column[mask]) for column, mask in zip(difference.T, seen.T)]
    whole = difference.nansum(-1)[seen.any(-1)]
    return Gain(tuple(sums), tuple(error), float(whole.sum()), _error_of_sum(whole), len(whole))


def _error_of_sum(values: Tensor) -> float:
    return float(values.std() * math.sqrt(len(values))) if len(values) > 1 else math.nan


def advice_of(contenders: Sequence[Contender]) -> tuple[str, str]:
    """The surrogate to take, and why; the default comes first."""
    others = [c for c in contenders if c.name != DEFAULT]
    num = contenders[0].ahead.num
    if not others:
        return DEFAULT, "nothing was compared with the default"
    if num < _LEAST:
        return DEFAULT, (
            f"keep the default, {DEFAULT}: {num} rounds could be predicted from earlier ones, and "
            f"a verdict needs {_LEAST}"
        )
    by = quantile(1 - _ALPHA / len(others), num - 1)
    better = [c for c in others if c.ahead.total > by * c.ahead.total_error]
    agreeing = [c for c in better if c.left_out.total > 0]
    worse = [c.name for c in others if -c.ahead.total > by * c.ahead.total_error]
    behind = f"; clearly behind it: {', '.join(worse)}" if worse else ""
    if agreeing:
        best = max(agreeing, key=lambda c: c.ahead.total)
        return best.name, (
            f"take {best.name}: it predicted {num} rounds better than the default by "
            f"{best.ahead.total:.1f} ± {best.ahead.total_error:.1f} nats, more than noise explains"
            f"{behind}"
        )
    if better:
        named = ", ".join(c.name for c in better)
        return DEFAULT, (
            f"keep the default, {DEFAULT}: {named} predicted rounds better, but candidates that "
            f"were left out worse{behind}"
        )
    return DEFAULT, (
        f"keep the default, {DEFAULT}: no other is better by more than noise explains{behind}"
    )


def quantile(probability: float, freedom: int) -> float:
    """Of Student's t, right to a percent from 7 degrees of freedom on.

    Source: Abramowitz and Stegun (1964), 26.7.5.
    """
    z = statistics.NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def _plain(value: float, error: float) -> dict[str, float | None]:
    return {"gain": _number(value), "standard_error": _number(error)}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
