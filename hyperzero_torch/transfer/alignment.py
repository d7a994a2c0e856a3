"""Bringing a source's evidence into the target's space and metrics, by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, SpaceError
from ..problem.parameters import Float, Int, Value
from ..problem.problem import Problem
from ..problem.space import SearchSpace
from . import checks, features
from .checks import Flaws, shown
from .source import Source

# Relative rounding error of a whole number that was converted from another unit.
_ROUNDING = 1e-9
_MAP_THEM = "map it with hz.transfer.translate, or under 'map' in the study file"


@dataclass(frozen=True)
class Rescaled:
    """In a mapping: the target's value is ``factor`` times the source's value of ``name``."""

    name: str
    factor: float


class Aligned(NamedTuple):
    """A source in the target's space and metrics: ``n`` settings that the target can serve.

    ``x (n, dims)`` lies in the target's unit cube (a Choice takes one coordinate per option);
    ``mean`` and ``var (n, metrics)`` are in the target's order, NaN and infinity where missing;
    ``shared (metrics, n, n)`` or None, as in ``Source``. ``base (dims,)`` is the source's control
    in the target's cube, None if it is not known or outside. ``rows`` are the row numbers of the
    kept settings in the source; ``num_outside`` settings lay outside the target's space, and
    ``num_silent`` had no evidence on any of the target's metrics. ``missing`` are the target's
    metrics that the source does not have, ``ignored`` the source's parameters and metrics that the
    target does not have. ``meta`` are its meta-features, by the target's metrics.
    """

    name: str
    x: Tensor
    mean: Tensor
    var: Tensor
    meta: Mapping[str, float]
    shared: Tensor | None
    base: Tensor | None
    rows: tuple[int, ...]
    num_outside: int
    num_silent: int
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


def align(source: Source, problem: Problem) -> Aligned:
    """The source's evidence in the target's space and metrics, by name.

    Settings outside the target's space (bounds, options, constraints) are dropped and counted, as
    are settings without evidence on any of the target's metrics. A metric that the source does
    not have is missing (NaN). A parameter that only the source has is ignored if the source never
    varied it; otherwise its effect is confounded with the others' and the source is refused. A
    source with one setting is aligned like any other.

    Args:
        source: the evidence, under the target's names and in its units (``translate``).
        problem: the target.
    Raises:
        ConfigError: a parameter of the target that the source does not have or has in another
            type, one that only the source has and varied, no common metric, or no setting inside
            the target's space; names everything that is wrong.
    """
    _check_kinds(source, problem)
    flaws = Flaws(f"source {source.name!r} for this problem")
    space = problem.space
    extra = _check_parameters(flaws, source, space)
    if not set(problem.metrics) & set(source.metrics):
        flaws.add(
            f"it has none of the metrics {list(problem.metrics)}, but {shown(source.metrics)}; "
            f"{_MAP_THEM}"
        )
    flaws.throw()
    placed = [_place(space, row) for row in source.parameters]
    mean, var = _columns(source, problem)
    has_evidence = (~mean.isnan()).any(-1).tolist()
    kept = [i for i, theta in enumerate(placed) if theta is not None and has_evidence[i]]
    num_outside = sum(theta is None for theta in placed)
    if not kept:
        flaws.add(
            f"none of its {len(source)} settings can be used: {num_outside} lie outside the "
            f"target's space {space!r}, the others have no evidence on {list(problem.metrics)}"
        )
        flaws.throw()
    shared = None
    if source.shared is not None:
        shared = mean.new_zeros(problem.num_metrics, len(kept), len(kept))
        for i, metric in enumerate(problem.metrics):
            if metric in source.metrics:
                shared[i] = source.shared[source.metrics.index(metric)][kept][:, kept]
    base = None if source.base is None else _place(space, source.base)
    return Aligned(
        name=source.name,
        x=torch.stack([space.to_unit(theta) for i in kept if (theta := placed[i]) is not None]),
        mean=mean[kept],
        var=var[kept],
        meta=dict(source.meta_features),
        shared=shared,
        base=None if base is None else space.to_unit(base),
        rows=tuple(kept),
        num_outside=num_outside,
        num_silent=len(source) - num_outside - len(kept),
        missing=tuple(m for m in problem.metrics if m not in source.metrics),
        ignored=(*extra, *(m for m in source.metrics if m not in problem.metrics)),
    )


def _check_parameters(flaws: Flaws, source: Source, space: SearchSpace) -> list[str]:
    """Collects faults; returns the parameters that only the source has."""
    for parameter in space.parameters:
        name = parameter.name
        if name not in source.parameter_names:
            flaws.add(
                f"it has no parameter {name!r}, only {shown(source.parameter_names)}; {_MAP_THEM}, "
                "or add its constant value there to the source's settings"
            )
        elif isinstance(parameter, Float | Int):
            wrong = [v for row in source.parameters if isinstance(v := row[name], str | bool)]
            if wrong:
                flaws.add(f"parameter {name!r} must be numbers, got {shown(wrong)}")
    extra = [name for name in source.parameter_names if name not in space.names]
    for name in extra:
        if len({json.dumps(row[name]) for row in source.parameters}) > 1:
            flaws.add(
                f"it varied {name!r}, which the target does not have; map it to a parameter, or "
                "keep only settings with one value of it, or ignore it (hz.transfer.translate)"
            )
    return extra


def _columns(source: Source, problem: Problem) -> tuple[Tensor, Tensor]:
    """Means and variances in the target's order, NaN and infinity where missing."""
    mean = source.mean.new_full((len(source), problem.num_metrics), torch.nan)
    var = torch.full_like(mean, torch.inf)
    for i, metric in enumerate(problem.metrics):
        if metric in source.metrics:
            at = source.metrics.index(metric)
            mean[:, i], var[:, i] = source.mean[:, at], source.var[:, at]
    return mean, var


