"""How to tune (``TunerConfig``), and a whole study in one YAML file (``StudyConfig``)."""

from .study import LiveConfig, MetricConfig, RescaledConfig, SourceConfig, StudyConfig
from .tuner import TunerConfig, upcast

__all__ = [
    "LiveConfig",
    "MetricConfig",
    "RescaledConfig",
    "SourceConfig",
    "StudyConfig",
    "TunerConfig",
    "upcast",
]
