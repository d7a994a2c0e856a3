"""Proposing a smaller search space where sources agree; nothing is applied automatically.

    fixed      a parameter whose total Sobol index is small in every source, with confidence
    narrowed   bounds around the region of every source's best settings, and the base

Both are computed from joint draws of each source's posterior, so a source with little evidence
excludes little. Hyperparameters are at their best fit; their uncertainty is not included. A space
that was narrowed wrongly looks fine from inside: keep some traffic on the full space where that
matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ProblemError
from ..problem import linear
from ..problem.parameters import Choice, Float, Int, Value
from ..problem.problem import Problem
from ..problem.space import SearchSpace
from . import checks
from .model.source_posterior import SourcePosterior
from .sensitivity import points, total_effects

_NUM_POINTS = 256
_NUM_DRAWS = 64
_FEWEST_SOURCES = 2
# Bounds are narrowed if at most this part of the old ones remains, with this margin on each side.
_WORTH = 0.7
_MARGIN = 0.1


class Sensitivity(NamedTuple):
    """The part of a metric's variance over the space that involves a parameter, in one source.

    The total Sobol index, in [0, 1] apart from Monte Carlo error: its posterior ``mean`` and the
    central interval ``low`` to ``high``.
    """

    source: str
    parameter: str
    metric: str
    mean: float
    low: float
    high: float


class Reason(NamedTuple):
    """The proposal for a parameter (``"fix"``, ``"narrow"`` or ``"keep"``), and why."""

    parameter: str
    what: str
    why: str


@dataclass(frozen=True)
class Proposal:
    """A smaller space, for a person to accept or reject.

    ``space`` and ``base`` are without the ``fixed`` parameters; ``narrowed`` are new bounds.
    ``reasons`` (one for each parameter) and ``sensitivities`` justify it.
    """

    space: SearchSpace
    base: Mapping[str, Value]
    fixed: Mapping[str, Value]
    narrowed: Mapping[str, tuple[float, float]]
    reasons: tuple[Reason, ...]
    sensitivities: tuple[Sensitivity, ...]

    def complete(self, parameters: Mapping[str, Value]) -> dict[str, Value]:
        """A setting of the smaller space with the fixed parameters, ready to serve."""
        return {**self.fixed, **parameters}

    def table(self) -> list[dict[str, Any]]:
        """The reasons and sensitivities as rows."""
        why = {r.parameter: r for r in self.reasons}
        return [s._asdict() | {"what": why[s.parameter].what} for s in self.sensitivities]


def sensitivities(
    name: str,
    learned: SourcePosterior,
    space: SearchSpace,
    generator: torch.Generator,
    confidence: float = 0.95,
) -> list[Sensitivity]:
    """Total Sobol indices of every parameter and metric in one source's posterior.

    Args:
        learned: its posterior over the target's unit cube.
        space: the target's; its constraints are not applied: indices are over the whole box.
    """
    x = points(space, _NUM_POINTS)  # (1 + params, N, dims)
    paths = learned.posterior.paths(_NUM_DRAWS, generator=generator)
    values = paths(x.flatten(0, 1).to(learned.posterior.device)).cpu().transpose(0, 1)
    bands = total_effects(values.reshape(*x.shape[:2], *values.shape[1:]), confidence)
    return [
        Sensitivity(name, p, m, *bands[:, j, i].tolist())
        for i, p in enumerate(space.names)
        for j, m in enumerate(learned.metrics)
    ]


def propose(
    problem: Problem,
    sources: Mapping[str, SourcePosterior],
    generator: torch.Generator,
    negligible: float = 0.05,
    confidence: float = 0.95,
) -> Proposal:
    """A smaller space on which at least two sources agree.

    A parameter is fixed at the base's value if the upper end of its total Sobol index is below
    ``negligible`` in every source and for every metric, unless a constraint on theta names it; the
    most influential parameter always stays. A Float or Int is narrowed to the region of the best
    feasible settings of every source, with a margin, if that is less than seven tenths of its
    bounds; the base stays inside. Only sources with all metrics are used for narrowing.

    Args:
        sources: posteriors of the sources; see ``source_posterior.fit_source``.
        negligible: part of a metric's variance.
        confidence: of the intervals.
    Raises:
        ConfigError: fewer than two sources, or numbers outside (0, 1).
    """
    flaws = checks.Flaws("this proposal")
    if len(sources) < _FEWEST_SOURCES:
        flaws.add(f"agreement needs at least {_FEWEST_SOURCES} sources, got {len(sources)}")
    if not 0 < negligible < 1 or not 0 < confidence < 1:
        flaws.add(f"negligible and confidence must lie in (0, 1), got {negligible}, {confidence}")
    flaws.throw()
    space = problem.space
    indices = [
        s
        for name, learned in sources.items()
        for s in sensitivities(name, learned, space, generator, confidence)
    ]
    intervals, why_not = _best_region(problem, sources, generator, confidence)
    largest = {
        p: max((s for s in indices if s.parameter == p), key=lambda s: s.high) for p in space.names
    }
    stays = max(space.names, key=lambda p: largest[p].high)
    fixed: dict[str, Value] = {}
    narrowed: dict[str, tuple[float, float]] = {}
    reasons: list[Reason] = []
    for i, name in enumerate(space.names):
        worst = largest[name]
        most = (
            f"its total index is at most {worst.high:.3g} ({worst.metric} in {worst.source}) in "
            f"{len(sources)} sources"
        )
        constraints = _constraints_on(space, i)
        small = worst.high < negligible
        if small and name != stays and not constraints:
            fixed[name] = problem.base[name]
            why = f"{most}, below {negligible:g}; fixed at the base's {problem.base[name]!r}"
            reasons.append(Reason(name, "fix", why))
            continue
        bounds = None if intervals is None else _narrower(problem, i, intervals)
        if bounds is not None:
            narrowed[name] = bounds
            why = f"the best settings of all sources lie in [{bounds[0]:.6g}, {bounds[1]:.6g}]"
            reasons.append(Reason(name, "narrow", f"{why}; {most}"))
            continue
        if small and constraints:
            most += f"; the constraint {constraints[0]!r} names it"
        why = f"not narrowed: {why_not or 'the best settings are spread over its bounds'}"
        reasons.append(Reason(name, "keep", f"{most}; {why}"))
    kept = [_bounded(p, narrowed) for p in space.parameters if p.name not in fixed]
    return Proposal(
        space=SearchSpace(kept, space.constraints),
        base={n: v for n, v in problem.base.items() if n not in fixed},
        fixed=fixed,
        narrowed=narrowed,
        reasons=tuple(reasons),
        sensitivities=tuple(indices),
    )


def _constraints_on(space: SearchSpace, i: int) -> list[str]:
    """Constraints on theta that name a parameter."""
    rows = [linear.parse_linear(source, space.parameters) for source in space.constraints]
    return [row.source for row in rows if row.coefficients[i]]


def _best_region(
    problem: Problem,
    sources: Mapping[str, SourcePosterior],
    generator: torch.Generator,
    confidence: float,
) -> tuple[Tensor | None, str]:
    """Where the best feasible settings lie, ``(params, 2)`` in [0, 1]; or why it is not known.

    The union over sources of the central interval of the best point of a draw.
    """
    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    ends = []
    seed = int(torch.randint(2**31, (1,), generator=generator))
    x = problem.space.sobol(4 * _NUM_POINTS, seed)
    place = _places(problem.space, x)
    for name, (posterior, metrics) in sources.items():
        if metrics != problem.metrics:
            return None, f"{name!r} does not have every metric"
        paths = posterior.paths(4 * _NUM_DRAWS, generator=generator)
        try:
            with torch.no_grad():
                outcome = problem.evaluate(paths(x.to(posterior.device)).cpu())
        except ProblemError:
            return None, "the problem depends on levels, which are not known yet"
        utility = torch.where(outcome.feasible, outcome.utility, -torch.inf)
        solvable = outcome.feasible.any(-1)
        if int(solvable.sum()) < _NUM_DRAWS:
            return None, f"most draws of {name!r} have no feasible setting"
        best = place[utility[solvable].argmax(-1)]  # (draws, params)
        ends.append(torch.quantile(best, tail, dim=0))
    low, high = torch.stack(ends).unbind(1)
    return torch.stack([low.amin(0), high.amax(0)], -1), ""


def _places(space: SearchSpace, x: Tensor) -> Tensor:
    """One number in [0, 1] for each parameter, ``(N, params)``; 0 for a Choice."""
    parts = zip(space.parameters, torch.split(x, list(space.widths), dim=-1))
    zero = x.new_zeros(len(x))
    return torch.stack([zero if isinstance(p, Choice) else part[:, 0] for p, part in parts], -1)


def _narrower(problem: Problem, i: int, intervals: Tensor) -> tuple[float, float] | None:
    parameter = problem.space.parameters[i]
    if isinstance(parameter, Choice):
        return None
    base = float(parameter.to_unit(problem.base_theta[i])[0])
    low = max(0.0, min(float(intervals[i, 0]) - _MARGIN, base))
    high = min(1.0, max(float(intervals[i, 1]) + _MARGIN, base))
    if high - low > _WORTH:
        return None
    ends = parameter.from_unit(torch.tensor([[low], [high]], dtype=torch.float64)).tolist()
    ends = [min(ends[0], float(problem.base_theta[i])), max(ends[1], float(problem.base_theta[i]))]
    return (ends[0], ends[1]) if ends[0] < ends[1] else None


def _bounded(
    parameter: Float | Int | Choice, narrowed: Mapping[str, tuple[float, float]]
) -> Float | Int | Choice:
    if parameter.name not in narrowed or isinstance(parameter, Choice):
        return parameter
    low, high = narrowed[parameter.name]
    if isinstance(parameter, Int):
        return Int(parameter.name, round(low), round(high))
    return Float(parameter.name, low, high, parameter.log)
