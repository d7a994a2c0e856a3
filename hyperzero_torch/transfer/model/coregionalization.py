"""One shared function and a part of its own for every domain; all metrics at once.

    f_d(x) = offset_d + a_d ( r_d g(x) + sqrt(1 - r_d^2) h_d(x) )

``g`` and every ``h_d`` are independent Gaussian processes with one kernel, so what is shared and
what is the domain's own are equally smooth, and ``r_d`` in [0, 1) says how much of a domain is
shared: two domains correlate by ``r_d r_e``. Everything works on ``u_d``, the domain's function at
the inducing points (``inducing``), where it is

    u_d = r_d g + sqrt(1 - r_d^2) h_d,          g, h_d ~ N(0, I)

Given the sources, the target's ``u`` is normal again. Since all parts have one kernel, the
sources tell nothing of the target's function elsewhere that they do not tell at the inducing
points (the Markov property of intrinsic coregionalisation), so all that they say is equal to a
few pseudo-observations of the target's own function with a known dense noise covariance. With them
as rows, the ordinary exact posterior is the posterior of the whole hierarchical model.

Source: Bonilla, Chai and Williams (2008), Multi-task Gaussian process prediction (the kernel);
    O'Hagan (1998), A Markov property for covariance structures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .inducing import Spectrum

#: Largest share: no domain is a copy of another.
MOST = 0.999
#: Median share of a family of which nothing is known; two domains then correlate by 0.5.
MEDIAN = 0.7
#: Standard deviations of logit(r / MOST): of a family's share, and of its domains' around it.
POPULATION_SPREAD, SPREAD = 2.0, 0.7
#: Standard deviation of what is believed of the logarithm of an amplitude's error.
SCALE_SPREAD = 0.3
# Logits of r / MOST that a family's share is sought among: even steps, because from 0.97 to 0.99 a
# domain's own part halves.
_LEVELS = (-4.0, 6.0, 41)
_ITERATIONS = 20
# An eigenvalue of the message below this says nothing (variance 1000 times the prior's).
_LEAST_SAID = 1e-3


class Factor(NamedTuple):
    """What is known of ``g``: ``precision (metrics, m, m)``, ``information (metrics, m)``."""

    precision: Tensor
    information: Tensor


class Message(NamedTuple):
    """Pseudo-observations of ``u``: ``value (metrics, m)``, ``noise (metrics, m, m)``."""

    value: Tensor
    noise: Tensor


def factor(sources: Spectrum, r: Tensor) -> Factor:
    """The posterior of ``g`` given the sources.

    Args:
        sources: fields with leading axes ``(metrics, sources)``.
        r: ``(metrics, sources)`` shares.
    """
    told = _term(sources, r)
    precision, information = told.precision.sum(-3), told.information.sum(-2)
    unit = torch.eye(precision.shape[-1], dtype=r.dtype, device=r.device)
    return Factor(precision + unit, information)


def log_evidence(domains: Spectrum, r: Tensor) -> Tensor:
    """Log marginal likelihood of all domains' evidence together, ``(metrics,)``.

    Up to constants that do not depend on ``r``. Arguments as for ``factor``.
    """
    return _specific(domains, r).sum(-1) + _of_shared(factor(domains, r))


def _term(domains: Spectrum, r: Tensor) -> Factor:
    """What each domain by itself says of ``g``, the prior left out; an axis for domains."""
    square = r.square().unsqueeze(-1)
    told = 1.0 + (1.0 - square) * domains.precision
    scaled = domains.basis * (square * domains.precision / told).unsqueeze(-2)
    weights = (r.unsqueeze(-1) * domains.information / told).unsqueeze(-1)
    return Factor(scaled @ domains.basis.mT, (domains.basis @ weights).squeeze(-1))


def _specific(domains: Spectrum, r: Tensor) -> Tensor:
    """The part of the log evidence that each domain's own function answers for."""
    own = (1.0 - r.square()).unsqueeze(-1)
    told = 1.0 + own * domains.precision
    found: Tensor = 0.5 * (own * domains.information.square() / told - told.log()).sum(-1)
    return found


