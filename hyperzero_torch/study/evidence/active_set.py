"""The active candidates: those that compete, and those that the surrogate is fitted to.

A long study adds tens of thousands of candidates. Most win few draws or none and are retired. The
work of a round must not grow with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TunerConfig
from ..history import CONTROL, History
from .bucket import Bucket

# At most this fraction of the candidates that the surrogate is fitted to may have been stopped.
_STOPPED_FRACTION = 1 / 4


def competing(history: History, config: TunerConfig) -> list[int]:
    """Candidates that draws may choose, ascending: new ones, and those that won recently."""
    retire_after, status = config.retire_after, history.status
    barred = status.stopped | (status.retired if retire_after is not None else set())
    return [
        c
        for c in range(1, history.num_candidates)
        if c not in barred
        and (retire_after is None or not history.times_served[c] or history.idle[c] < retire_after)
    ]


def max_competing(config: TunerConfig) -> int | None:
    """Upper limit of the competing candidates; None for no limit."""
    limit = config.max_candidates
    return None if limit is None else max(limit // 2, config.max_arms, config.initial_candidates)


def fit_set(
    history: History, bucket: Bucket, config: TunerConfig, metrics: Tensor | None = None
) -> Tensor:
    """Candidates that the surrogate is fitted to, the control among them, ascending ``(n,)``.

    All, as long as there are ``max_candidates`` at most. Otherwise those that compete, were served
    in the last round or were verified in the last day, and those stopped last, because the model
    must keep its estimate of a harmful region. The remaining places go to the candidates with most
    evidence: the least product of their variances, which no metric's unit changes.

    Args:
        history: the study's facts.
        bucket: the evidence.
        config: the limit.
        metrics: bool ``(metrics,)``, those whose evidence counts; None for all.
    """
    if metrics is None:
        metrics = torch.ones(len(history.metrics), dtype=torch.bool)
    everyone = torch.arange(history.num_candidates)
    limit = config.max_candidates
    if limit is None or len(everyone) <= limit + 1:
        return everyone
    last = history.last_plan
    required = {CONTROL, *competing(history, config), *(last.candidates if last else ())}
    required |= _recent_leaders(history, config)
    has_evidence = bucket.has_evidence(metrics)
    required |= _recently_stopped(history, has_evidence, int(limit * _STOPPED_FRACTION))
    chosen = torch.zeros(len(everyone), dtype=torch.bool)
    chosen[sorted(required)] = True
    num_places = max(0, limit + 1 - len(required))
    others = (has_evidence & ~chosen).nonzero().flatten()
    # A metric whose variance is 0 does not rank candidates.
    log_volume = bucket.var[others][:, metrics].clamp_min(1e-300).log().sum(-1)
    chosen[others[log_volume.argsort(stable=True)[:num_places]]] = True
    return chosen.nonzero().flatten()


def _recent_leaders(history: History, config: TunerConfig) -> set[int]:
    """Candidates verified in the last day: most recommendations are among them."""
    rounds = sorted(history.plans)[-config.rounds_per_day :]
    return {c for r in rounds for c in history.plans[r].trace.leaders}


def _recently_stopped(history: History, has_evidence: Tensor, limit: int) -> set[int]:
    """The newest of the stopped candidates with evidence, at most ``limit``."""
    stopped = torch.tensor(sorted(history.status.stopped), dtype=torch.long)
    return set(stopped[has_evidence[stopped]][-limit:].tolist())
