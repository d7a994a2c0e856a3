"""Users with tastes, items with topics and styles, and rankers that predict users' responses.

    affinity   a(u, i) = taste_u . vector_i              topics and styles, about N(0, 1)
    true       z_m(u, i) = appeal_im + propensity_um + pull_m a(u, i)
    ranker     z_m(u, i) + error_im + noise              error_im stays with the item

``p(click)`` and ``p(hide)`` are sigmoids of ``z``, given that the user looks at the item;
``p(share)`` and ``p(follow)`` the same given a click, and watch time is exponential with mean
``exp(z)`` seconds given a click. Styles make metrics trade off: bait raises clicks, shortens watch
time and raises hides; outrage raises watch time, shares and, most of all, hides; quality raises
watch time and follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...runtime.randomness import random
from ..synthetic import DAY

#: Responses to an item that was looked at; the first four have rankers.
OUTCOMES = ("click", "share", "follow", "watch", "hide")
NUM_RANKERS = 4
CLICK, SHARE, FOLLOW, WATCH, HIDE = range(5)

_CPU = torch.device("cpu")
_CHUNK = 4096  # requests at a time, so that their tensors stay in the processor's caches
_TOPICS, _STYLES, _CLUSTERS = 8, 3, 12
# One row per outcome: intercept, pull of affinity, then quality, bait, outrage.
_RESPONSE = (
    (-1.3, 0.50, 0.10, 0.45, 0.10),
    (-3.0, 0.30, 0.10, 0.00, 0.50),
    (-3.0, 0.40, 0.60, -0.30, -0.20),
    (3.4, 0.35, 0.30, -0.45, 0.45),
    (-3.3, -0.30, -0.25, 0.10, 0.70),
)
_PROPENSITY_STD = (0.4, 0.5, 0.5, 0.4, 0.5)
_ITEM_ERROR_STD = (0.15, 0.30, 0.30, 0.20)
_NOISE_STD = (0.25, 0.50, 0.50, 0.35)
# Mean tastes for quality, bait and outrage now, and in the direction that drift turns them to.
_STYLE_TASTE, _LATER_STYLE_TASTE = (0.0, 0.1, 0.1), (0.6, -0.7, -0.7)
_PEAK_TO_TROUGH = 8.0


class Requests(NamedTuple):
    """Requests of feeds, each field ``(requests,)``: the user, and the slate that is retrieved.

    A slate is every ``stride``-th item of the catalogue in random order, from ``start`` on; strides
    have no divisor in common with the number of items, so no slate holds an item twice.
    """

    user: Tensor
    start: Tensor
    stride: Tensor


class Audience:
    """A fixed population of users and a fixed catalogue; the arguments are ``ValueModelWorld``'s.

    Each user has tastes, propensities and habits that stay.
    """

    def __init__(
        self, seed: int, num_users: int, num_items: int, slate: int, visits: float, drift: float
    ) -> None:
        self.seed, self.drift, self.slate = seed, drift, slate
        self.num_users, self.num_items = num_users, num_items
        draw = _Draw(random(seed, 0, "audience", _CPU))
        # Coefficients vary by a tenth from seed to seed.
        response = torch.tensor(_RESPONSE)
        response[:, 1:] *= 1 + 0.1 * draw.normal(len(OUTCOMES), 1 + _STYLES).clamp(-2, 2)
        self._pull = response[:, 1]

        style = draw.normal(num_items, _STYLES)
        centre = draw.normal(_CLUSTERS, _TOPICS)
        topic = centre[draw.whole(_CLUSTERS, num_items)] + 0.5 * draw.normal(num_items, _TOPICS)
        self._vector = torch.cat([topic / topic.norm(dim=1, keepdim=True), style], dim=1)
        self._appeal = response[:, 0] + style @ response[:, 2:].T
        error = draw.normal(num_items, NUM_RANKERS) * torch.tensor(_ITEM_ERROR_STD)
        # One table, so that a slate's vectors and predictions are fetched together.
        prediction = self._appeal[:, :NUM_RANKERS] + error
        self._catalogue = torch.cat([self._vector, prediction], dim=1)

        self._taste = draw.taste(num_users, _STYLE_TASTE)
        self._later = draw.taste(num_users, _LATER_STYLE_TASTE)
        self.propensity = draw.normal(num_users, len(OUTCOMES)) * torch.tensor(_PROPENSITY_STD)
        # Both have mean 1 before the cap, which keeps every probability of a visit below 1.
        self._activity = draw.lognormal(num_users, 0.4)
        self._appetite = draw.lognormal(num_users, 0.4)
        self._curve = _daily_curve(float(draw.whole(DAY, 1)))
        self._activity = self._activity.clamp_max(1 / (visits * float(self._curve.max())))
        self._visits = visits
        steps = torch.arange(1, num_items)
        self._strides = steps[torch.gcd(steps, torch.tensor(num_items)) == 1]

    def tastes(self, round: int) -> Tensor:
        """Tastes at a round, ``(users, topics + styles)``."""
        if not self.drift or not round:
            return self._taste
        angle = self.drift * round
        return math.cos(angle) * self._taste + math.sin(angle) * self._later

    @property
    def demand(self) -> Tensor:
        """Expected requests of each user, ``(users,)``, up to a factor of the hour."""
        return self._activity * (1 + 2 * self._appetite)

    def visits(self, round: int) -> Tensor:
        """Requests of each user in a round, ``(users,)``; 0 for users who do not visit.

        A user who visits makes 1 + Poisson(2 x appetite) requests. Expected requests are the
        product of a user's weight and the hour's, so that lifts are the same at every hour.
        """
        generator = random(self.seed, round, "visits", _CPU)
        chance = self._visits * self._curve[round % DAY] * self._activity
        visits = torch.rand(self.num_users, generator=generator) < chance
        more = torch.poisson(2 * self._appetite, generator=generator)
        return torch.where(visits, 1 + more, 0.0).long()

    def retrieve(self, user: Tensor, generator: torch.Generator) -> Requests:
        """One request for each entry of ``user``, with a random slate."""
        num = len(user)
        start = torch.randint(self.num_items, (num,), generator=generator)
        stride = torch.randint(len(self._strides), (num,), generator=generator)
        return Requests(user, start, self._strides[stride])

    def items(self, requests: Requests) -> Tensor:
        """The slates, item numbers ``(requests, slate)``; items have no order."""
        steps = torch.arange(self.slate) * requests.stride.unsqueeze(-1)
        return (requests.start.unsqueeze(-1) + steps) % self.num_items

    def rank(
        self, taste: Tensor, user: Tensor, items: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The rankers' predictions for slates, and the true affinity ``(requests, slate)``.

        Predictions ``(rankers, requests, slate)`` are p(click), p(share), p(follow) and expected
        minutes of watch time, all given only that the user looks. ``taste`` is that of the round,
        ``(users, topics + styles)``; ``user (requests,)`` and ``items (requests, slate)``.
        """
        table = self._catalogue[items]
        width = self._vector.shape[1]
        affinity = torch.bmm(table[..., :width], taste[user].unsqueeze(-1))
        noise = torch.randn(*items.shape, NUM_RANKERS, generator=generator)
        z = table[..., width:] + affinity * self._pull[:NUM_RANKERS]
        z = z + noise * torch.tensor(_NOISE_STD)
        z = (z + self.propensity[user, :NUM_RANKERS].unsqueeze(1)).movedim(-1, 0).contiguous()
        click = z[CLICK].sigmoid()
        share, follow = click * z[SHARE].sigmoid(), click * z[FOLLOW].sigmoid()
        predicted = torch.stack([click, share, follow, click * z[WATCH].exp() / 60])
        return predicted, affinity.squeeze(-1)

    def ranked(
        self, requests: Requests, round: int, generator: torch.Generator
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Retrieve and rank in chunks: rows, slates, predictions and affinities of each.

        The generator is used once per chunk, before the chunk is yielded.
        """
        taste = self.tastes(round)
        for first in range(0, len(requests.user), _CHUNK):
            rows = slice(first, first + _CHUNK)
            part = Requests(*(field[rows] for field in requests))
            slate = self.items(part)
            yield rows, slate, *self.rank(taste, part.user, slate, generator)

    def respond(self, user: Tensor, items: Tensor, affinity: Tensor) -> Tensor:
        """True responses of users to items they look at, ``(outcomes, requests, n)``.

        Probabilities of a click and a hide; of a share and a follow given a click; expected
        seconds given a click.
        """
        z = self._appeal[items] + affinity.unsqueeze(-1) * self._pull
        z = (z + self.propensity[user].unsqueeze(1)).movedim(-1, 0).contiguous()
        seconds = z[WATCH].exp()
        z = z.sigmoid_()
        z[WATCH] = seconds
        return z


class _Draw:
    """Draws from one generator, float32."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def whole(self, bound: int, num: int) -> Tensor:
        return torch.randint(bound, (num,), generator=self.generator)

    def lognormal(self, num: int, std: float) -> Tensor:
        return (std * self.normal(num) - std**2 / 2).exp()

    def taste(self, num: int, style: tuple[float, ...]) -> Tensor:
        around = torch.tensor(style) + 0.3 * self.normal(num, _STYLES)
        return torch.cat([self.normal(num, _TOPICS), around], dim=1)


def _daily_curve(peak: float) -> Tensor:
    """Traffic by hour of the day, ``(24,)``, averaging 1; the peak is 8 times the trough."""
    hour = torch.arange(DAY) - peak
    curve = (math.log(_PEAK_TO_TROUGH) / 2 * (2 * math.pi * hour / DAY).cos()).exp()
    return curve / curve.mean()
