"""Metrics of users' events: definition, sums as expressions, mean and variance per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError

Array = NDArray[np.float64]
KEYS = ("round", "arm")
UPPER, LOWER = 2.0**26, 2.0**27  # the two halves that an addend is split into


@dataclass(frozen=True)
class Metric:
    """One metric of the readings, computed from users' events.

    ``Metric("views")`` is the mean over an arm's users of each user's sum of ``views``;
    `Metric.ratio` is a ratio of two such sums.

    Args:
        name: the metric's name in the readings, and in the events unless it is a ratio.
        winsorise: per-user sums above this quantile of the round's counted users of all arms,
            including those without events (zeros), are set to it; in (0.5, 1]. The quantile
            interpolates linearly between order statistics (position ``q (n - 1)``, NumPy's
            default). A ratio's numerator and denominator are each clipped at their own quantile.
        covariate: adjust by the same users' events before the experiment (CUPED).
        numerator: the events of a ratio's numerator; only with ``denominator``.
        denominator: the events of its denominator.
    Raises:
        ConfigError: an empty name, a quantile outside (0.5, 1], or half of a ratio.
    """

    name: str
    winsorise: float | None = None
    covariate: bool = False
    numerator: str | None = None
    denominator: str | None = None

    def __post_init__(self) -> None:
        if (self.numerator is None) != (self.denominator is None):
            raise ConfigError(f"metric {self.name!r}: a ratio needs a numerator and a denominator")
        for label, name in (("name", self.name), *zip(("source",) * 2, self.sources)):
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"a metric's {label} must be a name, got {name!r}")
        if not isinstance(self.covariate, bool):
            raise ConfigError(f"metric {self.name!r}: covariate must be True or False")
        q = self.winsorise
        if q is not None and (
            isinstance(q, bool) or not isinstance(q, int | float) or not 0.5 < q <= 1
        ):
            raise ConfigError(
                f"metric {self.name!r}: winsorise must be a quantile in (0.5, 1], got {q!r}"
            )

    @classmethod
    def ratio(
        cls,
        name: str,
        numerator: str,
        denominator: str,
        *,
        winsorise: float | None = None,
        covariate: bool = False,
    ) -> Metric:
        """A ratio of sums, such as clicks / impressions, as a mean over users.

            mean = R = sum(y) / sum(x)          over the arm's users
            var  = sample variance of (y - R x) / mean(x)

        To first order ``R - R_true`` is the mean of the linearised ``(y - R x) / mean(x)``, so
        ``var / count`` is the delta method's variance of ``R``. Each arm is linearised about its
        own ratio: about a common one the mean would not be the arm's ratio of sums.

        Raises:
            ConfigError: as `Metric`.
        Source: Deng, Knoblich and Lu (2018), delta method; Budylin et al. (2018), linearisation.
        """
        return cls(name, winsorise, covariate, numerator, denominator)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the events it is computed from: its own, or numerator and denominator."""
        if self.numerator is None or self.denominator is None:
            return (self.name,)
        return (self.numerator, self.denominator)


class ArmSums(NamedTuple):
    """One metric's sums over the users of each arm of one round, each field ``(arms,)``.

    ``d`` is a user's deviation from the arm's mean (for a ratio the linearised one), ``e`` that of
    the covariate from the mean over the arm's users who have one (the covered users), and 0 for
    the others.
    """

    num_users: Array
    mean: Array
    sum_dd: Array
    num_covered: Array
    mean_covariate: Array
    sum_ee: Array
    sum_de: Array
    sum_d_covered: Array


