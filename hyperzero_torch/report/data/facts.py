"""One consistent reading of a study, from which the whole report is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...study.config import TunerConfig
from ...study.evidence.bucket import Bucket
from ...study.health import Card, cards
from ...study.history import CONTROL, History
from ...study.launch import goes_on
from ...surrogate.protocol import FittedPosterior
from ...tuner.beliefs import Belief
from ...tuner.horizon import card_of, resolution
from ...tuner.model import ModelState
from ...tuner.recommend import Criterion, Recommendation, recommend
from ...tuner.verdict import Verdict, at_horizon, verdict_on
from .late_readings import Delays, delays_of

if TYPE_CHECKING:
    from ...simulate import Environment, Oracle, RoundRecord
    from ...tuner.tuner import Tuner

_ZERO = 1e-9  # an objective whose base is smaller has no relative gain


@dataclass(frozen=True)
class Facts:
    """The state of a study at one moment.

    Args:
        model: evidence, problem with its levels, posterior.
        records: the true outcome of every round of a simulation; empty on a real platform.
        oracle: the best feasible theta, where it is known.
        world: the simulated platform, where there is one.
        verdict: in a sentence, as ``hyperzero status`` shows it.
        health: the cards behind it, and that of the horizon.
    """

    study: str
    history: History
    config: TunerConfig
    model: ModelState
    belief: Belief
    best: Recommendation
    records: tuple[RoundRecord, ...]
    oracle: Oracle | None
    world: Environment | None
    delays: Delays
    verdict: Verdict
    health: tuple[Card, ...]

    @property
    def problem(self) -> Problem:
        """The problem, with the base levels as far as they are known."""
        return self.model.problem

    @property
    def bucket(self) -> Bucket:
        """All candidates with their evidence."""
        return self.model.bucket

    @property
    def posterior(self) -> FittedPosterior | None:
        """None where nothing could be fitted; ``model.why_not`` says why."""
        return self.model.posterior

    @property
    def is_relative(self) -> bool:
        """Whether gains are relative to the base's objective, which is not 0 then."""
        return abs(self.best.objective_base) > _ZERO

    def gain(self, utility: Tensor) -> Tensor:
        """Objective values as gains over the base, a fraction; better is always larger."""
        base = self.best.objective_base
        return (utility - base) / (abs(base) if self.is_relative else 1.0)

    @property
    def last_round(self) -> int:
        """The latest planned round."""
        return max(self.history.plans)

    @property
    def tracked(self) -> int | None:
        """The candidate shown by round: recommended, else the leader, else with most evidence."""
        if self.best.candidate_id != CONTROL:
            return self.best.candidate_id
        if self.best.leader is not None:
            return self.best.leader
        return next(iter(self.by_weight(1)), None)

    @property
    def role(self) -> str:
        """Why that candidate is shown."""
        if self.best.candidate_id != CONTROL:
            return "the recommended candidate"
        return "the candidate with most evidence" if self.best.leader is None else "the leader"

    def by_weight(self, num: int) -> list[int]:
        """Ids of the candidates with the most evidence over all metrics, the most first."""
        weight = self.bucket.weight
        share = (weight / weight.amax(0).clamp_min(1e-300)).sum(-1)
        share[CONTROL] = 0.0
        order = torch.argsort(share, descending=True, stable=True)[:num]
        return [c for c in order.tolist() if share[c] > 0]

    def with_best(self, ids: list[int], most: int) -> list[int]:
        """At most so many ids, the recommended candidate among them."""
        best = self.best.candidate_id
        return ids[:most] if best in (CONTROL, *ids[:most]) else [*ids[: most - 1], best]

    def prob_feasible(self, ids: list[int]) -> Tensor:
        """P(feasible) of candidates, NaN for those without an estimate."""
        is_known = self.belief.mean[ids].isfinite()
        return torch.where(is_known, self.belief.prob_feasible[ids], torch.nan)

    def true_delta(self, theta: Tensor) -> Tensor | None:
        """True deltas ``(n, metrics)`` of ``(n, params)``; None without a simulated world."""
        return None if self.world is None else self.world.true_delta(theta)


def collect(
    tuner: Tuner,
    records: Iterable[RoundRecord] | None = None,
    oracle: Oracle | None = None,
    world: Environment | None = None,
    criterion: Criterion = "lcb",
) -> Facts:
    """Read the study once.

    Raises:
        RoundError: nothing was planned yet.
        ConfigError: an unknown criterion.
    """
    model, belief = tuner.belief()
    history = tuner.history
    shares = history.plans[max(history.plans)].shares
    best = recommend(model, tuner.config, belief, criterion, shares, history.status.stopped)
    now = datetime.now(UTC)
    health = cards(history, tuner.config)
    verdict = verdict_on(history, tuner.config, health, best, model.problem)
    if not goes_on(history):
        facts = resolution(history, tuner.config, model.bucket, now)
        health = (*health, card_of(facts, tuner.config.horizon, now))
    return Facts(
        study=tuner.study.name,
        history=history,
        config=tuner.config,
        model=model,
        belief=belief,
        best=best,
        records=tuple(records or ()),
        oracle=oracle,
        world=world,
        delays=delays_of(tuner),
        verdict=at_horizon(verdict, tuner.config.horizon, now),
        health=health,
    )
