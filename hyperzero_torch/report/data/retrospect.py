"""What was believed hour by hour: the study seen again from its rounds, and how well it foretold.

A moment is the study before one of its rounds: the posterior of the evidence of all earlier rounds
(late and revised readings included, whenever they came), under today's hyperparameters. Beliefs
are not kept in the journal, so this is what would have been believed, not what was.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import FitError
from ...stats import drift
from ...study.decisions import ROLLED_BACK, STOPPED
from ...study.evidence.blocks import BlockCache
from ...study.evidence.bucket import Bucket, gather
from ...study.evidence.pooling import Pooling
from ...study.history import CONTROL, History
from ...surrogate import Hyperparameters, Posterior, Surrogate
from ...tuner.model import training_data
from .facts import Facts
from .surfaces import Believed, believe_deltas

#: Most moments that are looked at; fewer where buckets are large.
MOST_MOMENTS = 32
_LEAST_MOMENTS = 6
# Multiplications that all moments together may take, of factorisations and of pooling deltas (as
# many as that takes the time of): some seconds.
_WORK = 8e9
_WORK_OF_A_DELTA = 1e5
#: Rounds that are not compared: so long the noise is not known well enough to say what is odd.
FIRST = 6


class Moment(NamedTuple):
    """The study before ``round``: what was believed of the watched and of the recommended.

    ``watched`` and ``chosen`` are of one point each; ``recommended`` is the id of the second.
    ``z (arms, metrics)`` are the whitened residuals of the round's own deltas, None where they are
    not compared.
    """

    round: int
    watched: Believed
    recommended: int
    chosen: Believed
    z: Tensor | None


class Past(NamedTuple):
    """Moments in order, the last being now; of ``num_rounds`` rounds that have reported.

    Only rounds whose deltas are still kept one by one are among them: those of the last weeks.
    """

    moments: tuple[Moment, ...]
    num_rounds: int


def look_back(facts: Facts) -> Past:
    """The study's moments, evenly spread where there are many; none before anything was fitted."""
    watched = facts.watched
    if facts.posterior is None or watched is None:
        return Past((), 0)
    memo = dict(facts.known.cache)
    raw = _evidence(facts, _as_of(facts.history, None), memo)  # drift was noticed after the deltas
    reported = sorted(set(raw.deltas.round.tolist()))
    first = set(islice(facts.history.plans, FIRST))
    found = []
    for round_ in _spread(reported, _most(facts)):
        before = _as_of(facts.history, round_)
        bucket = _evidence(facts, before, memo)
        posterior = _condition(facts, bucket)
        if posterior is None:
            continue
        z = None if round_ in first else _residuals(facts, raw, posterior, round_)
        found.append(_moment(facts, round_, bucket, posterior, _barred(facts, round_), z))
    stopped = facts.history.status.stopped
    now = _moment(facts, facts.last_round + 1, facts.bucket, facts.posterior, stopped, None)
    return Past((*found, now), len(reported))


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


def _as_of(history: History, round: int | None) -> History:
    """The rounds before one, without what was found to drift later; None: all, without drift."""
    then = history.branch()
    if round is not None:
        then.tables = {r: t for r, t in history.tables.items() if r < round}
    known = () if round is None else tuple(d for d in then.status.discounts if d.noticed < round)
    then.status.discounts = known
    return then


def _evidence(facts: Facts, history: History, memo: BlockCache) -> Bucket:
    return gather(history, Pooling.of(facts.config), memo)


def _tested(facts: Facts, bucket: Bucket) -> Tensor:
    """Ids of the candidates that are looked at today and had evidence by then."""
    view = facts.known.fit_set
    return view[bucket.tested[view]]


def _condition(facts: Facts, bucket: Bucket) -> Posterior | None:
    """Today's kernel given a bucket's evidence, on the CPU; None where there is none."""
    assert facts.posterior is not None  # look_back has looked
    rows = _tested(facts, bucket)
    if not len(rows):
        return None
    today = Hyperparameters(*(field.cpu() for field in facts.posterior.hyperparameters))
    try:
        given = training_data(facts.problem, facts.config, bucket, rows, torch.device("cpu"))
        return Surrogate(today).condition(*given)
    except FitError:
        return None


def _residuals(facts: Facts, raw: Bucket, posterior: Posterior, round: int) -> Tensor | None:
    """New deltas of a round minus what was expected, each free of what the others explain."""
    deltas = raw.deltas
    rows = (deltas.round == round).nonzero().flatten()
    if not len(rows):
        return None
    x = facts.problem.space.to_unit(facts.bucket.theta[deltas.candidate[rows]]).to(posterior.x)
    mean, _ = posterior.marginal(x)
    var = deltas.delta.var[rows]
    # The part that all arms share, through the control; never more than all, after rounding.
    loading = deltas.loading[rows].minimum(var.sqrt())
    covariance = drift.predictive_covariance(posterior.covariance(x), var, loading)
    return drift.whiten(deltas.delta.mean[rows] - mean, covariance)


def _moment(
    facts: Facts,
    round: int,
    bucket: Bucket,
    posterior: Posterior,
    barred: set[int],
    z: Tensor | None,
) -> Moment:
    tested = [c for c in _tested(facts, bucket).tolist() if c not in barred]
    watched = facts.watched
    assert watched is not None  # look_back has looked
    ids = [CONTROL, watched, *tested]
    believed = believe_deltas(facts, *_deltas(facts, bucket, posterior, ids))
    rank = {"mean": 0, "lcb": 1, "ucb": 2}[facts.best.criterion]
    safe = believed.prob_feasible >= facts.config.min_prob_feasible
    safe[1] = False  # it stands among the others too, where it has evidence
    score = torch.where(safe, believed.gain[rank].nan_to_num(nan=-torch.inf), -torch.inf)
    best = int(score.argmax()) if bool(safe.any()) else 0
    return Moment(round, _point(believed, 1), ids[best], _point(believed, best), z)


def _deltas(
    facts: Facts, bucket: Bucket, posterior: Posterior, ids: list[int]
) -> tuple[Tensor, Tensor]:
    """Believed mean and variance of the deltas of candidates, the control first: ``(n, m)``."""
    if facts.config.evidence == "pooled":
        x = facts.problem.space.to_unit(facts.bucket.theta[ids]).to(posterior.x)
        mean, var = (field.cpu() for field in posterior.marginal(x))
    else:
        mean, var = bucket.mean[ids].clone(), bucket.var[ids].clone()
    mean[0], var[0] = 0.0, 0.0
    return mean, var


def _point(believed: Believed, row: int) -> Believed:
    at = slice(row, row + 1)
    return Believed(
        believed.gain[:, at], believed.slack[:, at], believed.holds[at], believed.prob_feasible[at]
    )


def _barred(facts: Facts, round: int) -> set[int]:
    """Who had been stopped or withdrawn before a round."""
    return {
        c
        for d in facts.history.decisions
        if d.kind in (STOPPED, ROLLED_BACK) and d.round < round
        for c in d.details.get("candidates", ())
    }
