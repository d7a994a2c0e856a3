"""Hours in which the control is not known well enough for a delta, pooled into windows."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from ...stats import delta, windows
from ...stats.delta import Delta
from ...stats.moments import Moments
from ...stats.windows import Sums
from ..history import CONTROL
from .arms import Arms, Totals


class Rows(NamedTuple):
    """The rows of some rounds, a delta in the last row of each window; ``(rows, metrics)``.

    ``lift`` is NaN and ``weight`` 0 in all other rows. ``loading`` is how far one standard
    deviation of the error of the row's own control moves the delta of the row's window. ``last`` is
    the row of the window's delta, -1 where the row waits; ``waiting`` are the sums of these.
    """

    lift: Delta
    weight: Tensor
    loading: Tensor
    last: Tensor
    waiting: Sums

    @property
    def window_loading(self) -> Tensor:
        """The loading of each window in the row of its delta: errors of hours are independent."""
        square = torch.where(self.last >= 0, self.loading.square(), 0.0)
        total = torch.zeros_like(square).scatter_add(0, self.last.clamp_min(0), square)
        return self.loading.sign() * total.sqrt()


def pool_thin(rows: Tensor, arms: Arms, totals: Totals, single: Rows, weigh_by_users: bool) -> Rows:
    """Pool hours in which the control is not known well enough; other hours stay as they are.

    Args:
        rows: ``(rows,)``, the candidate of each row, as an index.
        arms: the rows' moments.
        totals: of all arms, by round.
        single: every row on its own.
        weigh_by_users: weight of a window: its users, or its expected precision.
    """
    hours = _hours(arms, totals)
    if not bool((hours.information < windows.REQUIRED)[hours.users > 0].any()):
        return single
    sizes = torch.bincount(arms.slot, minlength=arms.num_rounds).tolist()
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()  # rows stand in the order of rounds
    in_rounds = [torch.arange(a, b) for a, b in itertools.pairwise(ends)]
    last, sums = windows.assign(rows, in_rounds, hours)
    row = torch.arange(len(rows)).unsqueeze(-1)
    holds = last == row
    alone = holds & (sums.users == hours.users)
    pooled = sums.delta()
    weight = sums.users if weigh_by_users else sums.precision
    window = Sums(*(field.gather(0, last.clamp_min(0)) for field in sums))
    # The derivative of X / Y by the hour's y, times the standard deviation of its error.
    treatment = delta.steady(window.treatment, window.treatment_var, window.level)
    error = treatment / window.control.square() * hours.control_var.sqrt()
    return Rows(
        lift=Delta(
            *(
                torch.where(alone, own, torch.where(holds, together, torch.nan))
                for own, together in zip(single.lift, pooled)
            )
        ),
        weight=torch.where(alone, single.weight, torch.where(holds, weight, 0.0)),
        loading=torch.where(alone, single.loading, error),
        last=last,
        waiting=Sums(*(torch.where(last < 0, field, 0.0) for field in hours)),
    )


def _hours(arms: Arms, totals: Totals) -> Sums:
    """The sums of each treatment's hour; 0 for the control's rows."""
    control = Moments(*(field[arms.control] for field in arms.moments))
    level, var = (field.nan_to_num(0.0)[arms.slot] for field in (totals.level, totals.var))
    sums = windows.hours(arms.moments, control, level, var)
    is_treatment = (arms.candidate != CONTROL).unsqueeze(-1)
    return Sums(*(torch.where(is_treatment, field, 0.0) for field in sums))
