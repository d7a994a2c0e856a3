"""The target's posterior with the sources' evidence in it, beside the cold one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...surrogate import Hyperparameters, Posterior
from . import betting, coregionalization, logits
from .betting import Scores
from .family import Family
from .inducing import Reduced, Spectrum, reduce, spectrum

# Grid of the variance of the target's function, relative to what is typical of its family.
_STEPS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)
# Prior standard deviation of a domain's log variance around its family's.
_LOG_VARIANCE_STD = 0.3
# Of the prior's standard deviations of a loading, for domains with the same features.
_TILT = 0.5
#: Log Bayes factor that a source alone needs in a metric for its loading there to be above 0.
LEAST_LOG_BAYES_FACTOR = 0.5


class TargetFit(NamedTuple):
    """The target's place in its family, by the target's evidence.

    ``loading (metrics, sources + 1)``, the target's last, all 0 where a metric takes nothing from
    the sources; ``scores`` of the bets; ``variance (metrics,)`` of the target's function,
    standardised; ``target``, its evidence in units of that.
    """

    loading: Tensor
    scores: Scores
    variance: Tensor
    target: Spectrum


def fit_target(
    family: Family,
    cold: Posterior,
    similarity: Tensor | None = None,
    initial_similarity: Tensor | None = None,
    least: float = LEAST_LOG_BAYES_FACTOR,
) -> TargetFit:
    """Loadings, amplitudes and scores by the target's evidence, in the cold posterior's units.

    Args:
        similarity: ``(sources,)`` of each source's features to the target's
            (``betting.feature_similarity``); where None, all are like ordinary domains.
        initial_similarity: the same when each was first weighed, which fixes the stakes;
            ``similarity`` if None.
        least: log Bayes factor that a source alone needs for its loading to be above 0.
    """
    if similarity is None:
        similarity = family.loading.new_zeros(len(family.names))
    stakes = similarity if initial_similarity is None else initial_similarity
    typical = typical_variance(family) / cold.standardiser.scale.square()
    typical = torch.where(typical > 0, typical, cold.hyperparameters.outputscale)
    variance = cold.x.new_tensor(_STEPS).unsqueeze(-1) * typical  # (steps, metrics)
    reduced = _reduced(family, cold, variance)
    spectra = spectrum(reduced)
    num_observed = cold.noise.isfinite().sum(-1)
    deviation = (variance / typical).log() / _LOG_VARIANCE_STD
    prior = reduced.constant - 0.5 * num_observed * variance.log() - 0.5 * deviation.square()
    none = torch.zeros_like(typical).unsqueeze(1)
    steps = range(len(variance))
    alone = torch.stack([coregionalization.log_evidence(_step(spectra, g), none) for g in steps])
    target = _picked(spectra, (alone + prior).argmax(0))
    scores = betting.score(family.spectrum, family.loading, family.has_evidence, target, stakes)
    pinned = family.pinned.isfinite()
    kept = ((scores.each > least) | pinned) & family.has_evidence & (family.loading > 0)
    median, logit_std = expected_loadings(family, kept, similarity)
    loading = coregionalization.loadings(family.spectrum, target, median, logit_std)
    # The sources help to estimate the target's amplitude; the bets were made without them.
    shared = coregionalization.shared_posterior(family.spectrum, loading[:, :-1])
    gain = torch.stack(
        [
            coregionalization.log_bayes_factor(shared, _step(spectra, g), loading[:, -1])
            for g in steps
        ]
    )
    best = (gain + alone + prior).argmax(0)
    target = _picked(spectra, best)
    loading = coregionalization.loadings(family.spectrum, target, median, logit_std, loading)
    fixed = (family.pinned / loading[:, -1:]).nan_to_num().clamp(0, 0.99)
    of_sources = torch.where(kept & pinned, fixed, loading[:, :-1])
    loading = torch.cat([of_sources, loading[:, -1:]], 1)
    loading = torch.where((of_sources > 0).any(1, keepdim=True), loading, 0.0)
    return TargetFit(loading, scores, variance.gather(0, best.unsqueeze(0))[0], target)


def posterior(family: Family, cold: Posterior, fit: TargetFit) -> Posterior:
    """The exact posterior of the target with the sources' pseudo-observations as rows.

    Metrics whose loadings are 0 are as in the cold posterior.
    """
    constant = cold.hyperparameters.constant
    value, covariance = pseudo_rows(family, fit.loading, fit.variance)
    value = value + constant.unsqueeze(-1)
    m, n = value.shape[1], len(cold.x)
    noise = covariance.diagonal(dim1=-2, dim2=-1)
    uses = fit.loading[:, -1] > 0
    shared = covariance.new_zeros(len(value), m + n, m + n)
    shared[:, :m, :m] = (covariance - torch.diag_embed(noise)) * uses[:, None, None]
    if cold.shared_noise is not None:
        shared[:, m:, m:] = cold.shared_noise
    lengthscale, outputscale, _ = cold.hyperparameters
    hyperparameters = Hyperparameters(
        torch.where(uses.unsqueeze(1), family.inducing.lengthscale, lengthscale),
        torch.where(uses, fit.variance, outputscale),
        constant,
    )
    noise = torch.where(uses.unsqueeze(1), noise, torch.inf)
    return Posterior(
        torch.cat([family.inducing.z, cold.x]),
        torch.cat([value, cold.outputs], 1).T,
        torch.cat([noise, cold.noise], 1).T,
        hyperparameters,
        cold.standardiser,
        shared,
        fit_succeeded=cold.fit_succeeded,
    )


def pseudo_rows(family: Family, loading: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """What the sources say of the target at the inducing points, around its constant.

    Args:
        loading: ``(metrics, sources + 1)``.
        variance: ``(metrics,)`` of the target's function.
    Returns:
        Pseudo-observations ``(metrics, m)`` and the covariance of their noise ``(metrics, m, m)``.
    """
    shared = coregionalization.shared_posterior(family.spectrum, loading[:, :-1])
    value, noise = coregionalization.pseudo_observations(shared, loading[:, -1])
    root = family.inducing.root
    value = (root @ value.unsqueeze(-1)).squeeze(-1) * variance.sqrt().unsqueeze(-1)
    return value, variance[:, None, None] * (root @ noise @ root.mT)


def _reduced(family: Family, cold: Posterior, variance: Tensor) -> Reduced:
    """The target's evidence in units of every ``variance (steps, metrics)``."""
    projected = family.inducing.project(cold.x)
    y, noise, shared = cold.outputs, cold.noise, cold.shared_noise
    by_step = [
        reduce(
            projected,
            y / size.sqrt().unsqueeze(-1),
            noise / size.unsqueeze(-1),
            None if shared is None else shared / size[:, None, None],
            1.0 / size,
        )
        for size in variance
    ]
    return Reduced(*(torch.stack(fields) for fields in zip(*by_step)))


