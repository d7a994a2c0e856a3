"""A Choice whose options keep their places while options are added, and some are closed.

Theta holds the index of an option. In a study whose options change, each option keeps its index and
its coordinate of the unit cube, so evidence of an option that is no longer served still counts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import SpaceError
from .parameters import Choice, Value
from .problem import Problem
from .space import SearchSpace


@dataclass(frozen=True)
class PartialChoice(Choice):
    """A Choice of which only the options ``open_options`` are served."""

    open_options: Sequence[Value] = ()

    @property
    def served(self) -> tuple[Value, ...]:
        """The options that are served, in the order of their indices."""
        return tuple(self.options[i] for i in self._open)

    def check_index(self, value: float) -> None:
        """Raise ``SpaceError`` unless this is the index of an option that is served."""
        if value not in self._open:
            raise SpaceError(
                f"parameter {self.name!r}: theta holds the index of an option, one of "
                f"{self._open}, got {value}"
            )

    def from_unit(self, x: Tensor) -> Tensor:
        """``(..., options)`` to the index ``(...)`` of the largest coordinate that is served."""
        index = torch.tensor(self._open, device=x.device)
        return index[x[..., index].argmax(-1)].to(x.dtype)

    def spread(self, u: Tensor) -> Tensor:
        """Uniform numbers ``(...)`` to indices ``(...)``, each served option as likely."""
        index = torch.tensor(self._open, device=u.device)
        return index[super().spread(u).long()].to(u.dtype)

    @property
    def _open(self) -> list[int]:
        return [i for i, option in enumerate(self.options) if is_among(option, self.open_options)]


def is_among(option: Value, options: Sequence[Value]) -> bool:
    """Whether it is one of the options; True is not 1."""
    return any(same_option(option, other) for other in options)


def same_option(a: Any, b: Any) -> bool:
    """Whether two values are the same option; True is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def with_options(problem: Problem, options: Mapping[str, Sequence[Value]]) -> Problem:
    """The same problem, with every Choice's options at the places that ``options`` names.

    Args:
        problem: as it was written.
        options: by parameter, all options that a study ever had, in the order of their indices;
            those that the problem does not name are closed.
    """
    parameters = [
        _placed(p, options[p.name]) if isinstance(p, Choice) and p.name in options else p
        for p in problem.space.parameters
    ]
    if parameters == list(problem.space.parameters):
        return problem
    space = SearchSpace(parameters, problem.space.constraints)
    other = copy.copy(problem)
    other.space, other.base_theta = space, space.theta(problem.base, "base")
    return other


def placed_options(before: Choice, after: Sequence[Value]) -> tuple[Value, ...]:
    """All options of ``before`` at their places, then those of ``after`` that are new."""
    new = [option for option in after if not is_among(option, before.options)]
    return (*before.options, *new)


def _placed(parameter: Choice, options: Sequence[Value]) -> Choice:
    served = tuple(option for option in options if is_among(option, parameter.served))
    if len(served) == len(options):
        return Choice(parameter.name, tuple(options))
    return PartialChoice(parameter.name, tuple(options), open_options=served)
