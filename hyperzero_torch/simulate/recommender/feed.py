"""Feeds and events: slates are ranked by the value model, the top is shown, users respond.

    score = theta_1 p(click) + theta_2 p(share) + theta_3 p(follow) + theta_4 minutes of watch time

A user looks at the item in position j = 1, 2, ... with probability 1 / log2(j + 1), clicks or hides
items that were looked at, and watches, shares or follows after a click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.randomness import random
from ...stats import moments
from ...study.plan import Plan
from ...study.readings import Readings
from .audience import CLICK, FOLLOW, HIDE, NUM_RANKERS, SHARE, WATCH, Audience

#: Metrics that events can have; all but the last are changed by theta.
EVENT_METRICS = ("watch_time", "clicks", "shares", "follows", "hides", "impressions")
WATCH_TIME, CLICKS, SHARES, FOLLOWS, HIDES, IMPRESSIONS = range(6)
#: Rounds until the last event of a round has arrived.
MAX_LATENESS = 6

_LATE = 0.03  # share of events that arrive an hour late; shares of items take 1 to 6 hours
_BOT_CLICKS, _BOT_IMPRESSIONS = (2_000, 8_000), 20  # clicks of a bot in a round, shown per click
_CPU = torch.device("cpu")


class Events(NamedTuple):
    """Events as tensors, each field ``(events,)``.

    ``user`` is a user's number, ``metric`` a place in ``EVENT_METRICS``, ``value`` is float64 in
    the metric's unit (seconds for watch time, else a count), ``late`` counts rounds until the
    event arrives.
    """

    user: Tensor
    metric: Tensor
    value: Tensor
    late: Tensor


def join(parts: Sequence[Events]) -> Events:
    """The events of several parts, in their order."""
    return Events(*(torch.cat(field) for field in zip(*parts)))


def feed_events(
    audience: Audience, round: int, user: Tensor, theta: Tensor, bonus: Tensor, shown: int
) -> Events:
    """The events of the feeds that users request.

    All randomness but the events' lateness is drawn for requests and positions, independently of
    theta: two thetas are compared on the same users, slates, rankers' noise and random responses.

    Args:
        user: ``(requests,)``, the user of each.
        theta: ``(requests, rankers)``, by which each is ranked.
        bonus: ``(requests,)``, relative increase of the click probability.
        shown: items shown of a slate.
    """
    generator = random(audience.seed, round, "feed", _CPU)
    requests = audience.retrieve(user, generator)
    parts = []
    for chunk, slate, predicted, affinity in audience.ranked(requests, round, generator):
        places = top(predicted, theta[chunk], shown)
        true = audience.respond(user[chunk], slate.gather(1, places), affinity.gather(1, places))
        parts.append(_respond(user[chunk], true, bonus[chunk], generator))
    num = torch.full((len(user),), float(shown), dtype=torch.float64)
    on_time = torch.zeros(len(user), dtype=torch.int64)
    parts.append(Events(user, torch.full_like(user, IMPRESSIONS), num, on_time))
    events = join(parts)
    generator = random(audience.seed, round, "lateness", _CPU)
    num_events = len(events.metric)
    late = (torch.rand(num_events, generator=generator) < _LATE).long()
    slow = torch.randint(1, MAX_LATENESS + 1, (num_events,), generator=generator)
    return events._replace(late=torch.where(events.metric == SHARES, slow, late))


def _respond(user: Tensor, true: Tensor, bonus: Tensor, generator: torch.Generator) -> Events:
    """Events of requests whose shown items have the true outcomes ``(outcomes, requests, n)``."""
    shape = true.shape[1:]
    looks = examination(shape[1])
    uniform = torch.rand(4, *shape, generator=generator)
    seconds = true[WATCH] * torch.empty(shape).exponential_(generator=generator)
    chance = true[CLICK] * (1 + bonus.to(looks).unsqueeze(-1))
    clicked = uniform[0] < chance.clamp_max(1) * looks
    rows, metrics, values = [], [], []
    for metric, where in (
        (WATCH_TIME, clicked),
        (CLICKS, clicked),
        (SHARES, clicked & (uniform[1] < true[SHARE])),
        (FOLLOWS, clicked & (uniform[2] < true[FOLLOW])),
        (HIDES, uniform[3] < true[HIDE] * looks),
    ):
        row = where.nonzero()[:, 0]
        rows.append(row)
        metrics.append(torch.full_like(row, metric))
        ones = torch.ones(len(row), dtype=torch.float64)
        values.append(seconds[where].double() if metric == WATCH_TIME else ones)
    row = torch.cat(rows)
    return Events(user[row], torch.cat(metrics), torch.cat(values), torch.zeros_like(row))


def top(predicted: Tensor, theta: Tensor, num: int) -> Tensor:
    """Places of the items with the highest scores, the highest first, ``(requests, num)``.

    ``predicted (rankers, requests, slate)``; ``theta (requests, rankers)``, or ``(1, rankers)``.
    """
    weight = theta.to(predicted.dtype).T.unsqueeze(-1)  # (rankers, requests, 1)
    score = predicted[0] * weight[0]
    for ranker in range(1, NUM_RANKERS):
        score.addcmul_(predicted[ranker], weight[ranker])
    return score.topk(num, dim=-1).indices


def examination(num: int) -> Tensor:
    """How likely a user looks at each position, ``(num,)``; 1 for the first."""
    return 1 / torch.log2(torch.arange(num) + 2.0)


def bot_events(bots: Tensor, generator: torch.Generator) -> Events:
    """Thousands of clicks of each bot, which arrive without delay."""
    clicks = torch.randint(*_BOT_CLICKS, (len(bots),), generator=generator)
    user = torch.cat([torch.repeat_interleave(bots, clicks), bots])
    ones = torch.ones(int(clicks.sum()), dtype=torch.float64)
    metric = torch.full_like(user, CLICKS)
    metric[len(ones) :] = IMPRESSIONS
    value = torch.cat([ones, _BOT_IMPRESSIONS * clicks.double()])
    return Events(user, metric, value, torch.zeros_like(user))


def aggregate(
    plan: Plan, user: Tensor, arm: Tensor, events: Events, metrics: list[int], revision: int
) -> Readings | None:
    """Moments of sums per user, by arm; None where no arm has two users or the control no events.

    Args:
        user: ``(users,)`` users who visited, ascending.
        arm: ``(users,)`` the arm of each.
        metrics: places in ``EVENT_METRICS`` of those to report.
    """
    width = len(EVENT_METRICS)
    place = torch.searchsorted(user, events.user) * width + events.metric
    sums = torch.zeros(len(user) * width, dtype=torch.float64)
    values = sums.index_add(0, place, events.value).reshape(-1, width)[:, metrics]
    by_arm = moments.summarise(values, arm, len(plan))
    arms = (by_arm.count[:, 0] >= 2).nonzero().squeeze(-1)
    positive = (by_arm.mean[0] > 0).nonzero().squeeze(-1)
    if not len(arms) or not len(positive):
        return None
    return Readings(
        plan.round,
        torch.tensor(plan.candidate_ids)[arms],
        by_arm.count[arms, 0],
        by_arm.mean[arms][:, positive],
        by_arm.var[arms][:, positive],
        metrics=[EVENT_METRICS[metrics[i]] for i in positive.tolist()],
        revision=revision,
    )
