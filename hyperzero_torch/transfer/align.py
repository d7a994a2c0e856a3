"""How a source's evidence is brought into the target's space and metrics, by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import SpaceError
from ..parameters import Float, Int, Value
from ..problem import Problem
from ..space import SearchSpace
from . import checks, features
from .checks import Flaws, shown

if TYPE_CHECKING:
    from .source import Source  # which offers ``align`` beside it

# A whole number in another unit comes back with an error of rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rescaled:
    """In a mapping: the target's value is ``factor`` times the source's value of ``name``."""

    name: str
    factor: float


class Aligned(NamedTuple):
    """A source in the target's terms: ``n`` settings that the target can serve.

    ``x (n, dims)`` lies in the target's unit cube (a Choice takes one coordinate per option);
    ``mean`` and ``var (n, metrics)`` are in the target's order, NaN and infinity where missing;
    ``shared (metrics, n, n)`` or None, as in ``Source``. ``base (dims,)`` is the source's control
    in the target's cube, None where it is not known or not in it. ``rows`` are the settings kept,
    by their number in the source; ``num_outside`` lay outside the target's space, and
    ``num_silent`` had no evidence on any of the target's metrics. ``missing`` are the target's
    metrics of which the source knows nothing, ``ignored`` the source's parameters and metrics
    that the target does not have. ``meta`` are its meta-features, by the target's metrics.
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


def align(
    source: Source,
    problem: Problem,
    mapping: Mapping[str, str | Rescaled] | None = None,
    ignore: Collection[str] = (),
) -> Aligned:
    """The source's evidence in the target's space and metrics, by name.

    Settings outside the target's space (bounds, options, constraints) are dropped and counted, as
    are settings without evidence on any of the target's metrics. A metric that the source does
    not have is missing (NaN). A parameter that only the source has is ignored where the source
    never varied it; where it did, its effect cannot be told from the others' and the source is
    refused. A source with one setting is aligned like any other.

    Args:
        source: the evidence.
        problem: the target.
        mapping: from the target's name of a parameter or metric to the source's, or for a
            parameter in another unit to ``Rescaled(source's name, factor)``; names that are not
            mapped stand for themselves.
        ignore: the source's parameters that the target does not have and that do not matter, e.g.
            fixed after ``space.propose``; only for these, varying them is no reason to refuse.
    Raises:
        ConfigError: a mapping of unknown names, a parameter of the target that the source does
            not have or has in another type, one that only the source has and varied, no common
            metric, or no setting inside the target's space; names all that is wrong.
    """
    flaws = Flaws(f"source {source.name!r} for this problem")
    if not isinstance(mapping, Mapping | None):
        flaws.add(f"mapping must map the target's names to the source's, got {mapping!r:.60}")
        flaws.throw()
    space = problem.space
    where = _read_mapping(flaws, source, problem, mapping or {})
    factor = {ours: m.factor for ours, m in where.items() if isinstance(m, Rescaled)}
    theirs = {ours: m.name if isinstance(m, Rescaled) else m for ours, m in where.items()}
    used = {theirs[name] for name in space.names}
    extra = [name for name in source.parameter_names if name not in used]
    if strange := [name for name in ignore if name not in source.parameter_names]:
        flaws.add(f"ignore: it has no {shown(strange)}")
    for name in extra:
        if name not in ignore and len({json.dumps(row[name]) for row in source.parameters}) > 1:
            flaws.add(
                f"it varied {name!r}, which the target does not have; map it to a parameter, or "
                "keep only settings with one value of it, or ignore it"
            )
    metrics = [theirs[name] for name in problem.metrics]
    missing = tuple(name for name, m in zip(problem.metrics, metrics) if m not in source.metrics)
    if len(missing) == problem.num_metrics:
        flaws.add(
            f"it has none of the metrics {list(problem.metrics)}, but {shown(source.metrics)}; "
            "map them: mapping={target's name: source's name}"
        )
    flaws.throw()

    def translated(row: Mapping[str, Value]) -> dict[str, Any]:
        named: dict[str, Any] = {ours: row[theirs[ours]] for ours in space.names}
        for parameter in space.parameters:
            if parameter.name in factor:
                value = named[parameter.name] * factor[parameter.name]
                whole = isinstance(parameter, Int) and abs(value - round(value)) < _ROUNDING * max(
                    1.0, abs(value)
                )
                named[parameter.name] = round(value) if whole else value
        return named

    placed = [_place(space, translated(row)) for row in source.parameters]
    mean = source.mean.new_full((len(source), problem.num_metrics), torch.nan)
    var = torch.full_like(mean, torch.inf)
    common = [(i, source.metrics.index(m)) for i, m in enumerate(metrics) if m in source.metrics]
    ours, columns = [i for i, _ in common], [m for _, m in common]
    mean[:, ours], var[:, ours] = source.mean[:, columns], source.var[:, columns]
    speaks = (~mean.isnan()).any(-1).tolist()
    kept = [i for i, theta in enumerate(placed) if theta is not None and speaks[i]]
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
        shared[ours] = source.shared[columns][:, kept][:, :, kept]
    base = None if source.base is None else _place(space, translated(source.base))
    return Aligned(
        name=source.name,
        x=torch.stack([space.to_unit(theta) for i in kept if (theta := placed[i]) is not None]),
        mean=mean[kept],
        var=var[kept],
        meta=features.renamed(source.meta_features, dict(zip(metrics, problem.metrics))),
        shared=shared,
        base=None if base is None else space.to_unit(base),
        rows=tuple(kept),
        num_outside=num_outside,
        num_silent=len(source) - num_outside - len(kept),
        missing=missing,
        ignored=(*extra, *(m for m in source.metrics if m not in metrics)),
    )


