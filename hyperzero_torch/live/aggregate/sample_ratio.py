"""The sample-ratio-mismatch test: do counted users fit the planned shares?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...errors import ConfigError
from ...stats.sample_ratio import p_value

# Users in arms that the plan does not have are left out where they are at most this share of the
# round's users: a few clients with broken state. More of them are a mismatch of the whole round.
_MAX_STRAY = 0.01


def check_shares(round: int, shares: Any) -> dict[int, float]:
    """The planned shares of one round, validated.

    Raises:
        ConfigError: not a mapping from candidate to share, a share that is negative or not finite,
            or shares that do not sum to 1.
    """
    if not isinstance(shares, Mapping) or not shares:
        raise ConfigError(
            f"planned shares of round {round} must map candidates to shares, got {shares!r}"
        )
    planned: dict[int, float] = {}
    for candidate, share in shares.items():
        try:
            number = float(share)
        except (TypeError, ValueError):
            number = float("nan")
        whole = isinstance(candidate, int | np.integer) and not isinstance(candidate, bool)
        if not whole or candidate < 0 or not (0 <= number <= 1 + 1e-6):
            raise ConfigError(
                f"planned shares of round {round}: candidate {candidate!r} with share {share!r}; "
                "expected a whole number >= 0 and a fraction in [0, 1]"
            )
        planned[int(candidate)] = number
    total = sum(planned.values())
    if abs(total - 1) > 1e-6:
        raise ConfigError(
            f"planned shares of round {round} sum to {total:.9g}, expected 1 including the "
            "control's"
        )
    return planned


def planned_arms(
    arms: list[dict[str, Any]], planned: Mapping[int, float] | None
) -> tuple[list[dict[str, Any]], int]:
    """The arms of the plan, and the users of others where these are only a few."""
    if planned is None:
        return arms, 0
    stray = sum(int(r["users"]) for r in arms if planned.get(int(r["arm"]), 0.0) == 0.0)
    total = sum(int(r["users"]) for r in arms)
    if not stray or not (stray == 1 < total or stray <= _MAX_STRAY * total):
        return arms, 0
    return [r for r in arms if planned.get(int(r["arm"]), 0.0) > 0.0], stray


def mismatch(
    counted: Mapping[int, int], planned: Mapping[int, float], alpha: float
) -> tuple[float, str | None]:
    """Pearson's chi-square test of counted users against planned shares.

    Arms with fewer than five expected users are tested together as one. Users in an arm without a
    planned share are a mismatch.

    Args:
        counted: users per candidate.
        planned: share per candidate, sums to 1.
        alpha: the false-alarm rate per round.
    Returns:
        The p-value, and the mismatch in words: None where p >= alpha.
    """
    num_users = sum(counted.values())
    if num_users == 0:
        return 1.0, None
    unplanned = sorted(c for c, n in counted.items() if n > 0 and planned.get(c, 0.0) == 0.0)
    if unplanned:
        users = sum(counted[c] for c in unplanned)
        return 0.0, (
            f"sample-ratio mismatch: p = 0, {users:,} users counted in arms that the plan gives "
            f"no share: {unplanned[:10]}, 0 expected"
        )
    arms = [c for c in sorted(planned) if planned[c] > 0]
    observed = np.array([counted.get(c, 0) for c in arms], dtype=np.float64)
    expected = np.array([planned[c] for c in arms]) * num_users / sum(planned.values())
    p = float(p_value(torch.from_numpy(observed), torch.from_numpy(expected)))
    if p >= alpha:
        return p, None
    worst = int(np.argmax(np.abs(observed - expected) / np.sqrt(expected)))
    return p, (
        f"sample-ratio mismatch: p = {p:.3g} < {alpha:g} over {len(arms)} arms and "
        f"{num_users:,} users; worst is arm {arms[worst]}: {expected[worst]:,.1f} users expected, "
        f"{int(observed[worst]):,} counted"
    )
