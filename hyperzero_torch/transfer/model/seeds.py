"""Candidates that the sources suggest: seeds, and the points that look best under the guardrails.

Thompson draws of a posterior that includes the sources are diverse: each maximises one function
that the target might have. Beside them stand the points of the largest expected utility among
those that are likely feasible (``feasible_maximisers``). All are screened for risk
(``acceptance.risk_screen``), lie near a setting that some source has tested, and lie far enough
apart to be worth an arm each.

Seeds normally come when the sources are admitted, so that sources that are not admitted change
nothing. ``TunerConfig.seed_first`` allows them in the first round: the sources alone already give a
posterior of a new domain, its specific part still unknown. They are then used only where the
sources agree by more than chance, and stand beside the usual first design with a newcomer's traffic
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...stats.normals import antithetic_normals
from ...study.journal.trace import TransferTrace
from ...surrogate import Hyperparameters, Posterior, Standardiser
from ...surrogate.protocol import FittedPosterior
from ...thompson import propose
from ...thompson.local_search import local_search
from . import coregionalization
from .acceptance import RiskScore, risk_screen
from .family import Family
from .target import expected_loadings, pseudo_rows, typical_variance

#: Nats by which positive loadings have to explain the sources' evidence better than none do.
LEAST_AGREEMENT = 6.0
#: Lengthscales between two seeds at least, and to the nearest tested setting at most.
_APART, REACH = 0.15, 0.5
_NUM_SAMPLES, _NUM_STARTS = 1024, 2
_DRAWS_PER_SEED = 4
# P(feasible) of the seeds that are chosen for safety: these could be promoted soon.
_SAFE = (0.9, 0.97, 0.995)
# Draws of the metrics, and new points of each local search, of ``feasible_maximisers``.
_NUM_DRAWS, _NUM_CLOUD = 128, 128


class Seeds(NamedTuple):
    """Suggested candidates ``theta (n, params)``, best first, and the ``trace`` for the journal."""

    theta: Tensor
    trace: TransferTrace


class Chosen(NamedTuple):
    """Suggested candidates ``theta (n, params)``, their ``risk``, and how many were ``refused``."""

    theta: Tensor
    risk: RiskScore
    refused: int


def agreement(family: Family) -> float:
    """Nats by which the sources' loadings explain their evidence better than no loadings do."""
    none = torch.zeros_like(family.loading)
    gain = coregionalization.log_evidence(family.spectrum, family.loading)
    return float((gain - coregionalization.log_evidence(family.spectrum, none)).sum())


def prior_posterior(problem: Problem, family: Family) -> Posterior:
    """The target's distribution given the sources, before any evidence of its own.

    All deltas are 0 at its base.
    """
    scale = typical_variance(family).sqrt()
    loading, _ = expected_loadings(family, family.has_evidence)
    unit = torch.ones_like(scale)
    value, covariance = pseudo_rows(family, loading, unit)
    base = problem.space.to_unit(problem.base_theta.unsqueeze(0)).to(value)
    noise = covariance.diagonal(dim1=-2, dim2=-1)
    shared = torch.nn.functional.pad(covariance - torch.diag_embed(noise), (0, 1, 0, 1))
    zero = torch.zeros_like(scale)
    return Posterior(
        torch.cat([family.inducing.z, base]),
        torch.cat([value, zero.unsqueeze(1)], 1).T,
        torch.cat([noise, torch.full_like(zero, 1e-6).unsqueeze(1)], 1).T,
        Hyperparameters(family.inducing.lengthscale, unit, zero),
        Standardiser(zero, scale),
        shared,
    )


def seeds(problem: Problem, family: Family, num: int, generator: torch.Generator) -> Seeds:
    """Up to ``num`` candidates for the first bucket.

    Args:
        generator: on the CPU.
    """
    agreed = agreement(family)
    trace = partial(TransferTrace, used=False, agreement=round(agreed, 4), needed=LEAST_AGREEMENT)
    if (why := _why_not(problem, family, agreed)) is not None:
        nothing = torch.empty(0, problem.space.num_params, dtype=torch.float64)
        reason = f"{why}: the usual first design is used"
        return Seeds(nothing, trace(seeds=0, reason=reason))
    chosen = choose(prior_posterior(problem, family), problem, family, num, generator)
    return Seeds(
        chosen.theta,
        trace(
            seeds=len(chosen.theta),
            refused=chosen.refused,
            prob_success=tuple(round(p, 4) for p in chosen.risk.prob.tolist()),
            needed_prob=tuple(round(p, 4) for p in chosen.risk.needed.tolist()),
            reason="the sources agree with each other; their suggestions are added to the usual "
            "first design",
        ),
    )