def _read_mapping(
    flaws: Flaws, source: Source, problem: Problem, mapping: Mapping[str, str | Rescaled]
) -> dict[str, str | Rescaled]:
    """The source's name of every parameter and metric of the target; notes what cannot be."""
    params, metrics = set(problem.space.names), set(problem.metrics)
    for ours, value in mapping.items():
        theirs = value.name if isinstance(value, Rescaled) else value
        known = source.parameter_names if ours in params else source.metrics
        if ours not in params | metrics:
            flaws.add(f"mapping: the target has no parameter or metric {ours!r}")
        elif ours in params & metrics:
            flaws.add(f"mapping: {ours!r} is both a parameter and a metric; rename the source's")
        elif theirs not in known:
            flaws.add(f"mapping: the source has no {theirs!r}, only {shown(known)}")
        elif isinstance(value, Rescaled):
            _check_rescaled(flaws, ours, value, problem.space)
    where = {n: mapping.get(n, n) for n in (*problem.space.names, *problem.metrics)}
    for parameter in problem.space.parameters:
        value = where[parameter.name]
        theirs = value.name if isinstance(value, Rescaled) else value
        if theirs not in source.parameter_names:
            flaws.add(
                f"it has no parameter {theirs!r}, only {shown(source.parameter_names)}; map it, or "
                "add the value that it always had there to the source's settings"
            )
        elif isinstance(parameter, Float | Int):
            values = [row[theirs] for row in source.parameters]
            wrong = [v for v in values if isinstance(v, str | bool)]
            if wrong:
                flaws.add(f"parameter {theirs!r} must be numbers, got {shown(wrong)}")
    for kind in (problem.space.names, problem.metrics):
        taken = [v.name if isinstance(v, Rescaled) else v for v in (where[n] for n in kind)]
        twice = sorted({n for n in taken if taken.count(n) > 1})
        if twice:
            flaws.add(f"mapping: {shown(twice)} of the source would stand for two of the target")
    return where


def _check_rescaled(flaws: Flaws, ours: str, value: Rescaled, space: SearchSpace) -> None:
    if ours not in space.names:
        flaws.add(f"mapping: {ours!r} is a metric; its deltas are fractions and have no unit")
    elif not isinstance(space.parameters[space.names.index(ours)], Float | Int):
        flaws.add(f"mapping: {ours!r} is a Choice, which has no unit; map its name alone")
    checks.floats(flaws, "mapping: factor", {ours: value.factor})
    if value.factor == 0:
        flaws.add(f"mapping: the factor of {ours!r} is 0, which would make all settings alike")


def _place(space: SearchSpace, parameters: Mapping[str, Any]) -> Tensor | None:
    try:
        return space.theta(parameters)
    except SpaceError:
        return None
