"""From exposures and events to readings.

exposures, events -> sums per arm (arm_rows.py) -> test of the split -> means and variances
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, ReadingsError
from ...study.readings import Readings
from .arm_rows import BOT, TWO_ARMS, UNEXPOSED, ArmRows, Sums
from .frames import Tables, engine_errors, paths
from .metrics import Metric, arm_sums, check_metrics, mean_and_var, num_users
from .sample_ratio import check_shares, mismatch, planned_arms
from .screening import Served
from .source import Collected
from .sticky import StickyUsers

_USERS_NOT_COUNTED = {"bots": BOT, "in_two_arms": TWO_ARMS, "unexposed": UNEXPOSED}
# A metric is rare where a usual hour has fewer events in all arms: chance leaves hours without any.
_FEW_EVENTS = 15
_NOT_USABLE = "missing, not finite or absurd; left out of this metric in that round"
_COLUMNS = ("round", "candidate", "metric", "count", "mean", "var", "revision")


class Aggregator:
    """Computes readings from exposures and events.

    Args:
        metrics: `Metric`s, or names of plain ones.
        lateness: a round is reported, each time as a higher revision, until it is so many rounds
            old; events that arrive later are not counted.
        max_events: a user with more events of the metrics in a round is taken for a bot; None: no
            limit.
        srm_alpha: false-alarm rate per round of the sample-ratio-mismatch test; 0 never alarms.
    Raises:
        ConfigError: no metric, a metric twice, or a limit out of its range.
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
            raise ConfigError(f"srm_alpha must be in [0, 1), got {srm_alpha!r}; 0 never alarms")
        self.srm_alpha = float(srm_alpha)
        self._final_age = self.lateness - 1
        self._sticky = StickyUsers()
        self._rows = ArmRows(self.metrics, self.max_events)
        self.sources = self._rows.sources

    def reaching(self, lateness: int) -> Aggregator:
        """A copy that reports rounds up to so many rounds old; never fewer than this one."""
        other = Aggregator(
            self.metrics,
            lateness=max(self.lateness, lateness),
            max_events=self.max_events,
            srm_alpha=self.srm_alpha,
        )
        other._final_age = self._final_age
        other._sticky = self._sticky
        return other

    def aggregate(
        self,
        exposures: Any,
        events: Any,
        covariates: Any = None,
        *,
        as_of: int,
        rounds: Collection[int] | None = None,
        planned: Mapping[int, Mapping[int, float]] | None = None,
        served: Served | None = None,
    ) -> Collected:
        """Readings of the rounds ``as_of - lateness < round < as_of``, as of the round ``as_of``.

        A round's revision is ``as_of - round - 1``: the same ``as_of`` over the same rows gives
        the identical message, a later one a higher revision.

        Args:
            exposures: ``user, round, candidate[, study, epoch]``; candidate 0 is the control, -1 a
                user outside the experiment, and repeated rows count once. A pandas or Polars frame
                (eager or lazy), a DuckDB relation or a PySpark frame; or the path of a Parquet
                file, a glob or a list of them, read by DuckDB.
                Columns of files are matched by name, and a file that cannot be used is left out.
            events: ``user, round, metric, value[, arrived]``; values of a user add up. Rows with
                ``arrived >= as_of`` are not counted yet, since the round ``as_of`` may be under
                way; rows whose ``arrived`` is null count. Events of other metrics are ignored.
            covariates: ``user, metric, value`` from before the experiment; values add up.
            as_of: the current round.
            rounds: only these of the rounds; all must lie in the window.
            planned: per round the share of every candidate including the control, summing to 1.
                Rounds without shares are excluded, and rounds in which users keep the arm that they
                had before; None: the split is not tested.
            served: per round the study and the epochs that served it; exposures that name others
                are not counted. None: all are.
        Returns:
            Means and unbiased variances of per-user sums over the users of each arm and round,
            those without events as zeros. ``omitted`` names arms of fewer than two users, undefined
            ratios, and metrics without an event. ``faults`` counts rows and files that were
            left out: rows without a user, a round or a candidate, exposures of another study or
            epoch, and values that are missing, not
            finite or absurd. Such a value leaves its user out of this metric and round; everything
            else is as if the row had not been there. ``excluded_users`` counts, per round seen
            in the data, ``"bots"`` (more than ``max_events`` events), users ``"in_two_arms"``
            (exposed to several candidates, bots among them) and ``"unexposed"`` users (events
            without an exposure); and, where there are any, users with ``"unusable_values"``, and
            ``"unplanned_arm"``: a few in arms that the plan does not have; ``"outside"``: logged
            as outside the experiment.
        Raises:
            ConfigError: ``as_of``, ``rounds`` or ``planned`` is not valid.
            ReadingsError: frames of different or unknown engines, missing columns, wrong types, no
                file that can be read, or a failure of the engine.
            MissingExtraError: Parquet paths, and DuckDB is not installed.
        """
        window = self._window(as_of, rounds)
        shares = _planned(planned)
        adjusted = [m.name for m in self.metrics if m.covariate]
        if adjusted and covariates is None:
            raise ConfigError(f"metrics {adjusted} need a covariate; pass covariates=")
        if not window:
            return Collected()
        frames = (exposures, events, covariates if adjusted else None)
        tests_split = shares is not None and self.srm_alpha > 0
        try:
            sums = self._sums(frames, window, int(as_of), tests_split, served)
        except ReadingsError:
            if not any(paths(frame) for frame in frames):
                raise
            # A file may be damaged behind its footer, which only reading it to its end shows.
            sums = self._sums(frames, window, int(as_of), tests_split, served, read_all=True)
        return self._report(sums, int(as_of), shares)

    def _sums(
        self,
        frames: tuple[Any, Any, Any],
        window: list[int],
        as_of: int,
        tests_split: bool,
        served: Served | None,
        read_all: bool = False,
    ) -> Sums:
        tables = Tables(*frames, read_all=read_all)
        try:
            with engine_errors("the expression"):
                sums = self._rows.of(tables, window, as_of, served)
                if tests_split:
                    self._sticky.observe(tables.exposures, window)
        finally:
            tables.close()
        return sums._replace(faults=tables.faults | sums.faults)

    def _window(self, as_of: int, rounds: Collection[int] | None) -> list[int]:
        now = _whole("as_of", as_of, 0)
        window = list(range(max(0, now - self.lateness + 1), now))
        if rounds is None:
            return window
        if isinstance(rounds, str) or not isinstance(rounds, Collection):
            raise ConfigError(f"rounds must be a list of rounds, got {rounds!r}")
        requested = sorted({_whole("a round", r, 0) for r in rounds})
        outside = [r for r in requested if r not in window]
        if outside:
            raise ConfigError(
                f"rounds {outside} are not in the window {now - self.lateness} < round < {now} of "
                f"as_of {now} and lateness {self.lateness}"
            )
        return requested

    def _report(
        self, sums: Sums, as_of: int, shares: dict[int, dict[int, float]] | None
    ) -> Collected:
        excluded_users: dict[int, dict[str, int]] = {}
        excluded_rounds: dict[int, str] = {}
        omitted: dict[int, tuple[str, ...]] = {}
        counted: dict[int, dict[int, int]] = {}
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        rows, faults = sums.rows, Counter(sums.faults)
        rounds = sorted({int(row["round"]) for row in rows} | sums.outside.keys())
        is_rare = [self._is_rare(rows, k) for k in range(len(self.metrics))]
        for round_ in rounds:
            users = {int(r["arm"]): int(r["users"]) for r in rows if r["round"] == round_}
            excluded_users[round_] = {n: users.get(c, 0) for n, c in _USERS_NOT_COUNTED.items()}
            for source, number in sums.flawed_users.get(round_, {}).items():
                _add(excluded_users[round_], "unusable_values", number)
                faults[f"users with a value of {source!r} that is {_NOT_USABLE}"] += number
            arms = [r for r in rows if r["round"] == round_ and r["arm"] >= 0]
            arms.sort(key=lambda row: row["arm"])
            arms, num_stray = planned_arms(arms, None if shares is None else shares.get(round_))
            if num_stray:
                excluded_users[round_]["unplanned_arm"] = num_stray
                faults["users exposed to a candidate that is no arm of the round"] += num_stray
            if sums.outside.get(round_):
                excluded_users[round_]["outside"] = sums.outside[round_]
            reason = self._mismatch(round_, arms, shares)
            if reason is not None:
                excluded_rounds[round_] = reason
                counted[round_] = {int(r["arm"]): int(r["users"]) for r in arms}
            elif arms:
                reasons = self._append(columns, round_, arms, as_of - round_ - 1, is_rare)
                if reasons:
                    omitted[round_] = reasons
        readings = Readings.from_frame(columns) if columns["round"] else None
        final = tuple(r for r in rounds if as_of - r >= self._final_age)
        return Collected(
            readings, excluded_rounds, excluded_users, omitted, final, dict(faults), counted
        )

    def _is_rare(self, rows: Sequence[dict[str, Any]], k: int) -> bool:
        """Whether a metric has events, and so few that an hour without any is no surprise.

        Without events in an hour in which many are usual, the events are missing, not zero.
        """
        counts = []
        for round_ in {row["round"] for row in rows}:
            arms = [row for row in rows if row["round"] == round_ and row["arm"] >= 0]
            if not arms:
                continue
            with np.errstate(all="ignore"):
                mean, var = mean_and_var(arm_sums(arms, k, self.metrics[k]))
            users = num_users(arms, k)
            usable = (users > 1) & np.isfinite(mean) & np.isfinite(var)
            total = float((users * mean)[usable].sum())
            spread = float((users * var)[usable].sum())
            counts.append(total**2 / spread if spread > 0 else math.inf if total else 0.0)
        return any(counts) and float(np.median(counts)) < _FEW_EVENTS

    def _mismatch(
        self,
        round_: int,
        arms: list[dict[str, Any]],
        shares: dict[int, dict[int, float]] | None,
    ) -> str | None:
        """Why a round's users do not fit its planned shares; None where they fit."""
        if shares is None or not arms:
            return None
        if round_ not in shares:
            return "no plan names this round, so its shares cannot be tested"
        counted = {int(r["arm"]): int(r["users"]) for r in arms}
        reason = mismatch(counted, shares[round_], self.srm_alpha)[1]
        if reason is None and self.srm_alpha > 0:
            reason = self._sticky.reason(round_)
        return reason

    def _append(
        self,
        columns: dict[str, list[Any]],
        round_: int,
        arms: list[dict[str, Any]],
        revision: int,
        is_rare: Sequence[bool],
    ) -> tuple[str, ...]:
        """Add one round's rows; returns the arms and metrics omitted, with the reasons."""
        reasons: list[str] = []
        few = [int(r["arm"]) for r in arms if r["users"] < 2]
        if few:
            reasons.append(f"arms {few}: one user, a variance needs two")
        for k, metric in enumerate(self.metrics):
            with np.errstate(over="ignore", invalid="ignore"):  # an overflow is omitted below
                mean, var = mean_and_var(arm_sums(arms, k, metric))
            users = num_users(arms, k)
            undefined = [int(r["arm"]) for r, m, n in zip(arms, mean, users) if np.isnan(m) and n]
            if undefined:
                reasons.append(f"metric {metric.name!r}: no denominator in arms {undefined}")
            if arms[0]["arm"] == 0 and np.isnan(mean[0]):
                reasons.append(f"metric {metric.name!r}: the control's mean is undefined")
                continue
            if not is_rare[k] and not mean[~np.isnan(mean)].any():
                reasons.append(f"metric {metric.name!r}: no event in any arm")
                continue
            too_large = ~np.isnan(mean) & (users > 1) & ~(np.isfinite(mean) & np.isfinite(var))
            if too_large.any():
                large = [int(r["arm"]) for r, is_large in zip(arms, too_large) if is_large]
                reasons.append(
                    f"metric {metric.name!r}: values too large to square in arms {large}"
                )
            for i, row in enumerate(arms):
                if users[i] > 1 and np.isfinite(mean[i]) and np.isfinite(var[i]):
                    cells = (round_, int(row["arm"]), metric.name, int(users[i]))
                    values = (float(mean[i]), float(var[i]), revision)
                    for column, cell in zip(columns.values(), (*cells, *values)):
                        column.append(cell)
        return tuple(reasons)


def _add(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number


def _whole(name: str, value: Any, minimum: int) -> int:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < minimum:
        raise ConfigError(f"{name} must be a whole number >= {minimum}, got {value!r}")
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
