"""Where to look first: candidates that the sources suggest.

Thompson draws of a posterior that knows the sources are diverse by nature:
each is the best point of one function that the target might have. Beside them stand the best points
that are likely safe (``suited``). All are bounded in risk (``guard.worth_serving``) and in distance
from what any source has tested, and far enough from each other to be worth an arm each.

They come when the sources are admitted, by the target's first evidence, so that sources that are
not admitted change nothing. Whoever trusts them may have them at once (``TunerConfig.seed_first``):
what the sources say of a domain like them is a posterior already, the base setting of the family
plus the domain's own part, of which nothing is known yet. Then they seed only where they agree
among themselves by more than chance, since nothing else speaks for them, and come beside the usual
first design, screened on a newcomer's traffic each until there is evidence to go by.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...problem.problem import Problem
from ...surrogate import Hyperparameters, Posterior, Standardiser
from ...thompson import propose
from . import coregionalization, gates
from .family import Family
from .suited import suited
from .target import expected_shares, pseudo_rows, typical_variance

#: Nats by which shares above 0 have to explain the sources' evidence better than none do.
LEAST_AGREEMENT = 6.0
#: Lengthscales between two seeds at least, and to the next setting that was tested at most.
_APART, REACH = 0.15, 0.5
_NUM_SAMPLES, _NUM_STARTS = 1024, 2
_DRAWS_PER_SEED = 4
# P(feasible) of the seeds that are chosen for being safe: who is sure can be promoted at once.
_SAFE = (0.9, 0.97, 0.995)


class Seeds(NamedTuple):
    """Suggested candidates ``theta (n, params)``, the best first, and ``facts`` for the journal."""

    theta: Tensor
    facts: dict[str, Any]


class Chosen(NamedTuple):
    """Suggested candidates ``theta (n, params)``, how each was ``judged``, how many ``refused``."""

    theta: Tensor
    judged: gates.RiskScore
    refused: int


def agreement(family: Family) -> float:
    """Nats by which the sources' shares explain their evidence better than no shares do."""
    none = torch.zeros_like(family.share)
    gain = coregionalization.log_evidence(family.spectrum, family.share)
    return float((gain - coregionalization.log_evidence(family.spectrum, none)).sum())


def expected(problem: Problem, family: Family) -> Posterior:
    """What the sources let one expect of the target before it has any evidence of its own.

    Its base is known: there all deltas are 0.
    """
    scale = typical_variance(family).sqrt()
    share, _ = expected_shares(family, family.known)
    unit = torch.ones_like(scale)
    value, covariance = pseudo_rows(family, share, unit)
    base = problem.space.to_unit(problem.base_theta.unsqueeze(0)).to(value)
    own = covariance.diagonal(dim1=-2, dim2=-1)
    shared = torch.nn.functional.pad(covariance - torch.diag_embed(own), (0, 1, 0, 1))
    zero = torch.zeros_like(scale)
    return Posterior(
        torch.cat([family.inducing.z, base]),
        torch.cat([value, zero.unsqueeze(1)], 1).T,
        torch.cat([own, torch.full_like(zero, 1e-6).unsqueeze(1)], 1).T,
        Hyperparameters(family.inducing.lengthscale, unit, zero),
        Standardiser(zero, scale),
        shared,
    )


def seeds(problem: Problem, family: Family, num: int, generator: torch.Generator) -> Seeds:
    """Up to ``num`` candidates for the first bucket.

    Args:
        problem: the target.
        family: the sources.
        num: of seeds at most.
        generator: on the CPU.
    """
    agreed = agreement(family)
    nothing = torch.empty(0, problem.space.num_params, dtype=torch.float64)
    facts: dict[str, Any] = {"agreement": round(agreed, 4), "needed": LEAST_AGREEMENT}
    if (why := _why_not(problem, family, agreed)) is not None:
        reason = f"{why}: the first design is the usual one"
        return Seeds(nothing, facts | {"seeds": 0, "reason": reason})
    posterior = expected(problem, family)
    chosen = choose(posterior, problem, family, num, generator)
    facts |= {
        "seeds": len(chosen.theta),
        "refused": chosen.refused,
        "prob_success": [round(p, 4) for p in chosen.judged.prob.tolist()],
        "needed_prob": [round(p, 4) for p in chosen.judged.needed.tolist()],
    }
    reason = (
        "the sources agree among themselves; their suggestions stand beside the usual first design"
    )
    return Seeds(chosen.theta, facts | {"reason": reason})


def choose(
    posterior: Posterior, problem: Problem, family: Family, num: int, generator: torch.Generator
) -> Chosen:
    """Diverse promising candidates under a posterior that knows the sources.

    Args:
        posterior: what is believed with the sources' help.
        problem: on the posterior's device.
        family: the sources, there too.
        num: of candidates at most.
        generator: on that device.
    """
    found = propose(
        posterior, problem, _NUM_SAMPLES, _DRAWS_PER_SEED * num, generator, "joint", _NUM_STARTS
    )
    sure = suited(posterior, problem, _SAFE, generator)
    x = torch.cat([sure, found.x])
    judged = gates.worth_serving(posterior, problem, x, generator)
    lengthscale = family.inducing.lengthscale.amin(0)
    promising = len(sure) + judged.promise[len(sure) :].argsort(descending=True)
    kept: list[int] = []
    for row in [*range(len(sure)), *promising.tolist()]:
        if len(kept) == num or not bool(judged.accepted[row]):
            continue
        if distance(x[row], family.points, lengthscale) > REACH:
            continue
        if kept and distance(x[row], x[kept], lengthscale) < _APART:
            continue
        kept.append(row)
    return Chosen(
        problem.space.from_unit(x[kept].cpu()),
        gates.RiskScore(*(field[kept] for field in judged)),
        int((~judged.accepted).sum()),
    )


def _why_not(problem: Problem, family: Family, agreed: float) -> str | None:
    if problem.sees_levels and problem.base_levels is None:
        return "base levels are not known yet, which risk has to be judged by"
    if not bool(family.known.any(1).all()):
        return "of some metric no source knows anything"
    if int(family.known.any(0).sum()) < 2:
        return "a single source has nobody to agree with"
    if agreed < LEAST_AGREEMENT:
        return f"the sources agree by {agreed:.3g} nats, less than {LEAST_AGREEMENT:g}"
    return None


def distance(x: Tensor, others: Tensor, lengthscale: Tensor) -> float:
    """To the nearest, in lengthscales."""
    return float(((others - x) / lengthscale).square().sum(-1).min().sqrt())
