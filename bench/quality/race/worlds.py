"""The worlds by name; a seed is a world of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperzero_torch.simulate import (
    PAPER_SEEDS,
    Environment,
    GuardrailWorld,
    PaperWorld,
    ReplayWorld,
)

from .siblings import SiblingWorld


def _guardrail(**changes: Any) -> Callable[[int, int, float], Environment]:
    return lambda seed, dims, traffic: GuardrailWorld(seed, dims, traffic=traffic, **changes)


def _sibling(**changes: Any) -> Callable[[int, int, float], Environment]:
    return lambda seed, dims, traffic: SiblingWorld(seed, dims, traffic=traffic, **changes)


def _paper(delay: int = 3) -> Callable[[int, int, float], Environment]:
    def make(seed: int, dims: int, traffic: float) -> Environment:
        if dims != 2:
            raise ValueError(f"the paper's world has 2 parameters, got --dims {dims}")
        return PaperWorld(PAPER_SEEDS[seed], draws_per_slot=50 * traffic, delay=delay)

    return make


def _replay(seed: int, dims: int, traffic: float) -> Environment:
    return ReplayWorld(seed=seed, num_params=dims, traffic=traffic)


#: Kinds on which nothing in the package is tuned, and ``smooth``, the family that they differ from.
SIBLINGS: dict[str, Callable[[int, int, float], Environment]] = {
    "smooth": _sibling(),
    "matern": _sibling(surface="matern"),
    "additive": _sibling(surface="additive"),
    "kink": _sibling(surface="kink"),
    "small": _sibling(largest=0.02),
    "large": _sibling(largest=0.1),
    "weak_hours": _sibling(weak_hours=True),
    "corner": _sibling(at_corner=True),
}

#: From a name to what makes a world of (seed, dims, traffic).
WORLDS: dict[str, Callable[[int, int, float], Environment]] = {
    "guardrail": _guardrail(),
    "paper": _paper(),
    "paper_delay_0": _paper(0),
    "paper_delay_6": _paper(6),
    "paper_delay_12": _paper(12),
    "replay": _replay,
    "drift": _guardrail(drift=0.02),
    "tails": _guardrail(heavy_tails=True),
    "neural": _guardrail(objective="neural", num_gains=2),
    "five": _guardrail(num_gains=2, num_guardrails=3),
    "infeasible": _guardrail(feasible=False),
    **SIBLINGS,
}