def translate(
    source: Source,
    problem: Problem,
    mapping: Mapping[str, str | Rescaled],
    ignore: Collection[str] = (),
) -> Source:
    """The source under the target's names and in its units.

    Args:
        mapping: from the target's name of a parameter or metric to the source's, or for a
            parameter in another unit to ``Rescaled(source's name, factor)``; other names are the
            same in both.
        ignore: the source's parameters that the target does not have and that do not matter, e.g.
            fixed after ``space_reduction.propose``: they are left out although the source varied
            them.
    Raises:
        ConfigError: a mapping of unknown names, of two to one, or with a factor that gives no
            finite number; names everything that is wrong.
    """
    _check_kinds(source, problem)
    flaws = Flaws(f"source {source.name!r} for this problem")
    if not isinstance(mapping, Mapping):
        flaws.add(
            f"mapping must map the target's names to the source's, got {checks.brief(mapping, 60)}"
        )
    if isinstance(ignore, str) or not isinstance(ignore, Collection):
        flaws.add(f"ignore must be a list of names, got {checks.brief(ignore)}")
    flaws.throw()
    theirs = _read_mapping(flaws, source, problem, mapping, ignore)
    if unknown := [name for name in ignore if name not in source.parameter_names]:
        flaws.add(f"ignore: it has no {shown(unknown)}")
    if used := [name for name in ignore if name in theirs.values()]:
        flaws.add(f"ignore: the target needs {shown(used)}")
    flaws.throw()
    params = {theirs[name]: name for name in problem.space.names}
    names = {theirs[name]: name for name in problem.metrics}
    factors = {name: m.factor for name, m in mapping.items() if isinstance(m, Rescaled)}
    kinds = {parameter.name: parameter for parameter in problem.space.parameters}

    def translated(row: Mapping[str, Value]) -> dict[str, Value]:
        named = {params.get(n, n): value for n, value in row.items() if n not in ignore}
        for name, factor in factors.items():
            value = named[name]
            if isinstance(value, int | float) and not isinstance(value, bool):
                named[name] = _scaled(flaws, name, value, factor, isinstance(kinds[name], Int))
        return named

    # A metric whose name means another metric in the target is dropped.
    kept = [m for m in source.metrics if m in names or m not in problem.metrics]
    columns = [source.metrics.index(m) for m in kept]
    metrics = {m: names.get(m, m) for m in kept}
    dropped = set(source.metrics) - set(kept)
    meta = {n: v for n, v in source.meta_features.items() if n.partition(":")[2] not in dropped}
    rows = [translated(row) for row in source.parameters]
    base = None if source.base is None else translated(source.base)
    flaws.throw()
    return replace(
        source,
        parameters=rows,
        metrics=tuple(metrics.values()),
        mean=source.mean[:, columns],
        var=source.var[:, columns],
        shared=None if source.shared is None else source.shared[columns],
        meta_features=features.renamed(meta, metrics),
        base=base,
    )


