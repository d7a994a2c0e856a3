"""The arms of some rounds: their moments, and those of all arms of a round together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...stats import moments
from ..history import CONTROL
from ..round_table import RoundTable


class Levels(NamedTuple):
    """The control's users, hours with any, and sum of values; ``(hours of the day, metrics)``."""

    users: Tensor
    hours: Tensor
    total: Tensor


class Arms(NamedTuple):
    """Every arm of every round with a control: moments ``(rows, metrics)``, the rest ``(rows,)``.

    ``control`` is the row of the same round's control, ``slot`` numbers rounds 0, 1, 2, ...
    """

    round: Tensor
    slot: Tensor
    candidate: Tensor
    control: Tensor
    moments: moments.Moments

    @property
    def num_rounds(self) -> int:
        """Rounds with a control."""
        return int(self.slot[-1]) + 1 if len(self.slot) else 0


def stack(tables: Sequence[tuple[int, RoundTable]], num_metrics: int) -> Arms:
    """The arms of all rounds with a control, in the order of rounds and plans."""
    tables = [(r, t) for r, t in tables if t.has_control]
    sizes = np.array([len(t.candidates) for _, t in tables], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes

    def stack(name: str) -> Tensor:
        parts = [t.counted(name) for _, t in tables]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty((0, num_metrics)))

    candidates = [t.candidates for _, t in tables]
    rounds = np.array([r for r, _ in tables], dtype=np.int64)
    return Arms(
        round=torch.from_numpy(np.repeat(rounds, sizes)),
        slot=torch.from_numpy(np.repeat(np.arange(len(tables)), sizes)),
        candidate=torch.from_numpy(
            np.concatenate(candidates) if candidates else np.empty(0, dtype=np.int64)
        ),
        control=torch.from_numpy(np.repeat(starts, sizes)),  # the control is a plan's first arm
        moments=moments.from_sample(stack("count"), stack("mean"), stack("var")),
    )


class Totals(NamedTuple):
    """All arms of each round together, ``(rounds, metrics)``.

    ``users``, mean ``level`` and variance ``var`` of one user's value; ``precision`` that each user
    adds to a relative mean, level^2 / var, and the median of all rounds where it is not known.
    """

    users: Tensor
    level: Tensor
    var: Tensor
    precision: Tensor


def all_arms(arms: Arms) -> Totals:
    """Moments over all arms. If an arm's own mean entered its weight, arms with high readings by
    chance would get more weight.
    """
    count, mean, m2 = (field.nan_to_num(0.0) for field in arms.moments)
    zero = torch.zeros(arms.num_rounds, count.shape[1], dtype=count.dtype)
    users = zero.index_add(0, arms.slot, count)
    level = zero.index_add(0, arms.slot, count * mean) / users
    freedom = zero.index_add(0, arms.slot, (count - 1).clamp_min(0))
    spread = zero.index_add(0, arms.slot, m2) / freedom
    precision = level.square() / spread
    precision = torch.where(precision.isfinite() & (precision > 0), precision, torch.nan)
    if len(precision):  # a round without any spread gets the median
        median = precision.nanmedian(dim=0).values.nan_to_num(1.0)
        precision = torch.where(precision.isnan(), median, precision)
    return Totals(users, level, spread, precision)


def predicted_precision(arms: Arms, per_user: Tensor) -> Tensor:
    """Inverse variance of each delta as its round's users predict it, ``(rows, metrics)``."""
    count = arms.moments.count.nan_to_num(0.0)
    users_both = count * count[arms.control] / (count + count[arms.control])
    return (users_both * per_user[arms.slot]).nan_to_num(0.0)


def control_levels(arms: Arms, rounds_per_day: int) -> Levels:
    """The control's users and values by hour of the day."""
    is_control = arms.candidate == CONTROL
    phase = arms.round[is_control] % rounds_per_day
    count = arms.moments.count[is_control].nan_to_num(0.0)
    total = (arms.moments.mean[is_control] * count).nan_to_num(0.0)
    zero = torch.zeros(rounds_per_day, count.shape[1], dtype=count.dtype)
    return Levels(
        users=zero.index_add(0, phase, count),
        hours=zero.index_add(0, phase, (count > 0).to(count.dtype)),
        total=zero.index_add(0, phase, total),
    )
