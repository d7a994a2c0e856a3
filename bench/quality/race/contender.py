"""A contender decides who is served; everything else is the same for all contenders.

Each contender has an ``hz.Tuner`` of the default configuration. Its journal holds the contender's
candidates and plans and their readings. So a peer sees the deltas of ``hz.Tuner.bucket()``, and
its recommendation is ``hz.Tuner.recommend("lcb")`` among the candidates that it has tested.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

import hyperzero_torch as hz
from hyperzero_torch.simulate import Environment
from hyperzero_torch.study.evidence.bucket import Bucket
from hyperzero_torch.study.history import CONTROL, History
from hyperzero_torch.study.journal import CandidateAdded, Entry, Planned
from hyperzero_torch.study.plan import Plan

# Readings that have not arrived after so many rounds count as lost; delays are 3 to 6.
_PATIENCE = 12
_NUM_SLOTS = 1000


class Outcomes(NamedTuple):
    """Utility ``(n,)`` and slack ``(n, constraints)`` of candidates, with their variances."""

    utility: Tensor
    utility_var: Tensor
    slack: Tensor
    slack_var: Tensor


class Seen(NamedTuple):
    """What has been observed when a round begins; row 0 of every tensor is the control, delta 0.

    ``x (candidates, dims)`` is in the unit cube; ``mean`` and ``var (candidates, metrics)`` are
    pooled deltas; ``tested (candidates,)`` is True where they are known, the control included.
    ``pending`` are candidates whose first readings have not arrived, ``lost`` those whose readings
    are overdue.
    """

    round: int
    problem: hz.Problem
    x: Tensor
    mean: Tensor
    var: Tensor
    tested: Tensor
    num_rounds: Tensor
    pending: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def rows(self) -> Tensor:
        """Ids of the tested candidates, the control first."""
        return self.tested.nonzero().squeeze(-1)

    def outcomes(self) -> Outcomes:
        """Utility and slack of the tested candidates, variances by the delta method."""
        return outcomes(self.problem, self.mean[self.rows], self.var[self.rows])


class Traffic(NamedTuple):
    """Who is served: ``x (arms, dims)`` and positive weights ``(arms,)`` beside the control."""

    x: Tensor
    weight: Tensor


class Contender(ABC):
    """Decides who is served in each round of a world.

    Args:
        world: in which it runs.
        seed: of its own randomness.
    """

    def __init__(self, world: Environment, seed: int) -> None:
        self.seed = seed
        self.tuner = hz.Tuner(world.problem, seed=seed)
        #: CPU seconds of the last plan, without the recommendation.
        self.seconds = 0.0

    def tell(self, readings: list[hz.Readings]) -> None:
        """Take readings as they arrive."""
        self.tuner.tell(readings)

    @abstractmethod
    def plan(self, round: int) -> Plan:
        """Who is served in this round."""

    def settings(self) -> dict[str, float]:
        """Settings that are stored with its results."""
        return {}


class Peer(Contender):
    """Another optimiser: it proposes points, which share the traffic equally.

    Args:
        world: in which it runs.
        seed: of its own randomness.
        arms: new points a round.
        control_share: of the traffic; None takes ``advised_control_share``.
    """

    advised_control_share = 0.1
    default_arms = 4

    def __init__(
        self,
        world: Environment,
        seed: int,
        *,
        arms: float | None = None,
        control_share: float | None = None,
    ) -> None:
        super().__init__(world, seed)
        space = world.problem.space
        # The peers do not support these cases, and no world of the race has them.
        assert space.num_dims == space.num_params, "a parameter that is not continuous"
        assert world.problem.num_constraints, "no constraint"
        assert world.problem.base_levels is not None or not world.problem.sees_levels
        self.dims = space.num_dims
        self.arms = int(arms or self.default_arms)
        self._control_share = control_share

    @abstractmethod
    def propose(self, seen: Seen) -> Tensor:
        """``(arms, dims)`` in the unit cube."""

    def traffic(self, seen: Seen) -> Traffic:
        """Who is served; by default the proposed points, equally."""
        x = self.propose(seen)
        return Traffic(x, torch.ones(len(x), dtype=torch.float64))

    def control_share(self, num_arms: int) -> float:
        """The control's share for this number of arms."""
        return self.advised_control_share if self._control_share is None else self._control_share

    def plan(self, round: int) -> Plan:
        seen = see(self.tuner, round)
        start = time.process_time()
        traffic = self.traffic(seen)
        self.seconds = time.process_time() - start
        self.tuner.study.append(lambda history: (self._entries(history, round, traffic), None))
        return self.tuner.ask(round)

    def settings(self) -> dict[str, float]:
        return {"arms": self.arms, "control_share": self.control_share(self.arms)}

    def generator(self, round: int) -> torch.Generator:
        """Fresh randomness for a round."""
        return torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + round)

    def _entries(self, history: History, round: int, traffic: Traffic) -> list[Entry]:
        problem, space = self.tuner.problem, self.tuner.problem.space
        births: list[Entry] = []
        candidates = {theta: i for i, theta in enumerate(map(tuple, history.theta.tolist()))}

        def candidate(theta: tuple[float, ...], origin: str) -> int:
            if theta not in candidates:
                candidates[theta] = len(candidates)
                parameters = space.to_parameters(torch.tensor([theta], dtype=torch.float64))[0]
                births.append(CandidateAdded(candidates[theta], round, origin, theta, parameters))
            return candidates[theta]

        candidate(tuple(problem.base_theta.tolist()), "base")
        weights: dict[int, float] = {}
        theta = space.from_unit(space.snap(traffic.x.double().clamp(0, 1)))
        for row, weight in zip(theta.tolist(), traffic.weight.tolist()):
            arm = candidate(tuple(row), "proposal")
            if arm != CONTROL:  # the base is the control
                weights[arm] = weights.get(arm, 0.0) + weight
        arms = sorted(weights)
        control = self.control_share(len(arms)) if arms else 1.0
        total = sum(weights.values())
        shares = [weights[arm] / total for arm in arms]
        plan = Planned(
            round=round,
            candidates=(CONTROL, *arms),
            slots=(0, *(max(1, int(_NUM_SLOTS * share)) for share in shares)),
            shares=(control, *((1 - control) * share for share in shares)),
            details=_hyperparameters(self.tuner),
        )
        return [*births, plan]


