"""What a release costs, by the accountants of ``dp-accounting``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...errors import InputError, MissingExtraError
from .. import checks

# The accountants overflow beyond these.
_MOST_NOISE, _MOST_TIMES = 1e100, 2**53


class Release(NamedTuple):
    """``times`` Gaussian mechanisms whose noise is ``noise_multiplier`` times the sensitivity."""

    what: str
    noise_multiplier: float
    times: int
    at: str


def checked(what: str, noise_multiplier: Any, count: Any, at: str | None = None) -> Release:
    """A release, made now by default.

    Raises:
        InputError: the noise or the number of mechanisms is not possible.
    """
    number = checks.is_real(noise_multiplier) and checks.is_finite(noise_multiplier)
    if not number or not 0 < noise_multiplier <= _MOST_NOISE:
        raise InputError(
            f"a noise multiplier must lie above 0 and be at most {_MOST_NOISE:g}, got "
            f"{checks.brief(noise_multiplier)}"
        )
    if type(count) is not int or not 1 <= count <= _MOST_TIMES:
        raise InputError(
            f"expected a number of mechanisms >= 1 and below 2^53, got {checks.brief(count)}"
        )
    now = datetime.now(UTC).isoformat() if at is None else at
    return Release(what, float(noise_multiplier), count, now)


def event(releases: Sequence[Release]) -> Any:
    """All releases as one event, grouped by noise: a year of hours is one composition."""
    dp = library()
    times: dict[float, int] = {}
    for r in releases:
        times[r.noise_multiplier] = times.get(r.noise_multiplier, 0) + r.times
    return dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(z), count) for z, count in times.items()]
    )


def library() -> Any:
    """``dp-accounting``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import dp_accounting
    except ImportError:
        raise MissingExtraError("a privacy budget", "dp-accounting", "privacy") from None
    return dp_accounting
