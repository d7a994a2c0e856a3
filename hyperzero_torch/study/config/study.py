"""A whole study in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ...errors import ConfigError
from ...problem.problem import Problem
from ...problem.space import Parameter, SearchSpace, Value
from .base import Config
from .live import LiveConfig
from .sources import SourceConfig
from .tuner import TunerConfig


class StudyConfig(Config):
    """A study that lives in files: what ``hyperzero init`` writes and ``hyperzero step`` reads."""

    study: str = Field(default="default", min_length=1)
    """Name of the study in the journal."""
    journal: str = Field(default="sqlite:///study.db", repr=False)  # may hold a password
    """Journal URL; a relative SQLite path is relative to the configuration file."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    parameters: tuple[Parameter, ...] = Field(min_length=1)
    """What is tuned."""
    theta_constraints: tuple[str, ...] = ()
    """Linear constraints on the parameters; no theta outside them is ever served."""
    base: dict[str, Value]
    """The control's parameters."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Metrics that the readings report."""
    objective: str
    """What is maximised."""
    constraints: tuple[str, ...] = ()
    """Guardrails."""
    base_levels: dict[str, float] | None = None
    """The control's known levels, where a term uses ``level(...)``; else they are estimated."""
    traffic: TunerConfig = Field(default_factory=lambda: TunerConfig())
    """How traffic is shared out: any field of TunerConfig."""
    sources: tuple[SourceConfig, ...] = ()
    """Other domains to learn from; see ``hyperzero transfer``."""
    live: LiveConfig | None = None
    """Warehouse and platform, for ``hyperzero run``."""

    @field_validator("sources", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """Said in a study file's words, with what one looks like."""
        if not isinstance(value, list | tuple):
            raise ConfigError(
                "a list of sources is wanted, e.g. ['sqlite:///north.db#feed', {source: "
                "north.json, scope: feed/south}]; [] for none"
            )
        return value

    def model_post_init(self, _: Any) -> None:
        """Metrics that are described must be there."""
        unknown = sorted(set(self.live.metrics) - set(self.metrics)) if self.live else []
        if unknown:
            raise ConfigError(f"live.metrics describes {unknown}, metrics are {list(self.metrics)}")

    def journal_url(self, folder: Path) -> str:
        """The journal's URL, with a relative SQLite path taken from ``folder``."""
        head, _, path = self.journal.partition("sqlite:///")
        if self.journal.startswith("sqlite") and path in ("", ":memory:"):
            raise ConfigError(
                f"journal: {self.journal!r} is forgotten when the command ends; name a file, e.g. "
                "sqlite:///study.db"
            )
        if head or not path or Path(path).is_absolute():
            return self.journal
        return f"sqlite:///{folder / path}"

    def problem(self) -> Problem:
        """The problem that the file describes.

        Raises:
            SpaceError, ProblemError: what the file describes cannot be.
        """
        return Problem(
            space=SearchSpace(self.parameters, self.theta_constraints),
            base=self.base,
            metrics=self.metrics,
            objective=self.objective,
            constraints=self.constraints,
            base_levels=self.base_levels,
        )
