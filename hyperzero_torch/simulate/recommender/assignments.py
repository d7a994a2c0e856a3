"""An application's assignments: a candidate and its parameters for every visiting user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...problem.space import SearchSpace, Value


class Assignment(NamedTuple):
    """The candidate that a user is served, and its parameters by name.

    A user with ``is_counted=False`` is outside the experiment: served, and no exposure is logged.
    """

    candidate: int
    parameters: Mapping[str, Value]
    is_counted: bool = True


class Arms(NamedTuple):
    """The assignments of a round as tensors.

    ``arm (users,)`` is each user's place among the arms, ``is_counted (users,)`` whether it takes
    part; ``candidate (arms,)`` and ``theta (arms, params)`` are those of each arm.
    """

    arm: Tensor
    is_counted: Tensor
    candidate: Tensor
    theta: Tensor


#: From the ids of a round's visiting users to their assignments, in the same order.
Assign = Callable[[Sequence[str]], Sequence[Assignment]]


def one_by_one(assign: Callable[[str], Assignment]) -> Assign:
    """An application that asks for one user at a time, e.g. a feature-flag client."""
    return lambda users: [assign(user) for user in users]


def read_assignments(space: SearchSpace, num_users: int, assigned: Sequence[Assignment]) -> Arms:
    """What an application's assignments say of each user and of each arm."""
    if isinstance(assigned, str | Mapping) or not isinstance(assigned, Sequence):
        raise InputError(
            f"assign must return a list with one Assignment for each of the {num_users} users, "
            f"got {type(assigned).__name__}"
        )
    if len(assigned) != num_users:
        raise InputError(
            f"assign must return one Assignment for each of the {num_users} users, in their "
            f"order, got {len(assigned)}"
        )
    places: dict[int, int] = {}
    served: list[Mapping[str, Value]] = []
    arms, rows, counted = [], [], []
    for given in assigned:
        candidate, parameters, is_counted = _parts(given)
        arm = places.get(candidate)
        if arm is None:
            rows.append(space.theta(parameters, f"candidate {candidate}"))
            arm = places[candidate] = len(served)
            served.append(parameters)
        elif parameters is not served[arm] and parameters != served[arm]:
            raise InputError(
                f"candidate {candidate} has two thetas in one round, {dict(served[arm])} and "
                f"{parameters!r}; a changed theta is another candidate"
            )
        arms.append(arm)
        counted.append(is_counted)
    theta = torch.stack(rows) if rows else torch.empty(0, space.num_params, dtype=torch.float64)
    return Arms(
        torch.tensor(arms, dtype=torch.int64),
        torch.tensor(counted, dtype=torch.bool),
        torch.tensor(list(places), dtype=torch.int64),
        theta,
    )


def _parts(given: Any) -> tuple[int, Mapping[str, Value], bool]:
    try:
        candidate, parameters, *rest = given
    except (TypeError, ValueError):
        candidate = parameters = None
        rest = []
    whole = isinstance(candidate, int | np.integer) and not isinstance(candidate, bool)
    is_counted = rest[0] if rest else True
    valid = isinstance(parameters, Mapping) and isinstance(is_counted, bool) and len(rest) < 2
    if not whole or not 0 <= candidate < 2**63 or not valid:
        raise InputError(
            "assign must return Assignments, a candidate's number (0 is the control) and its "
            f"parameters by name, got {given!r}"
        )
    return int(candidate), parameters, is_counted
