"""The target's posterior with the sources' evidence in it, beside the cold one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...surrogate import Hyperparameters, Posterior, leave_one_out_log_density
from . import betting, coregionalization
from .betting import Scores
from .family import Family
from .inducing import Reduced, Spectrum, reduce, spectrum

# Tried for the variance of the target's function, times what its family's is like.
_STEPS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)
# Standard deviation of a domain's log variance around its family's.
_SPREAD = 0.3
# Of the prior's standard deviations, for domains that look the same.
_TILT = 0.5
#: Nats that a source alone has to be worth in a metric for its share there to be above 0.
LEAST_WORTH = 0.5


class Learned(NamedTuple):
    """What the target's evidence makes of the sources.

    ``share (metrics, sources + 1)``, the target's last, all of them 0 where a metric takes nothing
    from the sources; ``scores`` of the bets behind it; ``variance (metrics,)`` of the target's
    function, standardised; ``target`` its evidence in units of that.
    """

    share: Tensor
    scores: Scores
    variance: Tensor
    target: Spectrum


def learn(
    family: Family,
    cold: Posterior,
    alike: Tensor | None = None,
    staked: Tensor | None = None,
    least_worth: float = LEAST_WORTH,
) -> Learned:
    """Shares, amplitudes and scores by the target's evidence, in the cold posterior's units.

    Args:
        family: the sources.
        cold: the target by itself.
        alike: ``(sources,)`` how alike the target they look (``weights.likeness``); where None,
            like ordinary domains.
        staked: the same when each was first weighed, by which bets are staked; ``alike`` if None.
        least_worth: nats that a source alone has to be worth for its share to be above 0.
    """
    alike = family.share.new_zeros(len(family.names)) if alike is None else alike
    staked = alike if staked is None else staked
    typical = typical_variance(family) / cold.standardiser.scale.square()
    typical = torch.where(typical > 0, typical, cold.hyperparameters.outputscale)
    variance = cold.x.new_tensor(_STEPS).unsqueeze(-1) * typical  # (steps, metrics)
    reduced = _reduced(family, cold, variance)
    spectra = spectrum(reduced)
    observed = cold.noise.isfinite().sum(-1)
    away = (variance / typical).log() / _SPREAD
    fixed = reduced.constant - 0.5 * observed * variance.log() - 0.5 * away.square()
    none = torch.zeros_like(typical).unsqueeze(1)
    level = torch.stack(
        [coregionalization.log_evidence(_step(spectra, g), none) for g in range(len(variance))]
    )
    best = (level + fixed).argmax(0)
    target = _picked(spectra, best)
    scores = betting.score(family.spectrum, family.share, family.known, target, staked)
    pinned = family.pinned.isfinite()
    kept = ((scores.each > least_worth) | pinned) & family.known & (family.share > 0)
    median, spread = expected_shares(family, kept, alike)
    share = coregionalization.shares(family.spectrum, target, median, spread)
    # Its amplitude is seen better beside the sources; the bets were made without them.
    known = coregionalization.factor(family.spectrum, share[:, :-1])
    told = torch.stack(
        [
            coregionalization.told(known, _step(spectra, g), share[:, -1])
            for g in range(len(variance))
        ]
    )
    best = (told + level + fixed).argmax(0)
    share = coregionalization.shares(family.spectrum, _picked(spectra, best), median, spread, share)
    told_of = torch.where(
        kept & pinned, (family.pinned / share[:, -1:]).nan_to_num().clamp(0, 0.99), share[:, :-1]
    )
    share = torch.cat([told_of, share[:, -1:]], 1)
    share = torch.where((told_of > 0).any(1, keepdim=True), share, 0.0)
    size = variance.gather(0, best.unsqueeze(0))[0]
    return Learned(share, scores, size, _picked(spectra, best))


def posterior(family: Family, cold: Posterior, found: Learned) -> Posterior:
    """The exact posterior of the target with the sources' pseudo-observations as rows.

    Metrics whose shares are 0 are as in the cold one.
    """
    constant = cold.hyperparameters.constant
    size, own = found.variance, found.share[:, -1]
    value, covariance = pseudo_rows(family, found.share, size)
    value = value + constant.unsqueeze(-1)
    m, n = value.shape[1], len(cold.x)
    noise = covariance.diagonal(dim1=-2, dim2=-1)
    uses = own > 0
    shared = covariance.new_zeros(len(value), m + n, m + n)
    shared[:, :m, :m] = (covariance - torch.diag_embed(noise)) * uses[:, None, None]
    if cold.shared_noise is not None:
        shared[:, m:, m:] = cold.shared_noise
    lengthscale, outputscale, _ = cold.hyperparameters
    hyperparameters = Hyperparameters(
        torch.where(uses.unsqueeze(1), family.inducing.lengthscale, lengthscale),
        torch.where(uses, size, outputscale),
        constant,
    )
    noise = torch.where(uses.unsqueeze(1), noise, torch.inf)
    return Posterior(
        torch.cat([family.inducing.z, cold.x]),
        torch.cat([value, _observed(cold)], 1).T,
        torch.cat([noise, cold.noise], 1).T,
        hyperparameters,
        cold.standardiser,
        shared,
        fit_succeeded=cold.fit_succeeded,
    )


def pseudo_rows(family: Family, share: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """What the sources say of the target at the inducing points, around its constant.

    Args:
        family: the sources.
        share: ``(metrics, sources + 1)``.
        variance: ``(metrics,)`` of the target's function.
    Returns:
        Pseudo-observations ``(metrics, m)`` and the covariance of their noise ``(metrics, m, m)``.
    """
    known = coregionalization.factor(family.spectrum, share[:, :-1])
    told = coregionalization.message(known, share[:, -1])
    root = family.inducing.root
    value = (root @ told.value.unsqueeze(-1)).squeeze(-1) * variance.sqrt().unsqueeze(-1)
    return value, variance[:, None, None] * (root @ told.noise @ root.mT)


def left_out(posterior: Posterior, last: int) -> Tensor:
    """Log density of the last rows of each metric, each predicted from all others, ``(m,)``."""
    fields = posterior.cholesky, posterior.weights, posterior.observed
    return leave_one_out_log_density(*fields)[:, -last:].sum(-1)


def _reduced(family: Family, cold: Posterior, variance: Tensor) -> Reduced:
    """The target's evidence for every ``variance (steps, metrics)``."""
    projected = family.inducing.project(cold.x)
    y, noise, shared = _observed(cold), cold.noise, cold.shared_noise
    made = [
        reduce(
            projected,
            y / size.sqrt().unsqueeze(-1),
            noise / size.unsqueeze(-1),
            None if shared is None else shared / size[:, None, None],
            1.0 / size,
        )
        for size in variance
    ]
    return Reduced(*(torch.stack(fields) for fields in zip(*made)))


