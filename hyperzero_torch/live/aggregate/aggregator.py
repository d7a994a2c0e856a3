"""Exposures and events to readings.

exposures, events -> sums per arm (arm_rows.py) -> suspect? -> means and variances -> readings
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...study.readings import Readings
from .arm_rows import BOT, TWO_ARMS, UNEXPOSED, ArmRows
from .frames import Tables, engine_errors
from .metrics import Metric, arm_sums, check_metrics, mean_and_var
from .sample_ratio import check_shares, mismatch


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
        self._rows = ArmRows(self.metrics, self.max_events)
        self.sources = self._rows.sources

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
                rows = self._rows.of(tables, window, int(as_of))
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
