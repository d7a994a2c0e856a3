"""Worlds with known true effects, one per file, and the closed loop on them."""

from .environment import Delivery, Environment, Oracle, Truth
from .guardrail import GuardrailWorld
from .paper import PAPER_SEEDS, PaperWorld
from .recommender.world import Assignment, ValueModelWorld, one_by_one
from .replay import ReplayWorld
from .run import RoundRecord, run

__all__ = [
    "PAPER_SEEDS",
    "Assignment",
    "Delivery",
    "Environment",
    "GuardrailWorld",
    "Oracle",
    "PaperWorld",
    "ReplayWorld",
    "RoundRecord",
    "Truth",
    "ValueModelWorld",
    "one_by_one",
    "run",
]
