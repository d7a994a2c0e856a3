"""How similar domains look: a similarity of their meta-features.

    value = exp(-d),  d^2 = mean over common features of ((a - b) / scale)^2

How similar they *act* is ``model.correlation``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks, features

# Number of domains that the usual spread of a kind counts for, beside the domains at hand.
_PRIOR_DOMAINS = 5.0
# Fewest domains that determine the scale of a feature without a usual spread.
_FEWEST = 4
# Features beyond this have squared differences that overflow.
_LARGEST = 1e100
# Standard deviation over median absolute deviation of a Gaussian.
_GAUSSIAN = 1.4826


class ByFeatures(NamedTuple):
    """``value (domains, domains)`` in (0, 1], NaN where two have no feature in common.

    ``num_common (domains, domains)`` counts the features behind a value, ``scale`` holds the
    unit of difference of each feature, ``left_out`` says why a feature was not used.
    """

    names: tuple[str, ...]
    value: Tensor
    num_common: Tensor
    scale: Mapping[str, float]
    left_out: Mapping[str, str]


def by_features(
    domains: Mapping[str, Mapping[str, float]], scales: Mapping[str, float] | None = None
) -> ByFeatures:
    """Similarity by meta-features, scaled robustly across the domains.

    The scale of a feature is 1.4826 times its median absolute deviation across the domains,
    pooled with the usual spread of its kind, which counts for five domains, since two or three
    domains do not determine a scale. A feature of your own has no usual spread unless ``scales``
    gives one; otherwise it needs four domains that mostly differ, or is left out.

    Args:
        domains: meta-features by domain; a feature that one lacks is compared among the others.
        scales: a noticeable difference by feature, in place of the usual one.
    Raises:
        ConfigError: no domain, a feature that is not finite or beyond 1e100, a scale that is not
            above 0.
    Source: Hampel (1974), the median absolute deviation; Laplace kernel.
    """
    flaws = checks.Flaws("these meta-features")
    if not isinstance(domains, Mapping):
        flaws.add(f"expected meta-features by domain, a mapping, got {checks.brief(domains)}")
        flaws.throw()
    if not domains:
        flaws.add("there is no domain")
    by_domain = {d: checks.floats(flaws, f"features of {d!r}", f) for d, f in domains.items()}
    usual = checks.floats(flaws, "scales", {} if scales is None else scales)
    if low := [name for name, value in usual.items() if not 1 / _LARGEST <= value <= _LARGEST]:
        flaws.add(f"scales must lie between {1 / _LARGEST:g} and {_LARGEST:g}: {checks.shown(low)}")
    for domain, own in by_domain.items():
        if large := [name for name, value in own.items() if abs(value) > _LARGEST]:
            flaws.add(
                f"features of {domain!r} must lie within +-{_LARGEST:g}, or their distance "
                f"overflows: {checks.shown(large)}; take logarithms"
            )
    flaws.throw()
    names = tuple(by_domain)
    scale: dict[str, float] = {}
    left_out: dict[str, str] = {}
    total, common = torch.zeros(2, len(names), len(names), dtype=torch.float64).unbind(0)
    for feature in sorted({name for own in by_domain.values() for name in own}):
        column = torch.tensor(
            [own.get(feature, math.nan) for own in by_domain.values()], dtype=torch.float64
        )
        unit = _scale(column, usual.get(feature, features.spread_of(feature)))
        if isinstance(unit, str):
            left_out[feature] = unit
            continue
        scale[feature] = unit
        squares = ((column.unsqueeze(1) - column) / unit).square()
        common += (~squares.isnan()).double()
        total += squares.nan_to_num(0.0)
    value = torch.where(common > 0, (-(total / common.clamp_min(1)).sqrt()).exp(), torch.nan)
    return ByFeatures(names, value, common.long(), scale, left_out)


def _scale(column: Tensor, usual: float | None) -> float | str:
    """The unit of difference of a feature, or why there is none."""
    values = column[~column.isnan()]
    if len(values) < 2:
        return "only one domain has it"
    robust = _GAUSSIAN * float((values - values.quantile(0.5)).abs().quantile(0.5))
    if usual is not None:
        pooled = _PRIOR_DOMAINS * usual**2 + len(values) * robust**2
        return math.sqrt(pooled / (_PRIOR_DOMAINS + len(values)))
    if len(values) < _FEWEST:
        return f"{len(values)} domains do not determine its scale; give its scale"
    return robust if robust > 0 else "most domains have the same value; give its scale"
