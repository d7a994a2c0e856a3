"""The live system around the tuner: readings out of events, plans into service, hour by hour."""

from .aggregator import Aggregated, Aggregator, Excluded
from .flagd import FlagdUpdater, ThetaClient
from .live import ParquetSource
from .loop import Loop, Round
from .metrics_spec import Metric
from .patience import Patience, SimulatedClock, SystemClock
from .source import Collected, Source
from .updater import Assignment, TableUpdater, Updater, assign, bucket, read_table

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
