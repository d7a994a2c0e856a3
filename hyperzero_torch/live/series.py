"""The state of a study as numbers for alerts, computed from its journal and the loop's last round.

Counts are those of the journal: they survive a restart, and all loops of a study show the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from ..study.config import TunerConfig
from ..study.exposure import harm_spent
from ..study.history import History
from ..study.horizon import rounds_left
from ..study.journal.missing_trace import SampleRatioMismatch, Withdrawn
from ..study.journal.switch_trace import StoppedByHand
from ..study.journal.trace import DriftFound, Stopped
from .clock import Schedule

#: Names and texts of the series; each is a gauge.
SERIES = {
    "stops": "Stops of candidates so far: by guardrails, for lost users, and by hand.",
    "stopped_candidates": "Candidates that are stopped now.",
    "suspect_rounds": "Rounds so far whose users do not fit the planned shares.",
    "excluded_rounds": "Rounds that are excluded from the evidence now.",
    "drift_alarms": "Alarms of drift so far.",
    "quarantined_readings": "Readings that are set aside as absurd now.",
    "horizon_rounds_left": "Rounds left until the horizon; below 0 its date has passed.",
    "harm_spent_ratio": "Part of the day's harm budget that plans of the last day have spent.",
}
_STOPS = (Stopped, Withdrawn, StoppedByHand)


class Moments(NamedTuple):
    """Times in seconds since 1970, NaN where there is none.

    ``evidence`` is the end of the newest round with a reading, ``lease`` the end of the lease of
    what is served, ``successes`` the last success of each part.
    """

    evidence: float
    lease: float
    successes: Mapping[str, float]


def state_of(
    history: History, config: TunerConfig, now: datetime | None = None
) -> dict[str, float]:
    """The values of ``SERIES``; ``now`` is the time, for a horizon that is a date."""
    traces = [decision.trace for decision in history.decisions]
    stops = [t for t in traces if isinstance(t, _STOPS)]
    suspects = {t.in_round for t in traces if isinstance(t, SampleRatioMismatch)} - {None}
    values: dict[str, float] = {
        "stops": sum(len(t.candidates) for t in stops),
        "stopped_candidates": len(history.status.stopped),
        "suspect_rounds": len(suspects),
        "excluded_rounds": len(history.status.excluded_rounds),
        "drift_alarms": sum(isinstance(t, DriftFound) for t in traces),
        "quarantined_readings": len(history.quarantined),
        "horizon_rounds_left": rounds_left(history, config, now),
    }
    budget, last = config.harm_budget, history.last_round
    if budget is not None and budget.per_day and last is not None:
        spent = harm_spent(history, last - config.rounds_per_day + 1)
        values["harm_spent_ratio"] = spent / budget.per_day
    return values


def moments_of(schedule: Schedule, lease: float, successes: Mapping[str, float]) -> Moments:
    """The moments of a loop; ``lease`` and ``successes`` as in ``Moments``."""
    history = schedule.tuner.history
    reported = (r for r, t in history.tables.items() if t.num_waiting < len(t.candidates))
    newest = max(reported, default=None)
    if newest is None:
        newest = max((c.rounds[-1] for c in history.compacted), default=None)
    evidence = math.nan if newest is None else schedule.begin_of(newest + 1)
    return Moments(evidence, lease, dict(successes))
