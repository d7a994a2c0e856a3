"""Algorithm 1: who wins each draw, with duplicates; the winners are the traffic.

Per draw the feasible candidate with the best objective wins. Where no candidate is feasible in a
draw, the one with the least violation wins, each constraint measured in units of its own spread,
and the draw is counted. Where all feasible candidates are worth the same they win in turn. With
caution a draw's constraints have to be cleared by a margin, which
keeps traffic from arms that are as likely to violate as not. A NaN objective never wins a feasible
draw; a NaN slack is no slack.
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
from ..surrogate import Paths
from .distributed import rank_and_number, summed
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

    Draws are tiled: a temporary has about 32 MiB, or a single draw where that is more; with caution
    the outcomes of the first draws are held, 128 MiB or those of 32 draws.

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
    _check_counts(mean.shape[0], num_draws)
    _check_devices(mean.device, var.device, generator)
    std = var.sqrt()
    sizes = _sizes(num_draws, _tile(num_draws, *mean.shape))
    generators = _generators(generator, len(sizes), mean.device)

    def draw(size: int, own: torch.Generator | None) -> Tensor:
        shape = (size, *mean.shape)
        normal = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=own)
        return normal.mul_(std).add_(mean)

    draws = [partial(draw, *one) for one in zip(sizes, generators)]
    spare = partial(draw, _MARGIN_DRAWS, generator)
    return _tally(sizes, draws, mean.shape[0], problem, caution, mean.device, spare)


def select_paths(paths: Paths, x: Tensor, problem: Problem, caution: float = 0.0) -> Selection:
    """Algorithm 1 on joint draws: each path is one coherent draw of all candidates.

    Args:
        paths: K functions from ``posterior.paths``.
        x: ``(candidates, dims)`` in the unit cube.
        problem: objective and constraints.
        caution: as in ``select``; rough with fewer than 32 paths, since it rests on these.

    As many draws are held at once as fit into 128 MiB, ``(draws, candidates, metrics)``.
    """
    if paths.posterior.num_metrics != problem.num_metrics:
        raise ShapeError(
            f"the paths are over {paths.posterior.num_metrics} metrics, "
            f"the problem over {problem.num_metrics}"
        )
    # Covariances are worked out anew for each block: it should be worth it.
    block = max(1, _BLOCK_ELEMENTS // max(1, x.shape[0] * problem.num_metrics))
    sizes = _sizes(paths.num_paths, block)

    def draw(first: int) -> Tensor:
        some = paths[first : first + block]

        def work(tile: int) -> Tensor:
            return torch.cat([some(part) for part in torch.split(x, tile)], dim=1)

        return in_tiles(work, some.tile, x.device)

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
    spare: Callable[[], Tensor] | None = None,
) -> Selection:
    """Who wins each draw; ``draws`` make tensors ``(size, candidates, metrics)``, ranks share them.

    What is made is judged in tiles of its own. ``spare`` makes more draws to learn a margin from,
    where there are few.
    """
    num_draws = sum(sizes)
    _check_counts(num_candidates, num_draws)
    tile = _tile(num_draws, num_candidates, problem.num_metrics)

    def judge(one: int) -> list[Outcome]:
        return [problem.evaluate(part) for part in torch.split(draws[one](), tile)]

    with torch.no_grad():
        margin: Tensor | None = None
        judged: dict[int, list[Outcome]] = {}
        if caution and problem.num_constraints:
            if num_draws < _FEWEST_MARGIN_DRAWS and spare is not None:
                margin = caution * _spread(problem.evaluate(spare()).slack)
            else:
                std, judged = _slack_std(judge, len(draws), num_candidates, problem)
                margin = caution * std
        winners = torch.zeros(num_draws, dtype=torch.long, device=device)
        told = torch.zeros(num_candidates + 3, dtype=torch.long, device=device)
        # A single block is not worth sharing, and its draws may come from the caller's generator.
        rank, number = rank_and_number() if len(draws) > 1 else (0, 1)
        for one in range(rank, len(draws), number):
            start = sum(sizes[:one])
            for outcome in judged.pop(one, None) or judge(one):
                winner, numbers = _count(outcome, margin, start)
                winners[start : start + len(winner)] = winner
                told += numbers
                start += len(winner)
        if number > 1:
            winners, told = summed(winners), summed(told)
        counts = torch.zeros(num_candidates, dtype=torch.long, device=device)
        counts = counts.index_add(0, winners, torch.ones_like(winners))
    return Selection(counts, winners, told[:-3].double() / num_draws, *told[-3:])


def _count(outcome: Outcome, margin: Tensor | None, first_draw: int) -> tuple[Tensor, Tensor]:
    """The winners of a tile of draws, and numbers of draws for ``_tally``.

    In how many each candidate was feasible; then in how many nobody was, somebody's objective was
    NaN, and all who could win were worth the same.
    """
    cautious = outcome if margin is None else outcome._replace(slack=outcome.slack - margin)
    best = best_of(cautious)
    winner, ties = in_turn(cautious, best, first_draw)
    someone = best.feasible if margin is None else able(outcome).any(1)
    numbers = (~someone, outcome.utility.isnan().any(1), ties)
    return winner, torch.cat([outcome.feasible.sum(0), torch.stack([n.sum() for n in numbers])])


def _slack_std(
    judge: Callable[[int], list[Outcome]], num_blocks: int, num_candidates: int, problem: Problem
) -> tuple[Tensor, dict[int, list[Outcome]]]:
    """How unsure each slack is, ``(candidates, constraints)``, from the first draws.

    Every rank works these out; the outcomes that it rests on are given back.
    """
    size = num_candidates * (1 + problem.num_constraints)
    wanted = max(_FEWEST_MARGIN_DRAWS, min(_MARGIN_DRAWS, _BLOCK_ELEMENTS // size))
    judged: dict[int, list[Outcome]] = {}
    slacks: list[Tensor] = []
    for one in range(num_blocks):
        judged[one] = judge(one)
        slacks += [outcome.slack for outcome in judged[one]]
        if sum(map(len, slacks)) >= wanted:
            break
    return _spread(torch.cat(slacks)[:wanted]), judged


def _spread(slack: Tensor) -> Tensor:
    """Standard deviation over draws; what is not finite counts as 0."""
    return torch.where(slack.isfinite(), slack, 0.0).std(0, correction=0)


def _sizes(num: int, most: int) -> list[int]:
    """``num`` draws in blocks of ``most``."""
    return [min(most, num - start) for start in range(0, num, most)]


def _generators(
    generator: torch.Generator | None, num: int, device: torch.device
) -> list[torch.Generator | None]:
    """One for each tile, so that a rank can draw its own; the given one where there is one."""
    if num < 2:
        return [generator]
    if device.type == "cuda":  # without waiting for the device
        used = torch.cuda.default_generators[device.index or 0] if generator is None else generator
        seed = hash((used.initial_seed(), used.get_offset())) % 2**62
        torch.empty(1, device=device).uniform_(generator=generator)  # moves the offset on
    else:
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return [torch.Generator(device).manual_seed(seed + tile) for tile in range(num)]


def _tile(num_draws: int, num_candidates: int, num_metrics: int) -> int:
    """Draws in one tile."""
    return max(1, min(num_draws, _TILE_ELEMENTS // max(1, num_candidates * num_metrics)))


def _check_counts(num_candidates: int, num_draws: int) -> None:
    if num_candidates < 1 or num_draws < 1:
        raise ShapeError(
            f"select needs at least one candidate and one draw, got {num_candidates} candidates "
            f"and num_draws={num_draws}"
        )


def _check_devices(
    mean: torch.device, var: torch.device, generator: torch.Generator | None
) -> None:
    where = {mean.type, var.type} | ({generator.device.type} if generator is not None else set())
    if len(where) > 1:
        raise ShapeError(f"mean, var and generator must lie on one device, got {sorted(where)}")
