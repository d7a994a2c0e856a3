"""Who enters the bucket: the control and the first design, then proposals and leaders."""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.history import History
from ..study.journal import CandidateAdded
from ..thompson.propose import Proposals


def newborn(
    problem: Problem, history: History, proposals: Proposals | None, round: int
) -> list[CandidateAdded]:
    """Proposals that are not in the bucket yet; the same point twice is one candidate."""
    if proposals is None:
        return []
    theta = [row for row in proposals.theta.tolist() if history.find(row) is None]
    unique = list(dict.fromkeys(map(tuple, theta)))
    return born(problem, torch.tensor(unique, dtype=torch.float64), history, round, "proposal")


def first_bucket(problem: Problem, config: TunerConfig, seed: int) -> list[CandidateAdded]:
    """The control, then the initial candidates by Sobol or grid."""
    space = problem.space
    if config.initial_design == "grid":
        x = space.grid(config.initial_candidates)
    else:
        generator = random(seed, 0, "initial", torch.device("cpu"))
        x = space.sobol(config.initial_candidates, seed=generator.initial_seed() % 2**31)
    theta = space.from_unit(x)
    theta = torch.tensor(list(dict.fromkeys(map(tuple, theta.tolist()))), dtype=torch.float64)
    theta = theta[(theta != problem.base_theta).any(-1)]  # the base is served as the control
    if not len(theta):  # a few points of a small space can all be the base
        theta = space.from_unit(space.sobol(256, seed=0))
        theta = theta[(theta != problem.base_theta).any(-1)][:1]
    empty = History(space.num_params, problem.metrics)
    control = born(problem, problem.base_theta.unsqueeze(0), empty, 0, "base")
    empty.extend(control)
    return [*control, *born(problem, theta, empty, 0, "initial")]


def born(
    problem: Problem, theta: Tensor, history: History, round: int, origin: str, after: int = 0
) -> list[CandidateAdded]:
    """New candidates, numbered on from the history's and ``after`` more."""
    first = history.num_candidates + after
    return [
        CandidateAdded(first + i, round, origin, tuple(row), parameters)
        for i, (row, parameters) in enumerate(
            zip(theta.tolist(), problem.space.to_parameters(theta))
        )
    ]
