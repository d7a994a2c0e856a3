"""Windows: hours that are pooled into one delta, until the control's mean is known well enough.

Where the control has few conversions in an hour, or a mean near zero, the hour has no delta worth
having: the ratio of two small numbers is biased, and leaving out hours without a conversion
selects. So each candidate's hours are pooled, metric by metric, into windows. With the same hours
for both sides and the weights of Mantel and Haenszel for a common ratio,

    w_t = n_t n0_t / (n_t + n0_t)       X = sum_t w_t x_t       Y = sum_t w_t y_t

the delta of a window is that of X over Y (``delta``), with the variances sum_t w_t^2 vx_t / n_t and
sum_t w_t^2 vy_t / n0_t. A rhythm of the level cancels, because both sides have the same hours.

A window ends when the control's coefficient of variation is expected to be small: when its
information, (sum w l)^2 / sum w^2 s / n0, reaches ``REQUIRED``. l and s are the level and the
variance of *all arms* of the hour. A rule by the control's own readings would end windows where
these are high by chance; the sum over all arms says nothing about how it is divided between two of
them.

An hour with enough information is a window of its own. Hours after the last complete window belong
to that window. Where there is none, the sums wait: they are pooled with those of other blocks, and
have no delta before they suffice together.

Source: Mantel and Haenszel (1959); Greenland and Robins (1985), the variance for sparse strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import delta
from .delta import Delta
from .moments import Moments

#: Information that a window needs: a coefficient of variation of 1 / sqrt(50) = 14 % of the
#: control's mean, as of 50 conversions. The bias that is left is then below a tenth of the standard
#: deviation after a week (``python -m bench.reliability.thin``).
REQUIRED = 50.0


class Sums(NamedTuple):
    """Sums over hours of a candidate, each ``(rows, metrics)``; 0 where a side did not report.

    ``users`` of the treatment; ``treatment`` sum w x, ``control`` sum w y, ``treatment_var`` sum
    w^2 vx / n, ``control_var`` sum w^2 vy / n0; of all arms ``level`` sum w l, ``level_var`` sum
    w^2 s / n0, and ``pooled_var`` sum w s, which is sum w^2 (s / n + s / n0).
    """

    users: Tensor
    treatment: Tensor
    control: Tensor
    treatment_var: Tensor
    control_var: Tensor
    level: Tensor
    level_var: Tensor
    pooled_var: Tensor

    def add(self, other: Sums) -> Sums:
        """The sums over the hours of both."""
        return Sums(*(a + b for a, b in zip(self, other)))

    @property
    def information(self) -> Tensor:
        """The control's expected squared mean over its variance; 0 without readings."""
        return information(self.level, self.level_var)

    @property
    def precision(self) -> Tensor:
        """The delta's inverse variance as the level of all arms predicts it; 0 without readings."""
        return torch.where(self.pooled_var > 0, information(self.level, self.pooled_var), 0.0)

    def delta(self) -> Delta:
        """The delta of the treatment's sums over the control's; NaN where there is none."""
        two = torch.full_like(self.control, 2.0)  # two users: their sample variance is m2
        sides = (
            Moments(two, self.treatment, 2 * self.treatment_var),
            Moments(two, self.control, 2 * self.control_var),
        )
        return delta.ratio(*sides)


def information(level: Tensor, var: Tensor) -> Tensor:
    """The squared level over its variance; 0 where both are 0, for want of readings."""
    return torch.where((level != 0) | (var > 0), level.square() / var, 0.0)


def hours(treatment: Moments, control: Moments, level: Tensor, var: Tensor) -> Sums:
    """The sums of single hours.

    Args:
        treatment: Moments, each field ``(rows, metrics)``.
        control: of the same hours, same shape.
        level: mean of all arms of the hour, same shape.
        var: variance of one user's value over all arms of the hour, same shape.
    """
    n, n0 = treatment.count, control.count
    valid = (n > 1) & (n0 > 1) & (treatment.m2 >= 0) & (control.m2 >= 0)
    n, n0 = torch.where(valid, n, 1.0), torch.where(valid, n0, 1.0)
    w = n * n0 / (n + n0)
    fields = (
        treatment.count,
        w * treatment.mean,
        w * control.mean,
        w.square() * treatment.var / n,
        w.square() * control.var / n0,
        w * level,
        w.square() * var / n0,
        w * var,
    )
    return Sums(*(torch.where(valid, field, 0.0) for field in fields))


class Windows(NamedTuple):
    """Which rows are pooled into one delta, each ``(rows, metrics)``.

    ``last``: the row that holds the delta of the row's window, the last of a complete one; -1 where
    the row waits. ``sums``: those of the whole window in that row, 0 in its other rows; of the row
    alone where it waits.
    """

    last: Tensor
    sums: Sums


def assign(candidates: Tensor, rounds: Sequence[Tensor], sums: Sums) -> Windows:
    """Divide each candidate's hours into windows, metric by metric.

    Args:
        candidates: ``(rows,)``, indices.
        rounds: the rows of each round, in the order of time; a candidate is served once in a round.
        sums: of single hours, each field ``(rows, metrics)``.
    """
    num = int(candidates.max()) + 1 if len(candidates) else 0
    shape = (num, sums.level.shape[1])
    level = torch.stack((sums.level, sums.level_var))  # all that decides where a window ends
    pending = level.new_zeros(2, *shape)
    number = torch.zeros(shape, dtype=torch.long, device=candidates.device)
    label = torch.zeros_like(sums.level, dtype=torch.long)
    complete = torch.zeros_like(label, dtype=torch.bool)
    for rows in rounds:
        who = candidates[rows]
        label[rows] = number[who]
        now = pending[:, who] + level[:, rows]
        done = information(*now) >= REQUIRED
        complete[rows] = done
        number[who] += done.long()
        pending[:, who] = torch.where(done, 0.0, now)
    # Hours after the last complete window belong to it; without one they wait.
    window = torch.minimum(label, number[candidates] - 1)
    row = torch.arange(len(label), device=label.device).unsqueeze(-1).expand_as(label)
    column = torch.arange(shape[1], device=label.device).expand_as(label)
    ends = torch.full((num, int(number.max()) + 1 if num else 1, shape[1]), -1, device=label.device)
    at = (candidates.unsqueeze(-1).expand_as(label), label, column)
    ends[tuple(index[complete] for index in at)] = row[complete]
    last = torch.where(window >= 0, ends[at[0], window.clamp_min(0), column], -1)
    into = torch.where(last >= 0, last, row)
    return Windows(last, Sums(*(torch.zeros_like(f).scatter_add(0, into, f) for f in sums)))
