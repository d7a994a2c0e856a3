"""One contender in one world: deliver what is due, plan, serve; readings come rounds later."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import Environment

from .contender import Contender

# A recommendation that truly violates by more than this is worth nothing.
TOLERANCE = 1e-3


def race(contender: Contender, world: Environment, num_rounds: int) -> dict[str, list[Any]]:
    """Columns with one value per round, as someone sees them who knows the truth.

    A recommendation is judged by what had arrived when the round began. ``score`` is its true
    gain over the oracle's, 0 where it violates. Where no theta is feasible, the oracle's gain is
    0 and the score is 1 for staying with the base. In a world that drifts, truth and oracle are
    those of the round.
    """
    columns: dict[str, list[Any]] = defaultdict(list)
    mail: dict[int, list[hz.Readings]] = defaultdict(list)
    drifts = bool(getattr(world, "drift", 0.0))
    oracle = world.oracle()
    for round_ in range(num_rounds):
        if mail[round_]:
            contender.tell(mail.pop(round_))
        plan = contender.plan(round_)
        for delivery in world.serve(plan):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
        best = contender.tuner.recommend("lcb")
        theta = world.truth_problem.space.theta(best.parameters).unsqueeze(0)
        truth = world.truth(theta, round_)
        if drifts and round_:
            oracle = world.oracle(num_samples=10_000, round=round_)
        gain, violation = float(truth.gain), float(truth.violation)
        if oracle.gain > 0:
            score = gain / oracle.gain if violation <= TOLERANCE else 0.0
        else:
            score = float(best.candidate_id == 0)
        shares = torch.tensor(plan.shares, dtype=torch.float64)
        served = world.truth(plan.theta, round_).violation
        for name, value in {
            "score": score,
            "gain": gain,
            "violation": violation,
            "exposed_violation": float((shares * served).sum()),
            "prob_feasible": best.prob_feasible,
            "oracle_gain": oracle.gain,
            "num_arms": len(plan) - 1,
            "control_share": plan.control_share,
            "seconds": contender.seconds,
        }.items():
            columns[name].append(value)
    return dict(columns)
