"""A simulated recommender: users, items, rankers, and a value model whose weights are tuned.

    score = w_click p(click) + w_share p(share) + w_follow p(follow) + w_watch minutes of watch time

A request retrieves a slate, the value model ranks it by the rankers' predictions, the top is shown
with position bias, and users respond by their true probabilities. Metrics trade off through the
items that rise: the weights with the most watch time promote the items that are hidden most.

    maximise  watch_time     subject to  hides <= 1 %,  follows >= -1 %          all deltas

The difficulties of a real platform are included: a daily rhythm with a peak of 8 times the trough,
returning users with persistent tastes, novelty effects, tastes that drift, late events, bots, and
users who see two arms.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...problem.problem import Problem
from ...problem.space import Float, SearchSpace
from ...runtime.randomness import random
from ...study.plan import Plan
from ..environment import Delivery, Environment, Oracle, check_range
from .assignments import Assign, Assignment, one_by_one, read_assignments
from .audience import Audience
from .event_log import Served, as_tables
from .feed import (
    EVENT_METRICS,
    IMPRESSIONS,
    MAX_LATENESS,
    SHARES,
    Events,
    aggregate,
    bot_events,
    feed_events,
    join,
)
from .panel import Panel, PanelTruth

__all__ = ["METRICS", "Assign", "Assignment", "ValueModelWorld", "one_by_one"]

METRICS = EVENT_METRICS[:IMPRESSIONS]  # impressions are the same under every theta
_BASE = {"w_click": 1.0, "w_share": 2.0, "w_follow": 5.0, "w_watch": 0.3}
_BOT_ROUNDS = 0.5  # probability that a bot is active in a round
_NOTICED = 0.1  # distance from the base, in the unit cube, with 63 % of the full novelty effect
_FADED = 20  # spans of novelty_hours after which the novelty effect is negligible
_CPU = torch.device("cpu")


class ValueModelWorld(Environment):
    """A recommender at the level of users, items and events.

    It serves an application's own assignments (``serve_round``, whose tables can be logged), or
    plans like every other world (``serve``, which also aggregates).

    All randomness is a function of (seed, round): the same round with the same assignment gives the
    same tables. Only the novelty effect has a memory: the earlier rounds in which a theta was
    served.

    Args:
        seed: of users, items, rankers and events.
        num_users: users; about 30 % of them visit in the average hour.
        num_items: items in the catalogue.
        slate: items that a request retrieves.
        shown: items that are shown of them.
        visits: probability that the average user visits in the average hour.
        delay: rounds that the readings of ``serve`` are late, beyond the events' own lateness.
        drift: radians an hour by which tastes turn, towards quality and away from outrage.
        novelty: relative increase of clicks at first for a new theta far from the base.
        novelty_hours: rounds of being served after which 63 % of that has faded.
        bots: users in whose name a script clicks thousands of times in about every second round;
            they are in the tables of ``serve_round`` but not in the readings of ``serve``.
        flips: fraction of users who see a second arm within a round, also in the tables only.
        panel: requests over which ``true_delta`` averages; see ``true_delta_error``.
    Raises:
        ConfigError: an argument outside its range.
    """

    name = "value-model"

    def __init__(
        self,
        seed: int = 0,
        *,
        num_users: int = 20_000,
        num_items: int = 2_000,
        slate: int = 50,
        shown: int = 6,
        visits: float = 0.3,
        delay: int = 0,
        drift: float = 0.0,
        novelty: float = 0.01,
        novelty_hours: float = 6.0,
        bots: int = 1,
        flips: float = 0.0,
        panel: int = 16_384,
    ) -> None:
        check_range("seed", seed, 0, 2**63 - 1, whole=True)
        check_range("num_users", num_users, 2, 10_000_000, whole=True)
        check_range("num_items", num_items, 2, 10_000_000, whole=True)
        check_range("slate", slate, 2, min(num_items, 1000), whole=True)
        check_range("shown", shown, 1, slate, whole=True)
        check_range("visits", visits, 1e-6, 0.4)
        check_range("delay", delay, 0, 1_000_000, whole=True)
        check_range("drift", drift, 0.0, 1.0)
        check_range("novelty", novelty, 0.0, 1.0)
        check_range("novelty_hours", novelty_hours, 1e-3, 1e6)
        check_range("bots", bots, 0, num_users, whole=True)
        check_range("flips", flips, 0.0, 1.0)
        check_range("panel", panel, 100, 1_000_000, whole=True)
        self.seed, self.shown, self.delay, self.drift = seed, shown, delay, drift
        self.novelty, self.novelty_hours, self.flips = novelty, novelty_hours, flips
        self.audience = Audience(seed, num_users, num_items, slate, visits, drift)
        width = max(6, len(str(num_users - 1)))
        self.user_ids = [f"u{i:0{width}d}" for i in range(num_users)]
        shuffled = torch.randperm(num_users, generator=random(seed, 0, "bots", _CPU))
        self._bots = shuffled[:bots]
        self._num_panel = panel
        self._truth: tuple[int, PanelTruth] | None = None
        self._rounds_served: defaultdict[tuple[float, ...], set[int]] = defaultdict(set)
        self._latest: dict[int, Served] = {}
        space = SearchSpace(
            [
                Float("w_click", 0.0, 2.0),
                Float("w_share", 0.5, 50.0, log=True),
                Float("w_follow", 0.5, 50.0, log=True),
                Float("w_watch", 0.05, 5.0, log=True),
            ]
        )
        super().__init__(
            Problem(
                space=space,
                base=_BASE,
                metrics=METRICS,
                objective="watch_time",
                constraints=["hides <= 1%", "follows >= -1%"],
            )
        )

    def serve_round(self, round: int, assign: Assign) -> Served:
        """Serve the users who visit in a round by their assignments.

        Args:
            round: the hour, 0 or later.
            assign: called once with the ids of all visiting users; ``one_by_one`` makes one from a
                function of a single user's id.
        Returns:
            Exposures and events as tidy tables, events that arrive later included. Users outside
            the experiment have events and no exposure.
        Raises:
            InputError: no such round, not one assignment for each user, or a candidate with two
                thetas.
            SpaceError: parameters outside the search space.
            MissingExtraError: pyarrow is not installed.
        """
        if isinstance(round, bool) or not isinstance(round, int) or not 0 <= round < 2**53:
            raise InputError(f"a round is a whole number, 0 or later, got {round!r}")
        visits = self.audience.visits(round)
        generator = random(self.seed, round, "bots", _CPU)
        scripted = torch.rand(len(self._bots), generator=generator) < _BOT_ROUNDS
        bots = self._bots[scripted]
        visits[bots] = visits[bots].clamp_min(1)
        user = visits.nonzero().squeeze(-1)
        assigned = assign([self.user_ids[i] for i in user.tolist()])
        arms = read_assignments(self.problem.space, len(user), assigned)
        arm, theta = arms.arm, arms.theta
        other = torch.where(arms.is_counted, self._flip(round, arm), arm)
        flipped = (other != arm).nonzero().squeeze(-1)
        counted = arms.is_counted.nonzero().squeeze(-1)
        row = torch.repeat_interleave(visits[user])
        # The later half of a flipped user's requests is served by the other arm.
        nth = torch.arange(len(row)) - (visits[user].cumsum(0) - visits[user])[row]
        served = torch.where(2 * nth < visits[user][row], arm[row], other[row])
        bonus = self._bonus(round, theta)
        events = feed_events(
            self.audience, round, user[row], theta[served], bonus[served], self.shown
        )
        tables = as_tables(
            round,
            self.user_ids,
            torch.cat([user[counted], user[flipped]]),
            arms.candidate[torch.cat([arm[counted], other[flipped]])],
            join([events, bot_events(bots, generator)]),
        )
        self._latest[round] = tables
        self._latest = {r: t for r, t in self._latest.items() if r >= round - MAX_LATENESS}
        return tables

    def write(self, folder: str | Path, arrived_by: int | None = None) -> list[Path]:
        """Log the events that have arrived of the last rounds served; see ``Served.write``.

        Called after every ``serve_round``, it writes the exposures of that round, and those events
        of this round and the six before it that have arrived by its end.

        Args:
            folder: of the log.
            arrived_by: the last round whose arrivals are logged; by default the last one served.
        Returns:
            The files that are new.
        Raises:
            ConfigError: the folder cannot be written to.
        """
        by = max(self._latest, default=0) if arrived_by is None else arrived_by
        return [path for served in self._latest.values() for path in served.write(folder, by)]

    def serve(self, plan: Plan) -> list[Delivery]:
        """Serve a plan by its shares; users are assigned to arms independently in each round.

        Who takes part in an experiment for a part of all users is the same in every round. The
        others are served the base, and are in no reading.

        Values are sums per visiting user. There are two messages. The first, in the next round, has
        the events that have arrived by then, without shares, which take hours. The second, when the
        last event has arrived, has all of them as revision 1. Arms with fewer than two users are
        left out, and so are metrics for which the control has no events.
        """
        visits = self.audience.visits(plan.round)
        if plan.experiment_share < 1:
            place = torch.rand(len(visits), generator=random(self.seed, 0, "experiment", _CPU))
            visits = torch.where(place < plan.experiment_share, visits, 0)
        user = visits.nonzero().squeeze(-1)
        generator = random(self.seed, plan.round, "arms", _CPU)
        draw = torch.rand(len(visits), dtype=torch.float64, generator=generator)[user]
        edges = torch.tensor(plan.shares, dtype=torch.float64).cumsum(0)
        arm = torch.searchsorted(edges, draw, right=True).clamp_max(len(plan) - 1)
        served = torch.repeat_interleave(arm, visits[user])
        theta = plan.theta.to(torch.float64)
        bonus = self._bonus(plan.round, theta)
        requests = torch.repeat_interleave(user, visits[user])
        events = feed_events(
            self.audience, plan.round, requests, theta[served], bonus[served], self.shown
        )
        due = plan.round + 1 + self.delay
        in_time = Events(*(field[events.late == 0] for field in events))
        metrics = list(range(len(METRICS)))
        early = [m for m in metrics if m != SHARES]
        messages = (
            (due, aggregate(plan, user, arm, in_time, early, revision=0)),
            (due + MAX_LATENESS, aggregate(plan, user, arm, events, metrics, revision=1)),
        )
        return [Delivery(when, readings) for when, readings in messages if readings is not None]

    def true_delta(self, theta: Tensor, round: int | None = None) -> Tensor:
        """Expected lift over the base, ``(n, params)`` to ``(n, metrics)``, without novelty.

        Averaged over a fixed panel of requests by true probabilities, with the same users, slates
        and rankers' noise for every theta. ``true_delta_error`` says how far that may be from the
        average over all requests. With drift it is that of ``round``, at round 0 by default.
        """
        return self._truth_at(round).true_delta(theta)

    def true_delta_error(self, theta: Tensor, round: int | None = None) -> Tensor:
        """Standard error of ``true_delta`` by its panel, ``(n, params)`` to ``(n, metrics)``."""
        return self._truth_at(round).error(theta)

    def oracle(self, num_samples: int = 500, round: int | None = None) -> Oracle:
        """The best feasible theta; see ``PanelTruth.oracle``."""
        return self._truth_at(round).oracle(num_samples)

    def _truth_at(self, round: int | None) -> PanelTruth:
        """Expectations under the tastes of a round; those of the last round asked for are kept."""
        key = round if self.drift and round else 0
        if self._truth is None or self._truth[0] != key:
            panel = Panel(self.audience, key, self._num_panel, self.shown)
            self._truth = (key, PanelTruth(self.truth_problem, panel))
        return self._truth[1]

    def _bonus(self, round: int, theta: Tensor) -> Tensor:
        """The novelty effect on clicks, ``(arms,)``; also records that these thetas are served.

        novelty * (1 - exp(-distance / 0.1)) * exp(-rounds served before / novelty_hours)
        """
        if not self.novelty:
            return torch.zeros(len(theta), dtype=torch.float64)
        space = self.problem.space
        step = space.to_unit(theta) - space.to_unit(self.problem.base_theta)
        noticed = 1 - (-step.square().mean(-1).sqrt() / _NOTICED).exp()
        ages = []
        for key in map(tuple, theta.tolist()):
            rounds = self._rounds_served[key]
            ages.append(sum(earlier < round for earlier in rounds))
            if len(rounds) < _FADED * self.novelty_hours:
                rounds.add(round)
        age = torch.tensor(ages, dtype=torch.float64)
        return self.novelty * noticed * (-age / self.novelty_hours).exp()

    def _flip(self, round: int, arm: Tensor) -> Tensor:
        """The arm that each user sees later in the round, ``(users,)``: the same for most.

        A flipped user gets the arm of another user, as a second device would.
        """
        generator = random(self.seed, round, "flips", _CPU)
        flips = torch.rand(len(arm), generator=generator) < self.flips
        partner = torch.randperm(len(arm), generator=generator)
        return torch.where(flips, arm[partner], arm)
