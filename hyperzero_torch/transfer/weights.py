"""What each source is worth to the target, by how well it predicted the target's own evidence.

The log marginal likelihood of the target's evidence given a source is the sum of the log densities
of its rows, each predicted before it counts (the prequential score). Its gain over what none of
the sources would have scored is the logarithm of a bet's wealth: while the sources tell nothing,
wealth has mean 1 at most, and it ever reaches 1 / alpha with probability alpha at most. So sources
may be asked at every look, and count only once they have won:

    wealth = 1/2 of all sources together + 1/2 of each alone, in equal parts
    of a hypothesis: product over metrics of (1/2 + 1/2 x mean over shares of its likelihood ratio)

The amplitude of the target's function, and its kernel, are the same on both sides of each bet.

Source: Dawid (1984), prequential analysis; Ville (1939); Shafer (2021), testing by betting.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import hierarchical
from .inducing import Spectrum

#: Correlations with the target that a source's bets are spread over.
CORRELATIONS = (0.3, 0.5, 0.7, 0.85, 0.95)
#: Shares of the target that bets on all sources together are spread over.
TARGET_SHARES = (0.5, 0.7, 0.85, 0.95)


class Scores(NamedTuple):
    """Nats by which the target's evidence is predicted better with sources than without.

    ``each (metrics, sources)`` by every source alone, ``together (metrics,)`` by all with the
    shares of their own agreement, both averaged over the correlations that were bet on;
    ``wealth`` the logarithm of the wealth of all bets.
    """

    each: Tensor
    together: Tensor
    wealth: float


def score(sources: Spectrum, share: Tensor, known: Tensor, target: Spectrum) -> Scores:
    """Bets of every source, and of all together, on the target's evidence.

    Args:
        sources: leading axes ``(metrics, sources)``.
        share: ``(metrics, sources)`` by the sources' own agreement.
        known: ``(metrics, sources)`` where a source has evidence at all.
        target: leading axes ``(metrics, 1)``.
    """
    each = hierarchical.told_by_each(sources, target, share.new_tensor(CORRELATIONS))
    each = torch.where(known, each.logsumexp(-1) - math.log(len(CORRELATIONS)), 0.0)
    together = torch.stack(
        [
            hierarchical.told(sources, target, share, share.new_full(share.shape[:1], own))
            for own in TARGET_SHARES
        ]
    )
    joint = together.logsumexp(0) - math.log(len(TARGET_SHARES))
    bets = torch.cat([joint.unsqueeze(1), each], dim=1)  # (metrics, 1 + sources)
    hedged = torch.logaddexp(bets, torch.zeros_like(bets)) - math.log(2)
    total = hedged.sum(0)
    num = each.shape[1]
    stake = total.new_tensor([0.5] + [0.5 / num] * num).log() if num > 1 else None
    wealth = float((total + stake).logsumexp(0)) if stake is not None else float(total[1])
    return Scores(each, joint, wealth)
