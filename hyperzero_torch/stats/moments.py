"""Moments of streams of values: count, mean, and the sum of squared deviations (m2).

    m2 = sum (value - mean)^2          sample variance = m2 / (count - 1)

The empty Moments is the identity of ``merge``; ``subtract`` undoes it. Results are exact to
rounding at offsets of 1e8 standard deviations, because values are centred before they are squared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..runtime import native
from .groups import check_ids, out_of_range


class Moments(NamedTuple):
    """Moments of disjoint groups, each field ``(*batch, arms, metrics)``, float64 or float32.

    ``mean`` is in the metric's unit and ``m2`` in its square; both are 0 where ``count`` is 0.
    """

    count: Tensor  # type: ignore[assignment]  # the field's name, over tuple.count
    mean: Tensor
    m2: Tensor

    @property
    def var(self) -> Tensor:
        """Sample variance ``m2 / (count - 1)``; NaN where there are fewer than two values."""
        return torch.where(self.count > 1, self.m2 / (self.count - 1), torch.nan)


def empty(
    *shape: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Moments:
    """The identity of ``merge``: groups without values."""
    zero = torch.zeros(*shape, dtype=dtype, device=device)
    return Moments(zero, zero.clone(), zero.clone())


def from_sample(count: Tensor, mean: Tensor, var: Tensor) -> Moments:
    """Moments of groups from their count, sample mean and sample variance.

    Args:
        count: users, broadcastable to ``mean``.
        mean: ``(*batch, arms, metrics)``.
        var: same shape, the sample variance of single values (not of the mean).
    Raises:
        ShapeError: the three do not broadcast, or dtypes or devices differ.
    """
    devices = (count.device, mean.device, var.device)
    if len(set(devices)) > 1 or mean.dtype != var.dtype or not mean.is_floating_point():
        raise ShapeError(
            "count, mean and var must lie on one device, mean and var in one floating dtype, got "
            f"{', '.join(map(str, devices))} and {mean.dtype}, {var.dtype}"
        )
    try:
        count, mean, var = torch.broadcast_tensors(  # type: ignore[no-untyped-call]
            count.to(mean.dtype), mean, var
        )
    except RuntimeError:
        raise ShapeError(
            "count, mean and var must have one shape, got "
            f"{tuple(count.shape)}, {tuple(mean.shape)}, {tuple(var.shape)}"
        ) from None
    # A platform reports NaN where there are no users to average: their moments are empty.
    mean = torch.where(count > 0, mean, 0.0)
    return Moments(count, mean, torch.where(count > 1, var * (count - 1), 0.0))


def summarise(values: Tensor, arm: Tensor, num_arms: int) -> Moments:
    """Moments of raw values, by arm.

    Variances stay exact at offsets of 1e8 standard deviations. In PyTorch there are two passes: the
    means first, then squares around them, corrected for the rounding error of the mean. Large
    inputs on the CPU take one pass in C, in double precision, around a shift that follows each
    arm's mean: as accurate, and as fast as copying them twice. On CUDA the last bits of sums
    differ from call to call, except under ``torch.use_deterministic_algorithms(True)``.

    Args:
        values: ``(users, metrics)``, floating, in the metric's unit.
        arm: ``(users,)``, whole numbers in ``[0, num_arms)``.
        num_arms: number of groups.
    Returns:
        Moments, each field ``(arms, metrics)``; groups without a user are empty.
    Raises:
        ShapeError: shapes or devices do not fit, or an arm is out of range (not checked in a
            compiled graph on a card).
    Source: Chan, Golub and LeVeque (1983), the corrected two-pass algorithm.
    """
    if values.ndim != 2 or arm.ndim != 1 or arm.shape[0] != values.shape[0]:
        raise ShapeError(
            "summarise expects values (users, metrics) and arm (users,), got "
            f"{tuple(values.shape)} and {tuple(arm.shape)}"
        )
    if values.device != arm.device or not values.is_floating_point():
        raise ShapeError(
            "summarise expects floating values and arm on one device, got "
            f"{values.dtype} on {values.device} and {arm.dtype} on {arm.device}"
        )
    if num_arms < 0:
        raise ShapeError(f"summarise expects num_arms of 0 or more, got {num_arms}")
    arm = arm.long()
    check_ids(arm, num_arms, "arm")
    if native.usable(values.numel(), values):
        return _in_one_pass(values, arm, num_arms)
    zeros = values.new_zeros(num_arms, values.shape[1])
    try:  # counted in whole numbers: float32 cannot count beyond 2**24
        users = arm.new_zeros(num_arms).index_add(0, arm, torch.ones_like(arm))
    except IndexError:
        raise out_of_range("arm", num_arms, int(arm.min()), int(arm.max())) from None
    count = users.to(values.dtype).unsqueeze(-1)
    safe = count.clamp_min(1)
    mean = zeros.index_add(0, arm, values) / safe
    deviation = values - mean[arm]
    left_over = zeros.index_add(0, arm, deviation)
    m2 = zeros.index_add(0, arm, deviation.square()) - left_over.square() / safe
    return Moments(count.expand_as(mean).clone(), mean + left_over / safe, m2.clamp_min(0))


def _in_one_pass(values: Tensor, arm: Tensor, num_arms: int) -> Moments:
    """Each thread's part of the users around its own shift, combined around a common one."""
    try:
        users, sums = native.summarise(values, arm, num_arms)
    except IndexError:
        raise out_of_range("arm", num_arms, int(arm.min()), int(arm.max())) from None
    parts = users.unsqueeze(-1).double()  # (parts, arms, 1)
    shift, sum_, square = sums.unbind(2)
    common = shift.gather(0, parts.argmax(0, keepdim=True).expand_as(shift[:1]))
    step = shift - common
    square = (square + 2 * step * sum_ + parts * step.square()).sum(0)
    sum_ = (sum_ + parts * step).sum(0)
    count = parts.sum(0)
    mean = torch.where(count > 0, common[0] + sum_ / count.clamp_min(1), 0.0)
    m2 = (square - sum_.square() / count.clamp_min(1)).clamp_min(0)
    fields = (count.expand_as(mean), mean, m2)
    return Moments(*(field.to(values.dtype, copy=True).contiguous() for field in fields))