def key(x: Iterable[float]) -> tuple[float, ...]:
    """A key for a point: converting to theta and back can change the last bit."""
    return tuple(round(float(value), 9) for value in x)


def see(tuner: hz.Tuner, round: int) -> Seen:
    """What the tuner has observed when a round begins."""
    bucket: Bucket = tuner.bucket()
    problem, history = tuner.problem, tuner.history
    tested = bucket.tested.clone()
    mean, var = bucket.mean.clone(), bucket.var.clone()
    theta = bucket.theta
    if len(theta):
        tested[CONTROL], mean[CONTROL], var[CONTROL] = True, 0.0, 0.0
    else:  # there are no candidates yet; the base is known
        theta = problem.base_theta.unsqueeze(0)
        tested = torch.ones(1, dtype=torch.bool)
        mean = var = torch.zeros(1, problem.num_metrics, dtype=torch.float64)
    last = {c: r for r in sorted(history.plans) for c in history.plans[r].candidates}
    waiting = [c for c in sorted(last) if not bool(tested[c]) and c != CONTROL]
    return Seen(
        round=round,
        problem=problem,
        x=problem.space.to_unit(theta),
        mean=mean,
        var=var,
        tested=tested,
        num_rounds=bucket.num_rounds if len(bucket.theta) else torch.zeros(1, dtype=torch.long),
        pending=tuple(c for c in waiting if round - last[c] <= _PATIENCE),
        lost=tuple(c for c in waiting if round - last[c] > _PATIENCE),
    )


def outcomes(problem: hz.Problem, mean: Tensor, var: Tensor) -> Outcomes:
    """Utility and slack of deltas ``(n, metrics)``; exact if they are linear in the deltas."""
    mean = mean.detach().clone().requires_grad_()
    with torch.enable_grad():
        utility, slack = problem.evaluate(mean)
        columns = torch.cat([utility.unsqueeze(-1), slack], dim=-1)
        variances = []
        for column in columns.unbind(-1):
            (gradient,) = torch.autograd.grad(column.sum(), mean, retain_graph=True)
            variances.append((gradient.square() * var).sum(-1))
    spread = torch.stack(variances, dim=-1)
    columns = columns.detach()
    return Outcomes(columns[:, 0], spread[:, 0], columns[:, 1:], spread[:, 1:])


def _hyperparameters(tuner: hz.Tuner) -> dict[str, object]:
    """The starting point of the next fit, as in the tuner's own plans."""
    try:
        fitted = tuner.surrogate().hyperparameters
    except hz.RoundError:  # no evidence yet
        return {}
    return {"hyperparameters": {name: v.tolist() for name, v in fitted._asdict().items()}}
