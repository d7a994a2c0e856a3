"""How to tune (``TunerConfig``), and a whole study in one YAML file (``StudyConfig``)."""

from .live import LiveConfig, MetricConfig
from .sources import RescaledConfig, SourceConfig
from .study import StudyConfig
from .tuner import TunerConfig

__all__ = [
    "LiveConfig",
    "MetricConfig",
    "RescaledConfig",
    "SourceConfig",
    "StudyConfig",
    "TunerConfig",
]
