"""A family of regions: one living recommender, served to other users in other places.

A region is a ``ValueModelWorld`` over its family's items, rankers and population that differs in

user mix   who of the population uses it: drawn with weights by tastes
responses  how styles and affinity move what users do, which rankers learn as well
levels     propensity of every outcome, and the base theta
traffic    a source has half to twice the target's users; the hour of its peak

by sqrt(1 - share^2) in its mix and responses, and by the same whatever the share in the others.

``Region`` is the form that is raced. Its truth is the panel's expectation under 512 thetas,
interpolated; what a theta ranks does not change when all its weights are scaled, so a cubic spline
over the weights' proportions is closer to the panel than the panel is to all requests
(``RegionWorld``, and tests/transfer/test_bench_regions.py, which compares the two). Its noise is
that of the simulated users of an hour: means and covariances of what each of them sums up. Users
come by the region's daily curve, each hour anew; readings come three hours late or more, as in the
synthetic worlds. Left out are drift, novelty, bots and the metrics that no term sees.

    maximise  watch_time     subject to  hides <= 1 %,  follows >= -1 %          all deltas

A source is what a study of its region leaves behind, read from its history as the package reads
any study: half a day of a first design, then a day of a cloud around its best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from hyperzero_torch import ConfigError, InputError
from hyperzero_torch.problem.problem import Problem
from hyperzero_torch.problem.space import SearchSpace
from hyperzero_torch.runtime.randomness import random
from hyperzero_torch.simulate import Delivery, Environment, Oracle, ValueModelWorld
from hyperzero_torch.simulate.recommender.audience import _RESPONSE, NUM_RANKERS
from hyperzero_torch.simulate.recommender.feed import EVENT_METRICS, feed_events
from hyperzero_torch.simulate.synthetic import DAY, deliver
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Configured, Planned
from hyperzero_torch.study.plan import Plan
from hyperzero_torch.study.reception import new_rows
from hyperzero_torch.transfer import Source, features, from_bucket

from .misled import MISLEADING, Misleading, misled

METRICS = ("watch_time", "follows", "hides")
_BAD = ("unrelated", *MISLEADING)
KINDS = ("related", *_BAD, "one_good")
TARGET = 0  # the member of a family that is tuned; its sources are members 1, 2, ...
_COLUMNS = [EVENT_METRICS.index(name) for name in METRICS]
_OWN_MIX, _OWN_RESPONSE = 1.0, 0.5  # of a region that shares nothing
_OWN_LEVEL, _OWN_BASE, _OWN_TRAFFIC = 0.15, 0.35, 0.5  # log scale, of any region
_PANEL, _NUM_THETAS = 4096, 512
_LEAST_GAIN, _LEAST_BREACH, _MAX_TRIES = 0.03, 0.01, 200
_DESIGN, _CLOUD, _CLOUD_WIDTH = 64, 32, 0.08
_DESIGN_HOURS, _CLOUD_HOURS, _CONTROL_SHARES = 12, 24, (0.35, 0.5)
_DELAY = 3


class RegionWorld(ValueModelWorld):
    """A region at the level of users, items and events.

    Args:
        seed: of the family, and of what happens.
        member: which region of the family.
        share: 1 for regions that respond alike, 0 for those that have only the catalogue in common.
    """

    def __init__(self, seed: int, member: int, share: float) -> None:
        super().__init__(seed, novelty=0.0, bots=0, panel=_PANEL)
        generator = _generator(seed, member, "region")
        self.traffic = math.exp(_OWN_TRAFFIC * _normal(generator, 1).clamp(-1.4, 1.4).item())
        self._move(generator, math.sqrt(1 - share**2))
        space = self.truth_problem.space
        base = self.truth_problem.base_theta * (_OWN_BASE * _normal(generator, 4).double()).exp()
        low, high = space.from_unit(torch.tensor([[0.1], [0.9]]).double().expand(2, 4))
        self.set_base(base.clamp(low, high))

    def _move(self, generator: torch.Generator, own: float) -> None:
        """Turn the family's audience into the region's."""
        audience = self.audience
        audience.seed = generator.initial_seed()
        style = audience._vector[:, 8:]
        response = torch.tensor(_RESPONSE)
        step = own * _OWN_RESPONSE * _normal(generator, *response.shape)
        moved = style @ (step[:, 2:] * response[:, 2:]).T
        audience._appeal = audience._appeal + moved
        audience._pull = audience._pull * (1 + step[:, 1])
        catalogue = audience._catalogue.clone()
        catalogue[:, -NUM_RANKERS:] += moved[:, :NUM_RANKERS]
        audience._catalogue = catalogue
        taste = audience._taste
        standard = (taste - taste.mean(0)) / taste.std(0)
        weight = (own * _OWN_MIX * standard @ _normal(generator, taste.shape[1]) / 3).exp()
        rows = torch.multinomial(weight, audience.num_users, replacement=True, generator=generator)
        for name in ("_taste", "_later", "propensity", "_activity", "_appetite"):
            setattr(audience, name, getattr(audience, name)[rows])
        levels = _OWN_LEVEL * _normal(generator, audience.propensity.shape[1])
        audience.propensity = audience.propensity + levels
        hour = int(torch.randint(DAY, (1,), generator=generator))
        audience._curve = audience._curve.roll(hour)

    def set_base(self, base: Tensor) -> None:
        """Let another theta be the region's base."""
        old = self.truth_problem
        Environment.__init__(self, _problem(old.space, base, old.metrics))
        self._truth = None

    def totals(self, theta: Tensor) -> Tensor:
        """Expected metrics of the average request, ``(n, params)`` to ``(n, 3)``."""
        panel = self._truth_at(None).panel
        return torch.stack([panel.by_request(row).mean(0) for row in theta])[:, _COLUMNS]

    def users(self) -> Tensor:
        """Expected users by hour of the day, ``(24,)``."""
        audience = self.audience
        return audience.num_users * audience._visits * audience._curve.double()

    def per_user(self, round: int = 12) -> Tensor:
        """What each user who comes in a round sums up under the base, ``(users, 3)``."""
        visits = self.audience.visits(round)
        user = visits.nonzero().squeeze(-1)
        asking = torch.repeat_interleave(user, visits[user])
        theta = self.truth_problem.base_theta.expand(len(asking), -1)
        none = torch.zeros(len(asking), dtype=torch.float64)
        happened = feed_events(self.audience, round, asking, theta, none, self.shown)
        width = len(EVENT_METRICS)
        place = torch.searchsorted(user, happened.user) * width + happened.metric
        sums = torch.zeros(len(user) * width, dtype=torch.float64)
        return sums.index_add(0, place, happened.value).reshape(-1, width)[:, _COLUMNS]


