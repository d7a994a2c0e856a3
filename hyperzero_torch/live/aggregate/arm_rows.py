"""The expression that the user's own engine runs: from rows per event to rows per arm.

    exposures, events -> sums per user -> (clip) -> deviations from the arm's mean -> sums per arm

It runs unchanged on pandas, Polars, DuckDB and PySpark; only sums per arm and round reach Python.

The sums do not depend on the order of addition, to the last bit, so that the same data give the
identical message. Every addend is split into two whole numbers of a common unit, the upper 26 bits
and the next 27; double precision holds their sums exactly up to 2^26 addends. Variances are sums of
squared deviations from the arm's own mean, taken in a second pass.
Source: Demmel and Nguyen (2013), reproducible summation by pre-rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import narwhals as nw

from .frames import Tables, collect
from .metrics import (
    KEYS,
    LOWER,
    Metric,
    halves,
    joined_halves,
    sum_products,
    sums_by_metric,
    with_means,
)
from .screening import (
    Screened,
    Served,
    per_round,
    screen_events,
    usable_covariates,
    usable_exposures,
)

UNEXPOSED, TWO_ARMS, BOT = -3, -2, -1  # in place of an arm, for users who are not counted
NO_ARM = 2**62


class Sums(NamedTuple):
    """Rows of sums per round and arm, and what they leave out.

    Args:
        rows: by name; ``users{k}`` counts the users of metric ``k`` where they are not all.
        flawed_users: per round and source, users without a usable value.
        faults: rows left out of the tables, by reason.
        outside: per round, users who are logged as outside the experiment.
    """

    rows: list[dict[str, Any]]
    flawed_users: dict[int, dict[str, int]]
    faults: dict[str, int]
    outside: dict[int, int]


class ArmRows:
    """The expression for some metrics.

    Args:
        metrics: what is summed.
        max_events: a user with more events of the metrics in a round is a bot; None: no limit.
    """

    def __init__(self, metrics: Sequence[Metric], max_events: int | None) -> None:
        self.metrics = metrics
        self.max_events = max_events
        self.sources = tuple(dict.fromkeys(s for m in metrics for s in m.sources))

    def of(
        self, tables: Tables, window: list[int], as_of: int, served: Served | None = None
    ) -> Sums:
        """One row of sums per round and arm, in the metrics' units, and what was left out.

        Args:
            tables: exposures, events and covariates.
            window: the rounds to report, ascending.
            as_of: events that arrived in this round or later are not counted.
            served: exposures of other studies and epochs are not counted; None: all are.
        """
        exposures, outside, faults = usable_exposures(tables.exposures, window, served)
        events = tables.events
        if tables.has_arrivals:  # a row without an arrival has arrived
            events = events.filter((nw.col("arrived") < as_of) | nw.col("arrived").is_null())
        screened = screen_events(events, window, self.sources)
        flawed = [
            k
            for k, metric in enumerate(self.metrics)
            if any(screened.flawed[self.sources.index(s)] for s in metric.sources)
        ]
        users = self._users(exposures, screened)
        faults = faults | screened.faults
        if tables.covariates is not None:
            users, more = self._join_covariates(users, tables.covariates)
            faults |= more
        users = self._clip(users, screened.flawed, flawed)
        rows = collect(self._arms(users, flawed), "the sums per arm")
        for row in rows:
            for k, metric in enumerate(self.metrics):
                at = int(row["round"])
                unit, *below = (
                    screened.units[self.sources.index(source)].get(at, 1.0)
                    for source in metric.sources
                )
                row[f"unit{k}"] = unit / below[0] if below else unit
        return Sums(rows, screened.flawed_users, faults, outside)

    def _users(self, exposures: nw.LazyFrame[Any], screened: Screened) -> nw.LazyFrame[Any]:
        """``user, round, arm, s0, s1, ...``: per-user sums of each source, in its round's unit.

        ``b{i}`` is 1 for users without a usable value of source ``i``, where there are any.
        """
        nothing = (
            nw.lit("", dtype=nw.String).alias("metric"),
            nw.lit(0.0, dtype=nw.Float64).alias("value"),
            nw.lit(0, dtype=nw.Int64).alias("flaw"),
        )
        no_arm = nw.lit(-1, dtype=nw.Int64).alias("candidate")
        flaw = nw.col("flaw").cast(nw.Int64)
        rows: nw.LazyFrame[Any] = nw.concat(
            [
                exposures.select("user", "round", "candidate", *nothing),
                screened.events.select("user", "round", no_arm, "metric", "value", flaw),
            ]
        )
        exposed = nw.col("candidate") >= 0
        factors = [per_round({r: 1.0 / u for r, u in units.items()}) for units in screened.units]
        rows, sums = sums_by_metric(rows, self.sources, factors)
        flawed = [i for i, is_flawed in enumerate(screened.flawed) if is_flawed]
        for i in flawed:
            bad = (nw.col("metric") == self.sources[i]) & (nw.col("flaw") > 0)
            rows = rows.with_columns(nw.when(bad).then(1).otherwise(0).alias(f"b{i}"))
        counted = ~exposed & (nw.col("flaw") == 0)
        rows = rows.with_columns(
            nw.when(exposed).then(nw.col("candidate")).otherwise(NO_ARM).alias("lowest"),
            nw.when(counted).then(1).otherwise(0).alias("events"),
        )
        users = rows.group_by("user", "round").agg(
            nw.col("lowest").min(),
            nw.col("candidate").max(),
            nw.col("events").sum(),
            *sums,
            *(nw.col(f"b{i}").max() for i in flawed),
        )
        arm = nw.col("candidate")
        if self.max_events is not None:
            arm = nw.when(nw.col("events") > self.max_events).then(BOT).otherwise(arm)
        arm = nw.when(nw.col("lowest") < nw.col("candidate")).then(TWO_ARMS).otherwise(arm)
        arm = nw.when(nw.col("candidate") < 0).then(UNEXPOSED).otherwise(arm)
        whole = [joined_halves(f"s{i}") for i in range(len(self.sources))]
        bad_columns = [f"b{i}" for i in flawed]
        return users.select("user", "round", arm.cast(nw.Int64).alias("arm"), *whole, *bad_columns)

    def _join_covariates(
        self, users: nw.LazyFrame[Any], covariates: nw.LazyFrame[Any]
    ) -> tuple[nw.LazyFrame[Any], dict[str, int]]:
        """Add ``c{k}`` and ``covered{k}`` for every metric with a covariate; and rows left out."""
        adjusted = [(k, m) for k, m in enumerate(self.metrics) if m.covariate]
        names = tuple(dict.fromkeys(s for _, m in adjusted for s in m.sources))
        covariates, units, faults = usable_covariates(covariates, names)
        rows, sums = sums_by_metric(covariates, names, [1.0 / unit for unit in units])
        present = [
            nw.when(nw.col("metric") == name).then(1.0).otherwise(0.0).alias(f"n{i}")
            for i, name in enumerate(names)
        ]
        is_present = [nw.col(f"n{i}").max() for i in range(len(names))]
        table = rows.with_columns(*present).group_by("user").agg(*sums, *is_present)
        whole = [joined_halves(f"s{i}") for i in range(len(names))]
        table = table.select("user", *whole, *(f"n{i}" for i in range(len(names))))
        ratios = _ratios(table, names, units, [m for _, m in adjusted if m.numerator])
        columns = []
        for k, metric in adjusted:
            at = [names.index(s) for s in metric.sources]
            value, has = nw.col(f"s{at[0]}"), nw.col(f"n{at[0]}")
            if metric.numerator:
                # Linearised about one ratio for all arms, so that the adjustments of the arms
                # differ only by chance; any ratio would do.
                slope = ratios[metric.name] * (units[at[1]] / units[at[0]])
                value = value - slope * nw.col(f"s{at[1]}")
                value = value * (1.0 / (1.0 + abs(slope)))
                has = nw.when(nw.col(f"n{at[1]}") > 0).then(1.0).otherwise(has)
            columns += [value.alias(f"c{k}"), has.alias(f"covered{k}")]
        table = table.select(nw.col("user").alias("covered_user"), *columns)
        joined = users.join(table, how="left", left_on="user", right_on="covered_user")
        filled = [nw.col(f"c{k}", f"covered{k}").fill_null(0.0) for k, _ in adjusted]
        return joined.with_columns(*filled), faults

    def _clip(
        self, users: nw.LazyFrame[Any], flawed_sources: Sequence[bool], flawed: Sequence[int]
    ) -> nw.LazyFrame[Any]:
        """Turn ``s{i}`` into ``y{k}`` (and ``x{k}`` for ratios), winsorised where configured.

        ``usable{k}`` is 1 for the users who count for the metrics ``flawed``, and 0 for the others.
        """
        clipped: dict[tuple[int, float], str] = {
            (self.sources.index(s), m.winsorise): f"cap{j}_{s_}"
            for j, m in enumerate(self.metrics)
            if m.winsorise is not None and m.winsorise < 1
            for s_, s in enumerate(m.sources)
        }
        caps: dict[int, dict[str, Any]] = {}
        if clipped:
            quantiles = [
                nw.col(f"s{i}").quantile(q, interpolation="linear").alias(name)
                for (i, q), name in clipped.items()
                if q is not None
            ]
            counted = users.filter(nw.col("arm") >= 0)
            counted = counted.select(
                "round",
                *(self._usable_sum(i, flawed_sources) for i in {i for i, _ in clipped}),
            )
            table = counted.group_by("round").agg(*quantiles)
            caps = {int(row["round"]): row for row in collect(table, "the quantiles")}
        columns = []
        for k, metric in enumerate(self.metrics):
            for letter, source in zip("yx", metric.sources):
                i = self.sources.index(source)
                value: nw.Expr = nw.col(f"s{i}")
                name = clipped.get((i, metric.winsorise or 1.0))
                for round_, row in caps.items():
                    if name is not None:
                        if row[name] is None or math.isnan(row[name]):
                            continue  # no user has a usable value
                        cap = float(row[name])
                        over = (nw.col("round") == round_) & (nw.col(f"s{i}") > cap)
                        value = nw.when(over).then(cap).otherwise(value)
                columns.append(value.alias(f"{letter}{k}"))
        keep = [n for k in self._covered() for n in (f"c{k}", f"covered{k}")]
        usable = [self._usable(k, flawed_sources).alias(f"usable{k}") for k in flawed]
        users = users.select(*KEYS, *columns, *keep, *usable)
        masked = [
            (nw.col(name) * nw.col(f"usable{k}")).alias(name)
            for k in flawed
            for name in (
                *(f"{z}{k}" for z in "yx"[: len(self.metrics[k].sources)]),
                *((f"c{k}", f"covered{k}") if self.metrics[k].covariate else ()),
            )
        ]
        return users.with_columns(*masked) if masked else users

    def _usable_sum(self, i: int, flawed_sources: Sequence[bool]) -> nw.Expr:
        """The sums of source ``i``; null for users without a usable value of it."""
        value = nw.col(f"s{i}")
        if not flawed_sources[i]:
            return value
        return nw.when(nw.col(f"b{i}") == 0).then(value).alias(f"s{i}")

    def _usable(self, k: int, flawed_sources: Sequence[bool]) -> nw.Expr:
        at = [self.sources.index(s) for s in self.metrics[k].sources]
        first, *rest = (nw.col(f"b{i}") for i in at if flawed_sources[i])
        bad = first
        for other in rest:
            bad = bad + other
        return nw.when(bad == 0).then(1.0).otherwise(0.0)

    def _covered(self) -> list[int]:
        return [k for k, m in enumerate(self.metrics) if m.covariate]

    def _arms(self, users: nw.LazyFrame[Any], flawed: Sequence[int]) -> nw.LazyFrame[Any]:
        """Sums per round and arm: the second pass, of deviations from each arm's own means."""
        values = [f"{z}{k}" for k, m in enumerate(self.metrics) for z in "yx"[: len(m.sources)]]
        covered = self._covered()
        users = with_means(users, [*values, *(f"c{k}" for k in covered)], covered, flawed)
        deviations = []
        for k, metric in enumerate(self.metrics):
            mean, d = nw.col(f"mean_y{k}"), nw.col(f"y{k}") - nw.col(f"mean_y{k}")
            if metric.numerator:
                below = nw.col(f"mean_x{k}")
                safe = nw.when(below == 0).then(1.0).otherwise(below)
                ratio = mean / safe
                d = (d - ratio * (nw.col(f"x{k}") - below)) / safe
                deviations.append(nw.when(below == 0).then(0.0).otherwise(below).alias(f"below{k}"))
                mean = ratio
            if k in flawed:
                d = d * nw.col(f"usable{k}")
            deviations += [mean.alias(f"mean{k}"), d.alias(f"d{k}")]
            if metric.covariate:
                e = nw.col(f"c{k}") - nw.col(f"mean_c{k}")
                e = nw.when(nw.col(f"covered{k}") > 0).then(e).otherwise(0.0)
                deviations += [e.alias(f"e{k}"), nw.col(f"mean_c{k}")]
        keep = [f"covered{k}" for k in covered] + [f"usable{k}" for k in flawed]
        users = users.select(*KEYS, *keep, *deviations)
        return sum_products(users, self.metrics, flawed)


def _ratios(
    table: nw.LazyFrame[Any], names: Sequence[str], units: Sequence[float], metrics: list[Metric]
) -> dict[str, float]:
    """Each ratio over all covariates, the same for every arm and round."""
    if not metrics:
        return {}
    parts = table.select(*(h for i in range(len(names)) for h in halves(nw.col(f"s{i}"), f"s{i}")))
    row = collect(parts.select(nw.all().sum()), "the covariates' sums")[0]
    total = {
        n: (float(row[f"s{i}_upper"] or 0.0) + float(row[f"s{i}_lower"] or 0.0) / LOWER) * units[i]
        for i, n in enumerate(names)
    }
    ratios = {}
    for metric in metrics:
        above, below = (total[s] for s in metric.sources)
        ratios[metric.name] = above / below if below else 0.0
    return ratios
