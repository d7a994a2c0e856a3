"""From a study file's ``live`` section to the parts of a live system: warehouse and platform."""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingExtraError
from ..problem.problem import Problem
from ..study.config import LiveConfig, MetricConfig
from .aggregate.aggregator import Aggregator
from .aggregate.metrics import Metric
from .aggregate.source import Collected
from .serve.flagd import FlagdUpdater
from .serve.updater import TableUpdater, Updater


class ParquetSource:
    """A warehouse of Parquet files, aggregated by DuckDB.

    Args:
        exposures: a glob of files with the columns user, round, candidate.
        events: a glob of files with the columns user, round, metric, value[, arrived].
        aggregator: what is made of them.
        covariates: a glob of files with the columns user, metric, value, from before the
            experiment; None where no metric asks for a covariate.
    Raises:
        MissingExtraError: DuckDB is not installed; said here, not once an hour.
    """

    def __init__(
        self,
        exposures: str | Path,
        events: str | Path,
        aggregator: Aggregator,
        covariates: str | Path | None = None,
    ) -> None:
        if find_spec("duckdb") is None:
            raise MissingExtraError("a warehouse of Parquet files", "duckdb", "duckdb")
        self.exposures, self.events = str(exposures), str(events)
        self.covariates = None if covariates is None else str(covariates)
        self.aggregator = aggregator

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Collected:
        """Readings of the rounds that are not too old or are missing; nothing without files."""
        first = max(0, as_of - self.aggregator.lateness + 1)
        window = [r for r in sorted(planned) if r < as_of and (r >= first or r in missing)]
        if not window or not _any(self.exposures) or not _any(self.events):
            return Collected()
        found = self.aggregator.reaching(as_of - window[0] + 1).aggregate(
            self.exposures,
            self.events,
            self.covariates,
            as_of=as_of,
            rounds=window,
            planned={r: planned[r] for r in window},
        )
        excluded = {r: dict(vars(e)) for r, e in found.excluded.items()}
        return Collected(found.readings, found.suspect, excluded)


def source_of(live: LiveConfig, problem: Problem, folder: Path) -> ParquetSource:
    """The warehouse that a study file describes; relative paths are taken from ``folder``."""
    aggregator = Aggregator(
        metrics_of(live, problem.metrics),
        lateness=live.lateness,
        max_events=live.max_events,
        srm_alpha=live.srm_alpha,
    )
    covariates = None if live.covariates is None else folder / live.covariates
    return ParquetSource(folder / live.exposures, folder / live.events, aggregator, covariates)


def updater_of(live: LiveConfig, folder: Path) -> Updater:
    """The platform that a study file describes."""
    if live.flags is not None:
        return FlagdUpdater(folder / live.flags, flag=live.flag)
    assert live.table is not None  # the configuration has one of them
    return TableUpdater(folder / live.table, salt=live.flag)


def metrics_of(live: LiveConfig, names: Sequence[str]) -> list[Metric]:
    """How each of the study's metrics is made of events."""
    return [_metric(name, live.metrics.get(name, MetricConfig())) for name in names]


def _metric(name: str, how: MetricConfig) -> Metric:
    return Metric(name, how.winsorise, how.covariate, how.numerator, how.denominator)


def _any(pattern: str) -> bool:
    return next(glob.iglob(pattern, recursive=True), None) is not None
