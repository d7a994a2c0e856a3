"""Whether two sources hold the same evidence: copied, reordered, or an older part of the other.

Two independent measurements of one setting differ by their errors, and by whatever the domains
differ in. With V the errors' variance that no other setting shares, over the matched settings,

    Q = sum (d - mean of d)^2 / V      is, at the least, chi-square with n - 1 degrees of freedom

since a difference of the domains, and errors in common such as the control's, only make small
values of Q rarer: it is the norm of a Gaussian, and a ball about 0 is likeliest where the Gaussian
is centred and narrowest. Evidence that contains the other's comes out far below, and evidence that
was not added to, at 0.

Source: Anderson (1955), the integral of a symmetric unimodal function over a convex set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem.parameters import Value
from . import checks
from .source import Source

#: From rows ``(n,)`` of a source to their means after earlier rounds, ``(rounds, n, metrics)``.
Earlier: TypeAlias = Callable[[Tensor], Tensor]

#: Independent evidence is taken for the same with this probability, over all that is compared.
CHANCE = 1e-6
#: Fewest settings in common, and fewest that are equal.
_FEWEST = 3
# Variance up to which a delta is known by definition, as of a metric without any spread.
_EXACT = 1e-17
# Standard deviations up to which two deltas are the same but for rounding.
_ROUNDING = 1e-6
# What a source's errors have in common with each other at most where it does not say so: a control
# that was served as much as the setting.
_SHARED = 0.5


class Told:
    """A source that is compared with many: what is needed of it each time is made once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._places: dict[tuple[str, ...], dict[tuple[Value, ...], int]] = {}

    @cached_property
    def content(self) -> tuple[str, ...]:
        """All that it knows, equal for two that list the same in whatever order."""
        source, names = self.source, sorted(self.source.parameter_names)
        order = sorted(source.metrics)
        at = [source.metrics.index(metric) for metric in order]
        told = zip(source.parameters, source.mean[:, at].tolist(), source.var[:, at].tolist())
        rows = [repr([[row[name] for name in names], mean, var]) for row, mean, var in told]
        return (*names, *order, *sorted(rows))

    def places(self, names: tuple[str, ...]) -> dict[tuple[Value, ...], int]:
        """Rows by their values of these parameters, to seven digits.

        A setting that comes twice has no one delta, and is left out. Units that were brought over
        leave an error of rounding, hence seven digits.
        """
        if names not in self._places:
            rows = [tuple(_single(row[n]) for n in names) for row in self.source.parameters]
            times = Counter(rows)
            self._places[names] = {row: i for i, row in enumerate(rows) if times[row] == 1}
        return self._places[names]


def check_distinct(
    sources: Sequence[Source], target: Source | None = None, earlier: Earlier | None = None
) -> None:
    """Refuse evidence that would be counted twice.

    Another domain that behaves just as the target does is the best source there is; the very same
    evidence under another name is none, nor is an older or reordered copy of it. Two studies that
    served the same settings are told from copies by their noise.

    Args:
        sources: all that a target is to learn from.
        target: its own evidence so far, as ``from_bucket`` gives it.
        earlier: what the target knew after earlier rounds; see ``own.Own``.
    Raises:
        ConfigError: two sources of one name or with the same evidence, or one with the target's;
            or what is no source.
    """
    flaws = checks.Flaws("these sources")
    if isinstance(sources, str) or not isinstance(sources, Sequence):
        raise ConfigError(f"expected a list of hz.transfer.Source, got {checks.brief(sources)}")
    everyone = sources if target is None else (*sources, target)
    if wrong := [one for one in everyone if not isinstance(one, Source)]:
        raise ConfigError(f"expected a hz.transfer.Source, got {checks.brief(wrong[0])}")
    told = [Told(source) for source in sources]
    own = None if target is None else Told(target)
    for i, source in enumerate(sources):
        if source.name in [other.name for other in sources[:i]]:
            flaws.add(f"two are named {source.name!r}; names tell them apart in the journal")
            continue
        if own is not None and (found := between(told[i], own, earlier)):
            flaws.add(
                f"{source.name!r} has the very evidence of the target, of today or of an earlier "
                f"round: {found}. It would count twice; leave it out, since the target learns "
                "from its own readings anyway"
            )
        for j, other in enumerate(sources[:i]):
            if found := between(told[i], told[j]):
                flaws.add(
                    f"{source.name!r} has the very evidence of {other.name!r}, or one of the two "
                    f"a part of the other's: {found}. It would count twice; keep the newest of the "
                    "two and drop the other"
                )
    flaws.throw()


