"""``ax_thompson`` and ``ax_ebts``: Ax's bandits on a fixed bucket of 64 Sobol points.

``ThompsonSampler`` and ``EmpiricalBayesThompsonSampler`` as Ax's tutorial "Factorial design with
empirical Bayes and Thompson sampling" uses them: first every arm equally, then each arm by its
probability of being the best feasible one, without arms below ``min_weight = 0.01``, and a control
with sqrt(arms) times the weight of an arm ("to optimize for power ... the status quo should be
sqrt(k) larger"). They are called directly, with pooled means and variances, because they expect one
observation per arm. All arms are served equally until each has been observed or is overdue, and
whenever Ax returns no arm (none is feasible, or none reaches the weight).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from ax.exceptions.model import ModelError
from ax.generators.discrete.eb_thompson import EmpiricalBayesThompsonSampler
from ax.generators.discrete.thompson import ThompsonSampler
from torch import Tensor

from .contender import Peer, Seen, Traffic

_MIN_WEIGHT = 0.01


class AxThompson(Peer):
    default_arms = 64
    sampler: type[ThompsonSampler] = ThompsonSampler

    def control_share(self, num_arms: int) -> float:
        if self._control_share is not None:
            return self._control_share
        return 1.0 / (1.0 + math.sqrt(num_arms))

    def propose(self, seen: Seen) -> Tensor:
        return self.tuner.problem.space.sobol(self.arms, seed=self.seed)

    def traffic(self, seen: Seen) -> Traffic:
        equal = super().traffic(seen)
        rows = seen.rows[seen.rows > 0].tolist()
        if not rows or seen.pending:
            return equal
        utility, utility_var, slack, slack_var = (column[1:] for column in seen.outcomes())
        num = slack.shape[1]
        points = [[row] for row in rows]  # arms by their id: the sampler only distinguishes them
        sampler = self.sampler(min_weight=_MIN_WEIGHT)
        np.random.seed((self.seed * 1000 + seen.round) % 2**32)  # noqa: NPY002 (Ax draws from it)
        try:
            sampler.fit(
                Xs=[points] * (1 + num),
                Ys=[utility.tolist(), *slack.T.tolist()],
                Yvars=[utility_var.tolist(), *slack_var.T.tolist()],
                parameter_values=[rows],
                outcome_names=["utility", *(f"slack_{k}" for k in range(num))],
            )
            arms, weights, _ = sampler.gen(
                n=len(rows),
                parameter_values=[rows],
                objective_weights=np.array([1.0] + [0.0] * num),
                outcome_constraints=(
                    np.hstack([np.zeros((num, 1)), -np.eye(num)]),
                    np.zeros((num, 1)),
                )
                if num
                else None,
            )
        except ModelError:
            return equal
        return Traffic(
            seen.x[[int(arm[0]) for arm in arms]], torch.tensor(weights, dtype=torch.float64)
        )


class AxEmpiricalBayes(AxThompson):
    sampler = EmpiricalBayesThompsonSampler
