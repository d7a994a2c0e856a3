"""What the live loop tells of one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..study.plan import Plan


@dataclass(frozen=True)
class Round:
    """The result of one round.

    Args:
        round: its number.
        plan: what is to be served; None where the journal could not be reached.
        applied: whether the platform accepted the plan.
        rows: new readings.
        notes: remarks on the round.
        seconds: duration, by the loop's clock.
        rounds_without_readings: latest earlier rounds, in a row, of which no reading has arrived.
        exposure: of the last plan and day, see ``study.exposure.exposure_facts``.
    """

    round: int
    plan: Plan | None
    applied: bool
    rows: int
    notes: tuple[str, ...]
    seconds: float
    rounds_without_readings: int = 0
    exposure: Mapping[str, float | None] = field(default_factory=dict)
