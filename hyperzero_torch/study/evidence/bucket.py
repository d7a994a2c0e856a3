"""The bucket: evidence on every candidate from all rounds, and the base levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.memory import require
from ...stats import dispersion, evidence
from ...stats.evidence import EvidenceState
from ...stats.exposure import Exposure, loadings
from ...stats.windows import REQUIRED, Sums
from ..history import History
from .arms import Levels
from .blocks import BlockCache, blocks
from .pooling import ArmDeltas, Block, Pooling, Weights, pool

# Copies of the shared covariance while it is made and standardised.
_SHARED_COPIES = 3


class Bucket(NamedTuple):
    """All candidates and their evidence; row 0 is the control, which has no deltas.

    ``mean``, ``var``, ``weight`` are ``(candidates, metrics)``, NaN and 0 without evidence;
    ``num_rounds (candidates,)`` counts rounds with evidence; ``base_levels (metrics,)`` is None
    until the control has reported every metric, and rests on ``level_hours`` hours of the day;
    ``levels_by_metric`` has what is known before, NaN elsewhere, from ``hours_by_metric``;
    ``control_levels`` are the sums behind them by hour of the day.
    ``control_loadings`` is how far control errors move sums of evidence, a block of rounds each,
    the latest rounds last. ``dispersion (metrics,)`` is the factor by which variances of the latest
    rounds exceed the formula's. ``round_precision (metrics,)`` is the precision of a relative mean
    over a whole round's traffic, by the formula, of a usual round; 0 before the first. ``deltas``
    are those of the latest rounds, which are not settled yet.
    """

    theta: Tensor
    mean: Tensor
    var: Tensor
    weight: Tensor
    num_rounds: Tensor
    base_levels: Tensor | None
    level_hours: int
    control_loadings: tuple[Exposure, ...]
    dispersion: Tensor
    round_precision: Tensor
    deltas: ArmDeltas
    levels_by_metric: Tensor | None = None
    hours_by_metric: Tensor | None = None
    control_levels: Levels | None = None

    def has_evidence(self, metrics: Tensor) -> Tensor:
        """Candidates with evidence on all of these metrics, ``(candidates,)``.

        Args:
            metrics: bool ``(metrics,)``.
        """
        return (self.weight > 0)[:, metrics].all(-1)

    @property
    def tested(self) -> Tensor:
        """Candidates with evidence on every metric, ``(candidates,)``."""
        return (self.weight > 0).all(-1)

    def shared(self, rows: Tensor) -> Tensor:
        """Covariance of the errors of these candidates' means, ``(metrics, n, n)``.

        All arms of a round were compared with one control, and share its error; the diagonal is
        the control's part of ``var``.

        Raises:
            SizeError: it would not fit into memory.
        """
        num, metrics = len(rows), self.weight.shape[1]
        require(
            _SHARED_COPIES * metrics * num**2 * self.weight.element_size(),
            self.weight.device,
            f"what {num} candidates share of the control's error, in {metrics} metrics,",
            "let more of them retire, or ask with shared_control=False",
        )
        *old, latest = self.control_loadings
        loading = loadings(latest, self.weight, rows).permute(2, 0, 1)
        shared = loading @ loading.transpose(-1, -2)
        place = torch.full((len(self.theta),), -1, dtype=torch.long)
        place[rows] = torch.arange(len(rows))
        for block in old:  # most candidates were not served in most blocks
            served = torch.zeros(len(rows) + 1, dtype=torch.bool)
            served[place[block.candidate]] = True  # the last place is for all other candidates
            at = served[:-1].nonzero().flatten()
            loading = loadings(block, self.weight, rows[at]).permute(2, 0, 1)
            shared[:, at.unsqueeze(-1), at] += loading @ loading.transpose(-1, -2)
        return shared


def gather(history: History, pooling: Pooling, cache: BlockCache | None = None) -> Bucket:
    """Pool the evidence on every candidate.

    Args:
        history: the study's facts.
        pooling: how deltas are pooled.
        cache: settled blocks of earlier calls for the same study; without it they are pooled anew.
    """
    old, rounds = blocks(history, pooling, {} if cache is None else cache)
    status, num, width = history.status, history.num_candidates, len(history.metrics)
    tables = [(r, history.tables[r]) for r in rounds if r not in status.excluded_rounds]
    latest, deltas = pool(tables, pooling, width, status.discounts)
    parts = [*old, latest]
    state, num_rounds = evidence.init(num, width), torch.zeros(num, dtype=torch.long)
    for block in parts:
        state = _merge(state, block)
        num_rounds[block.candidates] += block.num_rounds
    state = _with_waiting(state, parts, latest.dispersion, pooling.weights)
    precision = sum(
        (block.round_precision for block in parts), torch.zeros(width, dtype=torch.float64)
    )
    num_rounds_with_precision = sum(block.num_precision_rounds for block in parts)
    has_evidence, excess = state.weight > 0, torch.ones(width, dtype=torch.float64)
    if pooling.calibrate:
        excess = excess_scatter(parts, state)
    # Levels drift: use those of the latest rounds where these cover as many hours of the day.
    levels, hours = _base_levels([block.levels for block in parts])
    if old:
        recent, recent_hours = _base_levels([latest.levels])
        levels = torch.where(recent_hours == hours, recent, levels)
    return Bucket(
        theta=history.theta,
        mean=torch.where(has_evidence, state.mean, torch.nan),
        var=torch.where(has_evidence, excess * state.spread / state.weight.square(), torch.nan),
        weight=state.weight,
        num_rounds=num_rounds,
        base_levels=levels if bool((hours > 0).all()) else None,
        level_hours=int(hours.min()),
        control_loadings=tuple(
            e._replace(candidate=b.candidates[e.candidate])
            for b in parts
            for e in (b.control_loadings,)
        ),
        dispersion=latest.dispersion * excess,
        round_precision=precision / torch.as_tensor(num_rounds_with_precision).clamp_min(1),
        deltas=deltas,
        levels_by_metric=levels,
        hours_by_metric=hours,
        control_levels=Levels(*(torch.stack(f).sum(0) for f in zip(*(b.levels for b in parts)))),
    )


def _merge(state: EvidenceState, block: Block) -> EvidenceState:
    """A block's evidence pooled into that of all candidates, in place."""
    rows = block.candidates
    merged = evidence.merge(EvidenceState(*(field[rows] for field in state)), block.state)
    for field, new in zip(state, merged):
        field[rows] = new
    return state


