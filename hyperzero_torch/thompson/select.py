"""Algorithm 1: who wins each draw, with duplicates; the winners are the traffic.

Per draw the feasible candidate with the best objective wins. Where no candidate is feasible in a
draw, the one with the least violation wins, each constraint measured in units of its own spread,
and the draw is counted. Where all feasible candidates are worth the same they win in turn. With
caution a draw's constraints have to be cleared by a margin, which
keeps traffic from arms that are as likely to violate as not. A NaN objective never wins a feasible
draw; a NaN slack is no slack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..problem import Outcome, Problem
from ..surrogate import Paths

# Elements of one tile of draws, (draws, candidates, metrics): 32 MiB in float64.
_TILE_ELEMENTS = 2**22
_MARGIN_DRAWS = 256  # enough for a standard deviation within 5 %


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


class Best(NamedTuple):
    """The best point of each draw: ``winner (K,)``, ``score (K,)`` and ``feasible (K,)``.

    ``score`` is the utility where a point is feasible and minus the scaled violation where none is.
    """

    winner: Tensor
    score: Tensor
    feasible: Tensor


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

    def draw(num: int) -> Tensor:
        normal = torch.randn(
            num, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator
        )
        return mean + std * normal

    margin = None
    if caution and problem.num_constraints and num_draws > 0 and len(mean):
        margin = caution * _slack_std(draw(_MARGIN_DRAWS), problem)
    return _tally(draw, mean.shape[0], problem, num_draws, margin)


def select_paths(paths: Paths, x: Tensor, problem: Problem, caution: float = 0.0) -> Selection:
    """Algorithm 1 on joint draws: each path is one coherent draw of all candidates.

    Args:
        paths: K functions from ``posterior.paths``.
        x: ``(candidates, dims)`` in the unit cube.
        problem: objective and constraints.
        caution: as in ``select``.

    Holds all draws at once, ``(K, candidates, metrics)``.
    """
    if paths.posterior.num_metrics != problem.num_metrics:
        raise ShapeError(
            f"the paths are over {paths.posterior.num_metrics} metrics, "
            f"the problem over {problem.num_metrics}"
        )
    with torch.no_grad():
        draws = torch.cat([paths(part) for part in torch.split(x, paths.tile)], dim=1)
    start = 0

    def draw(num: int) -> Tensor:
        nonlocal start
        start += num
        return draws[start - num : start]

    margin = None
    if caution and problem.num_constraints:
        margin = caution * _slack_std(draws[:_MARGIN_DRAWS], problem)
    return _tally(draw, x.shape[0], problem, paths.num_paths, margin)


def best_of(outcome: Outcome) -> Best:
    """The best point of each draw; ``outcome`` over ``(K, points)``.

    Constraint spreads are taken over all draws and points given, so violations of constraints
    with different units add up.
    """
    utility, slack = outcome
    feasible = outcome.feasible & ~utility.isnan()
    # Clamped: a feasible point worth -inf still comes before an infeasible one.
    worst = torch.finfo(utility.dtype).min
    best = torch.where(feasible, utility.clamp_min(worst), -torch.inf).argmax(dim=1)
    shortfall = scaled_violation(slack) if slack.shape[-1] else torch.zeros_like(utility)
    fallback = (-shortfall).max(dim=1)
    some = feasible.any(dim=1)
    score = torch.where(some, utility.gather(1, best.unsqueeze(1)).squeeze(1), fallback.values)
    return Best(torch.where(some, best, fallback.indices), score, some)


def scaled_violation(slack: Tensor) -> Tensor:
    """Sum over constraints of the violation in units of that constraint's own spread.

    ``(K, points, constraints)`` to ``(K, points)``; a NaN slack violates infinitely.
    """
    known = torch.where(slack.isfinite(), slack, 0.0)
    spread = known.std(dim=(0, 1), correction=0)
    # A slack that never varies has no spread but rounding; its own size stands in.
    size = known.abs().amax(dim=(0, 1))
    spread = torch.where(spread > 8 * torch.finfo(slack.dtype).eps * size, spread, size)
    spread = torch.where(spread > 0, spread, 1.0)
    return ((-slack / spread).clamp_min(0).nan_to_num(nan=torch.inf)).sum(-1)


def _slack_std(draws: Tensor, problem: Problem) -> Tensor:
    """How unsure each candidate's slack is, ``(candidates, constraints)``."""
    with torch.no_grad():
        slack = problem.evaluate(draws).slack
    return torch.where(slack.isfinite(), slack, 0.0).std(0, correction=0)


def _tally(
    draw: Callable[[int], Tensor],
    num_candidates: int,
    problem: Problem,
    num_draws: int,
    margin: Tensor | None = None,
) -> Selection:
    if num_candidates < 1 or num_draws < 1:
        raise ShapeError(
            f"select needs at least one candidate and one draw, got {num_candidates} candidates "
            f"and num_draws={num_draws}"
        )
    tile = max(1, min(num_draws, _TILE_ELEMENTS // (num_candidates * problem.num_metrics)))
    winners: list[Tensor] = []
    held: Tensor | int = 0
    infeasible: Tensor | int = 0
    undefined: Tensor | int = 0
    tied: Tensor | int = 0
    with torch.no_grad():
        for start in range(0, num_draws, tile):
            outcome = problem.evaluate(draw(min(tile, num_draws - start)))
            cautious = outcome if margin is None else outcome._replace(slack=outcome.slack - margin)
            best = best_of(cautious)
            winner, ties = _in_turn(cautious, best, start)
            winners.append(winner)
            tied = tied + ties.sum()
            undefined = undefined + outcome.utility.isnan().any(1).sum()
            held = held + outcome.feasible.sum(0)
            someone = (outcome.feasible & ~outcome.utility.isnan()).any(1)
            infeasible = infeasible + (~someone).sum()
        won = torch.cat(winners)
        counts = torch.zeros(num_candidates, dtype=torch.long, device=won.device)
        counts = counts.index_add(0, won, torch.ones_like(won))
    numbers = (torch.as_tensor(n, device=won.device) for n in (held, infeasible, undefined, tied))
    held, infeasible, undefined, tied = numbers
    return Selection(counts, won, held.double() / num_draws, infeasible, undefined, tied)


def _in_turn(outcome: Outcome, best: Best, first_draw: int) -> tuple[Tensor, Tensor]:
    """The winner of each draw, and where there was a tie of all who could win it, both ``(K,)``.

    With an objective that is the same for everyone, the first candidate would take all traffic.
    """
    able = outcome.feasible & ~outcome.utility.isnan()
    low = torch.where(able, outcome.utility, torch.inf).amin(1)
    high = torch.where(able, outcome.utility, -torch.inf).amax(1)
    number = able.sum(1)
    tie = (low == high) & (number > 1)
    turn = first_draw + torch.arange(len(tie), device=tie.device)
    next_ = able.cumsum(1) == (turn % number.clamp_min(1) + 1).unsqueeze(1)
    return torch.where(tie, (next_ & able).to(torch.uint8).argmax(1), best.winner), tie


def _check_devices(
    mean: torch.device, var: torch.device, generator: torch.Generator | None
) -> None:
    where = {mean.type, var.type} | ({generator.device.type} if generator is not None else set())
    if len(where) > 1:
        raise ShapeError(f"mean, var and generator must lie on one device, got {sorted(where)}")
