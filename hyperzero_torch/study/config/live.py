"""The parts around a live study: warehouse, platform, clock."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ...errors import ConfigError
from .base import Config


class MetricConfig(Config):
    """How one metric is made of users' events; by default each user's sum of the same name."""

    numerator: str | None = None
    """Events above the line of a ratio, e.g. clicks."""
    denominator: str | None = None
    """Events below it, e.g. impressions."""
    winsorise: float | None = Field(default=None, gt=0.5, le=1)
    """Quantile at which users' sums are clipped."""
    covariate: bool = False
    """Adjust by what the same users did before the experiment (CUPED)."""


class LiveConfig(Config):
    """The parts around a study that ``hyperzero run`` drives; relative paths as the journal's."""

    exposures: str
    """Glob of Parquet files: user, round, candidate."""
    events: str
    """Glob of Parquet files: user, round, metric, value[, arrived]."""
    covariates: str | None = None
    """Glob of Parquet files from before the experiment: user, metric, value."""
    flags: str | None = None
    """flagd definition file that plans are written into; others' flags in it are kept."""
    table: str | None = None
    """JSON table that plans are written to, for platforms without flagd."""
    flag: str = Field(default="value-model", min_length=1)
    """Key of the flag; of a table the salt of its hash."""
    round_seconds: float = Field(default=3600.0, gt=0)
    """Length of a round."""
    lateness: int = Field(default=6, ge=2)
    """Rounds during which events may come late and readings are revised."""
    max_events: int | None = Field(default=None, ge=1)
    """Events of one user in one round above which it is a bot."""
    srm_alpha: float = Field(default=0.0005, ge=0, lt=1)
    """False alarms per round of the sample-ratio-mismatch test; 0 never suspects."""
    keep_readings: int | None = Field(default=None, ge=0)
    """Rounds whose readings are kept; older ones are compacted into evidence as soon as they can
    be (see ``TunerConfig.block_rounds``), which changes no estimate. None keeps all."""
    metrics: dict[str, MetricConfig] = Field(default_factory=dict)
    """How metrics are made of events, where they are not plain sums."""

    def model_post_init(self, _: Any) -> None:
        """Exactly one platform."""
        if (self.flags is None) == (self.table is None):
            raise ConfigError("live: name either flags (a flagd file) or table (a JSON file)")
