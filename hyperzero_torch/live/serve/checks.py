"""Where plans are served, and what every platform checks of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ...errors import InputError
from ...problem.parameters import Value
from ...study.history import CONTROL
from ...study.plan import Plan

# Rounding error of a sum of shares; a larger difference to 1 is refused.
_SUM_TOLERANCE = 1e-12


@runtime_checkable
class Updater(Protocol):
    """Where plans are served; ``hyperzero_torch.testing.UpdaterContract`` tests an implementation.

    A platform of your own needs these two methods. Where they raise, the platform must keep serving
    the plan before.
    """

    def apply(self, plan: Plan) -> None:
        """Serve this plan from now on; the same plan again changes nothing.

        Raises:
            HyperZeroError: the plan cannot be served; the one before is still served.
        """
        ...

    def withdraw(self) -> None:
        """Serve the control alone, outside any round, until the next ``apply``.

        It changes nothing where no plan was applied yet, or where the plan was withdrawn before.
        """
        ...


def check_plan(plan: Plan) -> None:
    """Refuse a plan that a platform could not serve.

    Raises:
        InputError: a round, candidate, share or parameter that is not valid; the message names it.
    """
    ids, shares = plan.candidate_ids, plan.shares
    if not all(_is_count(number) for number in (plan.round, *ids)):
        raise InputError(
            f"rounds and candidates are whole numbers >= 0, got {plan.round!r} and {ids!r}"
        )
    if not len(ids) == len(shares) == len(plan.parameters):
        raise InputError(
            f"a plan has one share and one set of parameters per arm, got {len(shares)} and "
            f"{len(plan.parameters)} for {len(ids)} arms"
        )
    if ids[:1] != (CONTROL,) or len(set(ids)) != len(ids):
        raise InputError(
            f"a plan's candidates are the control, {CONTROL}, and then each other arm once, got "
            f"{_brief(ids)}"
        )
    _check_shares(shares)
    part = plan.experiment_share
    if not isinstance(part, int | float) or not 0 < part <= 1:
        raise InputError(f"experiment_share is a fraction above 0 and up to 1, got {part!r}")
    for candidate, parameters in zip(ids, plan.parameters):
        _check_parameters(candidate, parameters, plan.parameters[0])


def _check_shares(shares: tuple[float, ...]) -> None:
    if not all(
        isinstance(s, int | float) and math.isfinite(s) and 0.0 <= s <= 1.0 + _SUM_TOLERANCE
        for s in shares
    ):
        raise InputError(f"shares are fractions from 0 to 1, got {_brief(shares)}")
    total = math.fsum(shares)
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise InputError(f"a plan's shares must sum to 1, got {total!r}; scale them")


def _check_parameters(
    candidate: int, parameters: Mapping[str, Value], control: Mapping[str, Value]
) -> None:
    if parameters.keys() != control.keys():
        names = sorted(map(str, parameters.keys() ^ control.keys()))
        raise InputError(
            f"every arm sets the parameters that the control sets; candidate {candidate} differs "
            f"in {_brief(names)}"
        )
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise InputError(f"a parameter's name is a text, got {name!r}")
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, bool | int | float | str) or not is_finite:
            raise InputError(
                f"candidate {candidate}: parameter {_brief(name)} is {_brief(value)}; JSON holds "
                "finite numbers, texts, true and false"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
