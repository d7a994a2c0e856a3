"""What became of other domains' advice this round: admitted, fallen back from, seeds given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.decisions import RETIRED, TRANSFER
from ..study.history import History
from ..study.journal import CandidateAdded, Decision
from ..thompson.propose import Proposals
from ..transfer import decision
from ..transfer.model.gates import RiskScore, worth_serving
from ..transfer.model.seeds import REACH, choose, distance
from ..transfer.model.suited import suited
from ..transfer.prior import Prior
from .candidates import born
from .model import ModelState

#: Origin of a candidate that other domains suggested.
TRANSFERRED = "transferred"
# P(gain > 0 and feasible) below which a suggestion that was tried competes no longer.
_HOPELESS = 0.05
# A suggestion so near to a candidate, in lengthscales, is that candidate.
_SAME = 0.1


def seeded(
    prior: Prior, problem: Problem, config: TunerConfig, seed: int, history: History
) -> tuple[list[CandidateAdded], dict[str, Any]]:
    """Candidates that other domains suggest, beside the first design; and facts about them."""
    if not config.num_seeds or not config.seed_first:
        return [], {"used": False, "seeds": 0, "reason": "the sources have to be admitted first"}
    generator = random(seed, 0, "seeds", torch.device("cpu"))
    theta, facts = prior.seeds(problem, config.num_seeds, generator)
    new = [row for row in theta.tolist() if history.find(row) is None]
    unique = list(dict.fromkeys(map(tuple, new)))
    births = born(problem, torch.tensor(unique, dtype=torch.float64), history, 0, TRANSFERRED)
    return births, facts | {"used": bool(births), "candidates": [b.candidate for b in births]}


class Screening(NamedTuple):
    """What new points risk: P(gain > 0 and feasible) and what is needed of it, by theta.

    ``refused`` counts those that were not worth their traffic.
    """

    judged: Mapping[tuple[float, ...], tuple[float, float]]
    refused: int

    @classmethod
    def of(cls, theta: Tensor, found: RiskScore) -> Screening:
        """Of points ``theta (n, params)``."""
        pairs = zip(found.prob.tolist(), found.needed.tolist())
        rows = map(tuple, theta.tolist())
        return cls(dict(zip(rows, pairs)), int((~found.accepted).sum()))


_NOTHING = Screening({}, 0)


def screened(found: Sequence[Screening], births: Sequence[CandidateAdded]) -> dict[str, Any]:
    """For the journal: what new candidates risk, and how many others were refused."""
    judged = {theta: pair for one in found for theta, pair in one.judged.items()}
    served = {
        str(one.candidate): dict(zip(("prob", "needed"), (round(p, 4) for p in judged[one.theta])))
        for one in births
        if one.theta in judged
    }
    refused = sum(one.refused for one in found)
    facts = {"screened": served, "refused": refused}
    return {key: value for key, value in facts.items() if value}


def suggested(
    known: ModelState, config: TunerConfig, history: History, round: int, seed: int
) -> tuple[list[CandidateAdded], Screening]:
    """Where other domains count: their seeds at first, then what would be promoted if tested."""
    posterior, prior, cold = known.posterior, known.prior, known.cold
    if not _counts(known) or posterior is None or prior is None or cold is None:
        return [], _NOTHING
    problem = known.problem.to(posterior.device)
    generator = random(seed, round, "suited", posterior.device)
    first = all(one.origin != TRANSFERRED for one in history.candidates)
    if first and config.num_seeds:
        family = prior.family.to(posterior.device)
        seeds = choose(posterior, problem, family, config.num_seeds, generator)
        new = [row for row in map(tuple, seeds.theta.tolist()) if history.find(row) is None]
        theta = torch.tensor(list(dict.fromkeys(new)), dtype=torch.float64)
        births = born(problem, theta, history, round, TRANSFERRED)
        return births, Screening.of(seeds.theta, seeds.judged)._replace(refused=seeds.refused)
    levels = (config.min_prob_feasible, (1 + config.min_prob_feasible) / 2)
    x = suited(posterior, problem, levels, generator)
    if not len(x):
        return [], _NOTHING
    judged = worth_serving(posterior, problem, x, generator)
    theta = problem.space.from_unit(x.cpu())
    taken = problem.space.to_unit(history.theta).to(posterior.x)
    tested = torch.cat([*(source.x.to(posterior.x) for source in prior.allowed), cold.x])
    lengthscale = posterior.hyperparameters.lengthscale.amin(0)
    found: list[CandidateAdded] = []
    for i in judged.accepted.nonzero().flatten().tolist():
        row = x[i]
        far = distance(row, tested, lengthscale) > REACH
        if far or distance(row, taken, lengthscale) < _SAME:
            continue
        found += born(problem, theta[i : i + 1], history, round, TRANSFERRED, len(found))
        taken = torch.cat([taken, row.unsqueeze(0)])
    return found, Screening.of(theta, judged)


def accepted(
    known: ModelState, found: Proposals, round: int, seed: int
) -> tuple[Proposals, Screening]:
    """Of new proposals those that deserve their traffic; all where no source counts."""
    posterior = known.posterior
    if not _counts(known) or posterior is None or not len(found.x):
        return found, _NOTHING
    generator = random(seed, round, "worth", posterior.device)
    judged = worth_serving(posterior, known.problem.to(posterior.device), found.x, generator)
    kept = Proposals(*(field[judged.accepted] for field in found))
    return kept, Screening.of(found.theta, judged)


def _counts(known: ModelState) -> bool:
    return known.judgement is not None and known.judgement.used


def transferred(
    known: ModelState, config: TunerConfig, history: History, round: int, seed: int
) -> list[Decision]:
    """Decisions about transfer that a round has to tell: changes of mind, and hopeless seeds."""
    return [*_change(known, history, round), *_given_up(known, config, history, round, seed)]


def _change(known: ModelState, history: History, round: int) -> list[Decision]:
    """A remark where the sources count from now on, or no longer, in other metrics than before."""
    assert known.judgement is not None  # the caller's branch
    past = [
        p.details["transfer"]
        for p in history.plans.values()
        if "metrics" in p.details.get("transfer", {})
    ]
    before, now = (past[-1] if past else {}), known.judgement.facts
    had, has = before.get("metrics", []), now.get("metrics", [])
    if had == has:
        return []
    if not has:
        reason = f"other domains count no longer: {now['reason']}; plans are those of a cold start"
    else:
        weights = {name: decision.weight(now, name) for name in now["sources"]}
        used = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items() if weight > 0)
        reason = f"other domains count for {has} ({now['reason']}); weights: {used}"
        if gone := sorted(set(had) - set(has)):
            reason += f"; no longer for {gone}, where the cold model predicts better"
    return [Decision(round, TRANSFER, reason, now)]


def _given_up(
    known: ModelState, config: TunerConfig, history: History, round: int, seed: int
) -> list[Decision]:
    """Suggested candidates that were tried and have next to no chance left: retired early."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    standing, tested = history.status, known.bucket.tested
    tried = [
        one.candidate
        for one in history.candidates
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
    return [Decision(round, RETIRED, reason, {"candidates": gone})]
