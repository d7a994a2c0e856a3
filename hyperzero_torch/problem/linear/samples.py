"""Points of a region, ``u (n, params)``: one number in [0, 1] per parameter of the space.

Samples are uniform in u given the constraints. Where at least 1/64 of the cube is feasible, they
are rejection samples. Where less is, they are states of hit-and-run chains, which are feasible, and
uniform up to the finite length of the chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ...errors import SpaceError
from ..parameters import Choice, Float, Int
from .region import Region

# Chains: their points ``z (n, k)``, the same as theta, and the log density of each.
State: TypeAlias = tuple[Tensor, Tensor, Tensor]

_LEAST_SHARE = 1 / 64
_CHAINS = 512
_MOST_NUMBERS = 2**22  # in one batch of draws
_MOST_GRID = 2**18  # points of the whole cube's grid
_FEW = 32  # times as many points were asked for


def uniform(
    region: Region, num: int, params: int, generator: torch.Generator | None = None
) -> Tensor:
    """``num`` uniform points, ``(num, params)``, on the generator's device."""
    device = generator.device if generator is not None else torch.device("cpu")

    def draw(many: int) -> Tensor:
        return torch.rand(many, params, dtype=torch.float64, generator=generator, device=device)

    if region.share >= _LEAST_SHARE:
        return _keep(region, draw, num, params)
    u = draw(num)
    if num:
        u[:, region.columns] = walk(region, num, device, generator)
    return u


