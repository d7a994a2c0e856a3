"""Algorithm 1: the winner of each draw, with repetition; the winners get the traffic.

In each draw the feasible candidate with the best objective wins. Where no candidate is feasible,
the one with the least violation wins, each constraint measured in units of its own spread, and the
draw is counted. Where all feasible candidates have the same objective they win in turn. With
caution a candidate has to meet a draw's constraints by a margin, which keeps traffic from arms that
are as likely to violate as not. A NaN objective never wins a feasible draw; a NaN slack violates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..problem.problem import Outcome, Problem
from ..runtime.memory import in_tiles
from ..surrogate.protocol import DrawnPaths
from .distributed import all_reduce_sum, rank_and_world_size
from .winners import best_of, break_ties, eligible, finite_std

# Elements of one tile of draws, (draws, candidates, metrics): 32 MiB in float64.
_TILE_ELEMENTS = 2**22
_TIMES_ON_CARD = 16  # 512 MiB: fewer launches
# Elements of the draws evaluated, and of the outcomes held, at once: 128 MiB in float64.
_BLOCK_ELEMENTS = 2**24
_MARGIN_DRAWS = 256  # enough for a standard deviation within 5 %
_MIN_MARGIN_DRAWS = 32


class Selection(NamedTuple):
    """The winners of K draws among C candidates.

    ``counts (C,)`` slots each candidate won; ``winners (K,)`` the winner of each draw;
    ``prob_feasible (C,)`` fraction of draws in which it was feasible; ``num_infeasible ()`` draws
    without a feasible candidate, ``num_undefined ()`` draws in which an objective was NaN,
    ``num_tied ()`` draws in which all feasible candidates, two at least, had the same objective.
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

    Draws are tiled: a temporary takes about 32 MiB (on a card 512 MiB), or one draw where that is
    more. With caution the outcomes of the first draws are held, 128 MiB or those of 32 draws.

    Args:
        mean: ``(candidates, metrics)`` deltas.
        var: same shape, variances of ``mean``.
        problem: objective and constraints, on the device of ``mean``.
        num_draws: K.
        generator: on the same device; the default generator where it is None.
        caution: a candidate is feasible in a draw only if every slack exceeds this many of its
            standard deviations.
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
    devices = {t.device.type for t in (mean, var, generator) if t is not None}
    if len(devices) > 1:
        raise ShapeError(f"mean, var and generator must be on one device, got {sorted(devices)}")
    _check_counts(mean.shape[0], num_draws)
    std = var.sqrt()
    sizes = _block_sizes(num_draws, _tile(num_draws, len(mean), mean.shape[1], mean.device))
    generators = _generators(generator, len(sizes), mean.device)

    def draw(size: int, block_generator: torch.Generator | None) -> Tensor:
        shape = (size, *mean.shape)
        normal = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=block_generator)
        return normal.mul_(std).add_(mean)

    draws = [partial(draw, size, g) for size, g in zip(sizes, generators)]
    margin_draws = partial(draw, _MARGIN_DRAWS, generator)
    return _tally(sizes, draws, mean.shape[0], problem, caution, mean.device, margin_draws)


