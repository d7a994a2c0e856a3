"""What each source is worth to the target, by how well it predicted the target's own evidence.

The log marginal likelihood of the target's evidence given a source is the sum of the log densities
of its rows, each predicted before it counts (the prequential score). Its gain over what none of
the sources would have scored is the logarithm of a bet's wealth: while the sources tell nothing,
wealth has mean 1 at most, and it ever reaches 1 / alpha with probability alpha at most. So sources
may be asked at every look, and count only once they have won:

    wealth = 1/2 of all sources together + 1/2 of each alone, by their stakes
    of a hypothesis: product over metrics of (1/2 + 1/2 x mean over shares of its likelihood ratio)

Which source a bet is on, and on which correlation, is staked once, when a source is first weighed,
more on domains that look like the target (``likeness``): by its control's levels, its traffic and
its users' noise, none of which tells which setting is better. Stakes that moved with the evidence
would not be a bet.

The amplitude of the target's function, and its kernel, are the same on both sides of each bet.

Source: Dawid (1984), prequential analysis; Ville (1939); Shafer (2021), testing by betting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import similarity
from . import coregionalization
from .inducing import Spectrum

#: Correlations with the target that a source's bets are spread over.
CORRELATIONS = (0.3, 0.5, 0.7, 0.85, 0.95)
#: Shares of the target that bets on all sources together are spread over.
TARGET_SHARES = (0.5, 0.7, 0.85, 0.95)
# Two ordinary domains are this alike (``similarity.by_features``): then nothing is tilted.
_ORDINARY = math.exp(-1)
# A domain just like the target has three times the stake of an ordinary one, and three times the
# odds of the largest correlation over the middle one.
_TILT = math.log(3)


class Scores(NamedTuple):
    """Nats by which the target's evidence is predicted better with sources than without.

    ``each (metrics, sources)`` by every source alone, ``together (metrics,)`` by all with the
    shares of their own agreement, both averaged over the correlations that were bet on;
    ``wealth`` the logarithm of the wealth of all bets.
    """

    each: Tensor
    together: Tensor
    wealth: float


def likeness(
    sources: Sequence[Mapping[str, float]], target: Mapping[str, float], like: Tensor
) -> Tensor:
    """How much more alike the target a source looks than an ordinary domain, ``(sources,)``.

    1 for one that looks the same, 0 for an ordinary one and where no features are known, down to
    -0.58 for one that looks like none.

    Args:
        sources: meta-features of each.
        target: its own.
        like: of the dtype and on the device of the result.
    """
    domains = {str(i): _unseen(meta) for i, meta in enumerate(sources)}
    value = similarity.by_features(domains | {"target": _unseen(target)}).value[:-1, -1]
    return ((value - _ORDINARY) / (1 - _ORDINARY)).nan_to_num(nan=0.0).to(like)


def _unseen(meta: Mapping[str, float]) -> dict[str, float]:
    """Features without the one that rests on the candidates' own deltas."""
    return {name: v for name, v in meta.items() if name.partition(":")[0] != "dispersion"}


def score(
    sources: Spectrum, share: Tensor, known: Tensor, target: Spectrum, alike: Tensor
) -> Scores:
    """Bets of every source, and of all together, on the target's evidence.

    Args:
        sources: leading axes ``(metrics, sources)``.
        share: ``(metrics, sources)`` by the sources' own agreement.
        known: ``(metrics, sources)`` where a source has evidence at all.
        target: leading axes ``(metrics, 1)``.
        alike: ``(sources,)``, see ``likeness``; as it was when each source was first weighed.
    """
    each = coregionalization.told_by_each(sources, target, share.new_tensor(CORRELATIONS))
    steps = torch.linspace(-1, 1, len(CORRELATIONS), dtype=share.dtype, device=share.device)
    staked = (_TILT * alike.unsqueeze(-1) * steps).log_softmax(-1)
    each = torch.where(known, (each + staked).logsumexp(-1), 0.0)
    known_of_shared = coregionalization.factor(sources, share)
    together = torch.stack(
        [
            coregionalization.told(known_of_shared, target, share.new_full(share.shape[:1], own))
            for own in TARGET_SHARES
        ]
    )
    joint = together.logsumexp(0) - math.log(len(TARGET_SHARES))
    bets = torch.cat([joint.unsqueeze(1), each], dim=1)  # (metrics, 1 + sources)
    hedged = torch.logaddexp(bets, torch.zeros_like(bets)) - math.log(2)
    total = hedged.sum(0)
    num = each.shape[1]
    wealth = float(total[1])
    if num > 1:
        singly = (total[1:] + (_TILT * alike).log_softmax(0)).logsumexp(0)
        wealth = float(torch.logaddexp(total[0], singly)) - math.log(2)
    return Scores(each, joint, wealth)
