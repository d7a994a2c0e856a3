"""How the tuner plans a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ...errors import ConfigError
from .base import Config
from .exposure import HarmBudget, PlausibleLift
from .horizon import Horizon

#: Options that earlier versions had, and why they are gone.
_REMOVED = {
    "transfer": "the ranking-weighted ensemble is gone, and sources are always combined by the "
    "hierarchical model; remove the option",
}


def upcast(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a journal or a state stores it, without options that are gone."""
    return {name: value for name, value in stored.items() if name not in _REMOVED}


class TunerConfig(Config):
    """How the tuner plans a round. The default pools evidence and makes joint draws.

    ``TunerConfig.paper()`` gives Algorithms 1 to 3 exactly as published.
    """

    num_draws: int = Field(default=1000, ge=1, le=1_000_000)
    """K: Thompson draws per round; each winner is one traffic slot."""
    num_samples: int = Field(default=1024, ge=1)
    """N: random points of the space from which a draw proposes the best."""
    num_starts: int = Field(default=4, ge=0, le=1000)
    """Number of the best of these that start a gradient ascent of the draw; 0 for none."""
    num_proposals: int = Field(default=4, ge=1, le=10_000)
    """New candidates per round that proposes."""
    proposal_probability: float = Field(default=1.0, ge=0, le=1)
    """p: probability that a round proposes new candidates."""
    initial_candidates: int = Field(default=64, ge=1, le=100_000)
    """Size of the first bucket."""
    initial_design: Literal["sobol", "grid"] = "sobol"
    """How the first bucket covers the space."""
    start: Literal["everywhere", "near"] = "everywhere"
    """Where candidates come from at first: ``"everywhere"`` finds the best region soonest;
    ``"near"`` begins around the base, and goes further as guardrails prove to hold."""
    start_radius: float = Field(default=0.2, gt=0, le=1)
    """For ``start="near"``: the part of the way from the base to each parameter's bounds."""
    plausible_lift: PlausibleLift | None = None
    """By metric, the largest lift, up or down, that is plausible for most of the space, such as
    ``{"watch_time": 0.05}``. It is two standard deviations of the prior, so the harm of untested
    candidates is estimated before there is evidence."""
    harm_budget: HarmBudget | None = None
    """Limits of the expected harm per round and per day; None for none."""
    control_share: float | Literal["auto"] = Field(default="auto")
    """Fraction of the traffic for the control; ``"auto"`` applies the square-root rule."""
    experiment_share: float = Field(default=1.0, gt=0, le=1)
    """Fraction of all users that takes part. All others are served the base and are not counted;
    the control and the candidates share out the users that take part."""
    approval_above: float | None = Field(default=None, gt=0, lt=1)
    """A plan that raises a candidate over this share waits until somebody other than its proposer
    approves it, and the last approved plan is served until then; None: no plan waits."""
    max_control_share: float = Field(default=0.5, gt=0, lt=1)
    """Upper limit of the control's share under ``"auto"``."""
    newcomer_slots: int = Field(default=5, ge=1)
    """Minimum slots of a candidate that has never been served, for a first measurement."""
    max_arms: int = Field(default=256, ge=1)
    """Upper limit of the candidates in one plan, without the control."""
    max_share: float = Field(default=0.5, gt=0, le=1)
    """Upper limit of one candidate's share of the traffic."""
    max_share_rise: float = Field(default=0.25, gt=0, le=1)
    """Upper limit of the rise of a candidate's share from one plan to the next."""
    max_untested_share: float = Field(default=0.02, gt=0, le=1)
    """Upper limit of the share of a candidate without own evidence on every guardrail's metric,
    and of one that is more likely to break a guardrail than not."""
    max_untested_total: float = Field(default=0.2, gt=0, le=1)
    """The same for all candidates without such evidence together."""
    max_risky_total: float = Field(default=0.1, gt=0, le=1)
    """The same for all candidates together that are more likely to break a guardrail than not.
    Where other candidates have slots as well, it is this part of their own slots."""
    max_risk: float = Field(default=0.2, gt=0, le=1)
    """Upper limit of a plan's expected violation, as a part of what it would be if everybody were
    served a random theta."""
    verification_share: float = Field(default=0.65, ge=0, lt=1)
    """Fraction of the slots that verifies the leading candidates; it is reached after one day."""
    retire_after: int | None = Field(default=24, ge=1)
    """A candidate that wins no draw in this many rounds in a row retires: draws no longer consider
    it until it is served again. None for never."""
    max_candidates: int | None = Field(default=512, ge=16)
    """Upper limit of the candidates that the surrogate is fitted to: those that compete, and of the
    others those with the most evidence; None for all. Where ``retire_after`` is set, at most half
    of them compete, but never fewer than ``max_arms`` or ``initial_candidates``."""
    block_rounds: int | None = Field(default=168, ge=24)
    """Evidence older than one to two blocks of this many rounds is pooled once, block by block, so
    that the time of a round does not grow with the study; None to pool all rounds every time."""
    caution: float = Field(default=1.0, ge=0, le=10)
    """Standard deviations by which a candidate must meet every constraint in a draw to win it."""
    min_prob_feasible: float = Field(default=0.9, ge=0, le=1)
    """Minimum probability that a recommendation meets all constraints and beats the base."""
    harm_alpha: float | None = Field(default=0.01, gt=0, lt=0.5)
    """Probability, for each candidate, that it is ever stopped although it is harmless; None to
    stop no candidate."""
    drift_alpha: float | None = Field(default=0.001, gt=0, lt=0.5)
    """False alarms of drift per round: at most one in ``1 / drift_alpha`` rounds; None turns the
    detector off."""
    srm_alpha: float | None = Field(default=0.0005, gt=0, lt=0.5)
    """Sample ratio mismatch. Probability, per round, that a round is named although its users fit
    the planned shares; and over all hours and candidates, that an arm is ever withdrawn although it
    keeps its users. None to compare nothing."""
    draws: Literal["marginal", "joint"] = "joint"
    """Draw each candidate independently, or sample whole functions over the space."""
    evidence: Literal["own", "pooled"] = "pooled"
    """Select by each candidate's own average, or by the posterior given all candidates."""
    weights: Literal["users", "precision"] = "precision"
    """Weights of a candidate's rounds: users (Eq. 3.2), or inverse variances from all arms of the
    round."""
    shared_control: bool = True
    """Model the error of the control, which all arms of a round share."""
    calibrate: bool = True
    """Scale the variances of deltas by their observed scatter from round to round."""
    anchor: bool = True
    """Fit with the base as a point whose deltas are exactly 0."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Two-sided level of the bounds in a recommendation."""
    num_seeds: int = Field(default=12, ge=0, le=1000)
    """Number of candidates that sources suggest when they are first used; 0 for none."""
    seed_first: bool = False
    """Sources that agree with each other suggest candidates in the first round already, before
    there is evidence that they help."""
    rounds_per_day: int = Field(default=24, ge=1)
    """Rounds of one daily cycle, over which base levels are averaged."""
    horizon: Horizon = 72
    """When a decision is due: rounds from the first one on, and again after as many, or a date. It
    changes no plan; ``Tuner.resolution`` says which lifts can be proved until then."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_removed(cls, values: Any) -> Any:
        """Say why an option is gone, rather than that it is unknown."""
        for name, reason in _REMOVED.items():
            if isinstance(values, Mapping) and name in values:
                raise ConfigError(f"the option {name!r} no longer exists: {reason}")
        return values

    def model_post_init(self, _: Any) -> None:
        """Refuse combinations of fields that are not valid together."""
        if self.control_share != "auto" and not 0 < self.control_share < 1:
            raise ConfigError(
                f"control_share must lie strictly between 0 and 1, or be 'auto', "
                f"got {self.control_share}; without a control there is no delta"
            )
        if self.max_untested_total < self.max_untested_share:
            raise ConfigError(
                f"max_untested_total={self.max_untested_total:g} is less than max_untested_share="
                f"{self.max_untested_share:g}: all untested candidates together would get less "
                "than one of them may; raise the first or lower the second"
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
            "max_untested_share": 1.0,
            "max_untested_total": 1.0,
            "max_risky_total": 1.0,
            "max_risk": 1.0,
            "verification_share": 0.0,
            "retire_after": None,
            "max_candidates": None,
            "block_rounds": None,
            "caution": 0.0,
            "harm_alpha": None,
            "drift_alpha": None,
            "srm_alpha": None,
            "num_starts": 0,
            "draws": "marginal",
            "evidence": "own",
            "weights": "users",
            "shared_control": False,
            "calibrate": False,
            "anchor": False,
        }
        return cls(**(values | changes))
