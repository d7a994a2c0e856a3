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


def _guardrail(**changes: Any) -> Callable[[int, int, float], Environment]:
    return lambda seed, dims, traffic: GuardrailWorld(seed, dims, traffic=traffic, **changes)


def _paper(delay: int = 3) -> Callable[[int, int, float], Environment]:
    def make(seed: int, dims: int, traffic: float) -> Environment:
        if dims != 2:
            raise ValueError(f"the paper's world has 2 parameters, got --dims {dims}")
        return PaperWorld(PAPER_SEEDS[seed], draws_per_slot=50 * traffic, delay=delay)

    return make


def _replay(seed: int, dims: int, traffic: float) -> Environment:
    return ReplayWorld(seed=seed, num_params=dims, traffic=traffic)


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
}
