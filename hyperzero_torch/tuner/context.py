"""What one round is planned from, handed to every part of the planner."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.history import History


@dataclass(frozen=True, eq=False)
class RoundContext:
    """One round of a study while it is planned.

    Args:
        config: the study's configuration.
        history: a branch of the study's history, to which the planner adds its decisions.
        round: the round that is planned.
        seed: of the study.
    """

    config: TunerConfig
    history: History
    round: int
    seed: int

    @property
    def age(self) -> int:
        """Rounds since the study's first."""
        first = self.history.first_round
        return 0 if first is None else self.round - first

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of this round for one purpose."""
        return random(self.seed, self.round, purpose, torch.device(device))
