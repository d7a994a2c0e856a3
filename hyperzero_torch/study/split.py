"""Do the counted users of a study fit the shares of its plans, by hour and over all hours?

Counts are compared within one metric, the one with the most users: a metric that is counted over
some of the users says nothing about the split. Arms that have not reported it are left out, and the
others compared with each other. A round is compared once all arms have reported, or could have.

Over all hours means over the present block of them: the evidence of a block starts again with the
next, whose error probability is part of the whole. So the work of a round does not grow.

Source: see ``stats/sample_ratio.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stats import sample_ratio
from .history import CONTROL, History
from .journal.missing_trace import UsersCounted, Withdrawn
from .silence import lateness

# Rounds of a block.
_BLOCK = 168
# Hours that it takes at least to withdraw an arm.
_MIN_HOURS = 3
# Arms with more of the traffic than this are not at fault one by one: the split is.
_MOST_AT_FAULT = 0.5


@dataclass(frozen=True)
class HourMismatch:
    """One hour whose users do not fit its shares, and the arm that deviates most."""

    round: int
    p_value: float
    candidate: int
    expected: float
    counted: float


@dataclass(frozen=True)
class Loss:
    """An arm that loses users: ``log_e_value`` in nats, over ``num_rounds`` rounds."""

    candidate: int
    log_e_value: float
    needed: float
    expected: float
    counted: float
    num_rounds: int


@dataclass(frozen=True)
class Split:
    """The comparison of counted users with planned shares.

    Args:
        hours: those that do not fit, ascending.
        num_hours: how many were compared in the present block.
        losses: arms that lose users for certain.
        at_fault: those of them that can be withdrawn, since all others fit their shares.
        log_e_value: evidence against the shares of all arms together, those apart that were
            withdrawn before.
        needed: from which it is an alarm.
    """

    hours: tuple[HourMismatch, ...] = ()
    num_hours: int = 0
    losses: tuple[Loss, ...] = ()
    at_fault: tuple[Loss, ...] = ()
    log_e_value: float = 0.0
    needed: float = math.inf

    @property
    def is_alarm(self) -> bool:
        """Whether the split as a whole does not follow the plans."""
        return self.log_e_value >= self.needed or len(self.losses) > len(self.at_fault)


def compare(history: History, alpha: float | None) -> Split:
    """Compare the rounds of the present block with their plans.

    Args:
        history: the study's facts.
        alpha: per round, that a round is named although its split is as planned; over all hours,
            that this is ever claimed of the split; and over all candidates together, that any is
            ever withdrawn. None: nothing is compared.
    """
    counts = _counts(history) if alpha is not None and history.plans else []
    if alpha is None or not counts:
        return Split()
    block = (len(history.plans) - 1) // _BLOCK
    ids = sorted({c for _, candidates, _ in counts for c in candidates})
    column = {c: i for i, c in enumerate(ids)}
    users = torch.full((len(counts), len(ids)), torch.nan, dtype=torch.float64)
    shares, before = torch.zeros_like(users), torch.zeros_like(users)
    for row, (round_, candidates, counted) in enumerate(counts):
        at = [column[c] for c in candidates]
        plan = history.plans[round_]
        planned = dict(zip(plan.candidates, plan.shares))
        earlier = _shares_before(history, round_, planned)
        users[row, at] = torch.tensor(counted, dtype=torch.float64)
        shares[row, at] = torch.tensor([planned[c] for c in candidates], dtype=torch.float64)
        before[row, at] = torch.tensor([earlier.get(c, 0.0) for c in candidates]).double()
    hours = []
    for row, (round_, _, _) in enumerate(counts):
        hour = _hour(round_, ids, users[row], shares[row], before[row], alpha)
        if hour is not None:
            hours.append(hour)
    alpha_here = alpha / ((block + 1) * (block + 2))  # sums to alpha over the blocks
    losses = _losses(history, [r for r, _, _ in counts], ids, users, shares, before, alpha_here)
    gone = {
        c for d in history.decisions if isinstance(d.trace, Withdrawn) for c in d.trace.candidates
    }
    rest = [i for i, c in enumerate(ids) if c not in gone]
    needed = -math.log(alpha_here)
    total = _log_e_value(users[:, rest], shares[:, rest], before[:, rest])
    lost = {loss.candidate for loss in losses}
    others = [i for i in rest if ids[i] not in lost]
    fit = _log_e_value(users[:, others], shares[:, others], before[:, others]) < needed
    part = torch.where(users.isfinite(), shares, 0.0).sum(0)
    at_fault = [loss for loss in losses if loss.candidate != CONTROL]
    share = float(part[[column[loss.candidate] for loss in at_fault]].sum() / part.sum())
    if not fit or share > _MOST_AT_FAULT or len(at_fault) < len(losses):
        at_fault = []
    return Split(
        hours=tuple(hours),
        num_hours=len(counts),
        losses=tuple(losses),
        at_fault=tuple(at_fault),
        log_e_value=total,
        needed=needed,
    )


def _counts(history: History) -> list[tuple[int, list[int], list[float]]]:
    """Users by arm of the rounds that can be compared, ascending."""
    normal = lateness(history)
    last = len(history.plans) - 1
    first = last // _BLOCK * _BLOCK
    recent = {r: t for r, t in sorted(history.tables.items()) if t.index >= first}
    size = torch.zeros(len(history.metrics), dtype=torch.float64)
    for table in recent.values():
        size += torch.from_numpy(table.counted("count")).nan_to_num(0.0).sum(0)
    reference = int(size.argmax())
    counts: dict[int, tuple[list[int], list[float]]] = {}
    for round_, table in recent.items():
        users = table.counted("count")
        reported = users[:, reference] > 0
        # No user in any metric is a count of 0; none in this one alone is a missing reading.
        is_zero = (users[:, reference] == 0) & ~table.reported.any(axis=1)
        has = reported | is_zero
        is_late = last - table.index >= normal.arms[reference]
        if round_ in history.status.excluded_rounds:
            continue  # by a person; the users of those that the live loop leaves out follow
        is_whole = has.all() or is_late
        if is_whole and has.sum() >= 2 and reported.any():
            rows = has.nonzero()[0]
            candidates = table.candidates[rows].tolist()
            counts[round_] = (candidates, users[rows, reference].tolist())
    for decision in history.decisions:
        trace = decision.trace
        if isinstance(trace, UsersCounted) and trace.round in recent and trace.round not in counts:
            counts[trace.round] = (list(trace.candidates), list(trace.users))
    return [(r, *counts[r]) for r in sorted(counts)]


def _shares_before(history: History, round_: int, planned: dict[int, float]) -> dict[int, float]:
    """Shares of the plan before a round's; its own where it is the first.

    They are of this round's experiment: before a smaller experiment each minute had more users.
    """
    index = history.tables[round_].index
    if index == 0:
        return planned
    plan = history.plans[list(history.plans)[index - 1]]
    growth = plan.trace.experiment_share / history.plans[round_].trace.experiment_share
    return {c: share * growth for c, share in zip(plan.candidates, plan.shares)}


def _hour(
    round_: int, ids: Sequence[int], users: Tensor, shares: Tensor, before: Tensor, alpha: float
) -> HourMismatch | None:
    has = users.isfinite() & (shares > 0)
    counted = users[has]
    expected = sample_ratio.mixtures(shares[has], before[has]) * counted.sum()
    p = max(float(sample_ratio.p_value(counted, e)) for e in expected if bool((e > 0).all()))
    if p >= alpha:
        return None
    deviation = (counted - expected[0]).abs() / expected[0].sqrt()
    worst = int(deviation.argmax())
    candidate = ids[int(has.nonzero().flatten()[worst])]
    return HourMismatch(round_, p, candidate, float(expected[0][worst]), float(counted[worst]))


def _log_e_value(users: Tensor, shares: Tensor, before: Tensor) -> float:
    has = users.isfinite()
    if users.shape[1] < 2:
        return 0.0
    process = sample_ratio.log_e_process(
        torch.where(has, users, 0.0), torch.where(has, shares, 0.0), torch.where(has, before, 0.0)
    )
    return float(process[-1])


def _losses(
    history: History,
    rounds: Sequence[int],
    ids: Sequence[int],
    users: Tensor,
    shares: Tensor,
    before: Tensor,
    alpha: float,
) -> list[Loss]:
    """Arms in service that lose users for certain."""
    # alpha over all candidates: the weights 1 / (c (c + 1)) of c = 1, 2, ... sum to 1.
    place = torch.tensor(ids, dtype=torch.float64)
    needed = (place.clamp_min(1) * (place.clamp_min(1) + 1)).log() - math.log(alpha)
    most = (needed + math.log(len(sample_ratio.KEPT))) / _MIN_HOURS
    counted = users.clone()
    for decision in history.decisions:  # one that was let in again starts with the next round
        if isinstance(decision.trace, Withdrawn):
            is_old = torch.tensor([r <= decision.round for r in rounds])
            for candidate in decision.trace.candidates:
                if candidate in ids:
                    counted[is_old, ids.index(candidate)] = torch.nan
    process = sample_ratio.log_e_loss(counted, shares, before, most)
    losses = []
    for i in (process >= needed).nonzero().flatten().tolist():
        if ids[i] in history.status.stopped:
            continue
        has = counted[:, i].isfinite()
        present = torch.where(users.isfinite(), shares, 0.0)[has]
        part = present[:, i] / present.sum(-1)
        total = users[has].nan_to_num(0.0).sum(-1)
        losses.append(
            Loss(
                candidate=ids[i],
                log_e_value=float(process[i]),
                needed=float(needed[i]),
                expected=float((part * total).sum()),
                counted=float(counted[has, i].sum()),
                num_rounds=int(has.sum()),
            )
        )
    return losses
