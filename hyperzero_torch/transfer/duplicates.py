"""Whether two sources hold the same evidence: copied, reordered, or an older part of the other.

Two independent measurements of one setting differ by their errors, and by any difference of the
domains. With V the variance of the errors that no other setting shares, over the matched settings,

    Q = sum (d - mean of d)^2 / V      is stochastically at least chi-square with n - 1 dof

because differences of the domains, and shared errors such as the control's, only make small values
of Q rarer: a ball around 0 is most probable under a Gaussian that is centred there and narrowest.
Evidence that contains the other's gives a far smaller Q, and a copy gives 0.

A package that holds a study's own evidence mostly holds an earlier state of it, so a study is also
compared as it was after each of its latest rounds.

Source: Anderson (1955), the integral of a symmetric unimodal function over a convex set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem.parameters import Value
from ..problem.problem import Problem
from ..study.evidence.active_set import fit_set
from ..study.evidence.bucket import Bucket
from ..study.history import History
from . import checks
from .source import Source, from_bucket, pooled

#: From rows ``(n,)`` of a source to their means after earlier rounds, ``(rounds, n, metrics)``.
Earlier: TypeAlias = Callable[[Tensor], Tensor]

#: False alarm probability of one comparison of independent evidence.
CHANCE = 1e-6
#: Fewest common settings, and fewest equal deltas, for an alarm.
_FEWEST = 3
# Variance up to which a delta counts as exact, as for a metric without any spread.
_EXACT = 1e-17
# Standard deviations up to which two deltas are equal apart from rounding.
_ROUNDING = 1e-6
# Part of a source's variance that its settings share, where it does not state it: at most half, for
# a control with as much traffic as the setting.
_SHARED = 0.5
# Of a candidate's weight: what remains below this after subtraction is rounding.
_NOTHING = 1e-9


class Comparable:
    """A source that is compared with many others: what each comparison needs is computed once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._rows: dict[tuple[str, ...], dict[tuple[Value, ...], int]] = {}

    @cached_property
    def content(self) -> tuple[str, ...]:
        """All of its evidence; equal for two sources with the same rows in any order."""
        source, names = self.source, sorted(self.source.parameter_names)
        metrics = sorted(source.metrics)
        columns = [source.metrics.index(metric) for metric in metrics]
        evidence = zip(source.mean[:, columns].tolist(), source.var[:, columns].tolist())
        rows = [
            repr([[row[name] for name in names], mean, var])
            for row, (mean, var) in zip(source.parameters, evidence)
        ]
        return (*names, *metrics, *sorted(rows))

    def rows_by_setting(self, names: tuple[str, ...]) -> dict[tuple[Value, ...], int]:
        """Rows by the values of these parameters, in single precision.

        Converted units differ by rounding, hence single precision. A setting that occurs twice has
        no unique delta, and is left out.
        """
        if names not in self._rows:
            settings = [tuple(_single(row[n]) for n in names) for row in self.source.parameters]
            times = Counter(settings)
            self._rows[names] = {s: i for i, s in enumerate(settings) if times[s] == 1}
        return self._rows[names]


def check_distinct(
    sources: Sequence[Source], target: Source | None = None, earlier: Earlier | None = None
) -> None:
    """Refuse evidence that would count twice.

    Another domain that behaves exactly like the target is the best source there is. The same
    evidence under another name adds nothing, nor does an older or reordered copy of it. Studies
    that served the same settings are distinguished from copies by their noise.

    Args:
        sources: all that a target is to learn from.
        target: its own evidence so far, as ``from_bucket`` gives it.
        earlier: the target's means after earlier rounds; see ``OwnEvidence.earlier``.
    Raises:
        ConfigError: two sources with one name or with the same evidence, one with the target's
            evidence, or an object that is no source.
    """
    flaws = checks.Flaws("these sources")
    if isinstance(sources, str) or not isinstance(sources, Sequence):
        raise ConfigError(f"expected a list of hz.transfer.Source, got {checks.brief(sources)}")
    everyone = sources if target is None else (*sources, target)
    if wrong := [given for given in everyone if not isinstance(given, Source)]:
        raise ConfigError(f"expected a hz.transfer.Source, got {checks.brief(wrong[0])}")
    compared = [Comparable(source) for source in sources]
    own = None if target is None else Comparable(target)
    for i, source in enumerate(sources):
        if source.name in [other.name for other in sources[:i]]:
            flaws.add(f"two are named {source.name!r}; the journal needs distinct names")
            continue
        if own is not None and (sign := same_evidence(compared[i], own, earlier)):
            flaws.add(
                f"{source.name!r} has the same evidence as the target, now or after an earlier "
                f"round: {sign}. It would count twice; leave it out, since the target learns from "
                "its own readings anyway"
            )
        for j, other in enumerate(sources[:i]):
            if sign := same_evidence(compared[i], compared[j]):
                flaws.add(
                    f"{source.name!r} has the same evidence as {other.name!r}, or one of the two "
                    f"contains the other: {sign}. It would count twice; keep the newer of the two "
                    "and drop the other"
                )
    flaws.throw()


