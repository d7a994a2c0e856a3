"""``skopt`` and ``skopt_unconstrained``: scikit-optimize, as in the paper's Table 1.

Its ``Optimizer`` takes one number per point and no constraints, so there are the paper's two
variants: the objective alone, and the objective less a penalty on the violation. Settings are its
defaults: a Gaussian process with estimated noise, ``gp_hedge``, 10 random points first.

Batches are asked for as its "Parallel optimization" and "Async optimization" examples say: points
are told whenever they have been observed, and ``ask(n_points, strategy="cl_min")`` lies to a copy
that each point chosen for this batch was as good as the best so far. Its examples do not say what
to do about points that are still out from earlier batches; here they get the same lie, else late
readings would let it propose the same points for rounds. ``skopt@lies=0`` leaves them out.
"""

from __future__ import annotations

import numpy as np
import torch
from skopt import Optimizer
from torch import Tensor

from hyperzero_torch.simulate import Environment

from .contender import Peer, Seen

_NUM_RANDOM = 10  # its default


class Penalised(Peer):
    """Minimises ``penalty * violation - utility``.

    Args:
        penalty: utility that a unit of violation costs.
        lies: 0 tells nothing of the points in flight from earlier rounds.
        points: at which an acquisition function is tried before it is refined from the best five.
    """

    default_penalty = 2.0

    def __init__(
        self,
        world: Environment,
        seed: int,
        *,
        penalty: float | None = None,
        lies: float = 1,
        points: float = 10_000,
        arms: float | None = None,
        control_share: float | None = None,
    ) -> None:
        super().__init__(world, seed, arms=arms, control_share=control_share)
        self.penalty = self.default_penalty if penalty is None else penalty
        self.optimizer = Optimizer(
            [(0.0, 1.0)] * self.dims,
            n_initial_points=_NUM_RANDOM,
            random_state=seed,
            acq_optimizer_kwargs={"n_points": int(points)},
        )
        self.lies = bool(lies)
        self._told: set[int] = set()

    def settings(self) -> dict[str, float]:
        return super().settings() | {"penalty": self.penalty}

    def propose(self, seen: Seen) -> Tensor:
        outcomes = seen.outcomes()
        value = self.penalty * outcomes.slack.clamp_max(0).sum(-1) + outcomes.utility
        news = [
            (seen.x[row].tolist(), -float(v))
            for row, v in zip(seen.rows.tolist(), value)
            if row not in self._told
        ]
        if news:
            self.optimizer.tell([x for x, _ in news], [y for _, y in news])
            self._told.update(seen.rows.tolist())
        optimizer = self.optimizer
        if len(self._told) < _NUM_RANDOM:
            # One by one: asked for several, it repeats itself until it is told something.
            return torch.tensor([optimizer.ask() for _ in range(self.arms)], dtype=torch.float64)
        if self.lies and seen.pending:
            optimizer = optimizer.copy(random_state=np.random.RandomState(self._number(seen)))
            lie = min(optimizer.yi)
            optimizer.tell([seen.x[c].tolist() for c in seen.pending], [lie] * len(seen.pending))
        return torch.tensor(
            optimizer.ask(n_points=self.arms, strategy="cl_min"), dtype=torch.float64
        )

    def _number(self, seen: Seen) -> int:
        return int(torch.randint(2**31, (), generator=self.generator(seen.round)))


class Unconstrained(Penalised):
    """Minimises ``-utility``: what happens where the guardrail is not looked at."""

    default_penalty = 0.0
