"""Other domains, as a study file names them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ...errors import ConfigError
from .base import Config, masked


class RescaledConfig(Config):
    """A parameter that the source has under another name, in another unit."""

    name: str = Field(min_length=1)
    """The source's name of it."""
    factor: float = 1.0
    """The study's value is this many times the source's."""


class SourceConfig(Config):
    """One other domain; a plain text in the file is its ``source``."""

    source: str = Field(min_length=1, repr=False)  # may hold a password
    """A transfer package, relative to the study file, or ``journal-url#study``."""
    name: str | None = Field(default=None, min_length=1)
    """What it is called in the journal; by default the study's name, or the file's stem."""
    scope: str | None = Field(default=None, min_length=1)
    """What a package is used for here; its maker has to have allowed that."""
    key_env: str | None = Field(default=None, min_length=1)
    """Environment variable with the key that a package is signed by."""
    map: dict[str, str | RescaledConfig] = Field(default_factory=dict)
    """From the study's names of parameters and metrics to the source's, with a factor where a
    parameter's unit differs."""
    ignore: tuple[str, ...] = ()
    """The source's parameters that do not matter here, although it varied them."""
    refresh: int | None = Field(default=168, ge=1)
    """Rounds after which it is read anew, as it is after an alarm of drift; None for never."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    def model_post_init(self, _: Any) -> None:
        """A journal needs a study and has no scope, a package needs one."""
        if "://" in self.source and "#" not in self.source:
            raise ConfigError(
                f"source {masked(self.source)!r} is a journal's URL without a study: '#' and the "
                "study's name are missing, as in sqlite:///study.db#feed"
            )
        if self.is_journal and (self.scope or self.key_env):
            raise ConfigError(
                "a source that is a journal takes no scope and no key_env: these are for packages"
            )
        if not self.is_journal and self.scope is None:
            raise ConfigError(
                f"source {masked(self.source)!r} is a package, which may be used only for what its "
                "maker named: say for what under 'scope' (hyperzero transfer inspect shows it); a "
                "journal is named as journal-url#study"
            )

    @property
    def is_journal(self) -> bool:
        """Whether it is a study in a journal, not a package."""
        return "#" in self.source and ":" in self.source
