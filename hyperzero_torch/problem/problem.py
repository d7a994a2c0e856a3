"""The problem: objective and constraints over metric deltas and levels.

Objectives are maximised; slack >= 0 is feasible; everything is a fraction, never a percentage.

    delta[m]   relative change of metric m against the control of the same round
    level[m]   base_levels[m] + |base_levels[m]| * delta[m], in the metric's own unit
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ProblemError
from .expressions import parse_constraint, parse_objective
from .names import check_metrics
from .probe import probe, probe_on, zeros
from .space import Choice, Float, Int, SearchSpace
from .terms import Constraint, Objective, Source, Term
from .usage import uses

__all__ = ["Constraint", "Objective", "Outcome", "Problem"]


class Outcome(NamedTuple):
    """Values of deltas: ``utility (...)``; ``slack (..., constraints)``, >= 0 where feasible."""

    utility: Tensor
    slack: Tensor

    @property
    def feasible(self) -> Tensor:
        """Where every constraint holds, ``(...)``; a NaN slack does not hold."""
        # Column by column: several times faster than a reduction over a few constraints.
        holds = self.utility.new_ones(self.utility.shape, dtype=torch.bool)
        for slack in self.slack.unbind(-1):
            holds = holds & (slack >= 0)
        return holds


class Problem:
    """A search space, a base, metrics, an objective, and constraints.

    Args:
        space: the parameters.
        base: the control's theta, a mapping over every parameter.
        metrics: names of the metrics, in the order of every ``metrics`` axis.
        objective: a string, a callable / ``nn.Module``, or an ``Objective``; maximised.
        constraints: strings or ``Constraint``s.
        base_levels: the control's level of each metric (a mapping, or in the order of
            ``metrics``) if known; else the tuner estimates it from the control's readings.
    Raises:
        SpaceError: a base outside its space.
        ProblemError: unknown or repeated metrics, a term that is not understood or returns a wrong
            shape, a constraint that no base can satisfy, or one that nothing can break.
    """

    def __init__(
        self,
        space: SearchSpace,
        base: Mapping[str, Any],
        metrics: Sequence[str],
        objective: Source | Objective,
        constraints: Sequence[str | Constraint] = (),
        base_levels: Mapping[str, float] | Sequence[float] | Tensor | None = None,
    ) -> None:
        if not isinstance(space, SearchSpace):
            raise ProblemError(
                f"space must be a SearchSpace, got {type(space).__name__}; "
                "write SearchSpace([Float(...), ...])"
            )
        self.space = space
        self.base_theta = space.theta(base, "base")
        self.base = space.to_parameters(self.base_theta.unsqueeze(0))[0]
        self.metrics = check_metrics(metrics)
        self.num_metrics = len(self.metrics)
        self.device = torch.device("cpu")
        self.base_levels = self._read_levels(base_levels)

        wrapped = objective if isinstance(objective, Objective) else Objective(objective)
        text = wrapped.function if isinstance(wrapped.function, str) else None
        self._objective = Term(
            wrapped, None if text is None else parse_objective(text, self.metrics)
        )
        if isinstance(constraints, str | Constraint):
            constraints = [constraints]
        if not isinstance(constraints, Iterable):
            raise ProblemError(
                f"constraints must be a list, got {type(constraints).__name__}; "
                'write constraints=["watch_time >= -0.1%"], or [] for none'
            )
        constraints = list(constraints)  # read twice below
        self._constraints = tuple(self._constraint(c) for c in constraints)
        self.num_constraints = len(self._constraints)
        with torch.random.fork_rng(devices=[]):  # a term's draws must not change the user's
            zero = zeros(self.num_metrics)
            probe(self.terms, constraints, self.metrics, self._levels_or_ones(zero))
            used = torch.stack([uses(t, self.metrics, self._levels_or_ones) for t in self.terms])
        self._used = used
        self._used_levels = used & torch.tensor([[term.sees_levels] for term in self.terms])

    def _constraint(self, constraint: str | Constraint) -> Term:
        if not isinstance(constraint, str | Constraint):
            raise ProblemError(
                f"a constraint is a string or hz.Constraint, got {type(constraint).__name__}; "
                "wrap a callable: hz.Constraint(function, at_least=0.0)"
            )
        if isinstance(constraint, str):
            # Through the parser first: its message shows the place, Constraint's own does not.
            parse_constraint(constraint, self.metrics)
            constraint = Constraint(constraint)
        expression = None
        if isinstance(constraint.function, str):
            bounded = constraint.at_least is not None or constraint.at_most is not None
            parse = parse_objective if bounded else parse_constraint
            expression = parse(constraint.function, self.metrics)
        return Term(constraint, expression)

    def __repr__(self) -> str:
        return (
            f"Problem({self.space!r}, base={self.base}, metrics={list(self.metrics)}, "
            f"objective={self.objective_name!r}, constraints={list(self.constraint_names)})"
        )

    @property
    def objective_name(self) -> str:
        """The objective as it was written."""
        return self._objective.name

    @property
    def terms(self) -> tuple[Term, ...]:
        """The objective, then the constraints, as functions of deltas and levels."""
        return (self._objective, *self._constraints)

    @property
    def constraint_names(self) -> tuple[str, ...]:
        """The constraints as they were written."""
        return tuple(c.name for c in self._constraints)

    def level_constraints(self, metric: str) -> tuple[Term, ...]:
        """The written constraints that see the level of this metric and nothing else."""
        only = frozenset({metric})
        return tuple(
            c
            for c in self._constraints
            if c.expression is not None and c.expression.levels == c.expression.metrics == only
        )

    @property
    def sees_levels(self) -> bool:
        """Whether the objective or a constraint needs ``base_levels``."""
        return any(term.sees_levels for term in self.terms)

    @property
    def used_metrics(self) -> Tensor:
        """Metrics that the objective or a constraint depends on, bool ``(metrics,)``."""
        return self._used.any(0)

    @property
    def guarded_metrics(self) -> Tensor:
        """Metrics that each constraint depends on, bool ``(constraints, metrics)``."""
        return self._used[1:]

    @property
    def level_metrics(self) -> Tensor:
        """Metrics on whose base level each term may depend, bool ``(1 + constraints, metrics)``.

        The objective's row is the first.
        """
        return self._used_levels

    @property
    def levels_known(self) -> bool:
        """Whether every base level that a term depends on is known."""
        needed = self._used_levels.any(0)
        if self.base_levels is None:
            return not bool(needed.any())
        return bool(self.base_levels.cpu()[needed].isfinite().all())

    def with_base_levels(self, levels: Tensor | None) -> Problem:
        """The same problem with these base levels, ``(metrics,)``, or None: not known."""
        other = copy.copy(self)
        other.base_levels = None if levels is None else levels.to(self.device, torch.float64)
        return other

    def to(self, device: torch.device | str) -> Problem:
        """The same problem on a device; modules are copied where they have to move.

        On its own device no module is copied: one that lies elsewhere is called where it lies.
        """
        other = copy.copy(self)
        other.device = torch.empty(0, device=device).device  # "cuda" has a number now
        if other.device == self.device:
            return other
        other._objective = self._objective.to(other.device)
        other._constraints = tuple(c.to(other.device) for c in self._constraints)
        if self.base_levels is not None:
            other.base_levels = self.base_levels.to(other.device)
        return other

    def check_on(self, device: torch.device) -> None:
        """Raise ``ProblemError`` unless the objective and the constraints work on this device.

        A module that lies elsewhere does: it is copied. A callable that uses a tensor of another
        device does not.
        """
        other = self.to(device)
        with torch.random.fork_rng(devices=[]):
            level = other._levels_or_ones(zeros(self.num_metrics).to(other.device))
            probe_on(other.terms, level)

    def evaluate(self, delta: Tensor) -> Outcome:
        """Utility and slack of deltas; differentiable in ``delta``.

        Args:
            delta: ``(..., metrics)``, fractions.
        Returns:
            Outcome with utility ``(...)`` and slack ``(..., constraints)``.
        Raises:
            ProblemError: a term uses levels and the base levels are not known.
        """
        level = self._levels(delta)
        utility = self._objective(delta, level)
        if not self._constraints:
            return Outcome(utility, delta.new_empty(*delta.shape[:-1], 0))
        slacks = [c(delta, level) for c in self._constraints]
        # A stack of a single tensor would copy it.
        slack = torch.stack(slacks, dim=-1) if len(slacks) > 1 else slacks[0].unsqueeze(-1)
        return Outcome(utility, slack)

    def _levels(self, delta: Tensor) -> Tensor:
        if not self.sees_levels:
            return delta  # not used
        if self.base_levels is None:
            raise ProblemError(
                "the objective or a constraint sees levels, and the base levels are not "
                "known; pass base_levels={metric: level} to Problem, or tell the tuner the "
                "control's readings first"
            )
        base = self.base_levels.to(delta.dtype)
        # In place: the temporaries of a whole tile of draws cost more than the arithmetic.
        return (base.sign() * delta).add_(1.0).mul_(base)

    def _levels_or_ones(self, delta: Tensor) -> Tensor:
        return 1.0 + delta if self.base_levels is None else self._levels(delta)

    def _read_levels(
        self, levels: Mapping[str, float] | Sequence[float] | Tensor | None
    ) -> Tensor | None:
        if levels is None:
            return None
        if isinstance(levels, Mapping):
            if set(levels) != set(self.metrics):
                raise ProblemError(
                    f"base_levels must name exactly the metrics {list(self.metrics)}, "
                    f"got {list(levels)}"
                )
            levels = [levels[name] for name in self.metrics]
        try:
            # A copy, so that later changes to the caller's tensor have no effect here.
            tensor = torch.as_tensor(levels, dtype=torch.float64).detach().cpu().clone()
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ProblemError(
                f"base_levels must be {self.num_metrics} finite numbers, got {levels!r}"
            ) from None
        if tuple(tensor.shape) != (self.num_metrics,) or not bool(tensor.isfinite().all()):
            raise ProblemError(
                f"base_levels must be {self.num_metrics} finite numbers, got {tensor.tolist()}"
            )
        if bool((tensor == 0).any()):
            raise ProblemError(
                f"a base level of 0 has no relative change, got {tensor.tolist()}; "
                "use a metric whose base level is not 0"
            )
        return tensor

    def spec(self) -> dict[str, Any]:
        """What identifies the problem in a journal: plain JSON values, callables by name."""
        spec = {
            "parameters": [_plain(p) for p in self.space.parameters],
            "base": dict(self.base),
            "metrics": list(self.metrics),
            "objective": self.objective_name,
            "constraints": list(self.constraint_names),
            "terms": [term.identity() for term in self.terms],
            "base_levels": None if self.base_levels is None else self.base_levels.tolist(),
        }
        # Only where there are any, so that studies from before this field existed still open.
        if self.space.constraints:
            spec["theta_constraints"] = list(self.space.constraints)
        return spec


def _plain(parameter: Float | Int | Choice) -> dict[str, Any]:
    """A parameter as JSON gives it back."""
    if isinstance(parameter, Choice):
        return {"name": parameter.name, "options": [*parameter.served], "kind": parameter.kind}
    return asdict(parameter)
