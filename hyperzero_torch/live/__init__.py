"""The live system around the tuner: events become readings, plans are served, every hour."""

from .aggregate.aggregator import Aggregator
from .aggregate.metrics import Metric
from .aggregate.query import hourly_query
from .aggregate.source import Collected, Source
from .build import ParquetSource
from .clock import SimulatedClock, SystemClock
from .loop import Loop
from .retry import RetryPolicy
from .round import Round
from .serve.buckets import bucket, takes_part
from .serve.checks import Updater
from .serve.client import ThetaClient
from .serve.fence import StudyUpdater, Terms
from .serve.flagd import FlagdUpdater
from .serve.growthbook import GrowthBookFile
from .serve.stored import StoredTableUpdater, TableStore
from .serve.unleash import UnleashFeature
from .serve.updater import Assignment, TableUpdater, assign, read_table

__all__ = [
    "Aggregator",
    "Assignment",
    "Collected",
    "FlagdUpdater",
    "GrowthBookFile",
    "Loop",
    "Metric",
    "ParquetSource",
    "RetryPolicy",
    "Round",
    "SimulatedClock",
    "Source",
    "StoredTableUpdater",
    "StudyUpdater",
    "SystemClock",
    "TableStore",
    "TableUpdater",
    "Terms",
    "ThetaClient",
    "UnleashFeature",
    "Updater",
    "assign",
    "bucket",
    "hourly_query",
    "read_table",
    "takes_part",
]
