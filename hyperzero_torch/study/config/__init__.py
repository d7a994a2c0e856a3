"""How to tune (``TunerConfig``), and a whole study in one YAML file (``StudyConfig``)."""

from .monitoring import AlertsConfig, MonitoringConfig, UnleashConfig
from .study import LiveConfig, MetricConfig, RescaledConfig, SourceConfig, StudyConfig
from .tuner import TunerConfig, upcast

__all__ = [
    "AlertsConfig",
    "LiveConfig",
    "MetricConfig",
    "MonitoringConfig",
    "RescaledConfig",
    "SourceConfig",
    "StudyConfig",
    "TunerConfig",
    "UnleashConfig",
    "upcast",
]