def typical_variance(family: Family) -> Tensor:
    """Variance of the family's functions, in the metric's unit squared; 0 without evidence."""
    has_evidence = family.has_evidence
    weight = (family.skill + 1e-9) * has_evidence
    log = torch.where(has_evidence, family.spread.clamp_min(1e-150).log(), 0.0)
    average = (weight * log).sum(1) / weight.sum(1).clamp_min(1e-300)
    return torch.where(has_evidence.any(1), (2 * average).exp(), 0.0)


def expected_loadings(
    family: Family, kept: Tensor, similarity: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The prior of the loadings before the target's evidence: medians, and a spread of logits.

    The sources' medians come from the agreement of those that are kept: a source that contradicts
    them, and says nothing of the target, plays no part. The target's median is the average of
    theirs, moved by half a prior standard deviation where its features are the same as theirs.

    Args:
        kept: bool ``(metrics, sources)``, sources that count; the median of the others is 0.
        similarity: ``(sources,)``, see ``fit_target``.
    Returns:
        ``(metrics, sources + 1)`` and ``(metrics, 1)``.
    """
    loading = torch.where(kept, family.loading, 0.0)
    logit_std = loading.new_full((len(loading), 1), logits.LOGIT_STD)
    changed = (kept != family.has_evidence).any(1, keepdim=True) & kept.any(1, keepdim=True)
    if bool(changed.any()):
        among = coregionalization.family_loading(family.spectrum, kept)
        free = changed & kept & family.pinned.isnan()
        loading = torch.where(free, among.loading.unsqueeze(1), loading)
        logit_std = torch.where(changed, among.logit_std.unsqueeze(1), logit_std)
    num = kept.sum(1, keepdim=True).clamp_min(1)
    target = loading.sum(1, keepdim=True) / num
    if similarity is not None:
        average = (kept * similarity).sum(1, keepdim=True) / num
        moved = logits.shifted(target, _TILT * average)
        target = torch.where((target > 0) & (average != 0), moved, target)
    return torch.cat([loading, target], dim=1), logit_std


def _step(spectra: Spectrum, g: int) -> Spectrum:
    return Spectrum(*(field[g].unsqueeze(1) for field in spectra))


def _picked(spectra: Spectrum, best: Tensor) -> Spectrum:
    rows = torch.arange(len(best), device=best.device)
    return Spectrum(*(field[best, rows].unsqueeze(1) for field in spectra))
