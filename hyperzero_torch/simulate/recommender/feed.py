"""The value model at work: slates are ranked, the top is shown, and users act.

    score = theta_1 p(click) + theta_2 p(share) + theta_3 p(follow) + theta_4 minutes of watch time

A user looks at the item in position j = 1, 2, ... with probability 1 / log2(j + 1), clicks or hides
what was looked at, and watches, shares or follows after a click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.randomness import random
from .audience import (
    CLICK,
    FOLLOW,
    HIDE,
    NUM_RANKERS,
    SHARE,
    WATCH,
    Audience,
    Requests,
)

#: Metrics that events can have; all but the last are changed by theta.
EVENT_METRICS = ("watch_time", "clicks", "shares", "follows", "hides", "impressions")
WATCH_TIME, CLICKS, SHARES, FOLLOWS, HIDES, IMPRESSIONS = range(6)
#: Rounds until the last event of a round has arrived.
MAX_LATENESS = 6

_LATE = 0.03  # share of events that arrive an hour late; shares of items take 1 to 6 hours
_CHUNK = 4096  # requests at a time: what is in work stays in the caches
_CPU = torch.device("cpu")


class Happenings(NamedTuple):
    """Events as tensors, each field ``(events,)``.

    ``user`` is a user's number, ``metric`` a place in ``EVENT_METRICS``, ``value`` is float64 in
    the metric's unit (seconds for watch time, else a count), ``late`` counts rounds until the
    event arrives.
    """

    user: Tensor
    metric: Tensor
    value: Tensor
    late: Tensor


def join(parts: Sequence[Happenings]) -> Happenings:
    """All events of several, in their order."""
    return Happenings(*(torch.cat(field) for field in zip(*parts)))


def happen(
    audience: Audience, round: int, user: Tensor, theta: Tensor, bonus: Tensor, shown: int
) -> Happenings:
    """What users do with the feeds they ask for.

    All randomness but the events' lateness is drawn for requests and positions, whatever theta is:
    two thetas are compared on the same users, slates, rankers' noise and luck.

    Args:
        audience: the users and items.
        round: the hour.
        user: ``(requests,)``, who asks.
        theta: ``(requests, rankers)``, by which each is ranked.
        bonus: ``(requests,)``, by how much clicks are likelier, a fraction.
        shown: items shown of a slate.
    """
    generator = random(audience.seed, round, "feed", _CPU)
    requests, taste = audience.retrieve(user, generator), audience.tastes(round)
    parts = []
    for first in range(0, len(user), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        some = Requests(*(field[chunk] for field in requests))
        slate = audience.items(some)
        predicted, affinity = audience.rank(taste, some.user, slate, generator)
        places = top(predicted, theta[chunk], shown)
        true = audience.respond(some.user, slate.gather(1, places), affinity.gather(1, places))
        parts.append(_act(some.user, true, bonus[chunk], generator))
    num = torch.full((len(user),), float(shown), dtype=torch.float64)
    nothing = torch.zeros(len(user), dtype=torch.int64)
    parts.append(Happenings(user, torch.full_like(user, IMPRESSIONS), num, nothing))
    happened = join(parts)
    return happened._replace(late=_lateness(happened.metric, audience.seed, round))


def _act(user: Tensor, true: Tensor, bonus: Tensor, generator: torch.Generator) -> Happenings:
    """Events of requests whose shown items have the true outcomes ``(outcomes, requests, n)``."""
    shape = true.shape[1:]
    looks = examination(shape[1])
    luck = torch.rand(4, *shape, generator=generator)
    seconds = true[WATCH] * torch.empty(shape).exponential_(generator=generator)
    chance = true[CLICK] * (1 + bonus.to(looks).unsqueeze(-1))
    clicked = luck[0] < chance.clamp_max(1) * looks
    rows, metrics, values = [], [], []
    for metric, where in (
        (WATCH_TIME, clicked),
        (CLICKS, clicked),
        (SHARES, clicked & (luck[1] < true[SHARE])),
        (FOLLOWS, clicked & (luck[2] < true[FOLLOW])),
        (HIDES, luck[3] < true[HIDE] * looks),
    ):
        row = where.nonzero()[:, 0]
        rows.append(row)
        metrics.append(torch.full_like(row, metric))
        one = torch.ones(len(row), dtype=torch.float64)
        values.append(seconds[where].double() if metric == WATCH_TIME else one)
    row = torch.cat(rows)
    return Happenings(user[row], torch.cat(metrics), torch.cat(values), torch.zeros_like(row))


def _lateness(metric: Tensor, seed: int, round: int) -> Tensor:
    generator = random(seed, round, "lateness", _CPU)
    late = (torch.rand(len(metric), generator=generator) < _LATE).long()
    slow = torch.randint(1, MAX_LATENESS + 1, (len(metric),), generator=generator)
    return torch.where(metric == SHARES, slow, late)


def top(predicted: Tensor, theta: Tensor, num: int) -> Tensor:
    """Places of the best items by the value model, best first, ``(requests, num)``.

    Args:
        predicted: ``(rankers, requests, slate)``.
        theta: ``(requests, rankers)``, or ``(1, rankers)`` for one that serves all.
        num: items to show.
    """
    weight = theta.to(predicted.dtype).T.unsqueeze(-1)  # (rankers, requests, 1)
    score = predicted[0] * weight[0]
    for ranker in range(1, NUM_RANKERS):
        score.addcmul_(predicted[ranker], weight[ranker])
    return score.topk(num, dim=-1).indices


def examination(num: int) -> Tensor:
    """How likely a user looks at each position, ``(num,)``; 1 for the first."""
    return 1 / torch.log2(torch.arange(num) + 2.0)
