"""What `step` and `status` say of an experiment for a part of all users."""

from __future__ import annotations

from ..study.config import TunerConfig
from ..study.plan import Plan
from .output import show


def whose_traffic(plan: Plan) -> str:
    """Whose traffic the shares of a plan divide."""
    part = plan.experiment_share
    return "the traffic" if part == 1 else f"an experiment with {part:.4g} of all users"


def show_experiment(config: TunerConfig) -> None:
    """Say it where not everybody takes part."""
    if config.experiment_share < 1:
        show(
            f"experiment: {config.experiment_share:.4g} of all users take part; the base is served "
            "to all others"
        )
