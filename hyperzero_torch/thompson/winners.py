"""The winner of each draw: the feasible point with the best utility, else the least violation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Outcome


class Best(NamedTuple):
    """The best point of each draw: ``winner (K,)``, ``score (K,)`` and ``feasible (K,)``.

    ``score`` is the utility where a point is feasible and minus the scaled violation where none is.
    """

    winner: Tensor
    score: Tensor
    feasible: Tensor


def eligible(outcome: Outcome) -> Tensor:
    """Points that can win as feasible, ``(K, points)``: constraints hold, utility is not NaN."""
    return outcome.feasible & ~outcome.utility.isnan()


def best_of(outcome: Outcome) -> Best:
    """The best point of each draw; ``outcome`` over ``(K, points)``.

    Constraint spreads are taken over all draws and points given, so violations of constraints
    with different units add up.
    """
    top = torch.where(eligible(outcome), _clamped(outcome.utility), -torch.inf).max(dim=1)
    winner, feasible = top.indices, top.values > -torch.inf
    score = outcome.utility.gather(1, winner.unsqueeze(1)).squeeze(1)
    if _all_on_cpu(feasible):  # no draw needs the fallback
        return Best(winner, score, feasible)
    least = (-scaled_violation(outcome.slack)).max(dim=1)
    score = torch.where(feasible, score, least.values)
    return Best(torch.where(feasible, winner, least.indices), score, feasible)


def scaled_violation(slack: Tensor) -> Tensor:
    """Sum over constraints of the violation in units of that constraint's own spread.

    ``(K, points, constraints)`` to ``(K, points)``; a NaN slack violates infinitely.
    """
    if not slack.shape[-1]:
        return slack.new_zeros(slack.shape[:-1])
    spread = finite_std(slack, (0, 1))
    # A slack that never varies has only rounding error for a spread; its own size is used instead.
    size = torch.where(slack.isfinite(), slack, 0.0).abs().amax(dim=(0, 1))
    spread = torch.where(spread > 8 * torch.finfo(slack.dtype).eps * size, spread, size)
    spread = torch.where(spread > 0, spread, 1.0)
    return ((-slack / spread).clamp_min(0).nan_to_num(nan=torch.inf)).sum(-1)


def finite_std(values: Tensor, dim: int | tuple[int, ...] | None) -> Tensor:
    """Population standard deviation over ``dim``; values that are not finite count as 0."""
    return torch.where(values.isfinite(), values, 0.0).std(dim=dim, correction=0)


def break_ties(outcome: Outcome, best: Best, first_draw: int) -> tuple[Tensor, Tensor]:
    """The winner of each draw, and whether all eligible points were equal, both ``(K,)``.

    Tied points win in turn, from draw number ``first_draw`` on. With an objective that is the same
    for all candidates, the first one would take all traffic otherwise.
    """
    candidates = eligible(outcome)
    lowest = torch.where(candidates, _clamped(outcome.utility), torch.inf).amin(1)
    tied = lowest == _clamped(best.score)
    if _all_on_cpu(~tied):
        return best.winner, tied
    number = candidates.sum(1)
    tied = tied & (number > 1)
    turn = first_draw + torch.arange(len(tied), device=tied.device)
    next_ = candidates.cumsum(1) == (turn % number.clamp_min(1) + 1).unsqueeze(1)
    return torch.where(tied, (next_ & candidates).to(torch.uint8).argmax(1), best.winner), tied


def _clamped(utility: Tensor) -> Tensor:
    """A feasible point with utility -inf still comes before an infeasible one."""
    return utility.clamp_min(torch.finfo(utility.dtype).min)


def _all_on_cpu(mask: Tensor) -> bool:
    """Whether all hold, on the CPU; elsewhere False, since reading the mask would wait for it."""
    readable = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    return readable and bool(mask.all())