def between(one: Told, other: Told, earlier: Earlier | None = None) -> str | None:
    """What shows that two sources hold the same evidence; None where nothing does.

    Args:
        one: a source.
        other: another.
        earlier: what the other one knew before, if that is known.
    """
    a, b = one.source, other.source
    if len(a) == len(b) and one.content == other.content:
        return "settings, deltas and variances are the very same"
    rows_a, rows_b = _matched(one, other)
    metrics = [metric for metric in a.metrics if metric in b.metrics]
    if len(rows_a) < _FEWEST or not metrics:
        return None
    at_a, at_b = ([s.metrics.index(metric) for metric in metrics] for s in (a, b))
    mean_a, mean_b = a.mean[rows_a][:, at_a], b.mean[rows_b][:, at_b].unsqueeze(0)
    if earlier is not None:
        mean_b = torch.cat([mean_b, earlier(rows_b)[:, :, at_b]])
    own_a, own_b = _own(a)[rows_a][:, at_a], _own(b)[rows_b][:, at_b]
    var = a.var[rows_a][:, at_a] + b.var[rows_b][:, at_b]
    apart = mean_a - mean_b  # (times, n, metrics), now and then
    known = apart.isfinite() & (own_a > _EXACT) & (own_b > _EXACT)
    same = known & (apart.abs() <= _ROUNDING * var.sqrt())
    if int(same.any(-1).sum(-1).max()) >= _FEWEST:
        equal = int((same & _telling(mean_a)).any(-1).sum(-1).max())
        if equal >= _FEWEST:
            return f"at {equal} settings the deltas are the very same"
    chance = _chance(torch.where(known, apart, 0.0), torch.where(known, 1 / (own_a + own_b), 0.0))
    if chance < CHANCE:
        return (
            f"at {len(rows_a)} settings in common the deltas lie closer together than those of "
            f"independent evidence would once in {1 / max(chance, 1e-300):.0e} times"
        )
    return None


def _chance(apart: Tensor, precision: Tensor) -> float:
    """Probability of differences as small as the smallest of these, however many were looked at.

    ``apart`` and ``precision (times, n, metrics)``, 0 where not known. Metrics of the same users
    are correlated by nobody knows how much, so each is judged by itself.
    """
    total = precision.sum(1, keepdim=True).clamp_min(1e-300)
    centred = apart - (precision * apart).sum(1, keepdim=True) / total
    squares = (precision * centred.square()).sum(1)
    num = (precision > 0).sum(1)
    tail = torch.special.gammainc((num - 1).clamp_min(1).to(squares) / 2, squares / 2)
    enough = num >= _FEWEST
    return float(torch.where(enough, tail, 1.0).min()) * max(1, int(enough.sum()))


def _own(source: Source) -> Tensor:
    """Variances of the errors that a setting does not share with others, ``(n, metrics)``."""
    if source.shared is None:
        return (1 - _SHARED) * source.var
    return source.var - source.shared.diagonal(dim1=-2, dim2=-1).T


def _telling(mean: Tensor) -> Tensor:
    """Deltas whose coming twice is no accident: they stand once, and not with a few digits."""
    told = torch.zeros_like(mean, dtype=torch.bool)
    for j, column in enumerate(mean.T.tolist()):
        times = Counter(column)
        for i, value in enumerate(column):
            told[i, j] = times[value] == 1 and float(f"{value:.6g}") != value
    return told


def _matched(one: Told, other: Told) -> tuple[Tensor, Tensor]:
    """Rows ``(n,)`` of both at the same setting, by the parameters that both have."""
    known = other.source.parameter_names
    names = tuple(sorted(name for name in one.source.parameter_names if name in known))
    found = other.places(names) if names else {}
    pairs = [(i, found[place]) for place, i in one.places(names).items() if place in found]
    at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return at[:, 0], at[:, 1]


def _single(value: Value) -> Value:
    if isinstance(value, str | bool):
        return value
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    return single if math.isfinite(single) else value
