"""How long a study still has until its horizon, and how late the evidence of a round is.

A horizon of 72 rounds is reached 72 rounds after the first one. When it passes, the next is 72
rounds later. A date is reached once. The round at the horizon is the first that no longer counts:
a decision is made before it from the readings that have arrived.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .config import TunerConfig
from .config.horizon import Horizon
from .history import History
from .lateness import age, recent


def rounds_left(history: History, config: TunerConfig, now: datetime | None = None) -> int:
    """Rounds from the next one up to the horizon; 0 or less where a date has passed.

    Args:
        history: of the study.
        config: in force.
        now: the time, for a horizon that is a date.
    """
    horizon = config.horizon
    if isinstance(horizon, int):
        first = history.next_round if history.first_round is None else history.first_round
        return horizon - (history.next_round - first) % horizon
    return _rounds_until(horizon, config.rounds_per_day, now)


def has_passed(horizon: Horizon, now: datetime | None = None) -> bool:
    """Whether a horizon is a date that has passed. A number of rounds begins anew."""
    return isinstance(horizon, datetime) and horizon <= (now or datetime.now(UTC))


def arrived_after(history: History) -> NDArray[np.float64]:
    """Part of a round's deltas that has arrived ``k`` rounds later, ``(delays, metrics)``.

    Row 0 is what has arrived when the next round is planned; in the last row everything has. A
    delta needs its arm and the control. Learned from rounds that are older than the longest delay,
    so that late readings count too; before there are readings, nothing is late.
    """
    rounds = [(age(history, table), table.delay) for _, table in recent(history)]
    longest = max((int(delay.max(initial=0)) for _, delay in rounds), default=0)
    old = [delay for age_, delay in rounds if age_ > longest] or [delay for _, delay in rounds]
    num_by_delay = np.zeros((longest + 1, len(history.metrics)))
    for delay in old:
        arm, metric = np.nonzero((delay[1:] >= 0) & (delay[:1] >= 0))
        late = np.maximum(delay[1:], delay[:1])[arm, metric]
        np.add.at(num_by_delay, (late, metric), 1.0)
    total = num_by_delay.sum(axis=0)
    arrived: NDArray[np.float64] = num_by_delay.cumsum(axis=0) / np.maximum(total, 1.0)
    return np.where(total > 0, arrived, 1.0)


def delay_of(history: History) -> float:
    """Mean delay of a round's deltas, in rounds: that of the latest metric."""
    return float((1.0 - arrived_after(history)).sum(axis=0).max(initial=0.0))


def check_horizon(
    horizon: Horizon,
    history: History | None = None,
    now: datetime | None = None,
    rounds_per_day: int = 24,
) -> None:
    """Refuse a new horizon that has passed, or that comes before the first readings would.

    Args:
        horizon: that is put in force.
        history: of the study; None for a new one.
        now: the time.
        rounds_per_day: of the study, for a horizon that is a date.
    Raises:
        ConfigError: the date has passed, or readings of this study are later than so many rounds.
    """
    if isinstance(horizon, datetime) and has_passed(horizon, now):
        raise ConfigError(
            f"the horizon {shown(horizon)} has passed: name a later date, or a number of rounds "
            "(traffic.horizon)"
        )
    if history is None or history.last_round is None:
        return
    delay, num_rounds = delay_of(history), _rounds_until(horizon, rounds_per_day, now)
    if num_rounds <= delay:
        rounds = f"{num_rounds} round{'s' * (num_rounds != 1)}"
        what = (
            f"a horizon of {rounds}"
            if not isinstance(horizon, datetime)
            else f"the horizon {shown(horizon)}, {rounds} from now,"
        )
        raise ConfigError(
            f"{what} is not longer than the delay of this study's readings ({delay:.1f} rounds): "
            "no reading would arrive before it (traffic.horizon)"
        )


def check_changed(config: TunerConfig, before: TunerConfig, history: History) -> None:
    """Refuse a configuration whose horizon is a new one that cannot be put in force now."""
    if config.horizon != before.horizon:
        check_horizon(config.horizon, history, rounds_per_day=config.rounds_per_day)


def _rounds_until(horizon: Horizon, rounds_per_day: int, now: datetime | None) -> int:
    if isinstance(horizon, int):
        return horizon
    seconds = (horizon - (now or datetime.now(UTC))).total_seconds()
    return math.floor(seconds * rounds_per_day / 86_400)


def shown(at: datetime) -> str:
    """A date as people read it, in UTC."""
    return f"{at:%Y-%m-%d}" if at.hour == at.minute == 0 else f"{at:%Y-%m-%d %H:%M} UTC"
