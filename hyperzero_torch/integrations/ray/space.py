"""What varies in Ray's parameter space, as axes of ours; and their values in Ray's nested form.

An axis is named by its path in a nested space: ``"net/lr"`` is ``config["net"]["lr"]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.tune.search.sample import (
    Categorical,
    Domain,
    Float,
    Integer,
    LogUniform,
    Quantized,
    Uniform,
)
from ray.tune.search.variant_generator import parse_spec_vars

from ...errors import ProblemError, SpaceError
from ..axes import Axis, choice_axis, number, number_axis

_SUPPORTED = (
    "supported are tune.uniform, quniform, loguniform, qloguniform, randint, qrandint, lograndint, "
    "qlograndint, choice, and constants"
)
_SEPARATOR = "/"


def axes_of(space: Any) -> list[Axis]:
    """What varies in Ray's space; Ray itself fills in the constants.

    Raises:
        ProblemError: not a mapping; grid searches, functions, conditional choices, parameters in
            lists or under names that are not plain strings; or nothing varies.
        SpaceError: invalid bounds.
    """
    if not isinstance(space, Mapping):
        raise ProblemError(
            "a space maps names to what tune.uniform and similar functions return, got "
            f"{type(space).__name__} {space!r}"
        )
    try:
        _, domains, grids = parse_spec_vars(dict(space))
    except Exception as error:  # Ray raises many types of error for malformed spaces
        raise ProblemError(f"Ray cannot read the space {dict(space)}: {error}") from error
    if grids:
        names = [_name(path) for path, _ in grids]
        raise ProblemError(f"{names} are grid searches, take tune.choice; {_SUPPORTED}")
    axes = [_axis(_name(path), domain) for path, domain in domains]
    if not axes:
        raise ProblemError(f"there is nothing to tune in {dict(space)}; {_SUPPORTED}")
    return axes


def values_at(parameters: Any, axes: Iterable[Axis]) -> dict[str, Any]:
    """The axes' values in Ray's nested parameters, by axis; ``SpaceError`` if one is missing."""
    values = {}
    for axis in axes:
        value = parameters
        for key in axis.name.split(_SEPARATOR):
            if not isinstance(value, Mapping) or key not in value:
                raise SpaceError(f"parameter {axis.name!r} is missing in {parameters!r}")
            value = value[key]
        values[axis.name] = value
    return values


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``values_at``: Ray's nested parameters."""
    parameters: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(_SEPARATOR)
        inner = parameters
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return parameters


def description(axes: Iterable[Axis]) -> list[str]:
    """One line per axis, the same in every process; a saved state is compared by these."""
    lines = (repr((axis.name, axis.parameter, axis.step, axis.values)) for axis in axes)
    return [re.sub(r" at 0x[0-9a-fA-F]+", "", line) for line in lines]


def _name(path: Sequence[Any]) -> str:
    """The name for a parameter's path; Ray accepts suggestions only at paths of plain names."""
    if any(not isinstance(key, str) or _SEPARATOR in key for key in path):
        raise ProblemError(
            f"the parameter at {list(path)} stands in a list, or under a name that is no string "
            f"or holds {_SEPARATOR!r}; give it its own name in a dict"
        )
    return _SEPARATOR.join(path)


def _axis(name: str, domain: Domain) -> Axis:
    sampler, step = domain.get_sampler(), None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    if isinstance(domain, Categorical):
        if any(_varies(value) for value in domain.categories):
            raise ProblemError(
                f"{name!r} chooses between spaces, and conditional spaces are not supported; "
                "make their parameters separate parameters"
            )
        if len(domain.categories) == 1:
            raise ProblemError(f"{name!r} can only be {domain.categories[0]!r}; make it a constant")
        return choice_axis(name, domain.categories)
    supported = isinstance(domain, Float | Integer) and isinstance(sampler, Uniform | LogUniform)
    bounds = (number(domain.lower), number(domain.upper)) if supported else (None,)
    if any(bound is None or not math.isfinite(bound) for bound in bounds):
        raise ProblemError(f"{name!r} is {domain.domain_str or domain!r}; {_SUPPORTED}")
    low, high = domain.lower, domain.upper
    if step is not None:  # Ray rounds to multiples, the upper bound included
        if not step > 0 or not math.isfinite((high - low) / step):
            raise ProblemError(f"{name!r} is rounded to multiples of {step}, expected a step > 0")
        low, high = math.ceil(low / step - 1e-9) * step, math.floor(high / step + 1e-9) * step
    elif isinstance(domain, Integer):
        low, high, step = low, high - 1, 1
    if isinstance(domain, Integer):
        low, high, step = int(low), int(high), int(step or 1)
    if low == high:
        raise ProblemError(f"{name!r} can only be {low}; make it a constant")
    return number_axis(name, low, high, log=isinstance(sampler, LogUniform), step=step)


def _varies(value: Any) -> bool:
    """Whether anything inside the value is sampled."""
    if isinstance(value, Mapping):
        return set(value) in ({"grid_search"}, {"eval"}) or any(_varies(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(_varies(v) for v in value)
    return isinstance(value, Domain)
