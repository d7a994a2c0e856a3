"""How the traffic of a round is divided: from slots to arms and their shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ..study.config import TunerConfig
from ..study.history import CONTROL
from .limits import Limits
from .price import priced

# The control's limit in the first rounds.
_EXPLORING_CONTROL = 0.3
# Of the price of expected violation: from one that halves the share of the worst arm, up to a
# thousand times that, then to a thousandth.
_DOUBLINGS, _BISECTIONS = 5, 12


def round_robin(
    times_served: Sequence[int],
    config: TunerConfig,
    stopped: Collection[int] = (),
    screened: Collection[int] = (),
) -> Tensor:
    """Equal slots for the candidates served least so far, while there is no model.

    Candidates in ``screened`` get at most ``newcomer_slots``, enough for a first measurement.
    """
    num = len(times_served)
    servable = [c for c in range(1, num) if c not in stopped]
    order = sorted(servable, key=lambda c: (times_served[c], c))
    served = order[: config.max_arms]
    slots = torch.zeros(num, dtype=torch.long)
    total = max(config.num_draws, len(served))
    few = min(config.newcomer_slots, total // max(1, len(served)))
    thin = [c for c in served if c in screened]
    others = [c for c in served if c not in screened] or thin
    if others is not thin:
        slots[thin] = few
        total -= few * len(thin)
    each, rest = divmod(total, max(1, len(others)))
    slots[others] = each
    slots[others[:rest]] += 1
    return slots


def verification_slots(config: TunerConfig, age: int) -> int:
    """Slots for the candidates most worth verifying; none at first, then more by the hour."""
    return int(config.num_draws * config.verification_share * _maturity(config, age))


def max_control_share(config: TunerConfig, age: int) -> float:
    """Limit of the control's share: low while arms are compared with each other, then higher.

    Comparisons between arms need little control; a comparison with the base needs half.
    """
    first = min(_EXPLORING_CONTROL, config.max_control_share)
    return first + (config.max_control_share - first) * _maturity(config, age)


def _maturity(config: TunerConfig, age: int) -> float:
    """From 0, exploring, to 1, verifying, for a study of this age in rounds."""
    return min(1.0, (age + 1) / config.rounds_per_day)


def places_for_newcomers(config: TunerConfig) -> int:
    """At most half of the arms, so that promising candidates are still served."""
    return max(1, config.max_arms // 2)


def choose_arms(
    times_served: Sequence[int],
    slots: Tensor,
    config: TunerConfig,
    stopped: Collection[int] = (),
) -> tuple[Tensor, Tensor]:
    """Candidates to serve, ascending, and their slots: newcomers first, then by votes."""
    newcomer = torch.tensor([served == 0 for served in times_served])
    newcomer[[CONTROL, *stopped]] = False
    slots = torch.where(newcomer, slots.clamp_min(config.newcomer_slots), slots)
    # By votes; ids break ties, so the order is total. Newcomers take up to half the places first.
    rank = sorted(
        (c for c in range(1, len(slots)) if slots[c] > 0), key=lambda c: (-int(slots[c]), c)
    )
    fresh = [c for c in rank if newcomer[c]][: places_for_newcomers(config)]
    others = [c for c in rank if not newcomer[c]]
    rank = [*fresh, *others, *(c for c in rank if newcomer[c] and c not in fresh)]
    arms = torch.tensor(sorted(rank[: config.max_arms]), dtype=torch.long)
    return arms, slots[arms]


def shares(
    arms: Tensor,
    slots: Tensor,
    last: Mapping[int, float],
    config: TunerConfig,
    similarity: Tensor | None = None,
    control_limit: float | None = None,
    limits: Limits | None = None,
) -> tuple[float, ...]:
    """Traffic per arm, the control's first; they sum to 1.

    "auto" is the square-root rule: against k equal arms the summed variance of their deltas is
    least with control : arm = sqrt(k) : 1. For unequal arms k is their effective number, and
    where neighbours pool their evidence, the number of regions they lie in: a hundred arms side by
    side are measured as one, and the control has to be known nearly as well as they are. No arm
    gets more than ``max_share``, nor ``max_share_rise`` more than in the ``last`` plan; the
    remainder goes to the other arms up to their limits, and then to the control.

    Args:
        arms: ``(A,)`` candidate ids.
        slots: ``(A,)``, positive.
        last: share by candidate id in the last plan; empty before the first.
        config: the control's share and its limit, the candidates' limits.
        similarity: ``(A, A)`` prior correlation of the arms' deltas where evidence is pooled; None
            where every arm is measured on its own.
        control_limit: of the control's share under "auto"; None takes ``max_control_share``.
        limits: of single arms and of groups of arms; what is above them goes to the other arms up
            to their limits, and then to the control. None for ``max_share`` alone.
    """
    if len(arms) == 0:  # a space with a single point: the control takes all
        return (1.0,)
    part = slots.double() / slots.sum()
    control = config.control_share
    if control == "auto":
        pooled = part if similarity is None else similarity @ part
        effective = 1.0 / float(part @ pooled)
        control = 1.0 / (1.0 + effective**0.5)
        most = config.max_control_share if control_limit is None else control_limit
        control = min(most, control)
    wanted = part * (1.0 - float(control))
    before = torch.tensor([last.get(c, 0.0) for c in arms.tolist()], dtype=torch.float64)
    limit = (before + config.max_share_rise).clamp_max(config.max_share)
    served = _within_groups(wanted, limit, limits)
    if bool((served < wanted).any()):
        control = 1.0 - float(served.sum())
    return (float(control), *served.tolist())


def _within_groups(wanted: Tensor, limit: Tensor, limits: Limits | None) -> Tensor:
    """Shares under the limits of single arms, of groups, and of the expected violation."""
    if limits is None:
        return _within(wanted, limit)
    limit = limit.minimum(limits.each)
    served = _within(wanted, limit)
    for group in limits.groups:
        total = float(served[group.arms].sum())
        if total > group.total:
            # Lower limits for the group, in proportion; the others then take up the excess.
            limit = torch.where(group.arms, served * (group.total / total), limit)
            served = _within(wanted, limit)
    if limits.prospect is not None and limits.most is not None:
        served = tilted(served, limit, limits.prospect.violation, limits.most)
    for group in limits.groups:  # what others took up may have filled a later group
        total = float(served[group.arms].sum())
        if total > group.total:
            served = torch.where(group.arms, served * (group.total / total), served)
    return served


def tilted(shares: Tensor, limit: Tensor, violation: Tensor, most: float) -> Tensor:
    """The same traffic with less for arms that are expected to break guardrails.

    Shares are divided by 1 + price x violation, and what that frees goes to the other arms within
    their limits. The price is the least that keeps the sum of shares times violations within
    ``most``; where none does, part of the traffic goes to the control.
    """
    total = float(shares.sum())

    def at(price: float) -> Tensor:
        part = shares / (1 + price * violation)
        return _within(part * (total / float(part.sum())), limit)

    if float(shares @ violation) <= most:
        return shares
    low, high = 0.0, 1.0 / max(float(violation.max()), 1e-300)
    for _ in range(_DOUBLINGS):
        if float(at(high) @ violation) <= most:
            break
        low, high = high, 4 * high
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        low, high = (low, price) if float(at(price) @ violation) <= most else (price, high)
    return priced(at(high), violation, most)


def _within(wanted: Tensor, limit: Tensor) -> Tensor:
    """Shares under their limits; the excess goes to arms with room, in proportion to their own."""
    total, free = float(wanted.sum()), torch.ones_like(wanted, dtype=torch.bool)
    served = wanted
    for _ in range(len(wanted)):
        over = free & (served > limit)
        if not bool(over.any()):
            break
        free &= ~over
        left = max(0.0, total - float(limit[~free].sum()))
        grown = wanted * (left / float(wanted[free].sum())) if bool(free.any()) else wanted
        served = torch.where(free, grown, limit)
    return served
