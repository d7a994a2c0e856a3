"""Readings of some rounds -> deltas -> evidence of each candidate served in them.

A treatment has no delta until the control of its round has reported, metric by metric. Rows are
always taken in the order of rounds and plans, so the evidence does not depend on the order in which
readings arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...stats import delta, dispersion, evidence, moments
from ...stats.delta import Delta
from ...stats.evidence import EvidenceState
from ...stats.exposure import Exposure, exposure
from ...stats.windows import Sums
from ..config import TunerConfig
from ..decisions import Discount
from ..history import CONTROL
from ..round_table import RoundTable
from .arms import Levels, all_arms, control_levels, predicted_precision, stack
from .thin_hours import Rows, pool_thin

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


class Block(NamedTuple):
    """The pooled evidence of some rounds about the candidates served in them.

    ``candidates (c,)`` ascending; ``state`` and ``num_rounds`` have a row for each.
    ``control_loadings`` names candidates by their rows here. ``levels`` are the control's;
    ``dispersion (metrics,)`` is the factor by which variances exceed the formula's.
    ``round_precision`` and ``num_precision_rounds (metrics,)``: the precision of a
    relative mean over a whole round's traffic, by the formula, summed over rounds, and their
    number. ``waiting``: sums of hours without a delta, because the control is not known well enough
    from them; pooled over all blocks they may suffice.
    """

    candidates: Tensor
    state: EvidenceState
    num_rounds: Tensor
    control_loadings: Exposure
    levels: Levels
    dispersion: Tensor
    round_precision: Tensor
    num_precision_rounds: Tensor
    waiting: Sums

    def discounted(self, retained: Tensor) -> Block:
        """The same block with the fraction ``retained (metrics,)`` of its precision."""
        weight, mean, spread = self.state
        part = self.control_loadings.part.to(retained) * retained
        return self._replace(
            state=EvidenceState(weight * retained, mean, spread * retained),
            control_loadings=self.control_loadings._replace(part=part),
            waiting=Sums(*(field * retained for field in self.waiting)),
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
    arms = stack(tables, num_metrics)
    if pooling.calibrate:
        moderated = moments.moderate(arms.moments, arms.slot, arms.num_rounds)
        arms = arms._replace(moments=moderated)
    control = moments.Moments(*(field[arms.control] for field in arms.moments))
    lift = delta.ratio(arms.moments, control)
    is_treatment = (arms.candidate != CONTROL).unsqueeze(-1)
    lift = Delta(*(torch.where(is_treatment, field, torch.nan) for field in lift))
    weight = arms.moments.count.nan_to_num(0.0)
    totals = all_arms(arms)
    if pooling.weights == "precision":
        weight = predicted_precision(arms, totals.precision)
    ids, rows = torch.unique(arms.candidate, return_inverse=True)
    common = torch.ones(num_metrics, dtype=torch.float64)
    each = Rows(
        lift,
        weight,
        delta.control_loading(arms.moments, control, totals.level[arms.slot]),
        torch.arange(len(rows)).unsqueeze(-1).expand_as(weight),
        Sums(*(torch.zeros_like(weight) for _ in Sums._fields)),
    )
    pooled = pool_thin(rows, arms, totals, each, pooling.weights == "users")
    lift, weight, loading, last, waiting = pooled
    if pooling.calibrate:
        scatter = dispersion.fit(rows, arms.slot, lift, weight, len(ids))
        lift = Delta(lift.mean, scatter.factor * lift.var)
        loading = loading * scatter.factor.sqrt()
        weight, common = scatter.weight, scatter.common
    retained = retained_precision(discounts, arms.round, num_metrics)
    lift, weight = Delta(lift.mean, lift.var / retained), weight * retained
    zero = torch.zeros(len(ids), num_metrics, dtype=torch.float64)
    seen = lift.mean.isfinite().any(-1).double()
    num_rounds = torch.zeros(len(ids), dtype=torch.float64).index_add(0, rows, seen)
    block = Block(
        candidates=ids,
        state=evidence.summarise(rows, lift, weight, len(ids)),
        num_rounds=num_rounds.long(),
        control_loadings=exposure(rows, arms.slot, loading, lift, weight, last),
        levels=control_levels(arms, pooling.rounds_per_day),
        dispersion=common,
        round_precision=(totals.users * totals.precision).sum(0),
        num_precision_rounds=(totals.users > 0).sum(0),
        waiting=Sums(*(zero.index_add(0, rows, field * retained) for field in waiting)),
    )
    observed = (arms.candidate != CONTROL) & (seen > 0)
    loading = pooled._replace(loading=loading).window_loading
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
