"""Score the recommendation of each round against the truth."""

from __future__ import annotations

import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import Environment
from hyperzero_torch.study.history import CONTROL
from hyperzero_torch.study.plan import Plan
from hyperzero_torch.tuner.recommend import Criterion

# A recommendation whose true violation exceeds this scores 0.
TOLERANCE = 1e-3
#: The criterion of a recommendation, and the suffix of its columns' names.
CRITERIA: dict[Criterion, str] = {"lcb": "", "mean": "_mean"}


def short(value: float) -> float:
    """Six digits: enough for means over worlds, and the result files stay small."""
    return float(f"{value:.6g}")


class Judge:
    """Judges rounds of one world, in order.

    A recommendation uses the readings that had arrived when the round began. ``score`` is its true
    gain over the oracle's, 0 if it violates. If no theta is feasible, the oracle's gain is 0 and
    the score is 1 for recommending the base. In a world with drift, truth and oracle are those of
    the round.
    """

    def __init__(self, world: Environment) -> None:
        self.world = world
        self.oracle = world.oracle()
        self.drifts = bool(getattr(world, "drift", 0.0))

    def __call__(self, tuner: hz.Tuner, plan: Plan) -> dict[str, float]:
        """The round's columns: score, gain, violation and the rest."""
        if self.drifts and plan.round:
            self.oracle = self.world.oracle(num_samples=10_000, round=plan.round)
        shares = torch.tensor(plan.shares, dtype=torch.float64)
        served = self.world.truth(plan.theta, plan.round).violation
        columns = {
            "exposed_violation": float((shares * served).sum()),
            "oracle_gain": self.oracle.gain,
            "num_arms": len(plan) - 1,
            "control_share": plan.control_share,
        }
        for criterion, suffix in CRITERIA.items():
            recommended = self._recommendation(tuner, criterion, plan.round)
            columns |= {f"{name}{suffix}": value for name, value in recommended.items()}
        return {name: short(value) for name, value in columns.items()}

    def _recommendation(
        self, tuner: hz.Tuner, criterion: Criterion, round: int
    ) -> dict[str, float]:
        best = tuner.recommend(criterion)
        theta = self.world.truth_problem.space.theta(best.parameters).unsqueeze(0)
        truth = self.world.truth(theta, round)
        gain, violation = float(truth.gain), float(truth.violation)
        if self.oracle.gain > 0:
            score = gain / self.oracle.gain if violation <= TOLERANCE else 0.0
        else:
            score = float(best.candidate_id == CONTROL)
        return {
            "score": score,
            "gain": gain,
            "violation": violation,
            "prob_feasible": best.prob_feasible,
            "objective_mean": best.objective_mean,
            "objective_lcb": best.objective_lcb,
            "objective_ucb": best.objective_ucb,
        }