def typical_variance(family: Family) -> Tensor:
    """Variance of the family's functions, in the metric's unit squared; 0 where none is known."""
    weight = (family.skill + 1e-9) * family.known
    log = torch.where(family.known, family.spread.clamp_min(1e-150).log(), 0.0)
    average = (weight * log).sum(1) / weight.sum(1).clamp_min(1e-300)
    return torch.where(family.known.any(1), (2 * average).exp(), 0.0)


def expected_shares(
    family: Family, kept: Tensor, alike: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What is believed of shares before the target's evidence: a median, and a spread of logits.

    The sources' by the agreement of those that are kept: what contradicts them, and was found to
    say nothing of the target, has no part in it. The target's is theirs on average, and more the
    more alike the domains look: by half the prior's standard deviation where they look the same.

    Args:
        family: the sources.
        kept: ``(metrics, sources)`` those that have a say; the median of the others is 0.
        alike: ``(sources,)``, see ``learn``.
    Returns:
        ``(metrics, sources + 1)`` and ``(metrics, 1)``.
    """
    own = torch.where(kept, family.share, 0.0)
    spread = own.new_full((len(own), 1), coregionalization.SPREAD)
    some = (kept != family.known).any(1, keepdim=True) & kept.any(1, keepdim=True)
    if bool(some.any()):
        among = coregionalization.level(family.spectrum, kept)
        own = torch.where(some & kept & family.pinned.isnan(), among.share.unsqueeze(1), own)
        spread = torch.where(some, among.spread.unsqueeze(1), spread)
    num = kept.sum(1, keepdim=True).clamp_min(1)
    target = own.sum(1, keepdim=True) / num
    if alike is not None:
        looks = (kept * alike).sum(1, keepdim=True) / num
        moved = coregionalization.tilted(target, _TILT * looks)
        target = torch.where((target > 0) & (looks != 0), moved, target)
    return torch.cat([own, target], dim=1), spread


def _step(spectra: Spectrum, g: int) -> Spectrum:
    return Spectrum(*(field[g].unsqueeze(1) for field in spectra))


def _picked(spectra: Spectrum, best: Tensor) -> Spectrum:
    rows = torch.arange(len(best), device=best.device)
    return Spectrum(*(field[best, rows].unsqueeze(1) for field in spectra))


def _observed(cold: Posterior) -> Tensor:
    """The target's standardised evidence, ``(metrics, n)``."""
    return cold.outputs