class Region(Environment):
    """A region in the form that is raced.

    Args:
        seed: of the family, and of the noise.
        member: which region of the family.
        share: as of ``RegionWorld``.
        traffic: scale of the 6,000 users of the average hour.
        richer: traffic of its sources, times its own.
    Raises:
        ConfigError: a target of which no base has anything to gain.
    """

    name = "region"

    def __init__(
        self, seed: int, member: int, share: float, traffic: float, richer: float = 1.0
    ) -> None:
        world = RegionWorld(seed, member, share)
        self.seed, self.member, self.share, self.traffic = seed, member, share, traffic
        self.richer = richer
        self.world, self.space = world, world.truth_problem.space
        self.users = traffic * world.users() * (1.0 if member == TARGET else world.traffic)
        predicted = world._truth_at(None).panel._predicted
        self._unit = predicted.std((1, 2)).double()
        x = self.space.sobol(_NUM_THETAS, seed=member)
        theta = self.space.from_unit(x)
        self._interpolate = RBFInterpolator(
            self._proportions(theta).numpy(),
            world.totals(theta).log().numpy(),
            kernel="cubic",
            smoothing=1e-3,
        )
        self._settle(_generator(seed, member, "base"), world.truth_problem.base_theta)
        world.set_base(self.truth_problem.base_theta)
        sums = world.per_user()
        self.level, self.spread = sums.mean(0), torch.linalg.cholesky(sums.T.cov())

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """True lift over the base, ``(n, params)`` to ``(n, 3)``; the same in every round."""
        change = self._log_totals(theta) - self._log_totals(self.truth_problem.base_theta[None])
        return change.expm1()

    def oracle(self, num_samples: int = 10_000, round: int | None = None) -> Oracle:
        """The best feasible theta, searched as in other worlds from fewer points."""
        return super().oracle(num_samples, round)

    def serve(self, plan: Plan) -> list[Delivery]:
        """Every arm's sample mean and variance."""
        generator = _generator(self.seed, self.member, "noise", plan.round)
        share = torch.tensor(plan.shares, dtype=torch.float64)
        count = (share * self.users[plan.round % DAY]).round()
        scale = 1 + self.true_delta(plan.theta)
        shape = scale.shape
        normal = torch.randn(shape, dtype=torch.float64, generator=generator) @ self.spread.T
        mean = scale * (self.level + normal / count.clamp_min(1).sqrt().unsqueeze(-1))
        freedom = (count - 1).clamp_min(1).unsqueeze(-1)
        # chi-square / freedom by the Wilson-Hilferty cube
        cube = 2 / (9 * freedom)
        z = torch.randn(shape, dtype=torch.float64, generator=generator)
        chi = (1 - cube + z * cube.sqrt()).clamp_min(0) ** 3
        var = scale.square() * self.spread.square().sum(1) * chi
        return deliver(plan, count, mean, var, _DELAY, generator)

    def sources(self, num: int, kind: str = "related") -> list[Source]:
        """What studies of ``num`` other regions left behind; of ``one_good`` the first is related.

        Kinds are ``related``, ``unrelated``, those that mislead (``misled``), and ``one_good``.
        """
        if kind not in KINDS:
            raise InputError(f"sources among regions are {', '.join(KINDS)}, got {kind!r}")
        return [self._relative(i + 1, kind) for i in range(num)]

    def _relative(self, member: int, kind: str) -> Source:
        if kind == "one_good":
            kind = "related" if member == 1 else _BAD[member % len(_BAD)]
        if kind == "unrelated":  # another catalogue and other users too
            source = _source(self.seed + 1_000_003, member, 0.0, self.richer * self.traffic)
        else:
            source = _source(self.seed, member, self.share, self.richer * self.traffic)
        if kind in MISLEADING:
            source = misled(source, cast(Misleading, kind), self.space, 7_919 * self.seed + member)
        return replace(source, name=f"{kind}_{member}")

    def _settle(self, generator: torch.Generator, base: Tensor) -> None:
        """Problem and base; for a target drawn until something is to be gained and a guardrail
        binds.
        """
        space = self.space
        first = centre = space.to_unit(base)
        for _ in range(_MAX_TRIES):
            base = space.from_unit(centre.unsqueeze(0))[0]
            Environment.__init__(self, _problem(space, base, METRICS))
            truth = self.truth(space.from_unit(space.sobol(2048, seed=0)))
            best = truth.gain[truth.violation <= 0]
            breach = float(truth.violation[truth.gain.argmax()])
            gains = len(best) > 0 and float(best.max()) >= _LEAST_GAIN and breach >= _LEAST_BREACH
            if self.member != TARGET or gains:
                return
            step = 0.1 * _normal(generator, space.num_dims).double()
            centre = (first + step).clamp(0.05, 0.95)
        raise ConfigError(f"family {self.seed} has nothing to gain in {_MAX_TRIES} tries")

    def _log_totals(self, theta: Tensor) -> Tensor:
        return torch.from_numpy(self._interpolate(self._proportions(theta).numpy()))

    def _proportions(self, theta: Tensor) -> Tensor:
        """How much of a score's spread is each ranker's, ``(n, rankers)``, summing to 1."""
        part = theta.to(torch.float64) * self._unit
        return part / part.sum(-1, keepdim=True)