def merge(a: Moments, b: Moments) -> Moments:
    """Merge the moments of two disjoint streams.

        mean = mean_a + (mean_b - mean_a) * count_b / (count_a + count_b)

    Args:
        a: Moments, each field ``(*batch, arms, metrics)``, in the metric's unit.
        b: Same shape, dtype and device as ``a``.
    Returns:
        New Moments; the inputs are unchanged. The empty Moments is the identity.
    Raises:
        ShapeError: the shapes, dtypes or devices differ; the message names both.
    Source: Chan, Golub and LeVeque (1983), pairwise update.
    """
    check_alike(a, b, "merge")
    count = a.count + b.count
    share = b.count / count.clamp_min(1)
    step = b.mean - a.mean
    # Weighted from the larger side, so that merging with the empty Moments changes no bit.
    mean = torch.where(
        a.count >= b.count, a.mean + step * share, b.mean - step * (a.count / count.clamp_min(1))
    )
    m2 = a.m2 + b.m2 + step.square() * a.count * share
    return Moments(count, mean, m2)


def subtract(whole: Moments, part: Moments) -> Moments:
    """The moments of ``whole`` without ``part``: undoes ``merge``.

    Cumulative exports become interval moments this way. Where users return, the difference is not a
    sample and ``m2`` can be negative: it is returned unchanged, for the caller to refuse or to
    treat as missing.

    Args:
        whole: Moments, each field ``(*batch, arms, metrics)``.
        part: Same shape, dtype and device.
    Returns:
        New Moments; empty where nothing is left, NaN mean where ``part`` is larger than ``whole``.
    Raises:
        ShapeError: the shapes, dtypes or devices differ; the message names both.
    """
    check_alike(whole, part, "subtract")
    count = whole.count - part.count
    left = count > 0
    safe = torch.where(left, count, 1.0)
    step = (whole.mean - part.mean) * whole.count / safe  # mean of the rest - mean of the part
    mean = torch.where(left, part.mean + step, torch.where(count == 0, 0.0, torch.nan))
    m2 = whole.m2 - part.m2 - step.square() * part.count * count / whole.count.clamp_min(1)
    return Moments(count, mean, torch.where(left, m2, torch.zeros_like(m2)))


def moderate(sample: Moments, group: Tensor, num_groups: int, prior: float = 50.0) -> Moments:
    """Shrink each arm's sample variance towards that of all arms of its group.

    The sample variance of few users is uncertain, and for rare or skewed metrics it is low where
    the mean is low: an arm without a conversion has a variance of 0. What counts is not the number
    of users but how well their mean is known. An arm's variance is averaged with its group's, which
    counts for so many users that their mean has a coefficient of variation of 1 / sqrt(prior): for
    a rare event, so many users that ``prior`` events are expected. It counts for ``prior`` users at
    least.

    Args:
        sample: Moments, each field ``(arms, metrics)``.
        group: ``(arms,)``, whole numbers in ``[0, num_groups)``, e.g. the round.
        num_groups: how many groups there are.
        prior: the squared mean over its variance for which the group's variance counts.
    Returns:
        New Moments with the same count and mean. An arm without a variance of its own (fewer than
        two users, or a negative ``m2``) keeps it, and does not count for its group.
    Source: Smyth (2004), moderated variances.
    """
    check_ids(group, num_groups, "group")
    freedom = sample.count - 1
    valid = (freedom > 0) & (sample.m2 >= 0)
    freedom = torch.where(valid, freedom, 0.0)
    zero = sample.mean.new_zeros(num_groups, sample.mean.shape[-1])
    common = zero.index_add(0, group, torch.where(valid, sample.m2, 0.0))
    common = common / zero.index_add(0, group, freedom).clamp_min(1)
    users = torch.where(valid, sample.count, 0.0)
    level = zero.index_add(0, group, torch.where(valid, users * sample.mean, 0.0))
    level = level / zero.index_add(0, group, users).clamp_min(1)
    relative = torch.where(common > 0, common / level.square(), 1.0)  # infinite at a level of 0
    own = freedom / (freedom + prior * relative.clamp_min(1)[group])
    shrunk = own * sample.m2 + (1 - own) * freedom * common[group]
    return sample._replace(m2=torch.where(valid, shrunk, sample.m2))


def check_alike(a: Moments, b: Moments, verb: str) -> None:
    """Raise ``ShapeError`` unless both have one shape, dtype and device."""
    for name, x, y in zip(Moments._fields, a, b):
        if x.shape != y.shape or x.dtype != y.dtype or x.device != y.device:
            raise ShapeError(
                f"{verb} expects two Moments of one shape, dtype and device; {name} is "
                f"{tuple(x.shape)} {x.dtype} on {x.device} against {tuple(y.shape)} {y.dtype} on "
                f"{y.device}"
            )
