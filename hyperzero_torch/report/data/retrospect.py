"""The study as it stood before earlier rounds, and how well it predicted what those rounds brought.

A moment is the study before one of its rounds: the posterior of the evidence of all earlier rounds,
late and revised readings included, under today's hyperparameters. Estimates are not kept in the
journal, so these are recomputed and can differ from those of the time.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ...study.decisions import StudyStatus
from ...study.evidence.bucket import Bucket, gather
from ...study.evidence.pooling import Pooling
from ...study.history import CONTROL
from ...surrogate.protocol import FittedPosterior
from ...tuner.drift import NUM_WARM_UP, as_it_stood, residuals
from ...tuner.model import conditioned
from .facts import Facts
from .surfaces import Estimates, from_deltas

#: Most moments that are computed; fewer where buckets are large.
MOST_MOMENTS = 32
_LEAST_MOMENTS = 6
# Multiplications that all moments together may take, of factorisations and of pooling deltas (as
# many as that takes the time of): some seconds.
_WORK = 8e9
_WORK_OF_A_DELTA = 1e5


class Moment(NamedTuple):
    """The study before ``round``: estimates for two candidates, and the round's residuals.

    ``tracked`` is the candidate shown by round, ``best`` the estimates for ``recommended``, the
    candidate that would have been recommended; one point each. ``z (arms, metrics)`` are the
    whitened residuals of the round's own deltas, None where they are not compared.
    """

    round: int
    tracked: Estimates
    recommended: int
    best: Estimates
    z: Tensor | None


class Retrospect(NamedTuple):
    """Moments in order, the last being now; of ``num_rounds`` rounds that have reported.

    Only rounds whose deltas are still kept one by one are among them: those of the last weeks.
    ``candidate`` is the one that is tracked.
    """

    candidate: int
    moments: tuple[Moment, ...]
    num_rounds: int


def look_back(facts: Facts) -> Retrospect | None:
    """The study's moments, evenly spread where there are many; None before anything was fitted."""
    candidate, posterior = facts.tracked, facts.posterior
    if posterior is None or candidate is None:
        return None
    cache, pooling = dict(facts.model.cache), Pooling.of(facts.config)
    # Without the discounts of drift, which was found after these deltas.
    raw = gather(as_it_stood(facts.history, None), pooling, cache)
    reported = sorted(set(raw.deltas.round.tolist()))
    first = set(islice(facts.history.plans, NUM_WARM_UP))
    moments = []
    for round_ in _spread(reported, _most(facts)):
        bucket = gather(as_it_stood(facts.history, round_), pooling, cache)
        then = conditioned(facts.problem, facts.config, bucket, facts.model.fit_set, posterior)
        if then is not None:
            z = None if round_ in first else _residuals(facts, raw, then, round_)
            stopped = _stopped_before(facts, round_)
            moments.append(_moment(facts, candidate, round_, bucket, then, stopped, z))
    stopped = facts.history.status.stopped
    last = facts.last_round + 1
    now = _moment(facts, candidate, last, facts.bucket, posterior, stopped, None)
    return Retrospect(candidate, (*moments, now), len(reported))


def _most(facts: Facts) -> int:
    num = len(_tested(facts, facts.bucket)) + 1
    work = facts.problem.num_metrics * num**3 / 3
    work += _WORK_OF_A_DELTA * len(facts.bucket.deltas.round)
    return int(min(MOST_MOMENTS, max(_LEAST_MOMENTS, _WORK // work)))


def _spread(rounds: list[int], most: int) -> list[int]:
    """At most so many, evenly, the last among them."""
    if len(rounds) <= most:
        return rounds
    at = torch.linspace(0, len(rounds) - 1, most).round().long().tolist()
    return [rounds[i] for i in at]


def _tested(facts: Facts, bucket: Bucket) -> Tensor:
    """Ids of the candidates in today's fit that had evidence by then."""
    candidates = facts.model.fit_set
    return candidates[bucket.has_evidence(facts.problem.used_metrics)[candidates]]


def _residuals(facts: Facts, raw: Bucket, posterior: FittedPosterior, round: int) -> Tensor | None:
    """New deltas of a round minus their predictions, whitened across arms."""
    rows = (raw.deltas.round == round).nonzero().flatten()
    if not len(rows):
        return None
    theta = facts.bucket.theta[raw.deltas.candidate[rows]]
    return residuals(raw, posterior, facts.problem.space.to_unit(theta), rows)


def _moment(
    facts: Facts,
    candidate: int,
    round: int,
    bucket: Bucket,
    posterior: FittedPosterior,
    stopped: set[int],
    z: Tensor | None,
) -> Moment:
    """The control, the tracked candidate, and all that could have been recommended."""
    tested = [c for c in _tested(facts, bucket).tolist() if c not in stopped]
    ids = [CONTROL, candidate, *tested]
    estimates = from_deltas(facts, *_deltas(facts, bucket, posterior, ids))
    rank = {"mean": 0, "lcb": 1, "ucb": 2}[facts.best.criterion]
    feasible = estimates.prob_feasible >= facts.config.min_prob_feasible
    feasible[1] = False  # it stands among the others too, where it has evidence
    score = torch.where(feasible, estimates.gain[rank].nan_to_num(nan=-torch.inf), -torch.inf)
    best = int(score.argmax()) if bool(feasible.any()) else 0
    at = estimates.at
    return Moment(round, at(slice(1, 2)), ids[best], at(slice(best, best + 1)), z)


def _deltas(
    facts: Facts, bucket: Bucket, posterior: FittedPosterior, ids: list[int]
) -> tuple[Tensor, Tensor]:
    """Estimated mean and variance of the deltas of candidates, the control first: ``(n, m)``."""
    if facts.config.evidence == "pooled":
        x = facts.problem.space.to_unit(facts.bucket.theta[ids]).to(posterior.x)
        mean, var = (field.cpu() for field in posterior.marginal(x))
    else:
        mean, var = bucket.mean[ids].clone(), bucket.var[ids].clone()
    mean[0], var[0] = 0.0, 0.0
    return mean, var


def _stopped_before(facts: Facts, round: int) -> set[int]:
    """Candidates that had been stopped or withdrawn before a round."""
    status = StudyStatus()
    num, width = facts.history.num_candidates, facts.problem.num_metrics
    for decision in facts.history.decisions:
        if decision.round < round:
            status.fold(decision, num, width, facts.history.plans.__contains__)
    return status.stopped