def select_paths(paths: DrawnPaths, x: Tensor, problem: Problem, caution: float = 0.0) -> Selection:
    """Algorithm 1 on joint draws: each path is one coherent draw of all candidates.

    Args:
        paths: K functions from ``posterior.paths``.
        x: ``(candidates, dims)`` in the unit cube.
        problem: objective and constraints.
        caution: as in ``select``; inaccurate with fewer than 32 paths, which it is estimated from.
    Returns:
        Selection over the rows of ``x``.
    Raises:
        ShapeError: other metrics, no candidate, or a device that is not the paths' own.

    As many draws are held at once as fit into 128 MiB, ``(draws, candidates, metrics)``.
    """
    if paths.posterior.num_metrics != problem.num_metrics:
        raise ShapeError(
            f"the paths are over {paths.posterior.num_metrics} metrics, "
            f"the problem over {problem.num_metrics}"
        )
    # Large blocks: covariances with the data are computed again for each.
    block = max(1, _BLOCK_ELEMENTS // max(1, x.shape[0] * problem.num_metrics))
    sizes = _block_sizes(paths.num_paths, block)

    def draw(first: int) -> Tensor:
        block_paths = paths[first : first + block]

        def work(tile: int) -> Tensor:
            return torch.cat([block_paths(part) for part in torch.split(x, tile)], dim=1)

        return in_tiles(work, block_paths.tile, x.device)

    draws = [partial(draw, number * block) for number in range(len(sizes))]
    with torch.no_grad():
        return _tally(sizes, draws, x.shape[0], problem, caution, x.device)


def _tally(
    sizes: list[int],
    draws: Sequence[Callable[[], Tensor]],
    num_candidates: int,
    problem: Problem,
    caution: float,
    device: torch.device,
    margin_draws: Callable[[], Tensor] | None = None,
) -> Selection:
    """Count the winners of blocks of draws ``(size, candidates, metrics)``; ranks share the blocks.

    Outcomes are evaluated in tiles of their own. ``margin_draws`` makes more draws, from which the
    margin is estimated where there are few.
    """
    num_draws = sum(sizes)
    _check_counts(num_candidates, num_draws)
    tile = _tile(num_draws, num_candidates, problem.num_metrics, device)

    def evaluate(block: int) -> list[Outcome]:
        return [problem.evaluate(part) for part in torch.split(draws[block](), tile)]

    with torch.no_grad():
        margin: Tensor | None = None
        evaluated: dict[int, list[Outcome]] = {}
        if caution and problem.num_constraints:
            if num_draws < _MIN_MARGIN_DRAWS and margin_draws is not None:
                std = finite_std(problem.evaluate(margin_draws()).slack, 0)
            else:
                std, evaluated = _slack_std(evaluate, len(draws), num_candidates, problem)
            margin = caution * std
        winners = torch.zeros(num_draws, dtype=torch.long, device=device)
        totals = torch.zeros(num_candidates + 3, dtype=torch.long, device=device)
        # A single block is not worth sharing, and its draws may come from the caller's generator.
        rank, num_ranks = rank_and_world_size() if len(draws) > 1 else (0, 1)
        for block in range(rank, len(draws), num_ranks):
            start = sum(sizes[:block])
            for outcome in evaluated.pop(block, None) or evaluate(block):
                winner, numbers = _count(outcome, margin, start)
                winners[start : start + len(winner)] = winner
                totals += numbers
                start += len(winner)
        if num_ranks > 1:
            winners, totals = all_reduce_sum(winners), all_reduce_sum(totals)
        counts = torch.zeros(num_candidates, dtype=torch.long, device=device)
        counts = counts.index_add(0, winners, torch.ones_like(winners))
    return Selection(counts, winners, totals[:-3].double() / num_draws, *totals[-3:])


def _count(outcome: Outcome, margin: Tensor | None, first_draw: int) -> tuple[Tensor, Tensor]:
    """The winners of a tile of draws, and numbers of draws ``(candidates + 3,)`` for ``_tally``.

    The draws in which each candidate was feasible; then those in which none was, in which an
    objective was NaN, and in which all eligible candidates were equal.
    """
    cautious = outcome if margin is None else outcome._replace(slack=outcome.slack - margin)
    best = best_of(cautious)
    winner, tied = break_ties(cautious, best, first_draw)
    feasible = best.feasible if margin is None else eligible(outcome).any(1)
    numbers = (~feasible, outcome.utility.isnan().any(1), tied)
    return winner, torch.cat([outcome.feasible.sum(0), torch.stack([n.sum() for n in numbers])])


def _slack_std(
    evaluate: Callable[[int], list[Outcome]],
    num_blocks: int,
    num_candidates: int,
    problem: Problem,
) -> tuple[Tensor, dict[int, list[Outcome]]]:
    """Standard deviation of each slack, ``(candidates, constraints)``, from the first draws.

    Every rank computes these; the outcomes they rest on are returned for further use.
    """
    size = num_candidates * (1 + problem.num_constraints)
    num_draws = max(_MIN_MARGIN_DRAWS, min(_MARGIN_DRAWS, _BLOCK_ELEMENTS // size))
    evaluated: dict[int, list[Outcome]] = {}
    slacks: list[Tensor] = []
    for block in range(num_blocks):
        evaluated[block] = evaluate(block)
        slacks += [outcome.slack for outcome in evaluated[block]]
        if sum(map(len, slacks)) >= num_draws:
            break
    return finite_std(torch.cat(slacks)[:num_draws], 0), evaluated


def _block_sizes(num: int, most: int) -> list[int]:
    """``num`` draws in blocks of ``most``."""
    return [min(most, num - start) for start in range(0, num, most)]


def _generators(
    generator: torch.Generator | None, num: int, device: torch.device
) -> list[torch.Generator | None]:
    """One for each tile, so that each rank can draw its own; the caller's for a single tile."""
    if num < 2:
        return [generator]
    if device.type == "cuda":  # without waiting for the device
        source = generator or torch.cuda.default_generators[device.index or 0]
        seed = hash((source.initial_seed(), source.get_offset())) % 2**62
        torch.empty(1, device=device).uniform_(generator=generator)  # advances the offset
    else:
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return [torch.Generator(device).manual_seed(seed + tile) for tile in range(num)]


def _tile(num_draws: int, num_candidates: int, num_metrics: int, device: torch.device) -> int:
    """Draws in one tile; the same on every card, since each tile has a generator of its own."""
    most = _TILE_ELEMENTS * (_TIMES_ON_CARD if device.type == "cuda" else 1)
    return max(1, min(num_draws, most // max(1, num_candidates * num_metrics)))


def _check_counts(num_candidates: int, num_draws: int) -> None:
    if num_candidates < 1 or num_draws < 1:
        raise ShapeError(
            f"select needs at least one candidate and one draw, got {num_candidates} candidates "
            f"and num_draws={num_draws}"
        )