@lru_cache(maxsize=64)
def _source(family: int, member: int, share: float, traffic: float) -> Source:
    region = Region(family, member, share, traffic)
    problem, history = region.problem, study(region)
    bucket = gather(history, Pooling("precision", DAY))
    meta = features.of(history, DAY, bucket.dispersion)
    return from_bucket(problem, bucket, f"region_{member}", meta)


def study(region: Region) -> History:
    """Half a day of a design, then a day of a cloud around the best that the region has."""
    space, problem = region.space, region.problem
    generator = _generator(region.seed, region.member, "study")
    x = space.sobol(4096, seed=0)
    outcome = problem.evaluate(region.true_delta(space.from_unit(x)))
    best = x[int(torch.where(outcome.feasible, outcome.utility, -torch.inf).argmax())]
    near = best + _CLOUD_WIDTH * _normal(generator, _CLOUD, space.num_dims).double()
    design = space.sobol(_DESIGN, seed=region.member)
    base = space.to_unit(problem.base_theta)[None]
    theta = space.from_unit(torch.cat([base, design, space.snap(near.clamp(0, 1))]))
    settings = space.to_parameters(theta)
    history = History(space.num_params, problem.metrics)
    history.extend([Configured({})])
    for c, (row, setting) in enumerate(zip(theta.tolist(), settings)):
        history.extend([CandidateAdded(c, 0, "design", tuple(row), setting)])
    parts = (range(1, _DESIGN + 1), range(_DESIGN + 1, len(theta)))
    for t in range(_DESIGN_HOURS + _CLOUD_HOURS):
        late = int(t >= _DESIGN_HOURS)
        arms, control = parts[late], _CONTROL_SHARES[late]
        ids, slots = (0, *arms), (1,) * (len(arms) + 1)
        shares = (control, *((1 - control) / len(arms),) * len(arms))
        history.extend([Planned(t, ids, slots, shares)])
        served = [settings[i] for i in ids]
        plan = Plan(t, ids, tuple(served), theta[list(ids)], slots, shares)
        for sent in region.serve(plan):
            if (rows := new_rows(history, sent.readings)) is not None:
                history.extend([rows])
    return history


def _problem(space: SearchSpace, base: Tensor, metrics: Sequence[str]) -> Problem:
    return Problem(
        space=space,
        base=space.to_parameters(base.unsqueeze(0))[0],
        metrics=metrics,
        objective="watch_time",
        constraints=["hides <= 1%", "follows >= -1%"],
    )


def _generator(seed: int, member: int, purpose: str, round: int = 0) -> torch.Generator:
    return random(seed, round, f"{purpose} {member}", torch.device("cpu"))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)
