"""One consistent look at a study: all that a report says is computed from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...study.config import TunerConfig
from ...study.evidence.bucket import Bucket
from ...study.history import CONTROL, History
from ...surrogate import Posterior
from ...tuner.beliefs import Belief
from ...tuner.model import ModelState
from ...tuner.recommend import Criterion, Recommendation, recommend
from .lateness import Lateness, lateness

if TYPE_CHECKING:
    from ...simulate import Environment, Oracle, RoundRecord
    from ...tuner.tuner import Tuner

_ZERO = 1e-9  # an objective whose base is smaller has no relative gain


@dataclass(frozen=True)
class Facts:
    """What is known of a study at one moment.

    Args:
        study: its name.
        history: plans and readings.
        config: the configuration in force.
        known: evidence, problem with its levels, posterior.
        belief: what follows for every candidate.
        best: the recommendation.
        records: what a simulation knows of every round; empty in life.
        oracle: the best feasible theta, where someone knows it.
        world: the simulated platform, where there is one.
        lateness: how late readings came of late.
    """

    study: str
    history: History
    config: TunerConfig
    known: ModelState
    belief: Belief
    best: Recommendation
    records: tuple[RoundRecord, ...]
    oracle: Oracle | None
    world: Environment | None
    lateness: Lateness

    @property
    def problem(self) -> Problem:
        """What is tuned, with the base levels as far as they are known."""
        return self.known.problem

    @property
    def bucket(self) -> Bucket:
        """All candidates with their evidence."""
        return self.known.bucket

    @property
    def posterior(self) -> Posterior | None:
        """None as long as there is nothing to fit; ``known.why_not`` says why."""
        return self.known.posterior

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
    def watched(self) -> int | None:
        """The candidate whose hours are shown: the recommended, the leader, or the best known."""
        if self.best.candidate_id != CONTROL:
            return self.best.candidate_id
        if self.best.leader is not None:
            return self.best.leader
        heaviest = self.by_weight(1)
        return heaviest[0] if heaviest else None

    def by_weight(self, num: int) -> list[int]:
        """The candidates with the most evidence, of all metrics alike; ids, heaviest first."""
        weight = self.bucket.weight
        share = (weight / weight.amax(0).clamp_min(1e-300)).sum(-1)
        share[CONTROL] = 0.0
        order = torch.argsort(share, descending=True, stable=True)[:num]
        return [c for c in order.tolist() if share[c] > 0]

    def true_delta(self, theta: Tensor) -> Tensor | None:
        """True deltas ``(n, metrics)`` of ``(n, params)``, where a world knows them."""
        return None if self.world is None else self.world.true_delta(theta)


def look(
    tuner: Tuner,
    records: Iterable[RoundRecord] | None,
    oracle: Oracle | None,
    world: Environment | None,
    criterion: Criterion,
) -> Facts:
    """Read the study once.

    Raises:
        RoundError: nothing was planned yet.
        ConfigError: an unknown criterion.
    """
    known, belief = tuner.belief()
    plan = tuner.history.last_plan
    assert plan is not None  # belief() has refused a study without a plan
    stopped = tuner.history.status.stopped
    best = recommend(known, tuner.config, belief, criterion, plan.shares, stopped)
    return Facts(
        study=tuner.study.name,
        history=tuner.history,
        config=tuner.config,
        known=known,
        belief=belief,
        best=best,
        records=tuple(records or ()),
        oracle=oracle,
        world=world,
        lateness=lateness(tuner),
    )
