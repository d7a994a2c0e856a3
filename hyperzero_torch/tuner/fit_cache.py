"""What later rounds use again: settled blocks, the evidence, the fit, the prior of sources."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..study.config import TunerConfig
from ..study.evidence.blocks import BlockCache
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History
from ..surrogate.protocol import FittedPosterior
from ..transfer.prior import Judgement, Prior


class Fit(NamedTuple):
    """A posterior, or why there is none; and the judgement on other domains behind it.

    ``remark`` as in ``Fitted``.
    """

    posterior: FittedPosterior | None
    why_not: str | None
    judgement: Judgement | None = None
    remark: str | None = None


class FitCache(NamedTuple):
    """Results that later rounds use again: settled blocks, the last fit, the sources' prior.

    ``fit`` holds the last fit under the numbers of messages and of decisions, the configuration and
    the candidates that it was made from; ``prior`` is held under the number of decisions.
    ``evidence`` holds the last evidence under the number of entries and how it is pooled.
    """

    blocks: BlockCache
    fit: dict[tuple[Any, ...], Fit]
    prior: dict[int, Prior | None]
    evidence: dict[tuple[int, Pooling], Bucket]

    @classmethod
    def empty(cls) -> FitCache:
        """An empty cache."""
        return cls({}, {}, {}, {})

    def clear(self) -> None:
        """Drop everything, for another study."""
        for results in self:
            results.clear()


def evidence_of(history: History, config: TunerConfig, cache: FitCache) -> Bucket:
    """The evidence on every candidate; the last result is kept.

    Args:
        history: of the study that the cache belongs to, as its journal has it.
        config: how it pools.
        cache: of this study.
    """
    pooling = Pooling.of(config)
    key = (history.num_entries, pooling)
    if key not in cache.evidence:
        bucket = gather(history, pooling, cache.blocks)
        cache.evidence.clear()
        cache.evidence[key] = bucket
    return cache.evidence[key]
