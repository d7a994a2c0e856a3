"""The hourly query: readings from tables of exposures and events, in a database's own SQL.

    events -> amounts -> screened, with the exposures -> users -> counted -> capped
    -> y and x per user and metric -> deviations from the arm's mean -> arms -> readings

It keeps the rules of the `Aggregator`, so that both give the same readings. Quantiles are computed
from ranks and variances from deviations, since databases differ in their own functions for both.
There is no join: a planner that misjudges the size of a subquery would run it once for every user.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigError
from .dialects import Dialect, checked_column, checked_round, checked_table, dialect_of, literal
from .metrics import Metric, check_metrics
from .query_parts import NO_SCREENING, REPORT, SCREENING
from .screening import ABSURD

# As in the aggregator: fewer events in a usual hour are rare, and an hour without any is a reading.
_FEW_EVENTS = 15
_HUGE = "1e300"


def hourly_query(
    metrics: Sequence[Metric | str],
    dialect: str,
    *,
    as_of: int | str | None = None,
    exposures: str = "exposures",
    events: str = "events",
    user: str = "user_id",
    arrived: str | None = None,
    study: tuple[str, str] | None = None,
    lateness: int = 6,
    max_events: int | None = None,
    screen: bool = True,
) -> str:
    """A query whose rows are readings: round, candidate, metric, count, mean, var, revision.

    Args:
        metrics: as for `Aggregator`.
        dialect: bigquery, clickhouse, duckdb, postgres, redshift or snowflake.
        as_of: the current round, or a parameter such as ``:round``; by default the parameter that
            the dialect's clients use. The rounds ``as_of - lateness < round < as_of`` are read.
        exposures: table or view with the user, ``round`` and ``candidate``.
        events: table or view with the user, ``round``, ``metric`` and ``value``.
        user: the column with the user, in both.
        arrived: column of the events with the round in which a row arrived; None where there is
            none, and all rows count.
        study: column of the exposures with a study's name, and the name that counts; None: all.
        lateness: rounds during which readings are revised.
        max_events: users with more events of the metrics in a round are left out.
        screen: leave out users with absurd values; the database sorts the events for it.
    Raises:
        ConfigError: a name or a number that cannot be used, or a metric with a covariate.
    """
    checked = check_metrics(metrics)
    adjusted = [metric.name for metric in checked if metric.covariate]
    if adjusted:
        raise ConfigError(
            f"metrics {adjusted} have a covariate, which this query does not adjust for: use "
            "'hyperzero run' or the Aggregator, or take the covariate out of the study file"
        )
    return _Query(
        checked,
        dialect_of(dialect),
        checked_round(str(as_of if as_of is not None else dialect_of(dialect).as_of)),
        checked_column(user, "the user's column"),
    ).text(
        checked_table(exposures, "exposures"),
        checked_table(events, "events"),
        None if arrived is None else checked_column(arrived, "the column of arrivals"),
        None if study is None else (checked_column(study[0], "the study's column"), study[1]),
        (
            _whole("lateness", lateness, 2),
            None if max_events is None else _whole("max_events", max_events, 1),
        ),
        screen,
    )


class _Query:
    """The query's parts for some metrics in one dialect."""

    def __init__(
        self, metrics: tuple[Metric, ...], dialect: Dialect, as_of: str, user: str
    ) -> None:
        self.metrics, self.dialect, self.as_of, self.user = metrics, dialect, as_of, user
        self.sources = tuple(dict.fromkeys(s for m in metrics for s in m.sources))
        self.names = {name: literal(name, dialect) for name in self.sources}

    def text(
        self,
        exposures: str,
        events: str,
        arrived: str | None,
        study: tuple[str, str] | None,
        limits: tuple[int, int | None],
        screen: bool,
    ) -> str:
        lateness, max_events = limits
        parts = [
            self._amounts(events, arrived, lateness),
            *(SCREENING if screen else NO_SCREENING),
            self._listed(exposures, study, lateness),
            self._users(),
            self._counted(max_events),
            *self._capped(),
            self._cells(),
            *REPORT,
        ]
        text = ",\n".join(parts).format(real=self.dialect.real, absurd=int(ABSURD), huge=_HUGE)
        return f"WITH\n{text}\n{self._rows()}"

    def _in_window(self, lateness: int) -> str:
        return (
            f"round > {self._as_of} - {lateness} AND round < {self._as_of} AND round >= 0\n"
            f"      AND {self.user} IS NOT NULL "
            f"AND CAST({self.user} AS {self.dialect.text}) <> ''"
        )

    @property
    def _as_of(self) -> str:
        """The round in a part that ``format`` goes over."""
        return _braced(self.as_of)

    def _amounts(self, table: str, arrived: str | None, lateness: int) -> str:
        names = _braced(", ".join(self.names.values()))
        late = ""
        if arrived is not None:
            late = f"\n      AND ({arrived} < {self._as_of} OR {arrived} IS NULL)"
        return f"""amounts AS (  -- a value that is missing or not finite is a flaw
    SELECT {self.user}, round, metric, CAST(value AS {{real}}) AS amount,
           CASE WHEN ABS(CAST(value AS {{real}})) <= CAST('{{huge}}' AS {{real}})
                THEN 0 ELSE 1 END AS flaw,
           CASE WHEN ABS(CAST(value AS {{real}})) <= CAST('{{huge}}' AS {{real}}) AND value <> 0
                THEN 1 ELSE 0 END AS sizes
    FROM {table}
    WHERE {self._in_window(lateness)}
      AND metric IN ({names}){late}
)"""

    def _listed(self, table: str, study: tuple[str, str] | None, lateness: int) -> str:
        ours = ""
        if study is not None:
            column, name = study
            value = _braced(literal(name, self.dialect))
            ours = f"\n      AND ({column} IS NULL OR {column} = '' OR {column} = {value})"
        return f"""listed AS (  -- exposures, and events with -1 in place of a candidate
    SELECT {self.user}, round, candidate, '' AS metric, CAST(0 AS {{real}}) AS amount, 0 AS flawed
    FROM {table}
    WHERE {self._in_window(lateness)}
      AND candidate >= 0{ours}
    UNION ALL
    SELECT {self.user}, round, -1 AS candidate, metric, amount, flawed
    FROM screened
)"""

    def _users(self) -> str:
        columns = [
            f"SUM(CASE WHEN metric = {name} AND flawed = 0 THEN amount ELSE 0 END) AS s{i},\n"
            f"           MAX(CASE WHEN metric = {name} THEN flawed ELSE 0 END) AS b{i}"
            for i, name in enumerate(self.names.values())
        ]
        listed = _braced(",\n           ".join(columns))
        return f"""users AS (
    SELECT {self.user}, round, MAX(candidate) AS arm,
           MIN(CASE WHEN candidate >= 0 THEN candidate END) AS lowest,
           SUM(CASE WHEN candidate < 0 AND flawed = 0 THEN 1 ELSE 0 END) AS num_events,
           {listed}
    FROM listed
    GROUP BY {self.user}, round
)"""

    def _counted(self, max_events: int | None) -> str:
        columns = ", ".join(f"s{i}, b{i}" for i in range(len(self.sources)))
        bots = "" if max_events is None else f" AND num_events <= {max_events}"
        return f"""counted AS (  -- users of one arm; those without events count as zeros
    SELECT round, arm, {columns}
    FROM users
    WHERE lowest = arm{bots}
)"""

    def _capped(self) -> list[str]:
        """A cap for each source and quantile: linear between order statistics, at ``q (n - 1)``."""
        quantiles = self._quantiles()
        if not quantiles:
            return []
        ranks = [
            f"ROW_NUMBER() OVER (PARTITION BY round, b{i} ORDER BY s{i}) - 1 AS place{j},\n"
            f"           (SUM(1 - b{i}) OVER (PARTITION BY round) - 1) * CAST({q!r} AS {{real}})"
            f" AS target{j}"
            for j, (i, q) in enumerate(quantiles)
        ]
        ends = [
            f"MAX(CASE WHEN b{i} = 0 AND place{j} = {end}(target{j}) THEN s{i} END)\n"
            f"               OVER (PARTITION BY round) AS {name}{j}"
            for j, (i, _) in enumerate(quantiles)
            for end, name in (("FLOOR", "below"), ("CEIL", "above"))
        ]
        return [
            "ranked AS (\n    SELECT counted.*,\n           "
            + ",\n           ".join(ranks)
            + "\n    FROM counted\n)",
            "capped AS (\n    SELECT ranked.*,\n           "
            + ",\n           ".join(ends)
            + "\n    FROM ranked\n)",
        ]

    def _quantiles(self) -> list[tuple[int, float]]:
        return list(
            dict.fromkeys(
                (self.sources.index(source), metric.winsorise)
                for metric in self.metrics
                if metric.winsorise is not None and metric.winsorise < 1
                for source in metric.sources
            )
        )

    def _cells(self) -> str:
        """One row per user and metric: the metric is the ratio of the sums of y and x."""
        table = "capped" if self._quantiles() else "counted"
        parts = []
        for metric in self.metrics:
            at = [self.sources.index(source) for source in metric.sources]
            usable = " AND ".join(f"b{i} = 0" for i in at)
            y, x = (*(self._total(i, metric.winsorise) for i in at), "1")[:2]
            name = _braced(literal(metric.name, self.dialect))
            parts.append(
                f"""    SELECT round, arm, {name} AS metric,
           CASE WHEN {usable} THEN CAST({y} AS {{real}}) END AS y,
           CASE WHEN {usable} THEN CAST({x} AS {{real}}) END AS x
    FROM {table}"""
            )
        return "cells AS (\n" + "\n    UNION ALL\n".join(parts) + "\n)"

    def _total(self, i: int, q: float | None) -> str:
        if q is None or q >= 1:
            return f"s{i}"
        j = self._quantiles().index((i, q))
        cap = f"below{j} + (target{j} - FLOOR(target{j})) * (above{j} - below{j})"
        return f"CASE WHEN s{i} > {cap} THEN {cap} ELSE s{i} END"

    def _rows(self) -> str:
        names = ("round", "candidate", "metric", "count", "mean", "var", "revision")
        quote = self.dialect.identifier
        of = dict(zip(names, (f"{quote}{name}{quote}" for name in names)))
        return f"""SELECT round AS {of["round"]}, arm AS {of["candidate"]},
       metric AS {of["metric"]},
       num AS {of["count"]}, average AS {of["mean"]}, spread AS {of["var"]},
       {self.as_of} - round - 1 AS {of["revision"]}
FROM usual
WHERE num > 1 AND average IS NOT NULL  -- the variance of one user is unknown
  AND is_control_undefined = 0
  AND (has_events = 1 OR (most_events > 0 AND usual_events < {_FEW_EVENTS}))
ORDER BY 1, 2, 3
"""


def _braced(text: str) -> str:
    """A text in a part that ``format`` goes over."""
    return text.replace("{", "{{").replace("}", "}}")


def _whole(name: str, value: int, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be a whole number >= {minimum}, got {value!r}")
    return value
