"""Whether rounds go on being planned, by the clock.

A journal to which nothing is added looks as healthy as on the day when its loop died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

from .health import Card

#: Rounds whose times are looked at.
RECENT = 24
_LATE = 3.0  # times the usual interval


@dataclass(frozen=True)
class Planning:
    """When the last round was planned, and how long rounds usually take.

    Args:
        last: time of the last plan.
        interval: seconds between two rounds.
    """

    last: datetime
    interval: float

    @staticmethod
    def of(planned: Mapping[int, str], rounds_per_day: float) -> Planning | None:
        """From the times of the latest rounds; None where they are unknown.

        The interval is the longer of the configured one and of the median of the latest rounds, so
        that a study with a round a day is not late after three hours.

        Args:
            planned: ISO 8601 times by round, UTC where they name no zone.
            rounds_per_day: as configured.
        """
        times = [_time(planned[number]) for number in sorted(planned)[-RECENT:]]
        if not times:
            return None
        configured = 86_400 / rounds_per_day
        gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
        return Planning(times[-1], max(configured, median(gaps or [configured])))

    def card(self, now: datetime) -> Card:
        """ACT where three rounds and more should have been planned since."""
        seconds = (now - self.last).total_seconds()
        if seconds <= _LATE * self.interval:
            return Card("Planning", "PASS", "rounds are planned in time")
        what = f"no round was planned for {_span(seconds)}; one is due every {_span(self.interval)}"
        advice = (
            "check that the loop or the job that plans rounds runs; its last plan may be served"
        )
        return Card("Planning", "ACT", what, advice)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _span(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
