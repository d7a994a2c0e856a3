"""Who still matters: candidates that compete, and those that the surrogate is fitted to.

A long study gives birth to tens of thousands of candidates. Most won a few draws, or none, and are
retired; what a round does must not grow with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TunerConfig
from ..history import CONTROL, History
from .bucket import Bucket

# One in so many of the candidates in view may have been stopped.
_STOPPED = 4


def competing(history: History, config: TunerConfig) -> list[int]:
    """Candidates that draws may choose, ascending: new ones, and those that won not long ago."""
    last, standing = config.retire_after, history.status
    barred = standing.stopped | (standing.retired if last is not None else set())
    return [
        c
        for c in range(1, history.num_candidates)
        if c not in barred
        and (last is None or not history.times_served[c] or history.idle[c] < last)
    ]


def most_competing(config: TunerConfig) -> int | None:
    """How many candidates may compete; None for any number."""
    most = config.max_candidates
    return None if most is None else max(most // 2, config.max_arms, config.initial_candidates)


def in_view(history: History, bucket: Bucket, config: TunerConfig) -> Tensor:
    """Candidates that a round looks at, the control among them, ascending ``(n,)``.

    All, as long as they are ``max_candidates`` at most. Then those that compete, were served in
    the last round or verified in the last day, and those stopped last, since a region that does
    harm must not be forgotten; and of the others those with the most evidence: the least product
    of their variances, which no metric's unit changes.
    """
    every = torch.arange(history.num_candidates)
    most = config.max_candidates
    if most is None or len(every) <= most + 1:
        return every
    last = history.last_plan
    wanted = {CONTROL, *competing(history, config), *(last.candidates if last else ())}
    wanted |= _verified(history, config) | _stopped(history, bucket, most // _STOPPED)
    chosen = torch.zeros(len(every), dtype=torch.bool)
    chosen[sorted(wanted)] = True
    left = max(0, most + 1 - len(wanted))
    rest = (bucket.tested & ~chosen).nonzero().flatten()
    # A metric that was never uncertain says nothing of who is known best.
    doubt = bucket.var[rest].clamp_min(1e-300).log().sum(-1)
    chosen[rest[doubt.argsort(stable=True)[:left]]] = True
    return chosen.nonzero().flatten()


def _verified(history: History, config: TunerConfig) -> set[int]:
    """Leaders of the last day: who would be recommended is mostly among them."""
    latest = sorted(history.plans)[-config.rounds_per_day :]
    return {c for r in latest for c in history.plans[r].details.get("leaders", ())}


def _stopped(history: History, bucket: Bucket, most: int) -> set[int]:
    """The youngest of those that were stopped and have evidence, so many at most."""
    stopped = torch.tensor(sorted(history.status.stopped), dtype=torch.long)
    return set(stopped[bucket.tested[stopped]][-most:].tolist())
