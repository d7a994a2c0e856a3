"""How to tune."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ...errors import ConfigError
from .base import Config


class TunerConfig(Config):
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
