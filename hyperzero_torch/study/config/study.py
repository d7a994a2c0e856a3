"""A whole study in one YAML file: the problem, the tuner, other domains and the live system."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...errors import ConfigError
from ...problem.problem import Problem
from ...problem.space import Choice, Parameter, SearchSpace, Value
from ...surrogate.foreign.names import as_name
from .base import Config
from .monitoring import AlertsConfig, MonitoringConfig, UnleashConfig
from .reasons import masked
from .tuner import TunerConfig
from .variables import Variables

_PUBLIC_KEY = re.compile("ed25519:[0-9a-f]{64}")


class MetricConfig(Config):
    """How a metric is computed from events; by default each user's sum of the same name."""

    numerator: str | None = None
    """Metric of the events in the numerator of a ratio, e.g. clicks."""
    denominator: str | None = None
    """Metric of the events in the denominator, e.g. impressions."""
    winsorise: float | None = Field(default=None, gt=0.5, le=1)
    """Quantile at which users' sums are clipped."""
    covariate: bool = False
    """Adjust for the same users' values before the experiment (CUPED)."""


class LiveConfig(Config):
    """The live system of ``hyperzero run``; relative paths start at the configuration file."""

    exposures: str
    """Glob of Parquet files: user, round, candidate."""
    events: str
    """Glob of Parquet files: user, round, metric, value[, arrived]."""
    covariates: str | None = None
    """Glob of Parquet files from before the experiment: user, metric, value."""
    flags: str | None = None
    """flagd definition file that plans are written to; other flags in it are kept."""
    table: str | None = None
    """JSON table that plans are written to, for platforms without flagd."""
    growthbook: str | None = None
    """JSON file of GrowthBook's features, of which one carries the table; others are kept."""
    unleash: UnleashConfig | None = None
    """A feature of Unleash that carries the table."""
    flag: str = Field(default="value-model", min_length=1)
    """Key of the flag; for a table, the salt of its hash."""
    hash: Literal["blake2b", "sha256"] = "blake2b"
    """Hash by which a table assigns users; ``sha256`` for readers in SQL and other languages."""
    round_seconds: float = Field(default=3600.0, gt=0)
    """Length of a round in seconds."""
    lease_rounds: float = Field(default=2.0, ge=1, le=1000)
    """Rounds, from the beginning of its own, for which a plan is served where no later one comes.
    After that the flags or the table serve the control by themselves."""
    lateness: int = Field(default=6, ge=2)
    """Number of rounds in which late events still revise readings."""
    max_events: int | None = Field(default=None, ge=1)
    """Users with more events than this in one round are excluded as bots; None excludes nobody."""
    srm_alpha: float = Field(default=0.0005, ge=0, lt=1)
    """False-alarm rate per round of the sample-ratio-mismatch test; 0 turns it off, and with it the
    tuner's own (``traffic.srm_alpha``), unless the file names that too."""
    keep_readings: int | None = Field(default=None, ge=0)
    """Rounds whose readings are kept; older ones are compacted into evidence once their block is
    settled (see ``TunerConfig.block_rounds``), which changes no estimate. None keeps all."""
    metrics: dict[str, MetricConfig] = Field(default_factory=dict)
    """How metrics are computed from events, where they are not plain sums."""
    monitoring: MonitoringConfig = Field(default_factory=MonitoringConfig)
    """Where Prometheus metrics and the state of the loop are served."""
    alerts: AlertsConfig | None = None
    """A webhook that events are sent to."""

    def model_post_init(self, _: Any) -> None:
        """Require exactly one platform."""
        platforms = (self.flags, self.table, self.growthbook, self.unleash)
        if sum(platform is not None for platform in platforms) != 1:
            raise ConfigError(
                "live: name either flags (a flagd file) or table (a JSON file), or growthbook or "
                "unleash; exactly one"
            )
        if self.hash != "blake2b" and self.table is None:
            raise ConfigError("live: hash is for a table; other platforms have one hash")
        has_slash = "/" in self.flag and self.flags is None
        if has_slash and (self.table is None or self.hash == "sha256"):
            raise ConfigError("live: with hash: sha256 the flag, which is the salt, has no slash")

    @property
    def place(self) -> str:
        """Where plans are served, for messages: a file, or a feature of Unleash."""
        if self.unleash is not None:
            return f"feature {self.flag!r} of Unleash"
        return str(self.file)

    @property
    def file(self) -> str | None:
        """The file that plans are written to, relative to the study file; None for Unleash."""
        return self.flags or self.table or self.growthbook


