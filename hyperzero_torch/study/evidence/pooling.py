"""Readings of some rounds -> deltas -> evidence of each candidate served in them.

A treatment has no delta until the control of its round has reported, metric by metric. Rows are
always taken in the order of rounds and plans, so the evidence does not depend on the order in which
readings arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...stats import delta, dispersion, evidence, moments
from ...stats.delta import Delta
from ...stats.evidence import EvidenceState, Exposure
from ..config import TunerConfig
from ..decisions import Discount
from ..history import CONTROL
from ..round_table import RoundTable

Weights: TypeAlias = Literal["users", "precision"]


class Pooling(NamedTuple):
    """How deltas are pooled.

    ``weights`` of a candidate's rounds: ``"users"`` (Eq. 3.2) or ``"precision"``, inverse variances
    from the all-arm level of the round, which the noise of a single arm cannot bias.
    ``rounds_per_day`` is the period of the daily cycle, for the base levels. ``calibrate``: scale
    variances and weights by the dispersion and the tails of the deltas, and moderate the sample
    variances of arms with few users. ``block_rounds``: the length of a block; None pools all rounds
    at once.
    """

    weights: Weights
    rounds_per_day: int
    calibrate: bool = False
    block_rounds: int | None = None

    @classmethod
    def of(cls, config: TunerConfig) -> Pooling:
        """How a configuration pools deltas."""
        return cls(config.weights, config.rounds_per_day, config.calibrate, config.block_rounds)


class ArmDeltas(NamedTuple):
    """One row per arm and round with a control: ``round``, ``candidate``, ``delta``, ``weight``.

    The first two are ``(rows,)``, the others ``(rows, metrics)``; NaN where a metric is missing.
    ``loading`` is how far one standard deviation of the control's error moves the delta.
    """

    round: Tensor
    candidate: Tensor
    delta: Delta
    weight: Tensor
    loading: Tensor


class Levels(NamedTuple):
    """The control's users, hours with any, and sum of values; ``(hours of the day, metrics)``."""

    users: Tensor
    hours: Tensor
    total: Tensor


class Block(NamedTuple):
    """The pooled evidence of some rounds about the candidates served in them.

    ``candidates (c,)`` ascending; ``state`` and ``num_rounds`` have a row for each.
    ``control_loadings`` names candidates by their rows here. ``levels`` are the control's;
    ``dispersion (metrics,)`` is the factor by which variances exceed the formula's.
    ``round_precision`` and ``num_precision_rounds (metrics,)``: the precision of a
    relative mean over a whole round's traffic, by the formula, summed over rounds, and their
    number.
    """

    candidates: Tensor
    state: EvidenceState
    num_rounds: Tensor
    control_loadings: Exposure
    levels: Levels
    dispersion: Tensor
    round_precision: Tensor
    num_precision_rounds: Tensor

    def discounted(self, retained: Tensor) -> Block:
        """The same block with the fraction ``retained (metrics,)`` of its precision."""
        weight, mean, spread = self.state
        part = self.control_loadings.part.to(retained) * retained
        return self._replace(
            state=EvidenceState(weight * retained, mean, spread * retained),
            control_loadings=self.control_loadings._replace(part=part),
        )


