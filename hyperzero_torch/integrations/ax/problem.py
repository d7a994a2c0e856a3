"""An Ax experiment's search space and optimization config as a problem of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ax.core.experiment import Experiment
from ax.core.outcome_constraint import OutcomeConstraint
from ax.core.parameter import ChoiceParameter, FixedParameter, ParameterType, RangeParameter
from ax.core.search_space import SearchSpace as AxSearchSpace
from ax.core.types import ComparisonOp

from ...errors import ProblemError
from ...problem.problem import Constraint, Objective, Problem
from ...problem.space import Int, SearchSpace
from ..axes import Axis, choice_axis, number_axis, ordered_axis

_SUPPORTED = (
    "supported are RangeParameters (linear or log), ChoiceParameters that are no task, and "
    "FixedParameters"
)


def problem_of(experiment: Experiment, axes: Sequence[Axis]) -> Problem:
    """An Ax experiment's problem: objectives and absolute bounds on levels, the rest on deltas."""
    if experiment.status_quo is None:
        raise ProblemError(
            "the experiment has no status quo, and without one there are no deltas; set "
            "experiment.status_quo, or client.attach_baseline(parameters)"
        )
    wanted = experiment.optimization_config
    if wanted is None or wanted.is_moo_problem or wanted.objective.is_multi_objective:
        raise ProblemError(
            "HyperZeroNode needs an optimization config with one objective, a metric or a weighted "
            f"sum of metrics, got {wanted}; set bounds on the others as outcome constraints"
        )
    base = experiment.status_quo.parameters
    space = space_of(experiment.search_space, axes)
    row = torch.tensor([[a.theta(base.get(a.name)) for a in axes]], dtype=torch.float64)
    terms = [wanted.objective, *wanted.outcome_constraints]
    return Problem(
        space=space,
        base=space.to_parameters(row)[0],
        metrics=list(dict.fromkeys(name for term in terms for name, _ in term.metric_weights)),
        objective=Objective(_levels(wanted.objective.metric_weights)),
        constraints=[_constraint(c) for c in wanted.outcome_constraints],
    )


def _levels(weights: Sequence[tuple[str, float]]) -> str:
    return " + ".join(f"{weight!r} * level(`{name}`)" for name, weight in weights)


def _constraint(constraint: OutcomeConstraint) -> Constraint:
    """Relative bounds, in percent, apply to a delta, absolute ones to levels."""
    weights, bound = constraint.metric_weights, constraint.bound
    if constraint.relative:
        if len(weights) > 1:
            raise ProblemError(
                f"the relative bound {constraint} on several metrics is not supported; supported "
                "are relative bounds on one metric, and absolute bounds on weighted sums"
            )
        (name, weight), bound = weights[0], bound / 100
        source = f"{weight!r} * `{name}`"
    else:
        source = _levels(weights)
    least = constraint.op == ComparisonOp.GEQ
    return Constraint(
        source,
        at_least=float(bound) if least else None,
        at_most=None if least else float(bound),
        may_exclude_base=True,
    )


def axes_of(space: AxSearchSpace) -> tuple[list[Axis], dict[str, Any]]:
    """The parameters that vary as axes, and the values of those that do not."""
    axes, constants = [], {}
    for name, parameter in space.parameters.items():
        if parameter.is_disabled:
            constants[name] = parameter.default_value
        elif isinstance(parameter, FixedParameter):
            constants[name] = parameter.value
        elif parameter.is_fidelity or parameter.is_hierarchical or space.is_hierarchical:
            raise ProblemError(
                f"parameter {name!r} is a fidelity or has dependents: {_SUPPORTED}; make a space "
                "without conditions"
            )
        elif isinstance(parameter, RangeParameter) and not parameter.logit_scale:
            step = _step(parameter)
            low, high = parameter.lower, parameter.upper
            axes.append(number_axis(name, low, high, log=parameter.log_scale, step=step))
        elif isinstance(parameter, ChoiceParameter) and not parameter.is_task:
            make = ordered_axis if parameter.is_ordered else choice_axis
            if len(parameter.values) > 1:
                axes.append(make(name, parameter.values))
            else:
                constants[name] = parameter.values[0]
        else:
            raise ProblemError(f"parameter {name!r} is a {parameter!r}: {_SUPPORTED}")
    if not axes:
        raise ProblemError(f"no parameter of the search space varies: {_SUPPORTED}")
    return axes, constants


def _step(parameter: RangeParameter) -> float | None:
    """Spacing of the grid to which Ax rounds a parameter."""
    if parameter.parameter_type == ParameterType.INT:
        return 1
    return None if parameter.digits is None else float(10.0**-parameter.digits)


def space_of(space: AxSearchSpace, axes: Sequence[Axis]) -> SearchSpace:
    """Our search space, with Ax's linear constraints in the units of our theta."""
    by_name = {axis.name: axis for axis in axes}
    constraints = []
    for constraint in space.parameter_constraints:
        terms, bound = [], float(constraint.bound)
        for name, weight in constraint.constraint_dict.items():
            axis = by_name[name]
            if axis.values:
                raise ProblemError(
                    f"the constraint {constraint} is on the choice {name!r}; supported are linear "
                    "constraints on RangeParameters"
                )
            if isinstance(axis.parameter, Int):  # counts steps from the lower end
                bound -= weight * axis.low
                weight = weight * float(axis.step or 1.0)
            terms.append(f"{float(weight)!r} * `{name}`")
        constraints.append(" + ".join(terms) + f" <= {bound!r}")
    return SearchSpace([axis.parameter for axis in axes], constraints)