def _check_kinds(source: Any, problem: Any) -> None:
    if not isinstance(source, Source) or not isinstance(problem, Problem):
        raise ConfigError(
            "expected a hz.transfer.Source and the target's hz.Problem, got "
            f"{type(source).__name__} and {type(problem).__name__}"
        )


def _scaled(flaws: Flaws, name: str, value: float, factor: float, whole: bool) -> float | int:
    product = value * factor
    if not checks.is_finite(product):
        if not flaws.messages:  # one example is enough: there may be thousands
            flaws.add(
                f"mapping: {name!r} = {value:g} times {factor:g} is not a finite number; check the "
                "factor"
            )
        return 0.0
    near = abs(product - round(product)) < _ROUNDING * max(1.0, abs(product))
    return round(product) if whole and near else product


def _read_mapping(
    flaws: Flaws,
    source: Source,
    problem: Problem,
    mapping: Mapping[str, str | Rescaled],
    ignore: Collection[str],
) -> dict[str, str]:
    """The source's name for every name of the target; collects faults."""
    params, metrics = set(problem.space.names), set(problem.metrics)
    for ours, value in mapping.items():
        theirs = value.name if isinstance(value, Rescaled) else value
        available = source.parameter_names if ours in params else source.metrics
        if not isinstance(theirs, str):
            flaws.add(
                f"mapping: {ours!r} must be mapped to a name or Rescaled, got {checks.brief(value)}"
            )
        elif ours not in params | metrics:
            flaws.add(f"mapping: the target has no parameter or metric {ours!r}")
        elif ours in params & metrics:
            flaws.add(f"mapping: {ours!r} is both a parameter and a metric; rename the source's")
        elif theirs not in available:
            flaws.add(f"mapping: the source has no {theirs!r}, only {shown(available)}")
        elif isinstance(value, Rescaled):
            _check_rescaled(flaws, ours, value, problem.space)
    flaws.throw()
    named = {n: m.name if isinstance(m, Rescaled) else m for n, m in mapping.items()}
    where = {n: named.get(n, n) for n in (*problem.space.names, *problem.metrics)}
    for kind in (problem.space.names, problem.metrics):
        taken = [where[n] for n in kind]
        if twice := sorted({n for n in taken if taken.count(n) > 1}):
            flaws.add(f"mapping: {shown(twice)} of the source would be used for two of the target")
    taken = [*where.values(), *ignore]
    if left := sorted(n for n in params if n in source.parameter_names and n not in taken):
        flaws.add(f"mapping: the source's own {shown(left)} would be unused; ignore it")
    return where


def _check_rescaled(flaws: Flaws, ours: str, value: Rescaled, space: SearchSpace) -> None:
    if ours not in space.names:
        flaws.add(f"mapping: {ours!r} is a metric; its deltas are fractions and have no unit")
    elif not isinstance(space.parameters[space.names.index(ours)], Float | Int):
        flaws.add(f"mapping: {ours!r} is a Choice, which has no unit; map its name alone")
    checks.floats(flaws, "mapping: factor", {ours: value.factor})
    if value.factor == 0:
        flaws.add(f"mapping: the factor of {ours!r} is 0, which would make all settings equal")


def _place(space: SearchSpace, parameters: Mapping[str, Any]) -> Tensor | None:
    try:
        return space.theta({name: parameters[name] for name in space.names})
    except SpaceError:
        return None
