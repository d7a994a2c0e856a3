"""The unit cube when bounds or options change: lengthscales in the units of the new cube.

A lengthscale is a fraction of a parameter's range (of its logarithm for ``log=True``, of its number
of cells for an Int). When the range changes, the same length in the user's units is another
fraction. An option that is new gets the geometric mean of the lengthscales of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..problem.space import Choice, Float, Int, SearchSpace
from .journal.goals_trace import Coordinate, GoalsChanged
from .journal.trace import HyperparametersTrace


def coordinates(before: SearchSpace, after: SearchSpace) -> tuple[Coordinate, ...] | None:
    """Where each coordinate of the new cube comes from; None where all stay as they are.

    Args:
        before: the space with all its options at their places.
        after: the same parameters in the same order, with options added at the end.
    """
    moved: list[Coordinate] = []
    first = 0
    for old, new in zip(before.parameters, after.parameters):
        dims = range(first, first + old.width)
        first += old.width
        if isinstance(old, Choice) or isinstance(new, Choice):
            moved += [Coordinate(of=(dim,)) for dim in dims]
            moved += [Coordinate(of=tuple(dims))] * (new.width - old.width)
        else:
            moved.append(Coordinate(of=(first - 1,), factor=_extent(old) / _extent(new)))
    stay = [Coordinate(of=(dim,)) for dim in range(first)]
    return None if moved == stay else tuple(moved)


def moved(
    hyperparameters: HyperparametersTrace | None, cube: Sequence[Coordinate] | None
) -> HyperparametersTrace | None:
    """The same kernel over the new cube."""
    if hyperparameters is None or cube is None:
        return hyperparameters
    rows = tuple(
        tuple(
            c.factor * math.exp(math.fsum(math.log(row[dim]) for dim in c.of) / len(c.of))
            if len(c.of) > 1
            else c.factor * row[c.of[0]]
            for c in cube
        )
        for row in hyperparameters.lengthscale
    )
    return hyperparameters.model_copy(update={"lengthscale": rows})


def in_todays_cube(
    hyperparameters: HyperparametersTrace | None, round: int, changes: Sequence[GoalsChanged]
) -> HyperparametersTrace | None:
    """The kernel of a round's plan over the cube of today."""
    for change in changes:
        if change.last_round is not None and change.last_round >= round:
            hyperparameters = moved(hyperparameters, change.cube)
    return hyperparameters


def _extent(parameter: Float | Int) -> float:
    if isinstance(parameter, Int):
        return float(parameter.high - parameter.low + 1)
    if parameter.log:
        return math.log(parameter.high) - math.log(parameter.low)
    return parameter.high - parameter.low
