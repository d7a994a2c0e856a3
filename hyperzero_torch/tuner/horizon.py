"""What a study can still resolve until its horizon, at the present traffic.

The evidence of a round, per metric, is the precision of a relative mean over all its users. A
candidate that gets a share ``a`` of the traffic beside a control with a share ``c`` gains

    sum over rounds h of  q_h / (dispersion (1 / a + 1 / c))

where ``q_h`` is the evidence of a round at that hour of the day, times the part of it that arrives
before the horizon. One over it is the variance of the candidate's delta. Evidence from before, and
that of its neighbours, comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..stats import moments
from ..study.config import TunerConfig
from ..study.config.horizon import Horizon
from ..study.evidence.arms import all_arms, stack
from ..study.evidence.bucket import Bucket
from ..study.health import Card
from ..study.history import CONTROL, History
from ..study.horizon import arrived_after, has_passed, rounds_left, shown
from .verification import noise_per_round

_LEVEL = 0.95  # one-sided
_LEAST_REPORTED = 0.5  # part of a round's traffic without which it says nothing about the traffic


@dataclass(frozen=True)
class MetricResolution:
    """Of a metric, for a candidate with a share of the traffic.

    Args:
        metric: its name.
        standard_error: of the candidate's delta at the horizon, a fraction; None where no
            evidence arrives before it.
        smallest_lift: that is above 0 with 95 %, one-sided, if it is measured: 1.645 standard
            errors. A true lift of this size is proved with probability 1/2.
    """

    metric: str
    standard_error: float | None
    smallest_lift: float | None


@dataclass(frozen=True)
class ShareResolution:
    """What a share of the traffic from the next round on resolves.

    Args:
        name: ``"leading"``, the mean share of the candidates that are verified, else the largest of
            the last plan; or ``"even"``, what each would get if all had the same.
        share: of one candidate.
        metrics: what it resolves.
    """

    name: str
    share: float
    metrics: tuple[MetricResolution, ...]


@dataclass(frozen=True)
class Resolution:
    """What can still be resolved.

    Args:
        round: at the horizon; None where nothing is planned yet.
        date: of the horizon, in UTC; None where it is a number of rounds.
        rounds_left: from the next round on.
        control_share: of the last plan.
        shares: what two shares resolve; none where nothing can be said.
        why_not: why.
    """

    round: int | None
    date: str | None
    rounds_left: int
    control_share: float | None
    shares: tuple[ShareResolution, ...] = ()
    why_not: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def in_words(self) -> tuple[str, ...]:
        """Lines for people."""
        num = f"{self.rounds_left} round{'s' * (self.rounds_left != 1)}"
        when = f"round {self.round}" if self.date is None else self.date
        left = f"{when}, {num} left" if self.rounds_left > 0 else when
        lines = [f"horizon: {num if self.round is None and self.date is None else left}"]
        if self.why_not is not None:
            return (f"{lines[0]}; {self.why_not}",)
        for share in self.shares:
            lifts = ", ".join(f"{m.metric} {_percent(m.smallest_lift)}" for m in share.metrics)
            what = "the leaders' share" if share.name == "leading" else "an even share"
            lines.append(
                f"at {what} ({100 * share.share:.1f} %) of the present traffic the smallest "
                f"lifts that can be proved (95 %) are {lifts}"
            )
        return tuple(lines)


def resolution(
    history: History, config: TunerConfig, bucket: Bucket, now: datetime | None = None
) -> Resolution:
    """What a study can still resolve until its horizon.

    Args:
        history: of the study.
        config: in force.
        bucket: its evidence.
        now: the time, for a horizon that is a date.
    """
    left = max(0, rounds_left(history, config, now))
    plan = history.last_plan
    at = None if isinstance(config.horizon, int) else shown(config.horizon)
    where = (None if plan is None else history.next_round + left, at, left)
    if plan is None:
        return Resolution(*where, None, why_not="no round is planned yet")
    control = plan.shares[0]
    if has_passed(config.horizon, now):
        why_not = "it has passed: name a later one (traffic.horizon)"
        return Resolution(*where, control, why_not=why_not)
    if not left:
        return Resolution(*where, control, why_not="no further round ends before it")
    if len(plan.candidates) < 2 or not control:
        return Resolution(*where, control, why_not="nothing is compared at present")
    evidence = evidence_until(history, config, left)
    if evidence is None:
        return Resolution(*where, control, why_not="there are no readings yet")
    if not bool((evidence > 0).any()):
        why_not = "no reading would arrive before it: it is not longer than the delay of readings"
        return Resolution(*where, control, why_not=why_not)
    shares = {"leading": _leading(plan.candidates, plan.shares, plan.trace.leaders)}
    shares["even"] = (1.0 - control) / (len(plan.candidates) - 1)
    resolved = tuple(
        ShareResolution(name, share, _metrics(history, bucket, evidence, share, control))
        for name, share in shares.items()
    )
    return Resolution(*where, control, resolved)


def card_of(facts: Resolution, horizon: Horizon, now: datetime | None = None) -> Card:
    """The card of the horizon beside those of health; ACT where its date has passed.

    Args:
        facts: what can be resolved until it, of now or of a while ago.
        horizon: in force.
        now: the time.
    """
    if isinstance(horizon, datetime) and has_passed(horizon, now):
        sentence = f"it passed on {shown(horizon)}"
        return Card("Horizon", "ACT", sentence, "decide, or name a later one (traffic.horizon)")
    return Card("Horizon", "PASS", "; ".join(facts.in_words()).removeprefix("horizon: "))


def evidence_until(history: History, config: TunerConfig, num_rounds: int) -> Tensor | None:
    """Precision of a relative mean over the whole traffic of the next rounds, ``(metrics,)``.

    By the formula, from the rounds of the last day, hour by hour; an hour of the day without a
    round has their mean. Only what arrives within ``num_rounds`` counts. None without readings.
    """
    tables = _last_day(history, config.rounds_per_day)
    if not tables:
        return None
    arms = stack([(r, history.tables[r]) for r in tables], len(history.metrics))
    if config.calibrate:
        arms = arms._replace(moments=moments.moderate(arms.moments, arms.slot, arms.num_rounds))
    totals = all_arms(arms)
    whole = torch.tensor([_whole_traffic(history, config, r) for r in tables]).to(totals.users)
    is_reported = torch.tensor([_is_reported(history, r) for r in tables])
    users = torch.where(is_reported, totals.users * whole, 0.0)
    slot = torch.tensor(tables) % config.rounds_per_day
    zero = torch.zeros(config.rounds_per_day, users.shape[1], dtype=users.dtype)
    seen = zero.index_add(0, slot, (users > 0).to(users))
    users_of, precision_of = (
        torch.where(
            seen > 0,
            zero.index_add(0, slot, value) / seen.clamp_min(1),
            value.sum(0) / seen.sum(0).clamp_min(1),
        )
        for value in (users, users * totals.precision)
    )
    rounds = torch.arange(history.next_round, history.next_round + num_rounds)
    by_delay = torch.from_numpy(arrived_after(history))
    later = torch.arange(num_rounds - 1, -1, -1).clamp_max(len(by_delay) - 1)
    part = by_delay[later]
    hour = rounds % config.rounds_per_day
    users_until = (part * users_of[hour]).sum(0)
    if config.weights == "precision":
        return (part * precision_of[hour]).sum(0)
    # Rounds weighted by users: the variance is sum(users^2 / precision) / sum(users)^2.
    variance = users_of.square() / precision_of.clamp_min(1e-300)
    return users_until.square() / (part * variance[hour]).sum(0).clamp_min(1e-300)


def _metrics(
    history: History, bucket: Bucket, evidence: Tensor, share: float, control: float
) -> tuple[MetricResolution, ...]:
    variance = noise_per_round(bucket._replace(round_precision=evidence), share, control)
    z = NormalDist().inv_cdf(_LEVEL)
    return tuple(
        MetricResolution(name, error, z * error)
        if np.isfinite(error)
        else MetricResolution(name, None, None)
        for name, error in zip(history.metrics, variance.sqrt().tolist())
    )


def _leading(candidates: Sequence[int], shares: Sequence[float], leaders: Sequence[int]) -> float:
    of = dict(zip(candidates, shares))
    led = [of[leader] for leader in leaders if leader in of and leader != CONTROL]
    return sum(led) / len(led) if led else max(shares[1:])


def _last_day(history: History, rounds_per_day: int) -> list[int]:
    """The latest rounds that have reported for most of their traffic, ascending."""
    excluded = history.status.excluded_rounds
    rounds: list[int] = []
    for number in sorted(history.tables, reverse=True):
        if number in excluded or not history.tables[number].has_control:
            continue
        if max(_is_reported(history, number)):
            rounds.append(number)
        if len(rounds) == rounds_per_day:
            break
    return rounds[::-1]


def _is_reported(history: History, round: int) -> list[bool]:
    """Whether the arms that have reported had most of the round's traffic, ``(metrics,)``."""
    return [share >= _LEAST_REPORTED for share in _reported_share(history, round)]


def _whole_traffic(history: History, config: TunerConfig, round: int) -> list[float]:
    """From users who have reported to those of a whole round today, a factor ``(metrics,)``."""
    part = config.experiment_share / (history.plans[round].trace.experiment_share or 1.0)
    return [part / max(share, _LEAST_REPORTED) for share in _reported_share(history, round)]


def _reported_share(history: History, round: int) -> list[float]:
    shares = np.array(history.plans[round].shares)
    counted = history.tables[round].counted("count") > 0
    reported: list[float] = (shares[:, None] * counted).sum(axis=0).tolist()
    return reported


def _percent(lift: float | None) -> str:
    if lift is None:
        return "–"
    return f"{100 * lift:.2g} %" if 100 * lift < 99.5 else f"{100 * lift:,.0f} %"
