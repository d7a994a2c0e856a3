"""``random``: new uniform points every round. A contender that is not better has learnt nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from .contender import Peer, Seen


class Random(Peer):
    def propose(self, seen: Seen) -> Tensor:
        generator = self.generator(seen.round)
        return torch.rand(self.arms, self.dims, dtype=torch.float64, generator=generator)