def choose(
    posterior: FittedPosterior,
    problem: Problem,
    family: Family,
    num: int,
    generator: torch.Generator,
) -> Chosen:
    """At most ``num`` diverse promising candidates; all arguments on the posterior's device."""
    proposals = propose(
        posterior, problem, _NUM_SAMPLES, _DRAWS_PER_SEED * num, generator, "joint", _NUM_STARTS
    )
    safe = feasible_maximisers(posterior, problem, _SAFE, generator)
    x = torch.cat([safe, proposals.x])
    risk = risk_screen(posterior, problem, x, generator)
    lengthscale = family.inducing.lengthscale.amin(0)
    by_promise = len(safe) + risk.promise[len(safe) :].argsort(descending=True)
    kept: list[int] = []
    for row in [*range(len(safe)), *by_promise.tolist()]:
        if len(kept) == num or not bool(risk.accepted[row]):
            continue
        if distance(x[row], family.points, lengthscale) > REACH:
            continue
        if kept and distance(x[row], x[kept], lengthscale) < _APART:
            continue
        kept.append(row)
    return Chosen(
        problem.space.from_unit(x[kept].cpu()),
        RiskScore(*(field[kept] for field in risk)),
        int((~risk.accepted).sum()),
    )


def feasible_maximisers(
    posterior: FittedPosterior,
    problem: Problem,
    levels: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """For every level of P(feasible), the point of the largest expected utility that reaches it.

    With sources a posterior may be confident about points that nobody has tested. They are worth a
    little traffic, because only a candidate with evidence of its own can be promoted.

    Args:
        posterior: over the unit cube, in deltas.
        problem: on the posterior's device, with base levels where terms see levels.
        levels: of P(feasible), in [0, 1].
    Returns:
        ``(points, dims)``, servable; none for a level that nothing better than the base reaches.
    """
    num_metrics = posterior.num_metrics
    normal = antithetic_normals(_NUM_DRAWS, num_metrics, generator).to(posterior.x).unsqueeze(1)
    maximisers: list[Tensor] = []
    with torch.no_grad():
        base = problem.evaluate(posterior.x.new_zeros(1, num_metrics)).utility[0]
        for level in levels:
            best_row = partial(_best_row, posterior, problem, level, normal)
            start = problem.space.uniform(_NUM_SAMPLES, generator).to(posterior.x)
            best, value = local_search(problem.space, start, best_row, _NUM_CLOUD, generator)
            if bool(value[0, 0] > base):
                maximisers.append(best[0, 0])
    return torch.stack(maximisers) if maximisers else posterior.x[:0]


def _best_row(
    posterior: FittedPosterior, problem: Problem, level: float, normal: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The row of the best point and its utility, each ``(1, 1)``; see ``local_search``.

    While no point reaches the level, the search follows P(feasible), and the utility is -inf.
    """
    mean, var = posterior.marginal(x)
    outcome = problem.evaluate(mean + var.sqrt() * normal)
    prob = outcome.feasible.to(mean).mean(0)
    utility = outcome.utility.mean(0).nan_to_num(nan=-torch.inf)
    reached = prob >= level
    utility = torch.where(reached, utility, -torch.inf)
    row = utility.argmax() if bool(reached.any()) else prob.argmax()
    return row.reshape(1, 1), utility[row].reshape(1, 1)


def _why_not(problem: Problem, family: Family, agreed: float) -> str | None:
    if not problem.levels_known:
        return "base levels are not known yet, so risk cannot be estimated"
    if not bool(family.has_evidence.any(1).all()):
        return "no source has evidence on some metric"
    if int(family.has_evidence.any(0).sum()) < 2:
        return "one source alone shows no agreement"
    if agreed < LEAST_AGREEMENT:
        return f"the sources agree by {agreed:.3g} nats, less than {LEAST_AGREEMENT:g}"
    return None


def distance(x: Tensor, others: Tensor, lengthscale: Tensor) -> float:
    """To the nearest of ``others (n, dims)``, in lengthscales."""
    return float(((others - x) / lengthscale).square().sum(-1).min().sqrt())
