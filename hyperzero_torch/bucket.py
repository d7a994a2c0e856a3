"""From what has arrived to what is known: deltas of every arm and round, evidence per candidate.

A treatment whose control has not arrived yet has no delta and waits; so does a metric of it.
Rows are always taken in the order of rounds and plans, so the evidence does not depend on the
order in which readings arrived.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .history import CONTROL, History
from .stats import delta, dispersion, evidence, moments
from .stats.delta import Delta

Weights: TypeAlias = Literal["users", "precision"]


class ArmDeltas(NamedTuple):
    """One row per arm and round with a control: ``round``, ``candidate``, ``delta``, ``weight``.

    The first two are ``(rows,)``, the others ``(rows, metrics)``; NaN where a metric is missing.
    ``loading`` is how far one standard deviation of the control's error moves the delta.
    """

    round: Tensor
    candidate: Tensor
    delta: Delta
    weight: Tensor
    loading: Tensor


class Bucket(NamedTuple):
    """All candidates and what is known of them; row 0 is the control and knows nothing.

    ``mean``, ``var``, ``weight`` are ``(candidates, metrics)``, NaN and 0 where nothing is known;
    ``num_rounds (candidates,)`` counts rounds with evidence; ``base_levels (metrics,)`` is None
    until the control has reported every metric, and rests on ``level_hours`` hours of the day.
    ``loading (candidates, rounds, metrics)`` is how far one standard deviation of each round's
    control error moves each candidate's ``mean``.
    ``dispersion (metrics,)`` is the factor by which all variances here exceed the formula's.
    ``power (metrics,)`` is the precision of a relative mean over a whole round's traffic, by the
    formula, of a usual round; 0 before the first.
    """

    theta: Tensor
    mean: Tensor
    var: Tensor
    weight: Tensor
    num_rounds: Tensor
    base_levels: Tensor | None
    level_hours: int
    loading: Tensor
    dispersion: Tensor
    power: Tensor
    deltas: ArmDeltas

    @property
    def tested(self) -> Tensor:
        """Candidates with evidence on every metric, ``(candidates,)``."""
        return (self.weight > 0).all(-1)

    def shared(self, rows: Tensor) -> Tensor:
        """Covariance of the errors of these candidates' means, ``(metrics, n, n)``.

        All arms of a round were compared with one control, and share its error; the diagonal is
        the control's part of ``var``.
        """
        loading = self.loading[rows].permute(2, 0, 1)
        return loading @ loading.transpose(-1, -2)


def gather(
    history: History, weights: Weights, rounds_per_day: int, calibrate: bool = False
) -> Bucket:
    """What the history says of every candidate.

    Args:
        history: the study's facts.
        weights: of a candidate's rounds, ``"users"`` (Eq. 3.2) or ``"precision"``: inverse
            variances from the all-arm level of the round, which no single arm's luck can bias.
        rounds_per_day: period of the daily cycle, for the base levels.
        calibrate: scale variances and weights by the dispersion and the tails that the deltas show,
            and moderate the sample variances of arms with few users.
    """
    arms = _stack(history)
    if calibrate:
        moderated = moments.moderate(arms.moments, arms.slot, arms.num_rounds)
        arms = arms._replace(moments=moderated)
    control = moments.Moments(*(field[arms.control] for field in arms.moments))
    lift = delta.ratio(arms.moments, control)
    is_treatment = (arms.candidate != CONTROL).unsqueeze(-1)
    lift = Delta(*(torch.where(is_treatment, field, torch.nan) for field in lift))
    weight = arms.moments.count.nan_to_num(0.0)
    users, worth = _rounds(arms)
    if weights == "precision":
        weight = _precision(arms, worth)
    num = history.num_candidates
    common = torch.ones(len(history.metrics), dtype=torch.float64)
    loading = delta.control_loading(arms.moments, control)
    if calibrate:
        found = dispersion.fit(arms.candidate, arms.slot, lift, weight, num)
        lift = Delta(lift.mean, found.factor * lift.var)
        loading = loading * found.factor.sqrt()
        weight, common = found.weight, found.common
    kept_share = _kept(history, arms)
    lift, weight = Delta(lift.mean, lift.var / kept_share), weight * kept_share
    levels, hours = _base_levels(arms, rounds_per_day)
    state = evidence.summarise(arms.candidate, lift, weight, num)
    known = state.weight > 0
    pooled = evidence.pool_loading(arms.candidate, arms.slot, loading, lift, weight, num)
    seen = lift.mean.isfinite().any(-1).double()
    rounds = torch.zeros(num, dtype=torch.float64).index_add(0, arms.candidate, seen)
    kept = (arms.candidate != CONTROL) & (seen > 0)
    return Bucket(
        theta=history.theta,
        mean=torch.where(known, state.mean, torch.nan),
        var=torch.where(known, state.spread / state.weight.square(), torch.nan),
        weight=state.weight,
        num_rounds=rounds.long(),
        base_levels=levels,
        level_hours=hours,
        loading=pooled,
        dispersion=common,
        power=(users * worth).sum(0) / (users > 0).sum(0).clamp_min(1),
        deltas=ArmDeltas(
            arms.round[kept],
            arms.candidate[kept],
            Delta(lift.mean[kept], lift.var[kept]),
            weight[kept],
            loading[kept],
        ),
    )


class _Arms(NamedTuple):
    """Every arm of every round with a control: moments ``(rows, metrics)``, the rest ``(rows,)``.

    ``control`` is the row of the same round's control, ``slot`` numbers rounds 0, 1, 2, ...
    """

    round: Tensor
    slot: Tensor
    candidate: Tensor
    control: Tensor
    moments: moments.Moments

    @property
    def num_rounds(self) -> int:
        """Rounds with a control."""
        return int(self.slot[-1]) + 1 if len(self.slot) else 0


def _stack(history: History) -> _Arms:
    tables = [(r, history.tables[r]) for r in sorted(history.tables)]
    aside = history.standing.aside
    tables = [(r, t) for r, t in tables if t.has_control and r not in aside]
    sizes = np.array([len(t.candidates) for _, t in tables], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    width = len(history.metrics)

    def stack(name: str) -> Tensor:
        parts = [getattr(t, name) for _, t in tables]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty((0, width)))

    candidates = [t.candidates for _, t in tables]
    rounds = np.array([r for r, _ in tables], dtype=np.int64)
    return _Arms(
        round=torch.from_numpy(np.repeat(rounds, sizes)),
        slot=torch.from_numpy(np.repeat(np.arange(len(tables)), sizes)),
        candidate=torch.from_numpy(
            np.concatenate(candidates) if candidates else np.empty(0, dtype=np.int64)
        ),
        control=torch.from_numpy(np.repeat(starts, sizes)),  # the control is a plan's first arm
        moments=moments.from_sample(stack("count"), stack("mean"), stack("var")),
    )


def _kept(history: History, arms: _Arms) -> Tensor:
    """How much of its precision each delta keeps after what was found to drift, ``(rows, m)``."""
    kept = torch.ones(len(arms.round), len(history.metrics), dtype=torch.float64)
    for discount in history.standing.discounts:
        kept[arms.round < discount.before, discount.metric] *= discount.factor
    return kept


def _rounds(arms: _Arms) -> tuple[Tensor, Tensor]:
    """Users of each round, and what one of them is worth: level^2 / variance; ``(rounds, m)``.

    From the round's all-arm moments: an arm's own mean must not enter its weight, or arms that
    were lucky would weigh more.
    """
    count, mean, m2 = (field.nan_to_num(0.0) for field in arms.moments)
    zero = torch.zeros(arms.num_rounds, count.shape[1], dtype=count.dtype)
    users = zero.index_add(0, arms.slot, count)
    level = zero.index_add(0, arms.slot, count * mean) / users
    freedom = zero.index_add(0, arms.slot, (count - 1).clamp_min(0))
    spread = zero.index_add(0, arms.slot, m2) / freedom
    worth = level.square() / spread
    worth = torch.where(worth.isfinite() & (worth > 0), worth, torch.nan)
    if len(worth):  # a round without any spread predicts nothing; it is taken for a usual one
        usual = worth.nanmedian(dim=0).values.nan_to_num(1.0)
        worth = torch.where(worth.isnan(), usual, worth)
    return users, worth


def _precision(arms: _Arms, worth: Tensor) -> Tensor:
    """Inverse variance of each delta as its round's users predict it, ``(rows, metrics)``."""
    count = arms.moments.count.nan_to_num(0.0)
    users_both = count * count[arms.control] / (count + count[arms.control])
    return (users_both * worth[arms.slot]).nan_to_num(0.0)


def _base_levels(arms: _Arms, rounds_per_day: int) -> tuple[Tensor | None, int]:
    """The control's mean over a day, ``(metrics,)``: hours of the day first, then their average.

    With it, the hours of the day in which every metric was reported.

    Twenty-seven hours hold three hours twice; averaging each hour of the day first keeps them from
    counting double. Hours weigh by their average number of users.
    """
    is_control = arms.candidate == CONTROL
    phase = arms.round[is_control] % rounds_per_day
    count = arms.moments.count[is_control].nan_to_num(0.0)
    total = (arms.moments.mean[is_control] * count).nan_to_num(0.0)
    zero = torch.zeros(rounds_per_day, count.shape[1], dtype=count.dtype)
    users = zero.index_add(0, phase, count)
    hours = zero.index_add(0, phase, (count > 0).to(count.dtype)).clamp_min(1)
    level = zero.index_add(0, phase, total) / users.clamp_min(1e-300)
    weight = users / hours
    if not bool((weight.sum(0) > 0).all()):
        return None, 0
    seen = int((users > 0).sum(0).min())
    return (level * weight).sum(0) / weight.sum(0), seen