def _of_shared(known: Factor) -> Tensor:
    """The part of the log evidence that ``g`` answers for."""
    root = torch.linalg.cholesky(known.precision)
    half = torch.linalg.solve_triangular(root, known.information.unsqueeze(-1), upper=False)
    found: Tensor = 0.5 * half.square().sum((-2, -1)) - root.diagonal(dim1=-2, dim2=-1).log().sum(
        -1
    )
    return found


def message(known: Factor, r: Tensor) -> Message:
    """Pseudo-observations of a new domain's ``u`` that say what the sources say.

    Directions of which the sources say next to nothing get a finite but very large variance.
    """
    eigen, basis = torch.linalg.eigh(known.precision)
    kept = (eigen - 1.0).clamp_min(0.0) / eigen  # of g's prior variance, what is explained
    said = (r.square().unsqueeze(-1) * kept).clamp_min(_LEAST_SAID)
    mean = r.unsqueeze(-1) * (basis.mT @ known.information.unsqueeze(-1)).squeeze(-1) / eigen
    value = (basis @ (mean / said).unsqueeze(-1)).squeeze(-1)
    return Message(value, (basis * ((1.0 - said) / said).unsqueeze(-2)) @ basis.mT)


class Level(NamedTuple):
    """A family's share: ``share (metrics,)``, and ``spread (metrics,)`` of its domains' logits.

    The spread is that of domains around their family's share, and of what is believed of that.
    """

    share: Tensor
    spread: Tensor


def level(sources: Spectrum, known: Tensor) -> Level:
    """How much the domains of a family share, by the agreement of those that are ``known``.

    Of a single one nothing is known but what families are like.

    Args:
        sources: leading axes ``(metrics, sources)``.
        known: ``(metrics, sources)`` who belongs to it.
    """
    like = sources.precision
    logits = torch.linspace(*_LEVELS, dtype=like.dtype, device=like.device)
    grid = MOST * logits.sigmoid()
    away = (logits - _logit(grid.new_tensor(MEDIAN))) / POPULATION_SPREAD
    found = torch.stack([log_evidence(sources, torch.where(known, r, 0.0)) for r in grid])
    chance = (found - 0.5 * away.square().unsqueeze(-1)).softmax(0)
    # What a domain has of its own is thought as large as it is expected to be: the most probable
    # share makes too much of few sources.
    share = (chance * grid.square().unsqueeze(-1)).sum(0).sqrt()
    mean = (chance * logits.unsqueeze(-1)).sum(0)
    var = (chance * (logits.unsqueeze(-1) - mean).square()).sum(0)
    return Level(share, (SPREAD**2 + var).sqrt())


def coherence(sources: Spectrum, known: Tensor) -> Tensor:
    """How much each source shares with the others, by their own evidence, ``(metrics, sources)``.

    First one share for the whole family, then each source's around it, which is most probable. A
    source's own evidence says little of its share, all of them together say much.

    Args:
        sources: leading axes ``(metrics, sources)``.
        known: ``(metrics, sources)`` where a source has evidence at all.
    """
    median = torch.where(known, level(sources, known).share.unsqueeze(1), 0.0)

    def loss(r: Tensor) -> Tensor:
        return -log_evidence(sources, r).sum()

    return _most_probable(loss, median, SPREAD)


def scales(sources: Spectrum, r: Tensor) -> Tensor:
    """Factors by which the sources' amplitudes fit each other better, ``(metrics, sources)``.

    A source's own evidence leaves its amplitude uncertain by a quarter or so; what it shares with
    the others tells more. Most probable under a log-normal prior around 1.

    Args:
        sources: leading axes ``(metrics, sources)``.
        r: ``(metrics, sources)`` shares.
    """
    at = torch.zeros_like(r, requires_grad=True)

    def loss() -> Tensor:
        away = at / SCALE_SPREAD
        return 0.5 * away.square().sum() - log_evidence(scaled(sources, at.exp()), r).sum()

    _descend(at, loss)
    return at.detach().exp()


def scaled(domains: Spectrum, factor: Tensor) -> Spectrum:
    """Evidence on the same functions if their amplitudes are by ``factor`` what was thought."""
    by = factor.unsqueeze(-1)
    return Spectrum(domains.basis, domains.precision * by.square(), domains.information * by)