def same_evidence(
    first: Comparable, second: Comparable, earlier: Earlier | None = None
) -> str | None:
    """The sign that two sources hold the same evidence; None without one.

    Args:
        earlier: means of the second after earlier rounds, if they are known.
    """
    a, b = first.source, second.source
    if len(a) == len(b) and first.content == second.content:
        return "settings, deltas and variances are equal"
    rows_a, rows_b = _matched(first, second)
    metrics = [metric for metric in a.metrics if metric in b.metrics]
    if len(rows_a) < _FEWEST or not metrics:
        return None
    at_a, at_b = ([s.metrics.index(metric) for metric in metrics] for s in (a, b))
    mean_a, mean_b = a.mean[rows_a][:, at_a], b.mean[rows_b][:, at_b].unsqueeze(0)
    if earlier is not None:
        mean_b = torch.cat([mean_b, earlier(rows_b)[:, :, at_b]])
    own_a, own_b = _unshared_var(a)[rows_a][:, at_a], _unshared_var(b)[rows_b][:, at_b]
    var = a.var[rows_a][:, at_a] + b.var[rows_b][:, at_b]
    difference = mean_a - mean_b  # (states of the second, n, metrics)
    valid = difference.isfinite() & (own_a > _EXACT) & (own_b > _EXACT)
    equal = valid & (difference.abs() <= _ROUNDING * var.sqrt())
    if int(equal.any(-1).sum(-1).max()) >= _FEWEST:
        num_equal = int((equal & _distinctive(mean_a)).any(-1).sum(-1).max())
        if num_equal >= _FEWEST:
            return f"the deltas of {num_equal} settings are equal"
    chance = _chance(
        torch.where(valid, difference, 0.0), torch.where(valid, 1 / (own_a + own_b), 0.0)
    )
    if chance < CHANCE:
        return (
            f"the deltas of {len(rows_a)} common settings are closer than those of independent "
            f"evidence would be once in {1 / max(chance, 1e-300):.0e} times"
        )
    return None


def _chance(difference: Tensor, precision: Tensor) -> float:
    """Probability of differences as small as the smallest of these, over all comparisons.

    ``difference`` and ``precision (states, n, metrics)``, 0 where not known. Metrics of the same
    users are correlated to an unknown degree, so each is tested by itself.
    """
    total = precision.sum(1, keepdim=True).clamp_min(1e-300)
    centred = difference - (precision * difference).sum(1, keepdim=True) / total
    squares = (precision * centred.square()).sum(1)
    num = (precision > 0).sum(1)
    tail = torch.special.gammainc((num - 1).clamp_min(1).to(squares) / 2, squares / 2)
    enough = num >= _FEWEST
    return float(torch.where(enough, tail, 1.0).min()) * max(1, int(enough.sum()))


def _unshared_var(source: Source) -> Tensor:
    """Variances of the errors that a setting does not share with others, ``(n, metrics)``."""
    if source.shared is None:
        return (1 - _SHARED) * source.var
    return source.var - source.shared.diagonal(dim1=-2, dim2=-1).T


def _distinctive(mean: Tensor) -> Tensor:
    """Deltas that are unlikely to be equal by accident: unique, and with many digits."""
    mask = torch.zeros_like(mean, dtype=torch.bool)
    for j, column in enumerate(mean.T.tolist()):
        times = Counter(column)
        for i, value in enumerate(column):
            mask[i, j] = times[value] == 1 and float(f"{value:.6g}") != value
    return mask


def _matched(first: Comparable, second: Comparable) -> tuple[Tensor, Tensor]:
    """Rows ``(n,)`` of both at the same setting, by the parameters that both have."""
    others = second.source.parameter_names
    names = tuple(sorted(name for name in first.source.parameter_names if name in others))
    rows = second.rows_by_setting(names) if names else {}
    pairs = [(i, rows[s]) for s, i in first.rows_by_setting(names).items() if s in rows]
    matched = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _single(value: Value) -> Value:
    if isinstance(value, str | bool):
        return value
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    return single if math.isfinite(single) else value


class OwnEvidence(NamedTuple):
    """A study's own evidence as a ``source``; its rows are the candidates ``rows (n,)``."""

    source: Source
    bucket: Bucket
    rows: Tensor

    def earlier(self, rows: Tensor) -> Tensor:
        """Means after each of the latest rounds but the last, ``(rounds, n, metrics)``.

        Today's sums less those of later rounds, with today's weights; NaN without evidence.

        Args:
            rows: of ``source``, ``(n,)``.
        """
        candidates = self.rows[rows]
        deltas = self.bucket.deltas
        place = torch.full((len(self.bucket.theta),), -1)
        place[candidates] = torch.arange(len(candidates))
        at = place[deltas.candidate]
        rounds, slot = torch.unique(deltas.round, return_inverse=True)
        finite = deltas.delta.mean.isfinite()
        weight = torch.where(finite, deltas.weight, 0.0)
        parts = torch.stack([weight, torch.where(finite, weight * deltas.delta.mean, 0.0)], -1)
        by_round = parts.new_zeros(len(rounds), len(candidates), *parts.shape[1:])
        kept = at >= 0
        by_round.index_put_((slot[kept], at[kept]), parts[kept], accumulate=True)
        later = by_round.flip(0).cumsum(0).flip(0)[1:]
        total = self.bucket.weight[candidates]
        today = torch.stack([total, (total * self.bucket.mean[candidates]).nan_to_num(0.0)], -1)
        remaining, moment = (today - later).unbind(-1)
        return torch.where(remaining > _NOTHING * total, moment / remaining, torch.nan)


def own_evidence(problem: Problem, history: History) -> OwnEvidence | None:
    """A study's own evidence; None before it has any."""
    config, bucket = pooled(history)
    rows = fit_set(history, bucket, config)
    rows = rows[(bucket.weight[rows] > 0).any(-1)]
    if not len(rows):
        return None
    return OwnEvidence(from_bucket(problem, bucket, "target", rows=rows), bucket, rows)


def check_apart(sources: Sequence[Source], own: OwnEvidence | None) -> None:
    """Refuse evidence that would count twice: another source's, or the study's own.

    Raises:
        ConfigError: as ``check_distinct`` does.
    """
    if own is None:
        check_distinct(sources)
    else:
        check_distinct(sources, own.source, own.earlier)
