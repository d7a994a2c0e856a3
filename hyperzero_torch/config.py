"""How to tune (``TunerConfig``), and a whole study in one YAML file (``StudyConfig``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigError, HyperZeroError
from .problem import Problem
from .space import Parameter, SearchSpace, Value


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_reasons(type(self).__name__, error)) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            ConfigError: no such file, not of its format, or values that cannot be.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except OSError as error:
            raise ConfigError(f"the configuration {path.name!r} cannot be read: {error}") from None
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{path.name} is not valid {path.suffix}: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path.name} must hold a mapping, got {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_reasons(path.name, error)) from None


class TunerConfig(_Config):
    """What the tuner does each round. The default pools evidence and draws jointly.

    ``TunerConfig.paper()`` is Algorithms 1 to 3 to the letter.
    """

    num_draws: int = Field(default=1000, ge=1, le=1_000_000)
    """K: Thompson draws per round; each winner is one traffic slot."""
    num_samples: int = Field(default=1024, ge=1)
    """N: random points of the space among which a proposal is the best."""
    num_starts: int = Field(default=4, ge=0, le=1000)
    """Of these, how many of the best are moved uphill along their joint draw; 0 for none."""
    num_proposals: int = Field(default=4, ge=1, le=10_000)
    """New candidates per proposing round."""
    proposal_probability: float = Field(default=1.0, ge=0, le=1)
    """p: probability that a round proposes."""
    initial_candidates: int = Field(default=64, ge=1, le=100_000)
    """Size of the first bucket."""
    initial_design: Literal["sobol", "grid"] = "sobol"
    """How the first bucket covers the space."""
    control_share: float | Literal["auto"] = Field(default="auto")
    """Fraction of the traffic for the control; "auto" is the square-root rule."""
    max_control_share: float = Field(default=0.5, gt=0, lt=1)
    """Most traffic that "auto" gives to the control."""
    newcomer_slots: int = Field(default=5, ge=1)
    """Least slots of a candidate that has never been served, so that it is soon known."""
    max_arms: int = Field(default=256, ge=1)
    """Most candidates served at once, beside the control."""
    max_share: float = Field(default=0.5, gt=0, le=1)
    """Most traffic of one candidate."""
    max_share_rise: float = Field(default=0.25, gt=0, le=1)
    """Most by which a candidate's share may rise from one plan to the next."""
    verification_share: float = Field(default=0.65, ge=0, lt=1)
    """Slots for the candidates most worth verifying, reached after the first day."""
    retire_after: int | None = Field(default=24, ge=1)
    """Rounds in a row without a won draw after which a candidate competes no longer, until it is
    served again; None for never."""
    max_candidates: int | None = Field(default=512, ge=16)
    """Most candidates that the surrogate is fitted to: those that compete, and of the others those
    with the most evidence; None for all. Where ``retire_after`` is set, half of them compete at
    most, but never fewer than ``max_arms`` or ``initial_candidates``."""
    block_rounds: int | None = Field(default=168, ge=24)
    """Evidence older than one to two blocks of so many rounds is pooled once, block by block, so
    that a round takes no longer in a study of a year; None to pool all rounds anew each time."""
    caution: float = Field(default=1.0, ge=0, le=10)
    """Standard deviations by which a draw has to clear every constraint to win its slot."""
    min_prob_feasible: float = Field(default=0.9, ge=0, le=1)
    """What a recommendation must reach in P(feasible)."""
    harm_alpha: float | None = Field(default=0.01, gt=0, lt=0.5)
    """Probability, for each candidate, of ever being stopped for harm that it does not do; None
    for never stopping anyone."""
    drift_alpha: float | None = Field(default=0.001, gt=0, lt=0.5)
    """One over the rounds to a false alarm of drift; None for not watching."""
    draws: Literal["marginal", "joint"] = "joint"
    """Each candidate on its own, or coherent functions over the space."""
    evidence: Literal["own", "pooled"] = "pooled"
    """Select by each candidate's own average, or by the posterior, which neighbours share in."""
    weights: Literal["users", "precision"] = "precision"
    """Of a candidate's rounds: users (Eq. 3.2), or inverse variances from all arms of the round."""
    shared_control: bool = True
    """Let the surrogate know that all arms of a round share the error of its control."""
    calibrate: bool = True
    """Scale the variances of deltas by the scatter that they show from round to round."""
    anchor: bool = True
    """Let the surrogate know that the base's own deltas are exactly 0."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Two-sided level of the bounds in a recommendation."""
    transfer: Literal["shared", "ensemble"] = "shared"
    """How other domains are learnt from, where there are any: a hierarchical model of their
    evidence, or a ranking-weighted ensemble of their posteriors."""
    num_seeds: int = Field(default=12, ge=0, le=1000)
    """Candidates that other domains suggest when they are admitted; 0 for none."""
    seed_first: bool = False
    """Let other domains that agree among themselves suggest them for the first bucket already,
    before any evidence speaks for them."""
    rounds_per_day: int = Field(default=24, ge=1)
    """Period of the daily cycle, over which base levels are averaged."""

    def model_post_init(self, _: Any) -> None:
        """Refuse combinations that no field can refuse alone."""
        if self.control_share != "auto" and not 0 < self.control_share < 1:
            raise ConfigError(
                f"control_share must lie strictly between 0 and 1, or be 'auto', "
                f"got {self.control_share}; without a control there is no delta"
            )
        if self.evidence == "own" and self.draws == "joint":
            raise ConfigError(
                "draws='joint' needs evidence='pooled': a candidate's own average has no "
                "covariance with the others; use draws='marginal'"
            )

    @classmethod
    def paper(cls, **changes: Any) -> TunerConfig:
        """Algorithms 1 to 3 with the numbers of Appendix A (K = 1000, N = 600, p = 1)."""
        values: dict[str, Any] = {
            "num_draws": 1000,
            "num_samples": 600,
            "num_proposals": 1,
            "proposal_probability": 1.0,
            "initial_candidates": 100,
            "initial_design": "grid",
            "control_share": 0.1,
            "newcomer_slots": 1,
            "max_arms": 1000,
            "max_share": 1.0,
            "max_share_rise": 1.0,
            "verification_share": 0.0,
            "retire_after": None,
            "max_candidates": None,
            "block_rounds": None,
            "caution": 0.0,
            "harm_alpha": None,
            "drift_alpha": None,
            "num_starts": 0,
            "draws": "marginal",
            "evidence": "own",
            "weights": "users",
            "shared_control": False,
            "calibrate": False,
            "anchor": False,
        }
        return cls(**(values | changes))


class MetricConfig(_Config):
    """How one metric is made of users' events; by default each user's sum of the same name."""

    numerator: str | None = None
    """Events above the line of a ratio, e.g. clicks."""
    denominator: str | None = None
    """Events below it, e.g. impressions."""
    winsorise: float | None = Field(default=None, gt=0.5, le=1)
    """Quantile at which users' sums are clipped."""
    covariate: bool = False
    """Adjust by what the same users did before the experiment (CUPED)."""


class LiveConfig(_Config):
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


class StudyConfig(_Config):
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
    live: LiveConfig | None = None
    """Warehouse and platform, for ``hyperzero run``."""

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


def _reasons(what: str, error: ValidationError) -> str:
    lines = []
    for e in error.errors():
        place = ".".join(str(part) for part in e["loc"])
        cause = e.get("ctx", {}).get("error")
        message = str(cause) if isinstance(cause, HyperZeroError) else e["msg"]
        got = "" if e["type"] in ("missing",) else f", got {e['input']!r:.80}"
        lines.append(f"  - {place}: {message}{got}" if place else f"  - {message}")
    return f"{what} cannot be used:\n" + "\n".join(lines)
