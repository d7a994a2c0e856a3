"""How far the error of each round's control moves pooled deltas: what candidates have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .delta import Delta


class Exposure(NamedTuple):
    """Effect of the controls' errors on candidates' weighted sums, a row per arm served.

    ``candidate`` and ``round`` ``(arms,)``, rounds numbered 0, 1, 2, ...; ``part (arms, metrics)``:
    the arm's weight times its loading, 0 where there is no evidence.
    """

    candidate: Tensor
    round: Tensor
    part: Tensor


def exposure(
    candidates: Tensor,
    rounds: Tensor,
    loading: Tensor,
    delta: Delta,
    weight: Tensor,
    last: Tensor,
) -> Exposure:
    """The arguments of ``loadings``, for the arms that ``summarise`` pools.

    Args:
        candidates: ``(arms,)``, indices of candidates.
        rounds: ``(arms,)``, rounds numbered 0, 1, 2, ... without gaps.
        loading: ``(arms, metrics)`` from ``delta.control_loading``.
        delta: ``(arms, metrics)``; a NaN is no evidence.
        weight: ``(arms, metrics)``, as in ``summarise``.
        last: ``(arms, metrics)``, the row that holds the delta of each row's window, -1 for none;
            see ``windows.assign``.
    """
    part = torch.where(delta.mean.isfinite() & delta.var.isfinite(), weight, 0.0)
    part = torch.where(last >= 0, part.gather(0, last.clamp_min(0)), 0.0)
    return Exposure(candidates, rounds, torch.where(part > 0, part * loading, 0.0))


def loadings(exposed: Exposure, weight: Tensor, rows: Tensor) -> Tensor:
    """Each candidate's exposure to each round's control error, pooled like its deltas.

    The error of a pooled mean is sum_t w_t e_t / sum_t w_t; its part from the control of round t is
    common to all candidates served in that round.

    Args:
        exposed: the arms.
        weight: ``(candidates, metrics)``: of all evidence about each candidate.
        rows: ``(n,)`` the candidates wanted, each once.
    Returns:
        ``(n, rounds, metrics)``, fractions; 0 where a candidate was not served.
    """
    place = torch.full((len(weight),), -1, dtype=torch.long, device=weight.device)
    place[rows] = torch.arange(len(rows), device=weight.device)
    at = place[exposed.candidate]
    asked = at >= 0
    total = weight[exposed.candidate[asked]]
    part = exposed.part[asked].to(weight.dtype) / torch.where(total > 0, total, 1.0)
    num_rounds = int(exposed.round.max()) + 1 if len(exposed.round) else 0
    pooled = weight.new_zeros(len(rows) * num_rounds, weight.shape[1])
    pooled = pooled.index_add(0, at[asked] * num_rounds + exposed.round[asked], part)
    return pooled.reshape(len(rows), num_rounds, weight.shape[1])
