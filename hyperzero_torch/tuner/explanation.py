"""A round's plan explained: each arm with its reasons, and the remarks that came with the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..problem.space import Value
from ..runtime.html import html_table


@dataclass(frozen=True)
class ReadingsBehind:
    """The readings of a candidate from one round: users, and the highest revision."""

    round: int
    users: float
    revision: int
    counts: bool
    """False where the round is excluded."""


@dataclass(frozen=True)
class ArmReason:
    """One arm of a plan, and the model of it when it was planned.

    Args:
        candidate: its id; 0 is the control.
        share: of the traffic.
        slots: won in draws or granted.
        why: the reasons, in sentences.
        origin: how it entered the bucket, and in which round.
        parameters: its theta.
        prob_best: probability of being the best feasible of the plan's arms; None without a fit.
        prob_feasible: probability that all constraints hold.
        objective: mean, lower and upper bound.
        delta: by metric, posterior mean and standard deviation.
        readings: that had arrived.
    """

    candidate: int
    share: float
    slots: int
    why: tuple[str, ...]
    origin: str
    parameters: dict[str, Value]
    prob_best: float | None
    prob_feasible: float
    objective: tuple[float, float, float]
    delta: dict[str, tuple[float, float]]
    readings: tuple[ReadingsBehind, ...]


@dataclass(frozen=True, repr=False)
class Explanation:
    """A round's plan explained.

    ``remarks`` are the decisions that came with it, and how other domains were used;
    ``transfer`` are the facts behind that, as they were recorded, None without other domains.
    """

    round: int
    arms: tuple[ArmReason, ...]
    remarks: tuple[str, ...]
    transfer: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Explanation(round={self.round}, arms={len(self.arms) - 1})"

    def _repr_html_(self) -> str:
        columns = ["candidate", "share", "P(best)", "P(feasible)", "objective", "parameters", "why"]
        rows = []
        for arm in sorted(self.arms, key=lambda a: (a.candidate != 0, -a.share)):
            mean, low, high = arm.objective
            has_estimate = not math.isnan(mean)
            values = arm.parameters.items()
            rows.append(
                (
                    arm.candidate,
                    f"{arm.share:.2%}",
                    None if arm.prob_best is None else f"{arm.prob_best:.1%}",
                    f"{arm.prob_feasible:.1%}" if has_estimate else None,
                    f"{mean:.4g} ({low:.4g} … {high:.4g})" if has_estimate else None,
                    ", ".join(
                        f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in values
                    ),
                    "; ".join(arm.why),
                )
            )
        return html_table(f"Round {self.round} explained", columns, rows, self.remarks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
