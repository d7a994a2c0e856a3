"""Which candidates enter the bucket, and which retire from the competition or come back to it."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.evidence.active_set import competing, max_competing
from ..study.history import History
from ..study.journal import CandidateAdded, Decision
from ..study.journal.trace import Retired
from ..thompson.propose import Proposals


def initial_design(problem: Problem, config: TunerConfig, seed: int) -> list[CandidateAdded]:
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
    if not len(theta):  # in a small space all points drawn can be the base
        theta = space.from_unit(space.sobol(256, seed=0))
        theta = theta[(theta != problem.base_theta).any(-1)][:1]
    empty = History(space.num_params, problem.metrics)
    control = add_candidates(problem, problem.base_theta.unsqueeze(0), empty, 0, "base")
    empty.extend(control)
    return [*control, *add_candidates(problem, theta, empty, 0, "initial")]


def add_proposals(
    problem: Problem, history: History, proposals: Proposals | None, round: int
) -> list[CandidateAdded]:
    """Proposals that are not in the bucket yet; equal points are one candidate."""
    if proposals is None:
        return []
    return add_new(problem, proposals.theta, history, round, "proposal")


def add_new(
    problem: Problem, theta: Tensor, history: History, round: int, origin: str
) -> list[CandidateAdded]:
    """Those of ``theta (n, params)`` that are not in the bucket yet, each once."""
    rows = [tuple(row) for row in theta.tolist() if history.find(row) is None]
    unique = torch.tensor(list(dict.fromkeys(rows)), dtype=torch.float64)
    return add_candidates(problem, unique, history, round, origin)


def add_candidates(
    problem: Problem, theta: Tensor, history: History, round: int, origin: str, after: int = 0
) -> list[CandidateAdded]:
    """Entries for new candidates, numbered from the history's next id plus ``after``."""
    first = history.num_candidates + after
    return [
        CandidateAdded(first + i, round, origin, tuple(row), parameters)
        for i, (row, parameters) in enumerate(
            zip(theta.tolist(), problem.space.to_parameters(theta))
        )
    ]


def retirements(
    history: History,
    config: TunerConfig,
    round: int,
    served: Collection[int],
    crowded_out: Collection[int],
) -> list[Decision]:
    """Candidates that stop competing after this round.

    Args:
        history: as the round was planned from.
        config: after how many rounds without a won draw candidates retire, and how many compete.
        round: the planned round.
        served: candidates of its plan.
        crowded_out: candidates that won draws and had no place among the arms.
    """
    retire_after = config.retire_after
    if retire_after is None:
        return []
    winners = {*served, *crowded_out}
    losers = [
        c
        for c in range(1, history.num_candidates)
        if history.times_served[c] and c not in winners and c not in history.status.retired
    ]
    idle = [c for c in losers if history.idle[c] + 1 >= retire_after]
    decisions = []
    if idle:
        reason = (
            f"Retired: not selected in {retire_after} rounds. Candidates compete again when they "
            "are served again; their evidence stays in the fit"
        )
        decisions.append(Decision.of(round, reason, Retired(candidates=idle)))
    limit = max_competing(config)
    remaining = [c for c in competing(history, config) if c not in idle]
    if limit is not None and len(remaining) > limit:
        # Those idle longest retire first; of equals the newest, which have the least evidence.
        order = sorted(set(losers) & set(remaining), key=lambda c: (-history.idle[c], -c))
        excess = sorted(order[: len(remaining) - limit])
        if excess:
            reason = (
                f"Retired: {len(remaining)} candidates compete, the limit is {limit}. Those that "
                "have gone longest without being selected compete again when they are served again"
            )
            decisions.append(Decision.of(round, reason, Retired(candidates=excess)))
    return decisions


def returning(history: History, proposals: Proposals | None) -> list[int]:
    """Retired candidates that a draw proposes again; they are served and compete again."""
    retired = history.status.retired - history.status.stopped
    if proposals is None or not retired:
        return []
    proposed = {history.find(row) for row in proposals.theta.tolist()}
    return sorted(c for c in proposed if c in retired)


def readmitted(history: History) -> list[int]:
    """Candidates that were stopped and let back in, and have not been served since."""
    status = history.status
    return sorted(
        candidate
        for candidate, since in status.readmitted.items()
        if candidate not in status.stopped
        and not any(r > since and candidate in p.candidates for r, p in history.plans.items())
    )
