"""The record of a change of goals: what held before, what holds from here on, and what follows.

A study without such a record has the goals of its header throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, StrictInt

from .record import Candidates, DecisionTrace, Record

GOALS = "goals changed"
#: Kinds that version 4 brought. Before, people could write remarks of these kinds.
GOALS_KINDS = frozenset({GOALS})


class Goals(Record):
    """A problem as ``Problem.spec()``, and the text of each term, the objective's first.

    The text is None for a callable, which a journal cannot hold.
    """

    problem: Mapping[str, Any]
    texts: tuple[str | None, ...] = ()


class Coordinate(Record):
    """Where a coordinate of the unit cube comes from.

    Its lengthscale is the geometric mean of those of the earlier coordinates ``of``, times
    ``factor``.
    """

    of: tuple[Annotated[StrictInt, Field(ge=0)], ...] = Field(min_length=1)
    factor: FiniteFloat = Field(1.0, gt=0)


class GoalsChanged(DecisionTrace):
    """The goals from here on.

    ``differences`` says in sentences what changed, ``by`` who changed it, ``last_round`` which
    round was the last that was planned before; None where none was. ``outside`` are all candidates
    that lie outside the bounds from here on. ``judged_anew`` were stopped for a guardrail that is
    gone or has changed: they compete again, unless a decision after this one stops them.
    ``options`` are all options that a Choice ever had, by parameter, in the order of their indices.
    ``cube`` is None where the unit cube stays as it was.
    """

    kind = GOALS
    version = 4
    before: Goals
    after: Goals
    differences: tuple[str, ...]
    by: str
    last_round: StrictInt | None = None
    outside: Candidates = ()
    judged_anew: Candidates = ()
    options: Mapping[str, tuple[Any, ...]] = {}
    cube: tuple[Coordinate, ...] | None = None