def shares(
    sources: Spectrum,
    target: Spectrum,
    median: Tensor,
    spread: Tensor | float = SPREAD,
    start: Tensor | None = None,
) -> Tensor:
    """Shares of all sources and, last, of the target, by the target's own evidence.

    Most probable under log p(target's evidence | sources' evidence, r): what the sources agree on
    among themselves does not count here, only what they told of the target.

    Args:
        sources: leading axes ``(metrics, sources)``.
        target: leading axes ``(metrics, 1)``.
        median: ``(metrics, sources + 1)`` of the logit-normal prior; 0 keeps a share at 0.
        spread: its standard deviations, ``(metrics, 1)`` or one number.
        start: where to begin; the medians where it is None.
    Returns:
        ``(metrics, sources + 1)``.
    """

    def loss(r: Tensor) -> Tensor:
        return -told(factor(sources, r[:, :-1]), target, r[:, -1]).sum()

    return _most_probable(loss, median, spread, start)


def told(known: Factor, target: Spectrum, own: Tensor) -> Tensor:
    """Nats by which all sources together predict the target's evidence better, ``(metrics,)``.

    Args:
        known: of ``g``, by the sources.
        target: leading axes ``(metrics, 1)``.
        own: ``(metrics,)`` its share.
    """
    found: Tensor = _gain(
        Factor(*(field.unsqueeze(1) for field in known)), target, own.unsqueeze(1)
    )
    return found.squeeze(1)


def told_by_each(sources: Spectrum, target: Spectrum, grid: Tensor) -> Tensor:
    """Nats by which each source alone predicts the target's evidence better than none does.

    By the chain rule this is the held-out predictive score summed over the target's rows, each
    predicted from the source and the rows before it.

    Args:
        sources: leading axes ``(metrics, sources)``.
        target: leading axes ``(metrics, 1)``.
        grid: ``(g,)`` correlations with the target to try.
    Returns:
        ``(metrics, sources, g)``.
    Source: Dawid (1984), Statistical theory: the prequential approach.
    """
    # With r = 1 for the source, the target's own share is their correlation.
    says = _term(sources, torch.ones_like(sources.information[..., 0]))
    unit = torch.eye(says.precision.shape[-1], dtype=grid.dtype, device=grid.device)
    known = Factor(says.precision + unit, says.information)
    like = torch.ones_like(target.information[..., 0])
    return torch.stack([_gain(known, target, value * like) for value in grid], dim=-1)


def _gain(known: Factor, target: Spectrum, r: Tensor) -> Tensor:
    """Nats by which knowing ``g`` so well predicts the target's evidence better, ``(metrics, k)``.

    Args:
        known: leading axes ``(metrics, k)``.
        target: leading axes ``(metrics, 1)``.
        r: ``(metrics, 1)``.
    """
    after = Factor(*(a + b for a, b in zip(known, _term(target, r))))
    own = _specific(target, r) - _specific(target, torch.zeros_like(r))
    return own + _of_shared(after) - _of_shared(known)


def tilted(r: Tensor, by: Tensor) -> Tensor:
    """Shares moved by this many standard deviations of their logit-normal prior."""
    return MOST * (_logit(r) + SPREAD * by).sigmoid()


def _most_probable(
    loss: Callable[[Tensor], Tensor],
    median: Tensor,
    spread: Tensor | float,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise ``loss(r)`` with the prior, over logits; zeros of ``median`` stay."""
    free = median > 0
    centre = _logit(torch.where(free, median, 0.5))
    at = _logit(torch.where(free, median if start is None else start, 0.5)).clone()
    at.requires_grad_(True)

    def whole() -> Tensor:
        r = torch.where(free, MOST * at.sigmoid(), 0.0)
        away = torch.where(free, (at - centre) / spread, 0.0)
        return loss(r) + 0.5 * away.square().sum()

    _descend(at, whole)
    found = at.detach()
    found = torch.where(found.isfinite(), found, centre)
    return torch.where(free, MOST * found.sigmoid(), 0.0)


def _descend(at: Tensor, loss: Callable[[], Tensor]) -> None:
    """L-BFGS in place."""
    optimiser = torch.optim.LBFGS(
        [at], max_iter=_ITERATIONS, tolerance_grad=1e-2, tolerance_change=1e-3,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        optimiser.zero_grad()
        with torch.enable_grad():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _logit(r: Tensor) -> Tensor:
    part = (r / MOST).clamp(1e-6, 1 - 1e-6)
    return part.log() - torch.log1p(-part)
