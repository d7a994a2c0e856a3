"""The closed loop on a world: deliver due messages, plan, serve, without waiting for readings."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..study.history import CONTROL
from ..study.plan import Plan
from ..study.readings import Readings
from ..tuner.recommend import Criterion, Recommendation
from ..tuner.tuner import Tuner
from .environment import Environment


@dataclass(frozen=True)
class RoundRecord:
    """One round with its true outcomes.

    Args:
        round: the round.
        recommendation: of the tuner, from the readings that had arrived when the round began.
        gain: true gain of the recommended candidate over the base.
        violation: true violation of its constraints, 0 where it is feasible.
        num_arms: candidates served besides the control.
        num_candidates: candidates in the bucket, the control not counted.
        num_in_flight: arms served so far whose readings have not arrived.
        seconds: time that the tuner and the world took together.
        exposed_violation: violation averaged over all users of the round; those outside the
            experiment are served the base.
    """

    round: int
    recommendation: Recommendation
    gain: float
    violation: float
    num_arms: int
    num_candidates: int
    num_in_flight: int
    seconds: float
    exposed_violation: float


def run(
    tuner: Tuner, world: Environment, num_rounds: int, criterion: Criterion = "lcb"
) -> Iterator[RoundRecord]:
    """Run rounds 0 to ``num_rounds - 1``, yielding after each new one.

    If the journal holds some of these rounds already, the loop resumes: planned rounds keep their
    plans, the world serves them again with the same readings, and readings that were received
    already change nothing.
    """
    planned = tuner.history.last_round
    first = 0 if planned is None else planned + 1
    mail: dict[int, list[Readings]] = defaultdict(list)
    for round_ in range(num_rounds):
        start = time.perf_counter()
        if mail[round_]:
            tuner.tell(mail.pop(round_))
        plan = tuner.ask(round_)
        for delivery in world.serve(plan):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
        if round_ >= first:
            best = tuner.recommend(criterion)
            yield _record(tuner, world, plan, best, time.perf_counter() - start)


def _record(
    tuner: Tuner, world: Environment, plan: Plan, best: Recommendation, seconds: float
) -> RoundRecord:
    theta = world.truth_problem.space.theta(best.parameters).unsqueeze(0)
    truth = world.truth(theta, plan.round)
    served = world.truth(plan.theta, plan.round).violation
    shares = torch.tensor(plan.shares, dtype=torch.float64) * plan.experiment_share
    shares[CONTROL] += 1.0 - plan.experiment_share
    return RoundRecord(
        round=plan.round,
        recommendation=best,
        gain=float(truth.gain),
        violation=float(truth.violation),
        num_arms=len(plan) - 1,
        num_candidates=tuner.history.num_candidates - 1,
        num_in_flight=tuner.history.num_in_flight,
        seconds=seconds,
        exposed_violation=float((shares * served).sum()),
    )
