"""A study's own evidence as others would read it, today and after each of its latest rounds.

What a study hears of itself by way of a package is mostly older than what it knows: the evidence
as it was is what it has to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..study.config import TunerConfig
from ..study.evidence.active_set import fit_set
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History
from .duplicates import check_distinct
from .source import Source, from_bucket

# Of a candidate's weight: less is what subtraction leaves of nothing.
_NOTHING = 1e-9


class Own(NamedTuple):
    """``source`` is the evidence; its rows are the candidates ``rows (n,)`` of ``bucket``."""

    source: Source
    bucket: Bucket
    rows: Tensor

    def earlier(self, rows: Tensor) -> Tensor:
        """Means after each of the latest rounds but the last, ``(rounds, n, metrics)``.

        All that is known, less what came later, by today's weights; NaN where nothing is left.

        Args:
            rows: of ``source``, ``(n,)``.
        """
        told = self.rows[rows]
        deltas, num = self.bucket.deltas, len(self.bucket.theta)
        place = torch.full((num,), -1)
        place[told] = torch.arange(len(told))
        at = place[deltas.candidate]
        rounds, slot = torch.unique(deltas.round, return_inverse=True)
        known = deltas.delta.mean.isfinite()
        weight = torch.where(known, deltas.weight, 0.0)
        parts = torch.stack([weight, torch.where(known, weight * deltas.delta.mean, 0.0)], -1)
        by_round = parts.new_zeros(len(rounds), len(told), *parts.shape[1:])
        heard = at >= 0
        by_round.index_put_((slot[heard], at[heard]), parts[heard], accumulate=True)
        later = by_round.flip(0).cumsum(0).flip(0)[1:]
        total = self.bucket.weight[told]
        every = torch.stack([total, (total * self.bucket.mean[told]).nan_to_num(0.0)], -1)
        left, moment = (every - later).unbind(-1)
        return torch.where(left > _NOTHING * total, moment / left, torch.nan)


def own_evidence(problem: Problem, history: History) -> Own | None:
    """What a study knows; None before it knows anything."""
    config = TunerConfig(**history.config)
    how = Pooling(config.weights, config.rounds_per_day, config.calibrate, config.block_rounds)
    bucket = gather(history, how)
    rows = fit_set(history, bucket, config)
    rows = rows[(bucket.weight[rows] > 0).any(-1)]
    if not len(rows):
        return None
    return Own(from_bucket(problem, bucket, "target", rows=rows), bucket, rows)


def check_apart(sources: Sequence[Source], own: Own | None) -> None:
    """Refuse evidence that would be counted twice: another source's, or the study's own.

    Raises:
        ConfigError: as ``check_distinct`` does.
    """
    if own is None:
        check_distinct(sources)
    else:
        check_distinct(sources, own.source, own.earlier)
