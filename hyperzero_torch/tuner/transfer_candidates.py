"""Other domains in a round: suggested candidates, screening of risk, changes in their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.randomness import random
from ..study.history import History
from ..study.journal import CandidateAdded, Decision
from ..study.journal.trace import Retired, RiskTrace, TransferChanged, TransferTrace
from ..thompson.propose import Proposals
from ..transfer import decision
from ..transfer.model.acceptance import RiskScore, risk_screen
from ..transfer.model.seeds import REACH, choose, distance, feasible_maximisers
from .candidates import add_candidates, add_new
from .context import RoundContext
from .model import Fitted, Unfitted

#: Origin of a candidate that other domains suggested.
TRANSFERRED = "transferred"
# A suggested and tested candidate with a lower P(gain > 0 and feasible) retires.
_HOPELESS = 0.05
# A suggestion within this distance of a candidate, in lengthscales, is that candidate.
_SAME = 0.1


class Screening(NamedTuple):
    """The risk of new points: P(gain > 0 and feasible) and the least accepted, by theta.

    ``refused`` counts the points below it.
    """

    risks: Mapping[tuple[float, ...], RiskTrace]
    refused: int

    @classmethod
    def of(cls, theta: Tensor, scores: RiskScore) -> Screening:
        """The screening of points ``theta (n, params)``."""
        risks = [
            RiskTrace(prob=round(prob, 4), needed=round(needed, 4))
            for prob, needed in zip(scores.prob.tolist(), scores.needed.tolist())
        ]
        rows = map(tuple, theta.tolist())
        return cls(dict(zip(rows, risks)), int((~scores.accepted).sum()))


_NOTHING_SCREENED = Screening({}, 0)


def seed_candidates(
    state: Unfitted, context: RoundContext
) -> tuple[list[CandidateAdded], TransferTrace | None]:
    """Candidates that other domains suggest for the first design; None without other domains."""
    prior, config = state.prior, context.config
    if prior is None:
        return [], None
    if not config.num_seeds or not config.seed_first:
        reason = "the sources have to be admitted first"
        return [], TransferTrace(used=False, seeds=0, reason=reason)
    # Like the initial design, they are the same whichever round is the first.
    generator = random(context.seed, 0, "seeds", torch.device("cpu"))
    theta, trace = prior.seeds(state.problem, config.num_seeds, generator)
    added = add_new(state.problem, theta, context.history, 0, TRANSFERRED)
    ids = tuple(candidate.candidate for candidate in added)
    return added, trace.model_copy(update={"used": bool(added), "candidates": ids})


def transfer_proposals(
    state: Fitted, context: RoundContext
) -> tuple[list[CandidateAdded], Screening]:
    """Where sources are used: first their seeds, then points likely to be recommended."""
    prior = state.prior
    if not state.uses_sources or prior is None:
        return [], _NOTHING_SCREENED
    posterior, history, config = state.posterior, context.history, context.config
    problem = state.fitted_problem
    generator = context.generator("suited", posterior.device)
    is_first = all(candidate.origin != TRANSFERRED for candidate in history.candidates)
    if is_first and config.num_seeds:
        family = prior.family.to(posterior.device)
        seeds = choose(posterior, problem, family, config.num_seeds, generator)
        added = add_new(problem, seeds.theta, history, context.round, TRANSFERRED)
        return added, Screening.of(seeds.theta, seeds.risk)._replace(refused=seeds.refused)
    levels = (config.min_prob_feasible, (1 + config.min_prob_feasible) / 2)
    x = feasible_maximisers(posterior, problem, levels, generator)
    if not len(x):
        return [], _NOTHING_SCREENED
    scores = risk_screen(posterior, problem, x, generator)
    theta = problem.space.from_unit(x.cpu())
    taken = state.to_unit(history.theta)
    tested = torch.cat([*(source.x.to(posterior.x) for source in prior.allowed), state.cold.x])
    lengthscale = posterior.lengthscale.amin(0)
    proposals: list[CandidateAdded] = []
    for i in scores.accepted.nonzero().flatten().tolist():
        point = x[i]
        is_far = distance(point, tested, lengthscale) > REACH
        if is_far or distance(point, taken, lengthscale) < _SAME:
            continue
        proposals += add_candidates(
            problem, theta[i : i + 1], history, context.round, TRANSFERRED, len(proposals)
        )
        taken = torch.cat([taken, point.unsqueeze(0)])
    return proposals, Screening.of(theta, scores)


def screen_proposals(
    state: Fitted, context: RoundContext, proposals: Proposals
) -> tuple[Proposals, Screening]:
    """The proposals whose risk is accepted; all of them where no source is used."""
    if not state.uses_sources or not len(proposals.x):
        return proposals, _NOTHING_SCREENED
    generator = context.generator("worth", state.posterior.device)
    scores = risk_screen(state.posterior, state.fitted_problem, proposals.x, generator)
    accepted = Proposals(*(field[scores.accepted] for field in proposals))
    return accepted, Screening.of(proposals.theta, scores)


def transfer_trace(
    state: Fitted, screenings: Sequence[Screening], added: Sequence[CandidateAdded]
) -> TransferTrace | None:
    """The use of other domains in the round, with the risks of its new candidates."""
    if state.judgement is None:
        return None
    risks = {theta: risk for screening in screenings for theta, risk in screening.risks.items()}
    screened = {c.candidate: risks[c.theta] for c in added if c.theta in risks}
    refused = sum(screening.refused for screening in screenings)
    changes = {"screened": screened, "refused": refused}
    return state.judgement.trace.model_copy(update=changes)


def transfer_decisions(
    state: Fitted, context: RoundContext, trace: TransferTrace
) -> list[Decision]:
    """Decisions about other domains: changes in their use, and suggestions that retire."""
    return [*_change(context, trace), *_given_up(state, context)]


def _change(context: RoundContext, trace: TransferTrace) -> list[Decision]:
    """A remark where sources are used for other metrics than in the last plan that weighed them."""
    past = [plan.trace.transfer for plan in context.history.plans.values()]
    weighed = [t for t in past if t is not None and t.metrics is not None]
    before = set(weighed[-1].metrics or ()) if weighed else set()
    now = trace.metrics or ()
    if before == set(now):
        return []
    if not now:
        reason = f"Other domains no longer count: {trace.reason}; plans are those of a cold start"
    else:
        weights = {name: decision.weight(trace, name) for name in trace.sources}
        used = ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items() if weight > 0)
        reason = f"Other domains count for {list(now)} ({trace.reason}); weights: {used}"
        if lost := sorted(before - set(now)):
            reason += f"; no longer for {lost}, where the cold model predicts better"
    changed = trace.model_copy(update={"screened": {}, "refused": 0})
    return [Decision.of(context.round, reason, TransferChanged.read(changed.stored()))]


def _given_up(state: Fitted, context: RoundContext) -> list[Decision]:
    """Early retirement of suggested candidates that were tested and have little chance."""
    history = context.history
    tried = _tried(history, state.bucket.has_evidence(state.problem.used_metrics))
    if not tried or context.config.retire_after is None:
        return []
    generator = context.generator("hopeless", state.posterior.device)
    x = state.to_unit(history.theta[tried])
    prob = risk_screen(state.posterior, state.fitted_problem, x, generator).prob
    hopeless = [c for c, p in zip(tried, prob.tolist()) if p < _HOPELESS]
    if not hopeless:
        return []
    reason = (
        f"Retired: suggested by other domains, tried, and P(gain > 0 and feasible) is below "
        f"{_HOPELESS:g}. Candidates compete again when they are served again; their evidence stays "
        "in the fit"
    )
    return [Decision.of(context.round, reason, Retired(candidates=tuple(hopeless)))]


def _tried(history: History, tested: Tensor) -> list[int]:
    """Suggested candidates with evidence that still compete."""
    out = history.status.retired | history.status.stopped
    return [
        c.candidate
        for c in history.candidates
        if c.origin == TRANSFERRED
        and c.candidate not in out
        and c.candidate < len(tested)
        and bool(tested[c.candidate])
    ]
