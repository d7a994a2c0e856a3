"""Who wins a draw: the feasible point worth most, else the one that violates least."""

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


def able(outcome: Outcome) -> Tensor:
    """Who can win as feasible, ``(K, points)``: all constraints hold, the utility is a number."""
    return outcome.feasible & ~outcome.utility.isnan()


def best_of(outcome: Outcome) -> Best:
    """The best point of each draw; ``outcome`` over ``(K, points)``.

    Constraint spreads are taken over all draws and points given, so violations of constraints
    with different units add up.
    """
    top = torch.where(able(outcome), _clamped(outcome.utility), -torch.inf).max(dim=1)
    best, some = top.indices, top.values > -torch.inf
    score = outcome.utility.gather(1, best.unsqueeze(1)).squeeze(1)
    if _all(some):  # nobody has to fall back on violating least
        return Best(best, score, some)
    shortfall = scaled_violation(outcome.slack)
    fallback = (-shortfall).max(dim=1)
    score = torch.where(some, score, fallback.values)
    return Best(torch.where(some, best, fallback.indices), score, some)


def scaled_violation(slack: Tensor) -> Tensor:
    """Sum over constraints of the violation in units of that constraint's own spread.

    ``(K, points, constraints)`` to ``(K, points)``; a NaN slack violates infinitely.
    """
    if not slack.shape[-1]:
        return slack.new_zeros(slack.shape[:-1])
    known = torch.where(slack.isfinite(), slack, 0.0)
    spread = known.std(dim=(0, 1), correction=0)
    # A slack that never varies has no spread but rounding; its own size stands in.
    size = known.abs().amax(dim=(0, 1))
    spread = torch.where(spread > 8 * torch.finfo(slack.dtype).eps * size, spread, size)
    spread = torch.where(spread > 0, spread, 1.0)
    return ((-slack / spread).clamp_min(0).nan_to_num(nan=torch.inf)).sum(-1)


def in_turn(outcome: Outcome, best: Best, first_draw: int) -> tuple[Tensor, Tensor]:
    """The winner of each draw, and where there was a tie of all who could win it, both ``(K,)``.

    With an objective that is the same for everyone, the first candidate would take all traffic.
    """
    can = able(outcome)
    utility = _clamped(outcome.utility)
    tie = torch.where(can, utility, torch.inf).amin(1) == _clamped(best.score)
    if _all(~tie):
        return best.winner, tie
    number = can.sum(1)
    tie = tie & (number > 1)
    turn = first_draw + torch.arange(len(tie), device=tie.device)
    next_ = can.cumsum(1) == (turn % number.clamp_min(1) + 1).unsqueeze(1)
    return torch.where(tie, (next_ & can).to(torch.uint8).argmax(1), best.winner), tie


def _clamped(utility: Tensor) -> Tensor:
    """A feasible point worth -inf still comes before an infeasible one."""
    return utility.clamp_min(torch.finfo(utility.dtype).min)


def _all(mask: Tensor) -> bool:
    """Whether all hold, where it costs nothing to look; elsewhere no, and all is worked out."""
    looking_is_free = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    return looking_is_free and bool(mask.all())
