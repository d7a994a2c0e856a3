"""The live system around the tuner: readings out of events, plans into service, hour by hour."""

from .aggregate.aggregator import Aggregated, Aggregator, Excluded
from .aggregate.metrics import Metric
from .aggregate.source import Collected, Source
from .build import ParquetSource
from .loop import Loop, Round
from .retry import Patience, SimulatedClock, SystemClock
from .serve.flagd import FlagdUpdater, ThetaClient
from .serve.updater import (
    Assignment,
    TableUpdater,
    Updater,
    assign,
    bucket,
    read_table,
)

__all__ = [
    "Aggregated",
    "Aggregator",
    "Assignment",
    "Collected",
    "Excluded",
    "FlagdUpdater",
    "Loop",
    "Metric",
    "ParquetSource",
    "Patience",
    "Round",
    "SimulatedClock",
    "Source",
    "SystemClock",
    "TableUpdater",
    "ThetaClient",
    "Updater",
    "assign",
    "bucket",
    "read_table",
]
