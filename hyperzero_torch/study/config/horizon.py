"""The horizon of a study: a number of rounds, or a date."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import BeforeValidator

from ...errors import ConfigError

_MOST_ROUNDS = 1_000_000


def _as_horizon(value: Any) -> int | datetime:
    """Rounds, or a date in UTC; a date without a time is its first moment."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if 1 <= value <= _MOST_ROUNDS:
            return int(value)
    elif "-" in str(value):  # "20261205" is a date in ISO 8601, and more likely a number
        try:
            at = datetime.fromisoformat(value) if isinstance(value, str) else value
            if isinstance(at, date) and not isinstance(at, datetime):
                at = datetime.combine(at, time())
            if isinstance(at, datetime):
                return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ConfigError(
        f"horizon is a number of rounds from 1 to {_MOST_ROUNDS:,}, or a date such as 2026-12-05 "
        f"or 2026-12-05T18:00+01:00, got {value!r:.60}"
    )


#: Rounds, or a date in UTC.
Horizon: TypeAlias = Annotated[int | datetime, BeforeValidator(_as_horizon)]
