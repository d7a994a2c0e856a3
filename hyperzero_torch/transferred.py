"""What became of other domains' advice this round: admitted, fallen back from, seeds given up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .births import born
from .config import TunerConfig
from .history import History
from .journal import Born, Decided
from .learn import Known
from .problem import Problem
from .randomness import random
from .standing import RETIRED, TRANSFER
from .transfer.guard import worth_serving
from .transfer.prior import Prior
from .transfer.seeding import choose
from .transfer.suited import suited

#: Origin of a candidate that other domains suggested.
TRANSFERRED = "transferred"
# P(gain > 0 and feasible) below which a suggestion that was tried competes no longer.
_HOPELESS = 0.05
# A suggestion so near to a candidate, in lengthscales, is that candidate.
_SAME = 0.1


def seeded(
    prior: Prior, problem: Problem, config: TunerConfig, seed: int, history: History
) -> tuple[list[Born], dict[str, Any]]:
    """Candidates that other domains suggest, beside the first design; and facts about them."""
    if not config.num_seeds or not config.seed_first:
        return [], {"used": False, "seeds": 0, "reason": "the sources have to be admitted first"}
    generator = random(seed, 0, "seeds", torch.device("cpu"))
    theta, facts = prior.seeds(problem, config.num_seeds, generator)
    new = [row for row in theta.tolist() if history.find(row) is None]
    unique = list(dict.fromkeys(map(tuple, new)))
    births = born(problem, torch.tensor(unique, dtype=torch.float64), history, 0, TRANSFERRED)
    return births, facts | {"used": bool(births), "candidates": [b.candidate for b in births]}


def suggested(
    known: Known, config: TunerConfig, history: History, round: int, seed: int
) -> list[Born]:
    """Where other domains count: their seeds at first, then what would be promoted if tested."""
    posterior = known.posterior
    if known.judgement is None or not known.judgement.used or posterior is None:
        return []
    problem = known.problem.to(posterior.device)
    generator = random(seed, round, "suited", posterior.device)
    first = all(one.origin != TRANSFERRED for one in history.births)
    if first and config.num_seeds and known.prior is not None:
        family = known.prior.family.to(posterior.device)
        seeds = choose(posterior, problem, family, config.num_seeds, generator)
        new = [row for row in seeds.theta.tolist() if history.find(row) is None]
        unique = list(dict.fromkeys(map(tuple, new)))
        theta = torch.tensor(unique, dtype=torch.float64)
        return born(problem, theta, history, round, TRANSFERRED)
    levels = (config.min_prob_feasible, (1 + config.min_prob_feasible) / 2)
    x = suited(posterior, problem, levels, generator)
    accepted = worth_serving(posterior, problem, x, generator).accepted if len(x) else x[:, 0] > 0
    taken = problem.space.to_unit(history.theta).to(posterior.x)
    lengthscale = posterior.hyperparameters.lengthscale.amin(0)
    found: list[Born] = []
    for row in x[accepted]:
        if float(((taken - row) / lengthscale).square().sum(-1).min().sqrt()) < _SAME:
            continue
        theta = problem.space.from_unit(row.cpu()).unsqueeze(0)
        found += born(problem, theta, history, round, TRANSFERRED, len(found))
        taken = torch.cat([taken, row.unsqueeze(0)])
    return found


def accepted(known: Known, x: Tensor, round: int, seed: int) -> Tensor | None:
    """Which new points ``(n, dims)`` deserve traffic, ``(n,)``; None where no source counts."""
    posterior = known.posterior
    if known.judgement is None or not known.judgement.used or posterior is None:
        return None
    if not len(x):
        return x.new_ones(0, dtype=torch.bool)
    generator = random(seed, round, "worth", posterior.device)
    return worth_serving(posterior, known.problem.to(posterior.device), x, generator).accepted


def transferred(
    known: Known, config: TunerConfig, history: History, round: int, seed: int
) -> list[Decided]:
    """Decisions about transfer that a round has to tell: changes of mind, and hopeless seeds."""
    return [*_change(known, history, round), *_given_up(known, config, history, round, seed)]


def _change(known: Known, history: History, round: int) -> list[Decided]:
    """A remark where the sources count from now on, or no longer, in other metrics than before."""
    assert known.judgement is not None  # the caller's branch
    told = [
        p.details["transfer"]
        for p in history.plans.values()
        if "metrics" in p.details.get("transfer", {})
    ]
    before, now = (told[-1] if told else {}), known.judgement.facts
    had, has = before.get("metrics", []), now.get("metrics", [])
    if had == has:
        return []
    if not has:
        reason = f"other domains count no longer: {now['reason']}; plans are those of a cold start"
    else:
        weights = {name: max(one["weight"], default=0.0) for name, one in now["sources"].items()}
        used = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items() if weight > 0)
        reason = f"other domains count for {has} ({now['reason']}); largest weights: {used}"
        if gone := sorted(set(had) - set(has)):
            reason += f"; no longer for {gone}, where the cold model predicts better"
    return [Decided(round, TRANSFER, reason, now)]


def _given_up(
    known: Known, config: TunerConfig, history: History, round: int, seed: int
) -> list[Decided]:
    """Suggested candidates that were tried and have next to no chance left: retired early."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    standing, tested = history.standing, known.bucket.tested
    tried = [
        one.candidate
        for one in history.births
        if one.origin == TRANSFERRED
        and one.candidate not in standing.retired | standing.stopped
        and one.candidate < len(tested)
        and bool(tested[one.candidate])
    ]
    if not tried or config.retire_after is None:
        return []
    problem = known.problem.to(posterior.device)
    x = problem.space.to_unit(history.theta[tried]).to(posterior.x)
    judged = worth_serving(posterior, problem, x, random(seed, round, "hopeless", posterior.device))
    prob = judged.prob.cpu()
    gone = [c for c, p in zip(tried, prob.tolist()) if p < _HOPELESS]
    if not gone:
        return []
    reason = (
        f"suggested by other domains, tried, and P(gain > 0 and feasible) is below {_HOPELESS:g}: "
        "they compete no longer, unless they are served again; their evidence stays in the fit"
    )
    return [Decided(round, RETIRED, reason, {"candidates": gone})]
