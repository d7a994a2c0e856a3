"""Builds the warehouse and the platform that a study file's ``live`` section describes."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from ..errors import ConfigError, MissingExtraError
from ..problem.problem import Problem
from ..study.config import LiveConfig, MetricConfig
from .aggregate.aggregator import Aggregator
from .aggregate.metrics import Metric
from .aggregate.screening import Served
from .aggregate.source import Collected
from .serve.flagd import FlagdUpdater
from .serve.growthbook import GrowthBookFile
from .serve.stored import StoredTableUpdater
from .serve.unleash import UnleashFeature
from .serve.updater import TableUpdater


class ParquetSource:
    """A warehouse of Parquet files, aggregated by DuckDB.

    Args:
        exposures: a glob of files with the columns user, round, candidate[, study, epoch].
        events: a glob of files with the columns user, round, metric, value[, arrived].
        aggregator: how events become readings.
        covariates: a glob of files with the columns user, metric, value, from before the
            experiment; None where no metric asks for a covariate.
    Raises:
        MissingExtraError: DuckDB is not installed; raised here and not once an hour.
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
        self._served: Served | None = None

    def expect(self, served: Served) -> None:
        """From now on count no exposures that name another study or epoch than these."""
        self._served = served

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Collected:
        """Readings of the rounds in the window and of the missing ones; none without files."""
        first = max(0, as_of - self.aggregator.lateness + 1)
        window = [r for r in sorted(planned) if r < as_of and (r >= first or r in missing)]
        if not window or not _exists(self.exposures) or not _exists(self.events):
            return Collected()
        return self.aggregator.reaching(as_of - window[0] + 1).aggregate(
            self.exposures,
            self.events,
            self.covariates,
            as_of=as_of,
            rounds=window,
            planned={r: planned[r] for r in window},
            served=self._served,
        )


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


def updater_of(
    live: LiveConfig, folder: Path, environment: Mapping[str, str] = os.environ
) -> FlagdUpdater | TableUpdater | StoredTableUpdater:
    """The platform that a study file describes.

    Raises:
        ConfigError: the variable with Unleash's token is not set.
    """
    if live.flags is not None:
        return FlagdUpdater(folder / live.flags, flag=live.flag)
    if live.growthbook is not None:
        store = GrowthBookFile(folder / live.growthbook, live.flag)
        return StoredTableUpdater(store, salt=live.flag)
    if live.unleash is not None:
        named = live.unleash
        token = environment.get(named.token_env, "")
        if not token:
            raise ConfigError(
                f"live.unleash: the environment variable {named.token_env} is not set; set it to "
                "a token of the Admin API where this command runs"
            )
        feature = UnleashFeature(
            named.url,
            token,
            feature=live.flag,
            project=named.project,
            environment=named.environment,
        )
        return StoredTableUpdater(feature, salt=live.flag)
    table = cast(str, live.table)  # the configuration has exactly one of them
    return TableUpdater(folder / table, salt=live.flag, hash=live.hash)


def metrics_of(live: LiveConfig, names: Sequence[str]) -> list[Metric]:
    """How each of the study's metrics is computed from events."""
    default = MetricConfig()
    return [Metric(name, **live.metrics.get(name, default).model_dump()) for name in names]


def _exists(pattern: str) -> bool:
    return next(glob.iglob(pattern, recursive=True), None) is not None
