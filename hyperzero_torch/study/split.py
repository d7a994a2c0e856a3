"""Do the counted users of a study fit the shares of its plans, by hour and over all hours?

Counts are compared within one metric, the one with the most users: a metric that is counted over
some of the users says nothing about the split. Arms that have not reported it are left out, and the
others compared with each other. A round is compared once all arms have reported, or could have. An
arm whose rows have not come at all by then has lost all its users, which is held against it alone:
the other arms' users are compared without it.

A single hour that does not fit is named, and excluded from the evidence, by itself. Over all hours
the others are compared, unless so many do not fit that the split is broken in general.

Over all hours means over the present block of them: the evidence of a block starts again with the
next, whose error probability is part of the whole. So the work of a round does not grow.

Source: see ``stats/sample_ratio.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..stats import sample_ratio
from .history import CONTROL, History
from .journal.missing_trace import UsersCounted, Withdrawn
from .lateness import age, lateness

# Rounds of a block.
_BLOCK = 168
# Hours that it takes at least to withdraw an arm.
_MIN_HOURS = 3
# Hours that may be amiss by themselves: one, or this part of them.
_ISOLATED = 0.1
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
            withdrawn before, and single hours that do not fit.
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
    counts = counts_of(history) if alpha is not None and history.plans else {}
    if alpha is None or not counts:
        return Split()
    block = (len(history.plans) - 1) // _BLOCK
    users, shares, before, with_absent, ids = _matrices(history, counts)
    column = {c: i for i, c in enumerate(ids)}
    rounds = list(counts)
    hours = _hours(rounds, ids, users, shares, before, alpha)
    alpha_here = alpha / ((block + 1) * (block + 2))  # sums to alpha over the blocks
    losses = _losses(history, rounds, ids, with_absent, shares, before, alpha_here)
    gone = {
        c for d in history.decisions if isinstance(d.trace, Withdrawn) for c in d.trace.candidates
    }
    rest = [i for i, c in enumerate(ids) if c not in gone]
    # Either of two processes may be the one that counts. That without hours of p < alpha gains at
    # most 1 + alpha an hour on average.
    needed = math.log(2 / alpha_here) + _BLOCK * math.log1p(alpha)
    amiss = {hour.round for hour in hours}
    if len(amiss) <= max(1.0, _ISOLATED * len(rounds)):  # fewer hours are no more evidence
        kept = [i for i, round_ in enumerate(rounds) if round_ not in amiss]
        fit_users, fit_shares, fit_before = users[kept], shares[kept], before[kept]
    else:
        fit_users, fit_shares, fit_before = users, shares, before
    total = _log_e_value(fit_users[:, rest], fit_shares[:, rest], fit_before[:, rest])
    lost = {loss.candidate for loss in losses}
    others = [i for i in rest if ids[i] not in lost]
    of_others = total
    if len(others) < len(rest):
        of_others = _log_e_value(fit_users[:, others], fit_shares[:, others], fit_before[:, others])
    fit = of_others < needed
    part = torch.where(with_absent.isfinite(), shares, 0.0).sum(0)
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


class Counts(NamedTuple):
    """Users of a round by arm; and the arms without any row though it is overdue."""

    candidates: NDArray[np.int64]
    users: NDArray[np.float64]
    absent: NDArray[np.int64]


def counts_of(history: History) -> dict[int, Counts]:
    """The rounds that can be compared, ascending."""
    normal = lateness(history)
    last = len(history.plans) - 1
    first = last // _BLOCK * _BLOCK
    recent = {r: t for r, t in sorted(history.tables.items()) if t.index >= first}
    size = np.zeros(len(history.metrics))
    for table in recent.values():
        size += table.arrivals.users
    reference = int(size.argmax())
    counts = {}
    for round_, table in recent.items():
        if round_ in history.status.excluded_rounds:
            continue  # by a person; the users of those that the live loop leaves out follow
        users = table.counted("count")[:, reference]
        if not table.arrivals.reported[reference]:
            continue
        reported = users > 0
        # No user in any metric is a count of 0; none in this one alone is a missing reading.
        has = reported | ((users == 0) & ~table.reported.any(axis=1))
        is_late = normal.arms_are_overdue(table, age(history, table))[reference]
        if (has.all() or is_late) and has.sum() >= 2:
            absent = (table.revision < 0).all(axis=1) & is_late
            absent[0] = False  # without the control nothing is learned, and it is not withdrawn
            counts[round_] = Counts(table.candidates[has], users[has], table.candidates[absent])
    for decision in history.decisions:
        trace = decision.trace
        if isinstance(trace, UsersCounted) and trace.round in recent and trace.round not in counts:
            arms = np.array(trace.candidates)
            counts[trace.round] = Counts(arms, np.array(trace.users), arms[:0])
    return {r: counts[r] for r in sorted(counts)}


def _matrices(
    history: History, counts: dict[int, Counts]
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
    """Users, NaN where none are known, shares, shares of the plan before, and users with zeros for
    absent arms, each ``(rounds, arms)``; and the candidates of the columns."""
    ids = np.unique(np.concatenate([arms for c in counts.values() for arms in (c[0], c.absent)]))
    users = np.full((len(counts), len(ids)), np.nan)
    with_absent = users.copy()
    shares, before = np.zeros_like(users), np.zeros_like(users)
    plans = list(history.plans.values())
    # Shares by candidate, of a round and of the plan before it.
    now, then = np.zeros(history.num_candidates), np.zeros(history.num_candidates)
    for row, (round_, hour) in enumerate(counts.items()):
        at, gone = np.searchsorted(ids, hour.candidates), np.searchsorted(ids, hour.absent)
        index = history.tables[round_].index
        # The first plan had none before it. Shares before are of this round's experiment: before a
        # smaller one each minute had more users.
        part = plans[index].trace.experiment_share
        for dense, plan in ((now, plans[index]), (then, plans[max(0, index - 1)])):
            arms = np.array(plan.candidates)
            dense[arms] = np.array(plan.shares) * (plan.trace.experiment_share / part)
            matrix = shares if dense is now else before
            matrix[row, at], matrix[row, gone] = dense[hour.candidates], dense[hour.absent]
            dense[arms] = 0.0
        users[row, at] = with_absent[row, at] = hour.users
        with_absent[row, gone] = 0.0
    matrices = map(torch.from_numpy, (users, shares, before, with_absent))
    return *matrices, ids.tolist()


def _hours(
    rounds: Sequence[int],
    ids: Sequence[int],
    users: Tensor,
    shares: Tensor,
    before: Tensor,
    alpha: float,
) -> list[HourMismatch]:
    """The hours that do not fit, as likely as any mixture with the plan before makes them."""
    has = users.isfinite() & (shares > 0)
    counted = torch.where(has, users, 0.0)
    planned, earlier = torch.where(has, shares, 0.0), torch.where(has, before, 0.0)
    expected = sample_ratio.mixtures(planned, earlier) * counted.sum(-1, keepdim=True)
    p = sample_ratio.p_value(counted.expand_as(expected), expected)
    # A mixture that leaves nobody to an arm says nothing.
    p = torch.where(((expected > 0) | ~has).all(-1), p, 0.0).amax(0)
    mismatches = []
    for row in (p < alpha).nonzero().flatten().tolist():
        usual = expected[0, row]
        deviation = (counted[row] - usual).abs() / torch.where(has[row], usual, torch.inf).sqrt()
        worst = int(deviation.argmax())
        mismatches.append(
            HourMismatch(
                rounds[row],
                float(p[row]),
                ids[worst],
                float(usual[worst]),
                float(counted[row, worst]),
            )
        )
    return mismatches


def _log_e_value(users: Tensor, shares: Tensor, before: Tensor) -> float:
    has = users.isfinite()
    if not len(users) or users.shape[1] < 2:
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
