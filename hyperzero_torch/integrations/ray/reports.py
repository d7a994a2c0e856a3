"""What trials of Ray Tune report, as a value, slacks and variances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConfigError, ReadingsError
from ..axes import number


class Reports:
    """Which of the reported metrics matter, and how.

    Args:
        at_most: bounds on metrics, by name.
        at_least: likewise from below.
        variances: for a metric, the name under which its variance is reported.
    Raises:
        ConfigError: bounds that are no finite numbers or leave no room, or names that are none.
    """

    def __init__(self, at_most: Any, at_least: Any, variances: Any) -> None:
        # Of each bounded metric: minus the value and plus the bound, or the other way round.
        self.bounds = [*_bounds("at_most", at_most, -1.0), *_bounds("at_least", at_least, 1.0)]
        most = {name: bound for name, sign, bound in self.bounds if sign < 0}
        for name, sign, bound in self.bounds:
            if sign > 0 and bound > most.get(name, math.inf):
                raise ConfigError(
                    f"{name!r} cannot be at least {bound} and at most {most[name]}; mend the bounds"
                )
        self._variances = _names(variances)

    def check(self, metric: str | None) -> None:
        """Once the metric is known: nobody would ever read the variance of another one.

        Raises:
            ConfigError: a variance for a metric that is neither this one nor bounded.
        """
        bounded = [name for name, _, _ in self.bounds]
        unknown = [name for name in self._variances if name not in (metric, *bounded)]
        if metric and unknown:
            raise ConfigError(
                f"variances names {unknown}, and only the metric {metric!r} and those with bounds, "
                f"{bounded}, are learnt from; correct the names or drop them"
            )

    def read(self, trial_id: str, metric: str, result: Any) -> tuple[list[float], list[float]]:
        """The value and the slacks, and their variances; NaN where not known.

        Raises:
            ReadingsError: a metric is missing or no number, or a variance negative or infinite.
        """
        if not isinstance(result, Mapping):
            raise ReadingsError(
                f"trial {trial_id} must report a mapping from metrics to numbers, got {result!r}"
            )
        names = [metric, *(name for name, _, _ in self.bounds)]
        sources = [self._variances[name] for name in names if name in self._variances]
        found = _numbers(trial_id, dict(_flat(result)), list(dict.fromkeys([*names, *sources])))
        wrong = [n for n in sources if found[n] < 0 or found[n] == math.inf]
        if wrong:
            raise ReadingsError(
                f"trial {trial_id} reported variances that are none, expected >= 0",
                [f"{name} = {found[name]}" for name in wrong],
            )
        variances = [found.get(self._variances.get(name, ""), math.nan) for name in names]
        slacks = [sign * (found[name] - bound) for name, sign, bound in self.bounds]
        return [found[metric], *slacks], variances


def _numbers(trial_id: str, flat: Mapping[str, Any], wanted: list[str]) -> dict[str, float]:
    """What was reported under these names."""
    missing = [name for name in wanted if name not in flat]
    if missing:
        raise ReadingsError(
            f"trial {trial_id} reported no {missing}; it reported "
            f"{sorted(name for name, value in flat.items() if number(value) is not None)}"
        )
    found, wrong = {}, []
    for name in wanted:
        value = number(flat[name])
        if value is None:
            wrong.append(f"{name} = {flat[name]!r}")
        else:
            found[name] = value
    if wrong:
        raise ReadingsError(f"trial {trial_id} reported what are no numbers; report floats", wrong)
    return found


def _flat(result: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Metrics by name; nested ones by the way to them, ``"eval/loss"``, as Ray names them."""
    for key, value in result.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")


def _bounds(what: str, given: Any, sign: float) -> list[tuple[str, float, float]]:
    if given is not None and (
        not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given)
    ):
        raise ConfigError(f"{what} maps names of reported metrics to numbers, got {given!r}")
    found = []
    for name, value in (given or {}).items():
        bound = number(value)
        if bound is None or not math.isfinite(bound):
            raise ConfigError(f"the bound on {name!r} must be a finite number, got {value!r}")
        found.append((name, sign, bound))
    return found


def _names(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) for pair in given.items() for name in pair
    ):
        raise ConfigError(
            "variances maps a metric to the name under which trials report its variance, got "
            f"{given!r}"
        )
    return dict(given)