def mean_and_var(sums: ArmSums) -> tuple[Array, Array]:
    """Mean and unbiased variance of each arm of one round, adjusted by the covariate.

    CUPED: ``y - b (c - mean c)``, ``mean c`` over the round's users of all arms who have a
    covariate; users without one get that mean. ``b`` is the covariance within arms over the
    variance within arms, both pooled over the round's arms, so all arms get the same adjustment.
    Without covariates (``num_covered`` 0) nothing is adjusted.

    Returns:
        ``(arms,)`` each; the variance of an arm of one user is NaN, an undefined mean stays NaN.
    Source: Deng, Xu, Kohavi and Walker (2013).
    """
    is_defined = np.isfinite(sums.mean)
    covered = np.where(is_defined, sums.num_covered, 0.0)
    mean, total = sums.mean, sums.sum_dd
    users = np.maximum(sums.num_users, 1.0)
    if covered.sum() > 0:
        grand = float(covered @ sums.mean_covariate) / float(covered.sum())
        shift = np.where(covered > 0, sums.mean_covariate - grand, 0.0)
        # Deviations about the arm's own mean of the filled-in covariate, from those about the
        # mean of the covered users: sums of positive terms, without cancellation.
        spread = sums.sum_ee + shift**2 * covered * (1.0 - covered / users)
        joint = sums.sum_de + shift * sums.sum_d_covered
        pooled = float(spread[is_defined].sum())
        slope = float(joint[is_defined].sum()) / pooled if pooled > 0 else 0.0
        mean = mean - slope * shift * covered / users
        total = np.maximum(total - 2 * slope * joint + slope**2 * spread, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        var = np.where(sums.num_users > 1, total / (sums.num_users - 1), np.nan)
    return mean, var


def check_metrics(metrics: Sequence[Any]) -> tuple[Metric, ...]:
    """The metrics as a tuple; a bare name is a plain metric.

    Raises:
        ConfigError: no metric, something else than a metric, or a name twice.
    """
    if isinstance(metrics, str | Metric) or not isinstance(metrics, Sequence) or not metrics:
        raise ConfigError(f"metrics must be a list of Metric, at least one, got {metrics!r}")
    checked = tuple(Metric(m) if isinstance(m, str) else m for m in metrics)
    for metric in checked:
        if not isinstance(metric, Metric):
            raise ConfigError(f"metrics must be Metric or names, got {metric!r}")
    names = [metric.name for metric in checked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"metrics named twice: {twice}; give every metric a name of its own")
    return checked


def halves(value: nw.Expr, name: str) -> list[nw.Expr]:
    """``value`` as two whole numbers whose sums are exact, ``{name}_upper`` and ``{name}_lower``.

    Engines round .5 differently; the lower part compensates, so the total is the same.
    """
    upper = value.round()
    return [
        upper.alias(f"{name}_upper"),
        ((value - upper) * LOWER).round().alias(f"{name}_lower"),
    ]


def half_sums(names: Sequence[str]) -> list[nw.Expr]:
    """The sums of the `halves` of each column."""
    return [nw.col(f"{name}_{half}").sum() for name in names for half in ("upper", "lower")]


def joined_halves(name: str) -> nw.Expr:
    """The inverse of `halves`, of the parts or of their sums."""
    return (nw.col(f"{name}_upper") + nw.col(f"{name}_lower") / LOWER).alias(name)


def sums_by_metric(
    rows: nw.LazyFrame[Any], sources: Sequence[str], per_unit: Sequence[nw.Expr | float]
) -> tuple[nw.LazyFrame[Any], list[nw.Expr]]:
    """Columns ``s{i}_upper``, ``s{i}_lower`` of each source's values, and the sums to group.

    ``per_unit`` is one over the unit of each source, for all rows or by row.
    """
    names = [f"s{i}" for i in range(len(sources))]
    scaled = [
        (nw.when(nw.col("metric") == source).then(nw.col("value")).otherwise(0.0) * factor)
        for source, factor in zip(sources, per_unit)
    ]
    rows = rows.with_columns(*(value.alias(name) for value, name in zip(scaled, names)))
    parts = [half for name in names for half in halves(nw.col(name), name)]
    return rows.with_columns(*parts), half_sums(names)


def with_means(
    users: nw.LazyFrame[Any],
    names: Sequence[str],
    covered: Sequence[int],
    flawed: Sequence[int] = (),
) -> nw.LazyFrame[Any]:
    """Add ``mean_{name}`` of each column over its arm; covariates over the covered users.

    The metrics in ``flawed`` are averaged over the users whose values are usable, ``usable{k}``.
    """
    users = users.with_columns(*(half for n in names for half in halves(nw.col(n), n)))
    totals = [total.over(*KEYS) for total in half_sums(names)]
    counts = [nw.col(f"covered{k}").sum().over(*KEYS).alias(f"num_c{k}") for k in covered]
    counts += [nw.col(f"usable{k}").sum().over(*KEYS).alias(f"num_{k}") for k in flawed]
    users = users.with_columns(nw.len().over(*KEYS).alias("num"), *counts, *totals)
    means = []
    for name in names:
        num, k = nw.col("num"), int(name[1:])
        if name.startswith("c") or k in flawed:
            usable = nw.col(f"num_{name}" if name.startswith("c") else f"num_{k}")
            num = nw.when(usable > 0).then(usable).otherwise(1.0)
        means.append((joined_halves(name) / num).alias(f"mean_{name}"))
    return users.with_columns(*means)


def sum_products(
    users: nw.LazyFrame[Any], metrics: Sequence[Metric], flawed: Sequence[int] = ()
) -> nw.LazyFrame[Any]:
    """Per round and arm the sums of ``d d``, ``e e``, ``d e``, and ``d`` of the covered users.

    Products are scaled by the arm's largest deviations, so each is at most 1.
    """
    deviations = [f"{z}{k}" for k, m in enumerate(metrics) for z in ("de" if m.covariate else "d")]
    users = users.with_columns(
        *(nw.col(n).abs().max().over(*KEYS).alias(f"max_{n}") for n in deviations)
    )
    positive = {n: nw.when(nw.col(f"max_{n}") > 0).then(nw.col(f"max_{n}")) for n in deviations}
    users = users.with_columns(
        *((nw.col(n) / scale.otherwise(1.0)).alias(n) for n, scale in positive.items())
    )
    products: dict[str, nw.Expr] = {}
    constants = []  # columns with one value per arm
    for k, metric in enumerate(metrics):
        d, e = nw.col(f"d{k}"), nw.col(f"e{k}")
        products[f"dd{k}"] = d * d
        constants += [f"mean{k}", f"max_d{k}"]
        if metric.numerator:
            constants.append(f"below{k}")
        if metric.covariate:
            products |= {f"ee{k}": e * e, f"de{k}": d * e, f"dk{k}": d * nw.col(f"covered{k}")}
            constants += [f"mean_c{k}", f"max_e{k}"]
    users = users.with_columns(
        *(half for name, product in products.items() for half in halves(product * UPPER, name))
    )
    return users.group_by(*KEYS).agg(
        nw.len().alias("users"),
        *(nw.col(name).max() for name in constants),
        *(nw.col(f"covered{k}").sum() for k, m in enumerate(metrics) if m.covariate),
        *(nw.col(f"usable{k}").sum().alias(f"users{k}") for k in flawed),
        *half_sums([*products]),
    )


def num_users(arms: Sequence[Mapping[str, Any]], k: int) -> Array:
    """Users of each arm whose values of metric ``k`` are usable."""
    return np.array([float(row.get(f"users{k}", row["users"])) for row in arms])


def arm_sums(arms: Sequence[Mapping[str, Any]], k: int, metric: Metric) -> ArmSums:
    """Metric ``k``'s sums in the metric's own unit, from the rows of `sum_products`.

    The covariate keeps an arbitrary unit; the adjustment does not depend on it.
    """

    def column(name: str) -> Array:
        return np.array([float(row[name]) for row in arms])

    def total(name: str, *scales: str) -> Array:
        value = (column(f"{name}_upper") + column(f"{name}_lower") / LOWER) / UPPER
        for scale in scales:
            value = value * (column(scale) * (unit if scale == d else 1.0))
        return value

    unit, d, e = column(f"unit{k}"), f"max_d{k}", f"max_e{k}"
    num, mean = num_users(arms, k), column(f"mean{k}") * unit
    mean = np.where(num == 0, np.nan, mean)
    if metric.numerator:
        mean = np.where(column(f"below{k}") == 0, np.nan, mean)
    if not metric.covariate:
        none = np.zeros_like(num)
        return ArmSums(num, mean, total(f"dd{k}", d, d), *([none] * 5))
    return ArmSums(
        num_users=num,
        mean=mean,
        sum_dd=total(f"dd{k}", d, d),
        num_covered=column(f"covered{k}"),
        mean_covariate=column(f"mean_c{k}"),
        sum_ee=total(f"ee{k}", e, e),
        sum_de=total(f"de{k}", d, e),
        sum_d_covered=total(f"dk{k}", d),
    )
