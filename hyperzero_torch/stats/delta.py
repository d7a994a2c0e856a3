"""The relative lift of a treatment over the control of the same round, with its variance.

Notation: treatment n, x, vx and control n0, y, vy (users, sample mean, sample variance).

    delta mean    x / |y| * (1 - vy / (n0 * y^2)) - y / |y|
    delta var     vx / (n * y^2)  +  x^2 * vy / (n0 * y^4)

A delta is relative to the absolute value of the control's mean: profit that rises from -10 to -5
has a delta of +50 %, and more is always above less.

The correction is the first term of a series in the control's squared coefficient of variation,
vy / (n0 * y^2). It is off by that square once more, and without meaning where the control's mean is
less than a standard error from 0: there is no delta then. ``windows`` pools hours until the
control's mean is known well.

Eq. 3.2 of the paper as printed leaves out the -1, does not divide the control's variance by its
group size in the mean, swaps the two group sizes in the variance, and adds the second-order term
that an estimate has to subtract: E[x / y] is already too large by it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from .moments import Moments


class Delta(NamedTuple):
    """Relative lifts, fractions: ``mean`` and ``var`` (of the mean), ``(*batch, arms, metrics)``.

    NaN where there is no lift: fewer than two users or a negative variance (what ``subtract`` may
    leave) on a side, or a control mean less than a standard error from zero.
    """

    mean: Tensor
    var: Tensor


def ratio(treatment: Moments, control: Moments) -> Delta:
    """The lift of each treatment over its control, bias-corrected to second order.

    Args:
        treatment: Moments, each field ``(*batch, arms, metrics)``, in the metric's unit.
        control: Moments that broadcast against it, e.g. ``(*batch, 1, metrics)``.
    Returns:
        Delta, fractions, in the broadcast shape; NaN where no lift can be computed.
    Raises:
        ShapeError: the shapes do not broadcast, or dtypes or devices differ.
    Source: HYPERZERO (KDD'25) Eq. 3.2, corrected as above; the delta method of ``relativize``
        with bias correction in Ax.
    """
    if treatment.mean.dtype != control.mean.dtype or treatment.mean.device != control.mean.device:
        raise ShapeError(
            f"ratio expects one dtype and device, got treatment {treatment.mean.dtype} on "
            f"{treatment.mean.device} and control {control.mean.dtype} on {control.mean.device}"
        )
    try:
        # Views only. torch.broadcast_shapes would import SymPy, a second at a process's first call.
        torch.broadcast_tensors(treatment.mean, control.mean)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ShapeError(
            "ratio expects a control that broadcasts against the treatment (*batch, arms, "
            f"metrics), got treatment {tuple(treatment.mean.shape)} and control "
            f"{tuple(control.mean.shape)}"
        ) from None
    n, n0 = treatment.count, control.count
    ratio_ = treatment.mean / control.mean.abs()
    control_cv2 = control.var / (n0 * control.mean.square())  # relative variance of y
    treatment_cv2 = treatment.var / (n * control.mean.square())
    mean = ratio_ * (1 - control_cv2) - control.mean.sign()
    var = treatment_cv2 + ratio_.square() * control_cv2
    valid = mean.isfinite() & var.isfinite() & (treatment_cv2 >= 0) & _known(control_cv2)
    return Delta(torch.where(valid, mean, torch.nan), torch.where(valid, var, torch.nan))


# Standard deviation of true lifts that ``steady`` assumes.
_USUAL_LIFT = 0.1


def steady(mean: Tensor, var: Tensor, level: Tensor) -> Tensor:
    """Means of arms, shrunk towards the level of all arms by as much as they are noise.

    For factors that an arm's own noise must not enter: a mean that is mostly noise is replaced by
    the level, one whose lift is measured well is kept.

    Args:
        mean: of the arms, in the metric's unit.
        var: variance of ``mean``.
        level: mean of all arms; the three broadcast.
    Source: Efron and Morris (1973), with lifts of standard deviation 0.1.
    """
    signal = (_USUAL_LIFT * level).square()
    share = torch.where(var > 0, signal / (signal + var), 1.0)
    return level + share * (mean - level)


def control_loading(treatment: Moments, control: Moments, level: Tensor | None = None) -> Tensor:
    """How far one standard deviation of the control's error moves each delta.

    All arms of a round are compared with one control, so their deltas err together: the covariance
    of two of them is the product of their loadings, x x' vy / (n0 y^4), and a loading's square is
    the second term of the variance. With few users an arm's own noise would enter its loading, and
    what is left of its delta would look like the control's error.

    Args:
        treatment: Moments, each field ``(*batch, arms, metrics)``.
        control: Moments that broadcast against it.
        level: mean of all arms of the round, for means that are mostly noise; see ``steady``.
    Returns:
        ``(*batch, arms, metrics)``, fractions; NaN where there is no control.
    Source: Cov(x / y, x' / y) to first order, the delta method.
    """
    mean = treatment.mean
    if level is not None:
        mean = steady(mean, treatment.var / treatment.count, level)
    return mean / control.mean.square() * (control.var / control.count).sqrt()


class ControlTerms(NamedTuple):
    """All that a delta needs to know of its control, each ``(*batch, 1, metrics)``.

    mean = x * slope - sign; var = (variance of x) * scale + x^2 * error. NaN without a control.
    """

    slope: Tensor
    sign: Tensor
    scale: Tensor
    error: Tensor


def control_terms(control: Moments) -> ControlTerms:
    """The control's part in ``ratio``, for many treatments of one round."""
    scale = control.mean.square().reciprocal()
    cv2 = control.var * scale / control.count
    slope = (1 - cv2) / control.mean.abs()
    valid = slope.isfinite() & scale.isfinite() & _known(cv2)
    terms = (slope, control.mean.sign(), scale, cv2 * scale)
    return ControlTerms(*(torch.where(valid, term, torch.nan) for term in terms))


def _known(cv2: Tensor) -> Tensor:
    """Whether a control's mean is at least a standard error from 0, so that its sign is known."""
    return (cv2 >= 0) & (cv2 < 1)
