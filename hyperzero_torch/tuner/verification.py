"""Who is worth verifying: the points whose proof would improve the recommendation most.

A recommendation needs P(feasible) >= p, and where a guardrail binds that keeps it away from the
boundary by a margin that shrinks as evidence grows. So for every point of the space one asks what
would be believed of it after some hours of verification: would it be safe then, and by how much
would it beat what can be recommended today? The expectation of that is its worth. Points that are
safe already have little to gain, points that will hardly be proved have little chance; the best
lies between.

Source: Frazier, Powell and Dayanik (2009), the knowledge gradient; here with feasibility, for one
point on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..stats.normals import normals
from ..surrogate import Posterior
from .outlook import left_over

#: Rounds of verification that are thought ahead; one leader each.
HORIZONS = (3.0, 12.0)
_NUM_OUTCOMES = 32  # of the verification
# From what is believed after each: P(feasible) to a thirty-second, so 0.97 and 1 ask for the same.
_NUM_DRAWS = 32
_NUM_SAMPLES = 1024
_CLOUDS = (0.1, 0.03, 0.01)
# Elements of one tile, (draws, outcomes, points, metrics): 32 MiB in float64.
_TILE_ELEMENTS = 2**22


def leaders(
    posterior: Posterior,
    problem: Problem,
    known: Tensor,
    min_prob_feasible: float,
    noise: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The point of the space most worth verifying, for each horizon.

    A horizon in which nothing promises to beat what is safe today has no leader.

    Args:
        posterior: over the unit cube, in deltas.
        problem: on the posterior's device.
        known: ``(n, dims)`` the bucket: what can be recommended today, and points to look at.
        min_prob_feasible: what P(feasible) must reach.
        noise: ``(metrics,)`` variance of a delta after one round of verification.
        generator: on the posterior's device.
    Returns:
        ``(leaders, dims)``, servable, at most one per horizon.
    """
    space = problem.space
    worth = _Worth(posterior, problem, known, min_prob_feasible, noise, generator)
    x = torch.cat([known, space.uniform(_NUM_SAMPLES, generator).to(known)])
    few = _NUM_SAMPLES // (len(_CLOUDS) * len(HORIZONS))
    best, value = worth.best(x)
    for width in _CLOUDS:
        centre = x[best]
        shape = (len(HORIZONS), few, x.shape[1])
        step = torch.randn(*shape, dtype=x.dtype, device=x.device, generator=generator)
        cloud = space.snap((centre.unsqueeze(1) + width * step).clamp(0, 1))
        x = torch.cat([centre, cloud.reshape(-1, x.shape[1])])
        best, value = worth.best(x)
    return x[best][value > 0]


class _Worth:
    """Expected improvement of the recommendation by verifying a point, over what is safe today."""

    def __init__(
        self,
        posterior: Posterior,
        problem: Problem,
        known: Tensor,
        min_prob: float,
        noise: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.posterior, self.problem, self.min_prob, self.noise = (
            posterior,
            problem,
            min_prob,
            noise,
        )
        seed = int(torch.randint(2**31, (2,), generator=generator, device=generator.device)[0])
        self.outcomes = normals(_NUM_OUTCOMES, posterior.num_metrics, seed).to(known)
        self.draws = normals(_NUM_DRAWS, posterior.num_metrics, seed + 1).to(known)
        with torch.no_grad():
            base = torch.zeros(1, posterior.num_metrics, dtype=known.dtype, device=known.device)
            floor = problem.evaluate(base).utility.nan_to_num(nan=-torch.inf)
            mean, var = posterior.marginal(known)
            expected, safe = self._judge(mean + var.sqrt() * self.draws.unsqueeze(1))
        #: The best of the known points that is safe today.
        self.floor = torch.cat([floor, torch.where(safe, expected, -torch.inf)]).max()

    def best(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each horizon the row of ``x (N, dims)`` with the greatest worth, and that worth."""
        mean, var = self.posterior.marginal(x)
        tile = _TILE_ELEMENTS // (_NUM_OUTCOMES * _NUM_DRAWS * mean.shape[1])
        rows, values = [], []
        for rounds in HORIZONS:
            left = left_over(var, self.noise, rounds)
            moves = (var - left).clamp_min(0).sqrt()
            fields = (torch.split(t, max(1, tile)) for t in (mean, moves, left.sqrt()))
            worth = torch.cat([self._worth(*part) for part in zip(*fields)])
            rows.append(worth.argmax())
            values.append(worth[rows[-1]])
        return torch.stack(rows), torch.stack(values)

    def _worth(self, mean: Tensor, moves: Tensor, left: Tensor) -> Tensor:
        with torch.no_grad():
            after = mean + moves * self.outcomes.unsqueeze(1)  # (outcomes, N, metrics)
            expected, safe = self._judge(after + left * self.draws[:, None, None])
        gain = (expected - self.floor).nan_to_num(nan=0.0).clamp_min(0)
        return torch.where(safe, gain, 0.0).mean(0)

    def _judge(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Expected utility, and whether it is safe, from draws along the first axis."""
        outcome = self.problem.evaluate(delta)
        prob = outcome.feasible.to(delta.dtype).mean(0)
        return outcome.utility.mean(0).nan_to_num(nan=-torch.inf), prob >= self.min_prob