def sobol(region: Region, num: int, params: int, seed: int) -> Tensor:
    """The first ``num`` points of a scrambled Sobol sequence that hold, on the CPU.

    Where little of the cube is inside they are uniform samples instead, drawn from the seed.
    """
    if num == 0 or region.share < _LEAST_SHARE:
        return _walked(region, num, params, seed).clone()
    engine = SobolEngine(params, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return _keep(region, lambda many: engine.draw(many, dtype=torch.float64), num, params)


@lru_cache(maxsize=8)
def _walked(region: Region, num: int, params: int, seed: int) -> Tensor:
    """Kept: every round of a study looks at the same points, and chains take a while."""
    return uniform(region, num, params, torch.Generator().manual_seed(seed))


def _keep(region: Region, draw: Callable[[int], Tensor], num: int, params: int) -> Tensor:
    """The first ``num`` feasible rows of ``draw``, which is called as often as needed."""
    if num == 0:
        return draw(0)
    kept: list[Tensor] = []
    num_kept = 0
    while num_kept < num:  # ends, since at least about 1/64 of the cube is inside
        u = draw(min(int(1.1 * (num - num_kept) / region.share) + 8, _MOST_NUMBERS // params + 1))
        kept.append(u[region.holds(u[:, region.columns])])
        num_kept += len(kept[-1])
    return torch.cat(kept)[:num]


def grid(region: Region, num: int, parameters: Sequence[Float | Int | Choice]) -> Tensor:
    """The finest full grid of which at most ``num`` points hold, those points ``(points, params)``.

    A Choice takes all its options, every other parameter the same number of levels, two at least.

    Raises:
        SpaceError: even the coarsest grid has more, or none that was tried has a point inside.
    """

    def points(per: int) -> Tensor:
        axes = [p.levels(len(p.served) if isinstance(p, Choice) else per) for p in parameters]
        u = torch.cartesian_prod(*axes).reshape(-1, len(parameters))
        return u[region.holds(u[:, region.columns])]

    def size(per: int) -> int:
        """Number of points of the whole grid."""
        sizes = [
            min(per, p.high - p.low + 1) if isinstance(p, Int) else per
            for p in parameters
            if not isinstance(p, Choice)
        ]
        return math.prod(sizes) * math.prod(
            len(p.served) for p in parameters if isinstance(p, Choice)
        )

    limit = max(_MOST_GRID, 4 * num)
    low, high = 2, limit
    best = points(low) if size(low) <= limit else None
    if best is None or len(best) > num:
        raise SpaceError(
            f"a grid over {len(parameters)} parameters does not fit into {num} points; allow more "
            "initial candidates or use initial_design='sobol'"
        )
    while low < high:  # bisection, assuming that more levels give at least as many points
        per = (low + high + 1) // 2
        grid_points = points(per) if size(per) <= limit else None
        if grid_points is None or len(grid_points) > num:
            high = per - 1
            continue
        low = per
        best = grid_points if len(grid_points) >= len(best) else best
    if _FEW * len(best) < num and (size(limit) > limit or not len(best)):
        raise SpaceError(
            f"of a grid only {len(best)} points where {num} are wanted satisfy the constraints "
            f"{[c.source for c in region.constraints]}; use initial_design='sobol'"
        )
    return best


def walk(
    region: Region, num: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """``v (num, k)`` by hit-and-run: chains that move along random lines through the region.

    Directions are random sums of chords that span the region, so thin regions mix as well as round
    ones. A move to a point that violates a constraint after snapping is rejected. On a logarithm a
    point is as likely as ``1 / theta``. Memory: a few ``(512, rows + 2 k)``.

    Source: Smith (1984), Efficient Monte Carlo procedures for generating points uniformly
        distributed over bounded regions.
    """
    matrix, bound = (torch.tensor(a, device=device) for a in region.faces)
    points = torch.tensor(region.extent.points, device=device)
    chords = torch.tensor(region.extent.directions, device=device)
    k = matrix.shape[1]
    eye = torch.eye(k, dtype=matrix.dtype, device=device)
    matrix, bound = (
        torch.cat([matrix, eye, -eye]),
        torch.cat([bound, torch.ones(k).to(bound), torch.zeros(k).to(bound)]),
    )
    # A row that binds everywhere limits no line within the region except by rounding.
    unit = matrix.abs().amax(1).clamp_min(1e-300)
    live = (bound - points @ matrix.T).amax(0) > 1e-10 * unit
    matrix, bound = matrix[live], bound[live]
    starts = region.starts.to(device)
    z = starts[torch.arange(min(num, _CHAINS), device=device) % len(starts)].clone()
    if not len(chords):
        return region.to_v(z[:1]).repeat(num, 1)  # the region is a single point

    spans = region.span.tolist()
    normals = torch.tensor(region.extent.normals, device=device)
    widths = [math.log(p.high / p.low) for p in region.parameters if isinstance(p, Float) and p.log]
    units = torch.tensor(widths, device=device) / torch.tensor(
        [max(spans[i], 1e-300) for i in region.log], device=device
    )

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=z.dtype, device=device, generator=generator)

    def weight(theta: Tensor) -> Tensor:
        """The log density over z of the uniform distribution over v."""
        if not region.log:
            return theta.new_zeros(len(theta))
        total = -theta[:, region.log].log().sum(1)
        if len(normals):  # on a flat the unit of area differs from place to place
            slope = torch.ones_like(theta)
            slope[:, region.log] = theta[:, region.log] * units
            across = normals * slope.unsqueeze(1)
            single = len(normals) == 1
            total = total + 0.5 * (
                across.square().sum((1, 2)).log() if single else torch.logdet(across @ across.mT)
            )
        return total

    def state(z: Tensor) -> State:
        theta = region.theta(z)
        return z, theta, weight(theta)

    def move(at: State, direction: Tensor, log: int | None) -> tuple[State, Tensor]:
        """One step along ``direction``, and whether any chain made it.

        With ``log`` it is drawn on that parameter's logarithm.
        """
        z, here, weight_here = at
        rate = direction @ matrix.T
        time = (bound - z @ matrix.T).clamp_min(0.0) / rate
        last = torch.where(rate > 0, time, math.inf).amin(1)
        first = torch.where(rate < 0, time, -math.inf).amax(1)
        part = rand(len(z))
        step = first + part * (last - first)
        if log is not None:
            slope = direction[:, log] * spans[log]
            low, high = (
                (here[:, log] + t * slope).clamp_min(region.start[log]).log() for t in (first, last)
            )
            step = ((low + part * (high - low)).exp() - here[:, log]) / slope
        target = (z + step.unsqueeze(1) * direction).clamp(0.0, 1.0)
        there = state(target)
        gain = there[2] - weight_here
        if log is not None:
            gain = gain + (there[1][:, log] / here[:, log]).log()
        made = region.holds(region.to_v(target)) & (rand(len(z)).log() <= gain)
        chosen = made.unsqueeze(1)
        after = (
            torch.where(chosen, target, z),
            torch.where(chosen, there[1], here),
            torch.where(made, there[2], weight_here),
        )
        return after, made.any()

    # Chains mix slowly over a logarithm, and rarely step from one whole number to the next.
    slow = 4 if region.log or region.whole.any() else 1
    burn, thin = min(100 + 2 * k * k, 600) * slow, 2 * k + 4
    logs = [i for i in region.log if spans[i] > 0]
    kept: list[Tensor] = []
    ever = torch.zeros((), dtype=torch.bool, device=device)
    at = state(z)
    for step in range(1, burn + thin * (math.ceil(num / len(z)) - 1) + 1):
        lines = torch.randn(len(z), len(chords), dtype=z.dtype, device=device, generator=generator)
        log = logs[step % len(logs)] if logs else None
        at, made = move(at, lines @ chords, log)
        ever |= made
        if log is not None:
            at, made = move(at, eye[log].expand_as(z), log)
            ever |= made
        if step >= burn and (step - burn) % thin == 0:
            kept.append(at[0])
    if not bool(ever):
        raise SpaceError(
            f"the constraints {[c.source for c in region.constraints]} leave too thin a region to "
            "sample, such as an Int that is tied to a Float; loosen one of them"
        )
    return region.to_v(torch.cat(kept)[:num])
