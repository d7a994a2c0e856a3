"""Exposures and events to readings: one expression that the user's own engine runs.

    exposures, events -> sums per user -> (clip) -> deviations from the arm's mean -> sums per arm

It runs unchanged on pandas, Polars, DuckDB and PySpark; only sums per arm and round reach Python.

Whatever order an engine adds in, the sums are the same to the last bit, so that the same data give
the identical message: every addend is split into two whole numbers of a common unit, the upper 26
bits and the next 27, whose sums double precision holds exactly up to 2^26 addends. Variances are
sums of squared deviations from the arm's own mean, taken in a second pass.
Source: Demmel and Nguyen (2013), reproducible summation by pre-rounding.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np

from ..errors import ConfigError
from ..readings import Readings
from .metrics_spec import (
    KEYS,
    LOWER,
    Metric,
    arm_sums,
    check_metrics,
    halves,
    joined_halves,
    mean_and_var,
    sum_products,
    sums_by_metric,
    with_means,
)
from .suspect import check_shares, mismatch
from .tables import Tables, check_rows, collect, engine_errors, offered

UNEXPOSED, TWO_ARMS, BOT = -3, -2, -1  # in place of an arm, where a user is not counted
NO_ARM = 2**62


@dataclass(frozen=True)
class Excluded:
    """Users of one round who were not counted.

    Args:
        bots: users with more events than `Aggregator` allows.
        in_two_arms: users exposed to more than one candidate in the round; bots among them
            are counted here.
        unexposed: users with events but without an exposure in the round.
    """

    bots: int = 0
    in_two_arms: int = 0
    unexposed: int = 0


@dataclass(frozen=True)
class Aggregated:
    """What an aggregation found.

    Args:
        readings: one message for all rounds that are neither empty nor suspect; None without any.
        excluded: per round seen in the data, the users who were not counted.
        suspect: per round kept out of the readings, the reason.
        left_out: per round, what else is not in the readings, and why.
    """

    readings: Readings | None
    excluded: Mapping[int, Excluded]
    suspect: Mapping[int, str]
    left_out: Mapping[int, tuple[str, ...]]


class Aggregator:
    """From exposures and events to readings.

    Args:
        metrics: `Metric`s, or names of plain ones.
        lateness: a round is reported, each time as a higher revision, until it is so many rounds
            old; later events are not waited for.
        max_events: more events of the metrics by one user in one round are a bot's; None: no limit.
        srm_alpha: false alarms per round of the sample-ratio-mismatch test.
    Raises:
        ConfigError: no metric, a metric twice, or a limit that is none.
    """

    def __init__(
        self,
        metrics: Sequence[Metric | str],
        *,
        lateness: int = 6,
        max_events: int | None = None,
        srm_alpha: float = 0.0005,
    ) -> None:
        self.metrics = check_metrics(metrics)
        self.lateness = _whole("lateness", lateness, 2)
        self.max_events = None if max_events is None else _whole("max_events", max_events, 1)
        if isinstance(srm_alpha, bool) or not isinstance(srm_alpha, int | float):
            raise ConfigError(f"srm_alpha must be a number in [0, 1), got {srm_alpha!r}")
        if not 0 <= srm_alpha < 1:
            raise ConfigError(f"srm_alpha must be in [0, 1), got {srm_alpha!r}; 0 never suspects")
        self.srm_alpha = float(srm_alpha)
        self.sources = tuple(dict.fromkeys(s for m in self.metrics for s in m.sources))

    def reaching(self, lateness: int) -> Aggregator:
        """The same, reporting rounds up to so many rounds old; never fewer than before."""
        return Aggregator(
            self.metrics,
            lateness=max(self.lateness, lateness),
            max_events=self.max_events,
            srm_alpha=self.srm_alpha,
        )

    def aggregate(
        self,
        exposures: Any,
        events: Any,
        covariates: Any = None,
        *,
        as_of: int,
        rounds: Collection[int] | None = None,
        planned: Mapping[int, Mapping[int, float]] | None = None,
    ) -> Aggregated:
        """Readings of the rounds ``as_of - lateness < round < as_of``, as known in ``as_of``.

        A round's revision is ``as_of - round - 1``: the same ``as_of`` over the same rows gives
        the identical message, a later one a higher revision.

        Args:
            exposures: ``user, round, candidate``; candidate 0 is the control, and repeated rows
                count once. A pandas or Polars frame (eager or lazy), a DuckDB relation or a PySpark
                frame; or the path of a Parquet file, a glob or a list of them, read by DuckDB.
            events: ``user, round, metric, value[, arrived]``; values of a user add up. Rows with
                ``arrived >= as_of`` are not seen yet, whenever they are looked for: the round
                ``as_of`` may be under way. Metrics that nobody asked for are ignored.
            covariates: ``user, metric, value`` from before the experiment; values add up.
            as_of: the current round.
            rounds: only these of the rounds; all must lie in the window.
            planned: per round the share of every candidate, the control among them, summing to 1.
                Given at all, a round that it lacks is suspect; None: nothing is tested.
        Returns:
            Means and unbiased variances of per-user sums over the users of each arm and round,
            those without events as zeros. Arms of fewer than two users, undefined ratios, and
            metrics whose control mean is 0 are left out, with the reason.
        Raises:
            ConfigError: ``as_of``, ``rounds`` or ``planned`` cannot be.
            ReadingsError: frames of different or unknown engines, missing columns, wrong types,
                nulls, negative rounds or candidates, values that are not finite, or an engine that
                fails.
            MissingExtraError: Parquet paths without duckdb.
        """
        window = self._window(as_of, rounds)
        shares = _planned(planned)
        wants = any(m.covariate for m in self.metrics)
        if wants and covariates is None:
            names = [m.name for m in self.metrics if m.covariate]
            raise ConfigError(f"metrics {names} ask for a covariate: hand over covariates")
        if not window:
            return Aggregated(None, {}, {}, {})
        tables = Tables(exposures, events, covariates if wants else None)
        try:
            with engine_errors("the expression"):
                rows = self._arm_rows(tables, window, int(as_of))
        finally:
            tables.close()
        return self._report(rows, int(as_of), shares)

    def _window(self, as_of: int, rounds: Collection[int] | None) -> list[int]:
        now = _whole("as_of", as_of, 0)
        window = list(range(max(0, now - self.lateness + 1), now))
        if rounds is None:
            return window
        if isinstance(rounds, str) or not isinstance(rounds, Collection):
            raise ConfigError(f"rounds must be a list of rounds, got {rounds!r}")
        asked = sorted({_whole("a round", r, 0) for r in rounds})
        late = [r for r in asked if r not in window]
        if late:
            raise ConfigError(
                f"rounds {late} are not in the window {now - self.lateness} < round < {now} of "
                f"as_of {now} and lateness {self.lateness}"
            )
        return asked

    def _arm_rows(self, tables: Tables, window: list[int], as_of: int) -> list[dict[str, Any]]:
        """One row of sums per round and arm, in the metrics' units."""
        exposures = tables.exposures.filter(offered(window))
        asked = nw.col("metric").is_in(self.sources) | nw.col("metric").is_null()
        events = tables.events.filter(offered(window) & asked)
        if "arrived" in tables.events.collect_schema().names():
            events = events.filter((nw.col("arrived") < as_of) | nw.col("arrived").is_null())
        check_rows("exposures", exposures, ("user", "round", "candidate"))
        units = check_rows("events", events, tables.event_columns, self.sources)
        users = self._users(exposures, events, units)
        if tables.covariates is not None:
            users = self._join_covariates(users, tables.covariates)
        users = self._clip(users)
        rows = collect(self._arms(users), "the sums per arm")
        for row in rows:
            for k, metric in enumerate(self.metrics):
                if f"mean{k}" not in row:
                    continue
                top = units[self.sources.index(metric.sources[0])]
                unit = (
                    top / units[self.sources.index(metric.sources[1])] if metric.numerator else top
                )
                row[f"unit{k}"] = unit
        return rows

    def _users(
        self, exposures: nw.LazyFrame[Any], events: nw.LazyFrame[Any], units: list[float]
    ) -> nw.LazyFrame[Any]:
        """``user, round, arm, s0, s1, ...``: per-user sums of each source, in its unit."""
        nothing = (
            nw.lit("", dtype=nw.String).alias("metric"),
            nw.lit(0.0, dtype=nw.Float64).alias("value"),
        )
        no_arm = nw.lit(-1, dtype=nw.Int64).alias("candidate")
        rows: nw.LazyFrame[Any] = nw.concat(
            [
                exposures.select("user", "round", "candidate", *nothing),
                events.select("user", "round", no_arm, "metric", "value"),
            ]
        )
        exposed = nw.col("candidate") >= 0
        rows, sums = sums_by_metric(rows, self.sources, units)
        rows = rows.with_columns(
            nw.when(exposed).then(nw.col("candidate")).otherwise(NO_ARM).alias("lowest"),
            nw.when(exposed).then(0).otherwise(1).alias("events"),
        )
        users = rows.group_by("user", "round").agg(
            nw.col("lowest").min(), nw.col("candidate").max(), nw.col("events").sum(), *sums
        )
        arm = nw.col("candidate")
        if self.max_events is not None:
            arm = nw.when(nw.col("events") > self.max_events).then(BOT).otherwise(arm)
        arm = nw.when(nw.col("lowest") < nw.col("candidate")).then(TWO_ARMS).otherwise(arm)
        arm = nw.when(nw.col("candidate") < 0).then(UNEXPOSED).otherwise(arm)
        whole = [joined_halves(f"s{i}") for i in range(len(self.sources))]
        return users.select("user", "round", arm.cast(nw.Int64).alias("arm"), *whole)

    def _join_covariates(
        self, users: nw.LazyFrame[Any], covariates: nw.LazyFrame[Any]
    ) -> nw.LazyFrame[Any]:
        """Adds ``c{k}`` and ``known{k}`` for every metric with a covariate."""
        wanted = [(k, m) for k, m in enumerate(self.metrics) if m.covariate]
        names = tuple(dict.fromkeys(s for _, m in wanted for s in m.sources))
        covariates = covariates.filter(nw.col("metric").is_in(names) | nw.col("metric").is_null())
        units = check_rows("covariates", covariates, ("user", "metric", "value"), names)
        rows, sums = sums_by_metric(covariates, names, units)
        present = [
            nw.when(nw.col("metric") == name).then(1.0).otherwise(0.0).alias(f"n{i}")
            for i, name in enumerate(names)
        ]
        known = [nw.col(f"n{i}").max() for i in range(len(names))]
        table = rows.with_columns(*present).group_by("user").agg(*sums, *known)
        whole = [joined_halves(f"s{i}") for i in range(len(names))]
        table = table.select("user", *whole, *(f"n{i}" for i in range(len(names))))
        ratios = _ratios(table, names, units, [m for _, m in wanted if m.numerator])
        columns = []
        for k, metric in wanted:
            at = [names.index(s) for s in metric.sources]
            value, has = nw.col(f"s{at[0]}"), nw.col(f"n{at[0]}")
            if metric.numerator:
                # Linearised about one ratio for all arms, so that the arms' adjustments differ
                # only by chance; which ratio it is does not matter for that.
                slope = ratios[metric.name] * (units[at[1]] / units[at[0]])
                value = value - slope * nw.col(f"s{at[1]}")
                value = value * (1.0 / (1.0 + abs(slope)))
                has = nw.when(nw.col(f"n{at[1]}") > 0).then(1.0).otherwise(has)
            columns += [value.alias(f"c{k}"), has.alias(f"known{k}")]
        table = table.select(nw.col("user").alias("covered"), *columns)
        joined = users.join(table, how="left", left_on="user", right_on="covered")
        filled = [nw.col(f"c{k}", f"known{k}").fill_null(0.0) for k, _ in wanted]
        return joined.with_columns(*filled)

    def _clip(self, users: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """``s{i}`` into ``y{k}`` (and ``x{k}`` for ratios), clipped where a metric asks for it."""
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
            counted = users.filter(nw.col("arm") >= 0).select(
                "round", *{f"s{i}" for i, _ in clipped}
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
                        cap = float(row[name])
                        over = (nw.col("round") == round_) & (nw.col(f"s{i}") > cap)
                        value = nw.when(over).then(cap).otherwise(value)
                columns.append(value.alias(f"{letter}{k}"))
        keep = [n for k in self._covered() for n in (f"c{k}", f"known{k}")]
        return users.select(*KEYS, *columns, *keep)

    def _covered(self) -> list[int]:
        return [k for k, m in enumerate(self.metrics) if m.covariate]

    def _arms(self, users: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Sums per round and arm: the second pass, about each arm's own means."""
        values = [f"{z}{k}" for k, m in enumerate(self.metrics) for z in "yx"[: len(m.sources)]]
        covered = self._covered()
        users = with_means(users, [*values, *(f"c{k}" for k in covered)], covered)
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
            deviations += [mean.alias(f"mean{k}"), d.alias(f"d{k}")]
            if metric.covariate:
                e = nw.col(f"c{k}") - nw.col(f"mean_c{k}")
                e = nw.when(nw.col(f"known{k}") > 0).then(e).otherwise(0.0)
                deviations += [e.alias(f"e{k}"), nw.col(f"mean_c{k}")]
        keep = [f"known{k}" for k in covered]
        users = users.select(*KEYS, *keep, *deviations)
        return sum_products(users, self.metrics)

    def _report(
        self, rows: list[dict[str, Any]], as_of: int, shares: dict[int, dict[int, float]] | None
    ) -> Aggregated:
        excluded: dict[int, Excluded] = {}
        suspect: dict[int, str] = {}
        left_out: dict[int, tuple[str, ...]] = {}
        columns: dict[str, list[Any]] = {
            n: [] for n in ("round", "candidate", "metric", "count", "mean", "var", "revision")
        }
        for round_ in sorted({int(row["round"]) for row in rows}):
            here = sorted((r for r in rows if r["round"] == round_), key=lambda r: r["arm"])
            out = {int(r["arm"]): int(r["users"]) for r in here if r["arm"] < 0}
            excluded[round_] = Excluded(
                out.get(BOT, 0), out.get(TWO_ARMS, 0), out.get(UNEXPOSED, 0)
            )
            arms = [r for r in here if r["arm"] >= 0]
            reason = self._suspicion(round_, arms, shares)
            if reason is not None:
                suspect[round_] = reason
            elif arms:
                left_out[round_] = self._append(columns, round_, arms, as_of - round_ - 1)
        readings = Readings.from_frame(columns) if columns["round"] else None
        return Aggregated(
            readings, excluded, suspect, {r: why for r, why in left_out.items() if why}
        )

    def _suspicion(
        self,
        round_: int,
        arms: list[dict[str, Any]],
        shares: dict[int, dict[int, float]] | None,
    ) -> str | None:
        if shares is None or not arms:
            return None
        if round_ not in shares:
            return "no plan names this round, so its shares cannot be tested"
        counted = {int(r["arm"]): int(r["users"]) for r in arms}
        return mismatch(counted, shares[round_], self.srm_alpha)[1]

    def _append(
        self, columns: dict[str, list[Any]], round_: int, arms: list[dict[str, Any]], revision: int
    ) -> tuple[str, ...]:
        """One round's rows; returns what is left out."""
        why: list[str] = []
        few = [int(r["arm"]) for r in arms if r["users"] < 2]
        if few:
            why.append(f"arms {few}: one user, a variance needs two")
        for k, metric in enumerate(self.metrics):
            with np.errstate(over="ignore", invalid="ignore"):  # Readings refuses what overflows
                mean, var = mean_and_var(arm_sums(arms, k, metric))
            undefined = [int(r["arm"]) for r, m in zip(arms, mean) if np.isnan(m)]
            if undefined:
                why.append(f"metric {metric.name!r}: no denominator in arms {undefined}")
            if arms[0]["arm"] == 0 and (np.isnan(mean[0]) or mean[0] == 0):
                why.append(f"metric {metric.name!r}: the control's mean is 0 or undefined")
                continue
            for row, m, v in zip(arms, mean.tolist(), var.tolist()):
                if not (math.isnan(m) or row["users"] < 2):
                    cells = (round_, int(row["arm"]), metric.name, int(row["users"]), m, v)
                    for column, cell in zip(columns.values(), (*cells, revision)):
                        column.append(cell)
        return tuple(why)


def _ratios(
    table: nw.LazyFrame[Any], names: Sequence[str], units: Sequence[float], metrics: list[Metric]
) -> dict[str, float]:
    """Each ratio over the whole table of covariates, the same for every arm and round."""
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


def _whole(name: str, value: Any, least: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ConfigError(f"{name} must be a whole number from {least} on, got {value!r}")
    return int(value)


def _planned(planned: Any) -> dict[int, dict[int, float]] | None:
    if planned is None:
        return None
    if not isinstance(planned, Mapping):
        raise ConfigError(f"planned must map rounds to shares, got {planned!r}")
    return {
        _whole("a planned round", r, 0): check_shares(int(r), shares)
        for r, shares in planned.items()
    }
