"""One shared function and one specific function per domain, for all metrics at once.

    f_d(x) = offset_d + a_d ( r_d g(x) + sqrt(1 - r_d^2) h_d(x) )

``g`` and all ``h_d`` are independent Gaussian processes with the same kernel. The *loading* ``r_d``
in [0, 1) is the part of domain ``d`` that is shared: two domains correlate by ``r_d r_e``. All
computations are on ``u_d``, the whitened values of the domain's function at the inducing points
(``inducing``), where the model is

    u_d = r_d g + sqrt(1 - r_d^2) h_d,          g, h_d ~ N(0, I)

Given the sources, the target's ``u`` is normal. All parts have one kernel, so given the function at
the inducing points the sources carry no further information about it elsewhere (the Markov property
of intrinsic coregionalisation). The sources are therefore equivalent to a few pseudo-observations
of the target's function with a known dense noise covariance: with these as extra rows, the exact
posterior is the posterior of the whole hierarchical model.

Evidence and loadings of sources lead with axes ``(metrics, sources)``, as do masks of sources; the
target's evidence leads with ``(metrics, 1)``, and its loading is ``(metrics,)``.

Source: Bonilla, Chai and Williams (2008), Multi-task Gaussian process prediction (the kernel);
    O'Hagan (1998), A Markov property for covariance structures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .inducing import Spectrum
from .logits import LOGIT_STD, MAX_LOADING, logit, minimise, most_probable

#: Prior median of a family's loading; two of its domains then correlate by 0.5.
MEDIAN_LOADING = 0.7
#: Prior standard deviation of logit(r / MAX_LOADING) of a whole family.
FAMILY_LOGIT_STD = 2.0
#: Prior standard deviation of the logarithm of an amplitude's error.
LOG_AMPLITUDE_STD = 0.3
# Grid of logits for a family's loading. Even steps in logits: from 0.97 to 0.99 a domain's specific
# variance halves.
_LOGIT_GRID = (-4.0, 6.0, 41)
# Least part of a direction's prior variance that a pseudo-observation explains (its noise variance
# is then 1000 times the prior's); keeps the noise finite where the sources carry no information.
_LEAST_EXPLAINED = 1e-3


class SharedPosterior(NamedTuple):
    """Of ``g``: ``precision (metrics, m, m)`` and ``information (metrics, m)``."""

    precision: Tensor
    information: Tensor


class PseudoObservations(NamedTuple):
    """Of ``u``: ``value (metrics, m)`` and the covariance of its ``noise (metrics, m, m)``."""

    value: Tensor
    noise: Tensor


def shared_posterior(sources: Spectrum, loading: Tensor) -> SharedPosterior:
    """The posterior of ``g`` given the sources."""
    likelihood = _likelihood_of_shared(sources, loading)
    return SharedPosterior(
        likelihood.precision.sum(-3) + _identity(likelihood.precision),
        likelihood.information.sum(-2),
    )


def log_evidence(domains: Spectrum, loading: Tensor) -> Tensor:
    """Log marginal likelihood of all domains' evidence together, ``(metrics,)``.

    Up to constants that do not depend on the loadings.
    """
    specific = _log_evidence_of_specific(domains, loading).sum(-1)
    return specific + _log_evidence_of_shared(shared_posterior(domains, loading))


def _likelihood_of_shared(domains: Spectrum, loading: Tensor) -> SharedPosterior:
    """The likelihood of ``g`` under each domain's evidence alone, with an axis for domains."""
    square = loading.square().unsqueeze(-1)
    scale = 1.0 + (1.0 - square) * domains.precision
    scaled_basis = domains.basis * (square * domains.precision / scale).unsqueeze(-2)
    weights = (loading.unsqueeze(-1) * domains.information / scale).unsqueeze(-1)
    return SharedPosterior(scaled_basis @ domains.basis.mT, (domains.basis @ weights).squeeze(-1))


def _log_evidence_of_specific(domains: Spectrum, loading: Tensor) -> Tensor:
    """The part of the log evidence that depends on each domain's specific function."""
    specific = (1.0 - loading.square()).unsqueeze(-1)
    scale = 1.0 + specific * domains.precision
    fit = specific * domains.information.square() / scale
    density: Tensor = 0.5 * (fit - scale.log()).sum(-1)
    return density


def _log_evidence_of_shared(shared: SharedPosterior) -> Tensor:
    """The part of the log evidence that depends on ``g``."""
    root = torch.linalg.cholesky(shared.precision)
    half = torch.linalg.solve_triangular(root, shared.information.unsqueeze(-1), upper=False)
    volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    density: Tensor = 0.5 * half.square().sum((-2, -1)) - volume
    return density


def pseudo_observations(shared: SharedPosterior, loading: Tensor) -> PseudoObservations:
    """Observations of a new domain's ``u`` that are equivalent to the sources.

    Directions in which the sources carry next to no information get a large finite variance.
    """
    eigen, basis = torch.linalg.eigh(shared.precision)
    reduction = (eigen - 1.0).clamp_min(0.0) / eigen  # of g's prior variance
    explained = (loading.square().unsqueeze(-1) * reduction).clamp_min(_LEAST_EXPLAINED)
    information = (basis.mT @ shared.information.unsqueeze(-1)).squeeze(-1)
    mean = loading.unsqueeze(-1) * information / eigen
    value = (basis @ (mean / explained).unsqueeze(-1)).squeeze(-1)
    noise = (1.0 - explained) / explained
    return PseudoObservations(value, (basis * noise.unsqueeze(-2)) @ basis.mT)


class FamilyLoading(NamedTuple):
    """``loading (metrics,)`` of a family, and ``logit_std (metrics,)`` of a domain around it.

    The standard deviation includes the uncertainty of the family's own loading.
    """

    loading: Tensor
    logit_std: Tensor