class RescaledConfig(Config):
    """A parameter that has another name or another unit in the source."""

    name: str = Field(min_length=1)
    """Its name in the source."""
    factor: float = 1.0
    """The study's value is this many times the source's."""


class SourceConfig(Config):
    """Another domain to learn from; in a file, a plain text stands for its ``source``."""

    source: str = Field(min_length=1, repr=False)  # may hold a password
    """A transfer package, relative to the study file, or ``journal-url#study``."""
    name: str | None = Field(default=None, min_length=1)
    """Its name in this study's journal; by default the source study's name, or the file's stem."""
    scope: str | None = Field(default=None, min_length=1)
    """The use of a package in this study; its maker must have allowed this use."""
    signers: tuple[str, ...] = ()
    """Public keys of which one must have signed a package; none: unsigned ones are taken too."""
    map: dict[str, str | RescaledConfig] = Field(default_factory=dict)
    """From names of parameters and metrics in this study to those in the source, with a factor
    where a parameter's unit differs."""
    ignore: tuple[str, ...] = ()
    """Parameters that the source varied, and whose effect is ignored here."""
    refresh: int | None = Field(default=168, ge=1)
    """Rounds after which it is read again; None for never. An alarm of drift also rereads it."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, dict) and "key_env" in value:
            raise ConfigError(
                "key_env: packages are no longer signed with a shared key; name their maker's "
                "public key under 'signers' (hyperzero transfer keygen)"
            )
        return {"source": value} if isinstance(value, str) else value

    @field_validator("signers")
    @classmethod
    def _public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse anything but public keys, without repeating it: it may be a private one."""
        if not all(_PUBLIC_KEY.fullmatch(key) for key in value):
            raise ConfigError(
                "a public key is written as ed25519: and 64 hexadecimal digits, as 'hyperzero "
                "transfer keygen' prints it"
            )
        return value

    def model_post_init(self, _: Any) -> None:
        """Require a study for a journal, and a scope for a package only."""
        if "://" in self.source and "#" not in self.source:
            raise ConfigError(
                f"source {masked(self.source)!r} is a journal's URL without a study: '#' and the "
                "study's name are missing, as in sqlite:///study.db#feed"
            )
        if self.is_journal and (self.scope or self.signers):
            raise ConfigError(
                "a source that is a journal takes no scope and no signers: these are for packages"
            )
        if not self.is_journal and self.scope is None:
            raise ConfigError(
                f"source {masked(self.source)!r} is a package, which may be used only as its maker "
                "allowed: name the use under 'scope' (hyperzero transfer inspect shows the allowed "
                "ones); a journal is named as journal-url#study"
            )

    @property
    def is_journal(self) -> bool:
        """Whether it is a study in a journal, not a package."""
        return "#" in self.source and ":" in self.source


