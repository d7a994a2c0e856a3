"""All randomness of a study is a function of (seed, round, purpose)."""

from __future__ import annotations

import hashlib

import torch


def random(seed: int, round: int, purpose: str, device: torch.device) -> torch.Generator:
    """The generator of one purpose in one round, so that any round can be replayed alone."""
    digest = hashlib.sha256(f"{seed}/{round}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
