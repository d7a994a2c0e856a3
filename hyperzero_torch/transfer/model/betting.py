"""How well sources predict the target's evidence: bets on each source, and their e-value.

The log marginal likelihood of the target's evidence given a source is the sum of the log predictive
densities of its rows, each given the rows before it (the prequential score). Its excess over the
same without the source is a log Bayes factor. An average of Bayes factors with weights chosen in
advance is an e-value: while no source is informative its expectation is at most 1, and it ever
reaches 1 / alpha with probability at most alpha. So sources can be tested after every round:

    e-value = 1/2 of all sources together + 1/2 of each alone, by their stakes
    of a hypothesis: product over metrics of (1/2 + 1/2 x mean Bayes factor over loadings)

Stakes on sources and on correlations are fixed when a source is first weighed. They are larger for
domains whose features resemble the target's (``feature_similarity``): its control's levels, its
traffic and its users' noise, none of which shows which setting is better. Stakes that changed with
the evidence would not give an e-value.

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

#: Correlations with the target among which the bets on a source are spread.
CORRELATIONS = (0.3, 0.5, 0.7, 0.85, 0.95)
#: Loadings of the target among which the bets on all sources together are spread.
TARGET_LOADINGS = (0.5, 0.7, 0.85, 0.95)
# Similarity (``similarity.by_features``) of two ordinary domains; it leaves the stakes equal.
_ORDINARY = math.exp(-1)
# A domain with the target's features has three times the stake of an ordinary one, and three times
# the odds of the largest correlation over the middle one.
_TILT = math.log(3)


class Scores(NamedTuple):
    """Log Bayes factors of the target's evidence with sources against without, in nats.

    ``each (metrics, sources)`` of every source alone, and ``together (metrics,)`` of all with the
    loadings of their own agreement, both averaged over the correlations of the bets;
    ``log_e_value`` of all bets.
    """

    each: Tensor
    together: Tensor
    log_e_value: float


def feature_similarity(
    sources: Sequence[Mapping[str, float]], target: Mapping[str, float], like: Tensor
) -> Tensor:
    """How much more similar to the target a source is than an ordinary domain, ``(sources,)``.

    1 for the same features, 0 for an ordinary domain and where no features are known, down to
    -0.58 for a domain that is as different as can be.

    Args:
        like: a tensor of the wanted dtype and device.
    """
    domains = {str(i): _of_traffic(meta) for i, meta in enumerate(sources)}
    value = similarity.by_features(domains | {"target": _of_traffic(target)}).value[:-1, -1]
    return ((value - _ORDINARY) / (1 - _ORDINARY)).nan_to_num(nan=0.0).to(like)


def _of_traffic(meta: Mapping[str, float]) -> dict[str, float]:
    """Features without the one that is computed from the candidates' own deltas."""
    return {name: v for name, v in meta.items() if name.partition(":")[0] != "dispersion"}


def score(
    sources: Spectrum,
    loading: Tensor,
    has_evidence: Tensor,
    target: Spectrum,
    initial_similarity: Tensor,
) -> Scores:
    """Bets on every source, and on all together, by the target's evidence.

    Shapes as in ``coregionalization``; ``loading`` is by the sources' own agreement.

    Args:
        initial_similarity: ``(sources,)``, see ``feature_similarity``, when each was first weighed.
    """
    grid = loading.new_tensor(CORRELATIONS)
    each = coregionalization.log_bayes_factor_by_source(sources, target, grid)
    steps = torch.linspace(-1, 1, len(CORRELATIONS), dtype=loading.dtype, device=loading.device)
    log_stakes = (_TILT * initial_similarity.unsqueeze(-1) * steps).log_softmax(-1)
    each = torch.where(has_evidence, (each + log_stakes).logsumexp(-1), 0.0)
    shared = coregionalization.shared_posterior(sources, loading)
    by_loading = torch.stack(
        [
            coregionalization.log_bayes_factor(shared, target, loading.new_full((len(loading),), r))
            for r in TARGET_LOADINGS
        ]
    )
    together = by_loading.logsumexp(0) - math.log(len(TARGET_LOADINGS))
    bets = torch.cat([together.unsqueeze(1), each], dim=1)  # (metrics, 1 + sources)
    hedged = torch.logaddexp(bets, torch.zeros_like(bets)) - math.log(2)
    total = hedged.sum(0)
    log_e_value = float(total[1])
    if each.shape[1] > 1:
        alone = (total[1:] + (_TILT * initial_similarity).log_softmax(0)).logsumexp(0)
        log_e_value = float(torch.logaddexp(total[0], alone)) - math.log(2)
    return Scores(each, together, log_e_value)