class StudyConfig(Config):
    """The file that ``hyperzero init`` writes and ``hyperzero step`` reads."""

    study: str = Field(default="default", min_length=1)
    """Name of the study in the journal."""
    journal: str = Field(default="sqlite:///study.db", repr=False)  # may hold a password
    """Journal URL; a relative SQLite path is relative to the configuration file."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    parameters: tuple[Parameter, ...] = Field(min_length=1)
    """The parameters to tune."""
    theta_constraints: tuple[str, ...] = ()
    """Linear constraints on the parameters; no theta outside them is ever served."""
    base: dict[str, Value]
    """The control's parameters."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Names of the metrics in the readings."""
    objective: str
    """The quantity to maximise: an expression of deltas and levels."""
    constraints: tuple[str, ...] = ()
    """Guardrails, e.g. ``"watch_time >= -0.1%"``."""
    base_levels: dict[str, float] | None = None
    """The control's levels, for terms with ``level(...)``; estimated where they are not given."""
    traffic: TunerConfig = Field(default_factory=lambda: TunerConfig())
    """How traffic is divided: any field of TunerConfig."""
    surrogate: str | None = None
    """The model: a name of ``surrogate.foreign.names``, or ``"module:function"`` for a factory."""
    prior_mean: str | None = Field(default=None, min_length=1, repr=False)  # may hold a password
    """The deltas expected before there is evidence: ``"module:function"`` for a function of theta,
    or ``"journal-url#study"`` for another study's mean, up to a round with ``@round``."""
    sources: tuple[SourceConfig, ...] = ()
    """Other domains to learn from; see ``hyperzero transfer``."""
    revocations: str | None = Field(default=None, min_length=1)
    """File of keys and packages not to be used, relative to this file, as ``hyperzero transfer
    revoke`` writes it."""
    export_without_noise: bool = False
    """Whether ``hyperzero transfer export`` may write the evidence without differential privacy."""
    live: LiveConfig | None = None
    """Event files and platform, for ``hyperzero run``."""

    @field_validator("parameters")
    @classmethod
    def _of_one_type(cls, parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
        """Refuse options of several types: one of them was most likely meant as a text."""
        for parameter in parameters:
            if not isinstance(parameter, Choice):
                continue
            examples: dict[str, Value] = {}
            for option in parameter.options:
                examples.setdefault(_type_of(option), option)
            if len(examples) > 1:
                named = ", ".join(f"{option!r} is {kind}" for kind, option in examples.items())
                raise ConfigError(
                    f"the options of {parameter.name!r} are of several types: {named}; write all "
                    "in one type (a value in quotes is a text, e.g. '1', 'true')"
                )
        return parameters

    @field_validator("surrogate")
    @classmethod
    def _of_a_name(cls, value: str | None) -> str | None:
        """Refuse what is neither a name nor a reference."""
        return None if value is None else as_name(value)

    @field_validator("sources", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """Refuse anything but a list, with an example of one."""
        if not isinstance(value, list | tuple):
            raise ConfigError(
                "expected a list of sources, e.g. ['sqlite:///north.db#feed', {source: "
                "north.json, scope: feed/south}]; [] for none"
            )
        return value

    def model_post_init(self, _: Any) -> None:
        """Refuse descriptions of metrics that the study does not have."""
        unknown = sorted(set(self.live.metrics) - set(self.metrics)) if self.live else []
        if unknown:
            raise ConfigError(
                f"live.metrics describes {unknown}, the study's metrics are {list(self.metrics)}"
            )

    @classmethod
    def _of_file(cls, name: str, values: dict[str, Any]) -> Self:
        """Fill in the variables of addresses first; no message shows a value of theirs."""
        variables = Variables()
        try:
            return super()._of_file(name, variables.filled(values))
        except ConfigError as error:
            faults = [(place, variables.hide(what)) for place, what in error.faults]
            text = str(error) if faults and str(error).startswith(name) else f"{name}: {error}"
            raise ConfigError(variables.hide(text), faults) from None

    @property
    def tuner(self) -> TunerConfig:
        """The configuration of the tuner: ``traffic``, and what ``live`` turns off."""
        is_off = self.live is not None and self.live.srm_alpha == 0
        if is_off and "srm_alpha" not in self.traffic.model_fields_set:
            return self.traffic.model_copy(update={"srm_alpha": None})
        return self.traffic

    def journal_url(self, folder: Path) -> str:
        """The journal's URL, with a relative SQLite path taken from ``folder``.

        Raises:
            JournalError: the URL is not understood.
            ConfigError: a journal in memory.
        """
        from ..journal.address import Address, placed  # SQLAlchemy only where it is used

        address = Address.of(self.journal)
        if address.is_sqlite and address.file is None:
            raise ConfigError(
                f"journal: {self.journal!r} is in memory and lost when the command ends; name a "
                "file, e.g. sqlite:///study.db"
            )
        return placed(self.journal, folder)

    def problem(self) -> Problem:
        """The problem that the file describes.

        Raises:
            SpaceError, ProblemError: the space or the problem is not valid.
        """
        return Problem(
            space=SearchSpace(self.parameters, self.theta_constraints),
            base=self.base,
            metrics=self.metrics,
            objective=self.objective,
            constraints=self.constraints,
            base_levels=self.base_levels,
        )


def _type_of(option: Value) -> str:
    if isinstance(option, bool):
        return "true or false"
    return "a text" if isinstance(option, str) else "a number"
