"""Algorithm 1: who wins each draw, with duplicates; the winners are the traffic.

Per draw the feasible candidate with the best objective wins. Where no candidate is feasible in a
draw, the one with the least violation wins, each constraint measured in units of its own spread,
and the draw is counted. Where all feasible candidates are worth the same they win in turn. With
caution a draw's constraints have to be cleared by a margin, which
keeps traffic from arms that are as likely to violate as not. A NaN objective never wins a feasible
draw; a NaN slack is no slack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..memory import in_tiles
from ..problem import Outcome, Problem
from ..surrogate import Paths
from .winners import able, best_of, in_turn

# Elements of one tile of draws, (draws, candidates, metrics): 32 MiB in float64.
_TILE_ELEMENTS = 2**22
# Elements of the draws that are evaluated, and of the outcomes that are held, at once: 128 MiB.
_BLOCK_ELEMENTS = 2**24
_MARGIN_DRAWS = 256  # enough for a standard deviation within 5 %
_FEWEST_MARGIN_DRAWS = 32


class Selection(NamedTuple):
    """Who won, over ``candidates``.

    ``counts (C,)`` slots each candidate won; ``winners (K,)`` the winner of each draw;
    ``prob_feasible (C,)`` fraction of draws in which it was feasible; ``num_infeasible ()`` draws
    in which nobody was, ``num_undefined ()`` draws in which somebody's objective was NaN,
    ``num_tied ()`` draws in which all feasible candidates, two at least, were worth the same.
    """

    counts: Tensor
    winners: Tensor
    prob_feasible: Tensor
    num_infeasible: Tensor
    num_undefined: Tensor
    num_tied: Tensor


def select(
    mean: Tensor,
    var: Tensor,
    problem: Problem,
    num_draws: int,
    generator: torch.Generator | None = None,
    caution: float = 0.0,
) -> Selection:
    """Algorithm 1 on independent draws of every candidate's deltas from N(mean, var).

    Draws are tiled: about 32 MiB per temporary, at any number of candidates and draws.

    Args:
        mean: ``(candidates, metrics)`` deltas.
        var: same shape, variances of ``mean``.
        problem: objective and constraints, on the device of ``mean``.
        num_draws: K.
        generator: on the same device; the default generator where it is None.
        caution: standard deviations of its slack by which a candidate must clear every
            constraint in a draw to win it as feasible.
    Returns:
        Selection over the rows of ``mean``.
    Raises:
        ShapeError: shapes, devices, no candidate, or no draw.
    Source: HYPERZERO (KDD'25), Algorithm 1.
    """
    if mean.ndim != 2 or mean.shape != var.shape or mean.shape[1] != problem.num_metrics:
        raise ShapeError(
            f"select expects mean and var (candidates, {problem.num_metrics}), got "
            f"{tuple(mean.shape)} and {tuple(var.shape)}"
        )
    _check_devices(mean.device, var.device, generator)
    std = var.sqrt()
    tile = _tile(num_draws, *mean.shape)

    def draws() -> Iterator[Tensor]:
        for start in range(0, num_draws, tile):
            shape = (min(tile, num_draws - start), *mean.shape)
            normal = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
            yield normal.mul_(std).add_(mean)

    return _tally(draws(), mean.shape[0], problem, num_draws, caution)


def select_paths(paths: Paths, x: Tensor, problem: Problem, caution: float = 0.0) -> Selection:
    """Algorithm 1 on joint draws: each path is one coherent draw of all candidates.

    Args:
        paths: K functions from ``posterior.paths``.
        x: ``(candidates, dims)`` in the unit cube.
        problem: objective and constraints.
        caution: as in ``select``.

    As many draws are held at once as fit into 128 MiB, ``(draws, candidates, metrics)``.
    """
    if paths.posterior.num_metrics != problem.num_metrics:
        raise ShapeError(
            f"the paths are over {paths.posterior.num_metrics} metrics, "
            f"the problem over {problem.num_metrics}"
        )
    shape = (x.shape[0], problem.num_metrics)
    tile = _tile(paths.num_paths, *shape)
    # Covariances are worked out anew for each block: it should be worth it.
    block = max(1, _BLOCK_ELEMENTS // max(1, math.prod(shape)))

    def draws() -> Iterator[Tensor]:
        for start in range(0, paths.num_paths, block):
            some = paths[start : start + block]

            def work(rows: int, some: Paths = some) -> Tensor:
                return torch.cat([some(part) for part in torch.split(x, rows)], dim=1)

            yield from torch.split(in_tiles(work, some.tile, x.device), tile)

    with torch.no_grad():
        return _tally(draws(), x.shape[0], problem, paths.num_paths, caution)


def _tally(
    draws: Iterator[Tensor],
    num_candidates: int,
    problem: Problem,
    num_draws: int,
    caution: float,
) -> Selection:
    """Who wins each of ``draws``, tensors ``(some, candidates, metrics)``."""
    if num_candidates < 1 or num_draws < 1:
        raise ShapeError(
            f"select needs at least one candidate and one draw, got {num_candidates} candidates "
            f"and num_draws={num_draws}"
        )
    winners: list[Tensor] = []
    held: Tensor | int = 0
    infeasible: Tensor | int = 0
    undefined: Tensor | int = 0
    tied: Tensor | int = 0
    start = 0
    with torch.no_grad():
        outcomes: Iterator[Outcome] = map(problem.evaluate, draws)
        margin = None
        if caution and problem.num_constraints:
            margin, outcomes = _margin(outcomes, num_candidates, problem, caution)
        for outcome in outcomes:
            cautious = outcome if margin is None else outcome._replace(slack=outcome.slack - margin)
            best = best_of(cautious)
            winner, ties = in_turn(cautious, best, start)
            winners.append(winner)
            start += len(winner)
            tied = tied + ties.sum()
            undefined = undefined + outcome.utility.isnan().any(1).sum()
            held = held + outcome.feasible.sum(0)
            someone = best.feasible if margin is None else able(outcome).any(1)
            infeasible = infeasible + (~someone).sum()
        won = torch.cat(winners)
        counts = torch.zeros(num_candidates, dtype=torch.long, device=won.device)
        counts = counts.index_add(0, won, torch.ones_like(won))
    numbers = (torch.as_tensor(n, device=won.device) for n in (held, infeasible, undefined, tied))
    held, infeasible, undefined, tied = numbers
    return Selection(counts, won, held.double() / num_draws, infeasible, undefined, tied)


def _margin(
    outcomes: Iterator[Outcome], num_candidates: int, problem: Problem, caution: float
) -> tuple[Tensor, Iterator[Outcome]]:
    """How far a slack has to be cleared, ``(candidates, constraints)``, from the first draws.

    They are held until it is known, and then stand first in the outcomes given back.
    """
    size = num_candidates * (1 + problem.num_constraints)
    wanted = max(_FEWEST_MARGIN_DRAWS, min(_MARGIN_DRAWS, _BLOCK_ELEMENTS // size))
    first: list[Outcome] = []
    for outcome in outcomes:
        first.append(outcome)
        if sum(len(o.utility) for o in first) >= wanted:
            break
    slack = torch.cat([o.slack for o in first])[:wanted]
    slack = torch.where(slack.isfinite(), slack, 0.0)
    return caution * slack.std(0, correction=0), chain(first, outcomes)


def _tile(num_draws: int, num_candidates: int, num_metrics: int) -> int:
    """Draws in one tile."""
    return max(1, min(num_draws, _TILE_ELEMENTS // max(1, num_candidates * num_metrics)))


def _check_devices(
    mean: torch.device, var: torch.device, generator: torch.Generator | None
) -> None:
    where = {mean.type, var.type} | ({generator.device.type} if generator is not None else set())
    if len(where) > 1:
        raise ShapeError(f"mean, var and generator must lie on one device, got {sorted(where)}")