def family_loading(sources: Spectrum, members: Tensor) -> FamilyLoading:
    """The loading that the domains of a family have in common, from how well they agree.

    With a single member the prior is all there is.
    """
    like = sources.precision
    logits = torch.linspace(*_LOGIT_GRID, dtype=like.dtype, device=like.device)
    grid = MAX_LOADING * logits.sigmoid()
    deviation = (logits - logit(grid.new_tensor(MEDIAN_LOADING))) / FAMILY_LOGIT_STD
    density = torch.stack([log_evidence(sources, torch.where(members, r, 0.0)) for r in grid])
    weight = (density - 0.5 * deviation.square().unsqueeze(-1)).softmax(0)
    # The root of E[r^2], so that the specific variance 1 - r^2 is its expectation. The most
    # probable loading overstates what few sources share.
    loading = (weight * grid.square().unsqueeze(-1)).sum(0).sqrt()
    mean = (weight * logits.unsqueeze(-1)).sum(0)
    var = (weight * (logits.unsqueeze(-1) - mean).square()).sum(0)
    return FamilyLoading(loading, (LOGIT_STD**2 + var).sqrt())


def source_loadings(sources: Spectrum, has_evidence: Tensor) -> Tensor:
    """Each source's loading by the sources' own evidence, ``(metrics, sources)``.

    First the loading of the whole family, then the most probable loading of each source around it:
    one source says little about its loading, all of them together say much.
    """
    common = family_loading(sources, has_evidence).loading.unsqueeze(1)
    median = torch.where(has_evidence, common, 0.0)

    def loss(loading: Tensor) -> Tensor:
        return -log_evidence(sources, loading).sum()

    return most_probable(loss, median, LOGIT_STD)


def amplitude_factors(sources: Spectrum, loading: Tensor) -> Tensor:
    """Most probable corrections of the sources' amplitudes, ``(metrics, sources)``.

    One source's evidence leaves its amplitude uncertain by about a quarter; the function that it
    shares with the others determines it better. The prior is log-normal around 1.
    """
    logarithm = torch.zeros_like(loading, requires_grad=True)

    def loss() -> Tensor:
        prior = 0.5 * (logarithm / LOG_AMPLITUDE_STD).square().sum()
        return prior - log_evidence(rescaled(sources, logarithm.exp()), loading).sum()

    minimise(logarithm, loss)
    return logarithm.detach().exp()


def rescaled(domains: Spectrum, factor: Tensor) -> Spectrum:
    """Evidence about the same functions if their amplitudes are ``factor`` times as large."""
    by = factor.unsqueeze(-1)
    return Spectrum(domains.basis, domains.precision * by.square(), domains.information * by)


def loadings(
    sources: Spectrum,
    target: Spectrum,
    median: Tensor,
    logit_std: Tensor | float = LOGIT_STD,
    start: Tensor | None = None,
) -> Tensor:
    """Loadings of all sources and, last, of the target, by the target's evidence.

    They maximise log p(target's evidence | sources' evidence, r) plus the prior: how well the
    sources agree among themselves does not count here, only what they predict of the target.

    Args:
        median: ``(metrics, sources + 1)`` of the logit-normal prior; 0 fixes a loading at 0.
        logit_std: the prior's standard deviation, ``(metrics, 1)`` or one number.
        start: where the optimiser begins; the medians where it is None.
    Returns:
        ``(metrics, sources + 1)``.
    """

    def loss(r: Tensor) -> Tensor:
        return -log_bayes_factor(shared_posterior(sources, r[:, :-1]), target, r[:, -1]).sum()

    return most_probable(loss, median, logit_std, start)


def log_bayes_factor(shared: SharedPosterior, target: Spectrum, loading: Tensor) -> Tensor:
    """Nats by which all sources together predict the target's evidence better, ``(metrics,)``."""
    by_hypothesis = SharedPosterior(*(field.unsqueeze(1) for field in shared))
    return _log_bayes_factor(by_hypothesis, target, loading.unsqueeze(1)).squeeze(1)


def log_bayes_factor_by_source(sources: Spectrum, target: Spectrum, grid: Tensor) -> Tensor:
    """Nats by which each source alone predicts the target's evidence better than none does.

    By the chain rule this is the predictive log score summed over the target's rows, each predicted
    from the source and the rows before it.

    Args:
        grid: ``(g,)`` correlations with the target.
    Returns:
        ``(metrics, sources, g)``.
    Source: Dawid (1984), Statistical theory: the prequential approach.
    """
    # With loading 1 for the source, the target's loading is their correlation.
    likelihood = _likelihood_of_shared(sources, torch.ones_like(sources.information[..., 0]))
    shared = SharedPosterior(
        likelihood.precision + _identity(likelihood.precision), likelihood.information
    )
    ones = torch.ones_like(target.information[..., 0])
    return torch.stack([_log_bayes_factor(shared, target, r * ones) for r in grid], dim=-1)


def _log_bayes_factor(shared: SharedPosterior, target: Spectrum, loading: Tensor) -> Tensor:
    """Log Bayes factors of ``k`` hypotheses about ``g`` against no sources, ``(metrics, k)``.

    ``shared`` leads with axes ``(metrics, k)``; ``loading`` is ``(metrics, 1)``.
    """
    likelihood = _likelihood_of_shared(target, loading)
    after = SharedPosterior(*(a + b for a, b in zip(shared, likelihood)))
    specific = _log_evidence_of_specific(target, loading)
    specific = specific - _log_evidence_of_specific(target, torch.zeros_like(loading))
    return specific + _log_evidence_of_shared(after) - _log_evidence_of_shared(shared)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