def _with_waiting(
    state: EvidenceState, parts: Sequence[Block], dispersion: Tensor, weights: Weights
) -> EvidenceState:
    """The evidence with one more delta for candidates whose waiting hours suffice together.

    The error of their control counts as independent between candidates.
    """
    total = Sums(*(torch.zeros_like(state.mean) for _ in Sums._fields))
    for block in parts:
        for field, part in zip(total, block.waiting):
            field[block.candidates] += part
    suffices = total.information >= REQUIRED
    if not bool(suffices.any()):
        return state
    lift = total.delta()
    suffices &= lift.mean.isfinite()
    weight = torch.where(suffices, total.users if weights == "users" else total.precision, 0.0)
    spread = torch.where(suffices, weight.square() * lift.var * dispersion, 0.0)
    late = EvidenceState(weight, torch.where(suffices, lift.mean, 0.0), spread)
    return evidence.merge(state, late)


def excess_scatter(parts: Sequence[Block], state: EvidenceState) -> Tensor:
    """Excess of the scatter from block to block over the variances, a factor of at least 1.

    Scatter within a block is in its own variances; only this factor shows differences between
    weeks. It is Cochran's Q, the sum of squared standardised residuals of blocks about their pooled
    mean, over its degrees of freedom, with a prior of ``dispersion.PRIOR`` residuals of 1.

    Returns:
        ``(metrics,)``.
    Source: Cochran (1954); Birge (1932) for the ratio as a factor of all variances.
    """
    total = torch.full(state.mean.shape[1:], dispersion.PRIOR, dtype=state.mean.dtype)
    freedom, num_blocks = total.clone(), torch.zeros_like(state.mean)
    for block in parts:
        weight, mean, spread = block.state
        is_scored = (weight > 0) & (spread > 0)
        residual = (mean - state.mean[block.candidates]).square() * weight.square() / spread
        total = total + torch.where(is_scored, residual, 0.0).sum(0)
        num_blocks[block.candidates] += is_scored.to(total.dtype)
    # A candidate in a single block has a residual of 0 and no degree of freedom.
    freedom = freedom + (num_blocks - 1).clamp_min(0).sum(0)
    return (total / freedom).clamp_min(1.0)


def _base_levels(parts: Sequence[Levels]) -> tuple[Tensor, Tensor]:
    """The control's mean over a day: hours of the day first, then their average.

    In 27 hours three hours of the day occur twice. Each hour of the day is averaged first, so that
    these do not count double. Hours are weighted by their average number of users.

    Returns:
        The levels ``(metrics,)``, NaN for metrics that the control has not reported, and the number
        of hours of the day in which it has reported each ``(metrics,)``.
    """
    users, hours, total = (torch.stack(field).sum(0) for field in zip(*parts))
    level = total / users.clamp_min(1e-300)
    weight = users / hours.clamp_min(1)
    return (level * weight).sum(0) / weight.sum(0), (users > 0).sum(0)
