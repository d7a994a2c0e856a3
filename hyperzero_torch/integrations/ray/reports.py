"""What trials of Ray Tune report, as a value, slacks and variances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConfigError, ReadingsError
from ..axes import number


class Reports:
    """Which reported metrics are used, and how; the arguments are the searcher's.

    Raises:
        ConfigError: bounds that are not finite or contradict each other, or invalid names.
    """

    def __init__(self, at_most: Any, at_least: Any, variances: Any) -> None:
        # Name, sign and bound of each bounded metric: its slack is sign * (value - bound).
        self.bounds = [*_bounds("at_most", at_most, -1.0), *_bounds("at_least", at_least, 1.0)]
        most = {name: bound for name, sign, bound in self.bounds if sign < 0}
        for name, sign, bound in self.bounds:
            if sign > 0 and bound > most.get(name, math.inf):
                raise ConfigError(
                    f"{name!r} cannot be at least {bound} and at most {most[name]}; mend the bounds"
                )
        self._variances = _variances(variances)

    def check(self, metric: str | None) -> None:
        """Refuse variances of metrics that are neither this one, once it is known, nor bounded."""
        bounded = [name for name, _, _ in self.bounds]
        unknown = [name for name in self._variances if name not in (metric, *bounded)]
        if metric and unknown:
            raise ConfigError(
                f"variances names {unknown}, and only the metric {metric!r} and those with bounds, "
                f"{bounded}, are used; correct the names or drop them"
            )

    def read(self, trial_id: str, metric: str, result: Any) -> tuple[list[float], list[float]]:
        """The value and the slacks, and their variances; NaN where unknown.

        Raises:
            ReadingsError: a metric is missing or not a number, or a variance negative or infinite.
        """
        if not isinstance(result, Mapping):
            raise ReadingsError(
                f"trial {trial_id} must report a mapping from metrics to numbers, got {result!r}"
            )
        names = [metric, *(name for name, _, _ in self.bounds)]
        sources = [self._variances[name] for name in names if name in self._variances]
        values = _numbers(trial_id, dict(_flat(result)), list(dict.fromkeys([*names, *sources])))
        wrong = [n for n in sources if values[n] < 0 or values[n] == math.inf]
        if wrong:
            raise ReadingsError(
                f"trial {trial_id} reported invalid variances, expected >= 0 and finite",
                [f"{name} = {values[name]}" for name in wrong],
            )
        variances = [values.get(self._variances.get(name, ""), math.nan) for name in names]
        slacks = [sign * (values[name] - bound) for name, sign, bound in self.bounds]
        return [values[metric], *slacks], variances


def _numbers(trial_id: str, flat: Mapping[str, Any], wanted: list[str]) -> dict[str, float]:
    """The values reported under these names."""
    missing = [name for name in wanted if name not in flat]
    if missing:
        raise ReadingsError(
            f"trial {trial_id} reported no {missing}; it reported "
            f"{sorted(name for name, value in flat.items() if number(value) is not None)}"
        )
    values = {name: number(flat[name]) for name in wanted}
    wrong = [f"{name} = {flat[name]!r}" for name, value in values.items() if value is None]
    if wrong:
        raise ReadingsError(f"trial {trial_id} reported values that are not numbers", wrong)
    return {name: value for name, value in values.items() if value is not None}


def _flat(result: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Metrics by name; nested ones by their path, ``"eval/loss"``, as in Ray."""
    for key, value in result.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")


def _bounds(what: str, given: Any, sign: float) -> list[tuple[str, float, float]]:
    if given is not None and (
        not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given)
    ):
        raise ConfigError(f"{what} maps names of reported metrics to numbers, got {given!r}")
    bounds = []
    for name, value in (given or {}).items():
        bound = number(value)
        if bound is None or not math.isfinite(bound):
            raise ConfigError(f"the bound on {name!r} must be a finite number, got {value!r}")
        bounds.append((name, sign, bound))
    return bounds


def _variances(given: Any) -> dict[str, str]:
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
