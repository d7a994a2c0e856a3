"""``skopt`` and ``skopt_unconstrained``: scikit-optimize, as in the paper's Table 1.

Its ``Optimizer`` takes one number per point and no constraints, so there are the paper's two
variants: the objective alone, and the objective less a penalty on the violation. Settings are its
defaults: a Gaussian process with estimated noise, ``gp_hedge``, 10 random points first.

Batches follow its "Parallel optimization" and "Async optimization" examples: observed points are
passed to ``tell`` as they arrive, and ``ask(n_points, strategy="cl_min")`` assumes, in a copy, that
each point chosen for this batch was as good as the best so far. The examples do not cover points
of earlier batches that are still pending; here the same value is assumed for them, because with
late readings the same points would otherwise be proposed for rounds. ``skopt@lies=0`` omits this.
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
        lies: 0 ignores pending points of earlier rounds.
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
        **options: float | None,
    ) -> None:
        super().__init__(world, seed, **options)
        self.penalty = self.default_penalty if penalty is None else penalty
        self.optimizer = Optimizer(
            [(0.0, 1.0)] * self.dims,
            n_initial_points=_NUM_RANDOM,
            random_state=seed,
            acq_optimizer_kwargs={"n_points": int(points)},
        )
        self.lies = bool(lies)
        self._observed: set[int] = set()

    def settings(self) -> dict[str, float]:
        return super().settings() | {"penalty": self.penalty}

    def propose(self, seen: Seen) -> Tensor:
        outcomes = seen.outcomes()
        value = self.penalty * outcomes.slack.clamp_max(0).sum(-1) + outcomes.utility
        new = [
            (seen.x[row].tolist(), -float(v))
            for row, v in zip(seen.rows.tolist(), value)
            if row not in self._observed
        ]
        if new:
            self.optimizer.tell([x for x, _ in new], [y for _, y in new])
            self._observed.update(seen.rows.tolist())
        optimizer = self.optimizer
        if len(self._observed) < _NUM_RANDOM:
            # One by one: a batch would repeat the same point until something has been observed.
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
    """Minimises ``-utility`` and ignores the guardrail."""

    default_penalty = 0.0