def pool(
    tables: Sequence[tuple[int, RoundTable]],
    pooling: Pooling,
    num_metrics: int,
    discounts: Sequence[Discount] = (),
) -> tuple[Block, ArmDeltas]:
    """Pool the deltas of some rounds.

    Args:
        tables: rounds in the order of time, with their readings.
        pooling: how deltas are pooled.
        num_metrics: columns.
        discounts: of evidence from before a drift.
    """
    arms = _stack(tables, num_metrics)
    if pooling.calibrate:
        moderated = moments.moderate(arms.moments, arms.slot, arms.num_rounds)
        arms = arms._replace(moments=moderated)
    control = moments.Moments(*(field[arms.control] for field in arms.moments))
    lift = delta.ratio(arms.moments, control)
    is_treatment = (arms.candidate != CONTROL).unsqueeze(-1)
    lift = Delta(*(torch.where(is_treatment, field, torch.nan) for field in lift))
    weight = arms.moments.count.nan_to_num(0.0)
    users, precision = _precision_per_user(arms)
    if pooling.weights == "precision":
        weight = _precision(arms, precision)
    ids, rows = torch.unique(arms.candidate, return_inverse=True)
    common = torch.ones(num_metrics, dtype=torch.float64)
    loading = delta.control_loading(arms.moments, control)
    if pooling.calibrate:
        scatter = dispersion.fit(rows, arms.slot, lift, weight, len(ids))
        lift = Delta(lift.mean, scatter.factor * lift.var)
        loading = loading * scatter.factor.sqrt()
        weight, common = scatter.weight, scatter.common
    retained = retained_precision(discounts, arms.round, num_metrics)
    lift, weight = Delta(lift.mean, lift.var / retained), weight * retained
    seen = lift.mean.isfinite().any(-1).double()
    num_rounds = torch.zeros(len(ids), dtype=torch.float64).index_add(0, rows, seen)
    block = Block(
        candidates=ids,
        state=evidence.summarise(rows, lift, weight, len(ids)),
        num_rounds=num_rounds.long(),
        control_loadings=evidence.exposure(rows, arms.slot, loading, lift, weight),
        levels=_levels(arms, pooling.rounds_per_day),
        dispersion=common,
        round_precision=(users * precision).sum(0),
        num_precision_rounds=(users > 0).sum(0),
    )
    observed = (arms.candidate != CONTROL) & (seen > 0)
    deltas = ArmDeltas(
        arms.round[observed],
        arms.candidate[observed],
        Delta(lift.mean[observed], lift.var[observed]),
        weight[observed],
        loading[observed],
    )
    return block, deltas


def retained_precision(discounts: Sequence[Discount], rounds: Tensor, num_metrics: int) -> Tensor:
    """The fraction of its precision that a delta of each round retains after drift.

    Args:
        discounts: of evidence from before a drift.
        rounds: ``(rows,)``.
        num_metrics: columns.
    Returns:
        ``(rows, metrics)``, in (0, 1].
    """
    share = torch.ones(len(rounds), num_metrics, dtype=torch.float64)
    for discount in discounts:
        share[rounds < discount.before, discount.metric] *= discount.factor
    return share


class _Arms(NamedTuple):
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


def _stack(tables: Sequence[tuple[int, RoundTable]], num_metrics: int) -> _Arms:
    tables = [(r, t) for r, t in tables if t.has_control]
    sizes = np.array([len(t.candidates) for _, t in tables], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes

    def stack(name: str) -> Tensor:
        parts = [getattr(t, name) for _, t in tables]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty((0, num_metrics)))

    candidates = [t.candidates for _, t in tables]
    rounds = np.array([r for r, _ in tables], dtype=np.int64)
    return _Arms(
        round=torch.from_numpy(np.repeat(rounds, sizes)),
        slot=torch.from_numpy(np.repeat(np.arange(len(tables)), sizes)),
        candidate=torch.from_numpy(
            np.concatenate(candidates) if candidates else np.empty(0, dtype=np.int64)
        ),
        control=torch.from_numpy(np.repeat(starts, sizes)),  # the control is a plan's first arm
        moments=moments.from_sample(stack("count"), stack("mean"), stack("var")),
    )


def _precision_per_user(arms: _Arms) -> tuple[Tensor, Tensor]:
    """Users of each round, and the precision that each adds: level^2 / variance; ``(rounds, m)``.

    From the round's all-arm moments. If an arm's own mean entered its weight, arms with high
    readings by chance would get more weight.
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
    return users, precision


def _precision(arms: _Arms, per_user: Tensor) -> Tensor:
    """Inverse variance of each delta as its round's users predict it, ``(rows, metrics)``."""
    count = arms.moments.count.nan_to_num(0.0)
    users_both = count * count[arms.control] / (count + count[arms.control])
    return (users_both * per_user[arms.slot]).nan_to_num(0.0)


def _levels(arms: _Arms, rounds_per_day: int) -> Levels:
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
