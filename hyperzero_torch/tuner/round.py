"""Algorithm 2, one round of it: from what is known to who is served, and who is born.

Everything here is a function of (problem, configuration, history, round, seed): the same journal
gives the same plan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.evidence.active_set import competing
from ..study.history import CONTROL, History
from ..study.journal import CandidateAdded, Decision, Entry, Planned
from ..surrogate import similarity
from ..thompson import propose, select, select_paths
from ..thompson.propose import Proposals
from .candidates import born, first_bucket, newborn
from .drift import watch
from .guardrails import stops
from .model import ModelState
from .outlook import noise_per_round
from .retirements import retirements, revived
from .traffic import (
    choose_arms,
    most_control,
    places_for_newcomers,
    round_robin,
    shares,
    verification_slots,
)
from .transfer_candidates import (
    TRANSFERRED,
    accepted,
    screened,
    seeded,
    suggested,
    transferred,
)
from .verification import leaders

# Shares of a leader and of the control that verification is thought ahead with.
_VERIFICATION = (0.5, 0.5)
# A leader so near to a candidate, in lengthscales, is that candidate.
_SAME = 0.05


class Votes(NamedTuple):
    """Slots per candidate ``(candidates,)``, and of how many draws something odd is to be said."""

    slots: Tensor
    num_infeasible: int
    num_undefined: int
    num_tied: int


def decide(
    known: ModelState,
    config: TunerConfig,
    history: History,
    round: int,
    seed: int,
    trigger: str | None = None,
) -> list[Entry]:
    """The entries that plan a round: births first, then the plan, then decisions worth a note."""
    problem = known.problem
    notes: list[Entry] = []
    history = history.branch()
    stopped = stops(known, config, history, round)
    history.extend(stopped)
    births = first_bucket(problem, config, seed) if history.num_candidates == 0 else []
    history.extend(births)
    details: dict[str, Any] = {"num_tested": int(known.bucket.tested.sum())}
    if births and known.prior is not None:
        seeds, details["transfer"] = seeded(known.prior, problem, config, seed, history)
        history.extend(seeds)
        births += seeds
    age = round - min(history.plans, default=round)
    if known.posterior is None:
        advised = [b.candidate for b in history.candidates if b.origin == TRANSFERRED]
        slots = round_robin(history.times_served, config, history.status.stopped, advised)
        details["why"] = known.why_not
        if known.why_not is not None and details["num_tested"]:  # evidence that was not used
            notes.append(Decision(round, "fallback", f"{known.why_not}; arms are served in turn"))
    else:
        watched = watch(known, config, history, round)
        notes += watched.alarms
        verify = verification_slots(config, age)
        leading, led = _lead(known, history, config, round, seed) if verify else ([], [])
        history.extend(led)
        waiting = sum(served == 0 for served in history.times_served[1:])
        free = places_for_newcomers(config) - waiting
        proposals = _proposals(known, config, round, seed, free) if free > 0 else None
        screenings = []
        if proposals is not None:
            proposals, screening = accepted(known, proposals, round, seed)
            screenings.append(screening)
        proposed = newborn(problem, history, proposals, round)
        history.extend(proposed)
        told, screening = suggested(known, config, history, round, seed)
        screenings.append(screening)
        history.extend(told)
        births += [*led, *proposed, *told]
        verify = verify if leading else 0
        votes = _vote(known, history, config, round, seed, config.num_draws - verify)
        slots = votes.slots
        again = revived(history, proposals)
        slots[again] = slots[again].clamp_min(config.newcomer_slots)
        for leader in leading:
            slots[leader] += verify // len(leading)
        notes += _remarks(known, votes, config.num_draws - verify, round)
        details |= {
            "fit_succeeded": known.posterior.fit_succeeded,
            "num_infeasible_draws": votes.num_infeasible,
            "proposed": [b.candidate for b in proposed],
            "leaders": leading,
            "revived": again,
            "hyperparameters": {name: value.tolist() for name, value in _start(known).items()},
        }
        if known.judgement is not None:
            details["transfer"] = known.judgement.facts | screened(screenings, births)
            notes += transferred(known, config, history, round, seed)
        if watched.details is not None:
            details["drift"] = watched.details
    won = slots.nonzero().flatten().tolist()
    arms, slots = choose_arms(history.times_served, slots, config, history.status.stopped)
    if known.posterior is not None:
        details["crowded_out"] = sorted(set(won) - set(arms.tolist()))
    alike = None
    if config.evidence == "pooled":
        fitted = None if known.posterior is None else known.posterior.hyperparameters
        alike = similarity(problem.space.to_unit(history.theta[arms]), fitted)
    plan = Planned(
        round=round,
        candidates=(CONTROL, *arms.tolist()),
        slots=(0, *slots.tolist()),
        shares=shares(arms, slots, _last_shares(history), config, alike, most_control(config, age)),
        trigger=trigger,
        details=details,
    )
    return [*stopped, *births, plan, *notes, *retirements(history, plan, config)]


def _start(known: ModelState) -> dict[str, Tensor]:
    """Where the next fit starts from: with or without sources, from the study's own evidence."""
    assert known.cold is not None  # the caller's branch
    found: dict[str, Tensor] = known.cold.hyperparameters._asdict()
    return found


def _remarks(known: ModelState, votes: Votes, num_draws: int, round: int) -> list[Entry]:
    """What was done instead of the usual, for the journal."""
    notes: list[Entry] = []
    assert known.posterior is not None  # the caller's branch
    if not known.posterior.fit_succeeded:
        notes.append(
            Decision(
                round,
                "fit",
                "the fit of the kernel failed, or predicted left-out candidates much worse than "
                "the priors' medians do; it was not used",
            )
        )
    if votes.num_infeasible == num_draws:
        notes.append(
            Decision(
                round,
                "infeasible",
                f"in none of {num_draws} draws did any candidate hold all constraints "
                f"{list(known.problem.constraint_names)}; traffic goes to those that violate least",
            )
        )
    if votes.num_undefined:
        notes.append(
            Decision(
                round,
                "undefined",
                f"the objective {known.problem.objective_name!r} was NaN for some candidate in "
                f"{votes.num_undefined} of {num_draws} draws; such a candidate does not win a draw",
            )
        )
    if votes.num_tied == num_draws:
        notes.append(
            Decision(
                round,
                "tied",
                f"the objective {known.problem.objective_name!r} was the same for all feasible "
                "candidates in every draw; they are served in turn",
            )
        )
    return notes


def _lead(
    known: ModelState, history: History, config: TunerConfig, round: int, seed: int
) -> tuple[list[int], list[CandidateAdded]]:
    """Candidates to verify, and those of them that have to be born for it.

    A leader that all but lies on a candidate is that candidate: it has evidence already.
    """
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    problem = known.problem.to(posterior.device)
    x = problem.space.to_unit(history.theta[known.view]).to(posterior.x)
    ids = known.view.tolist()
    generator = random(seed, round, "lead", posterior.device)
    noise = noise_per_round(known.bucket, *_VERIFICATION).to(x)
    found = leaders(posterior, problem, x, config.min_prob_feasible, noise, generator)
    lengthscale = posterior.hyperparameters.lengthscale.amin(0)
    leading: list[int] = []
    births: list[CandidateAdded] = []
    for row in found:
        distance = ((x - row) / lengthscale).square().sum(-1).sqrt()
        at = int(distance.argmin())
        theta = problem.space.from_unit(row.cpu()).unsqueeze(0)
        # Who is out of view, and the very same, must not be born again: it may have been stopped.
        near = float(distance[at]) <= _SAME
        nearest = ids[at] if near else history.find(theta[0].tolist())
        if nearest is None:
            births += born(known.problem, theta, history, round, "leader", len(births))
            nearest = births[-1].candidate
        if not near:
            ids.append(nearest)
            x = torch.cat([x, row.unsqueeze(0)])
        barred = {CONTROL, *history.status.stopped, *leading}
        if nearest not in barred:
            leading.append(nearest)
    return leading, births


def _vote(
    known: ModelState, history: History, config: TunerConfig, round: int, seed: int, num_draws: int
) -> Votes:
    """Algorithm 1 over the bucket, newcomers included where the posterior speaks for them."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    problem, bucket = known.problem.to(posterior.device), known.bucket
    generator = random(seed, round, "select", posterior.device)
    slots = torch.zeros(history.num_candidates, dtype=torch.long)
    rows, stopped = torch.tensor(competing(history, config)).long(), history.status.stopped
    if config.evidence == "own":
        tested = torch.zeros_like(slots, dtype=torch.bool)
        tested[: len(bucket.tested)] = bucket.tested
        # Only newcomers may be left, of whom an own average says nothing yet.
        if not bool(tested[rows].any()):
            rows = torch.tensor([c for c in range(1, len(slots)) if c not in stopped]).long()
        rows = rows[tested[rows]]
    if not len(rows):  # everyone was stopped
        return Votes(slots, 0, 0, 0)
    if config.evidence == "own":
        mean, var = bucket.mean[rows].to(posterior.x), bucket.var[rows].to(posterior.x)
        chosen = select(mean, var, problem, num_draws, generator, config.caution)
    else:
        x = problem.space.to_unit(history.theta[rows]).to(posterior.x)
        if config.draws == "joint":
            paths = posterior.paths(num_draws, generator)
            chosen = select_paths(paths, x, problem, config.caution)
        else:
            mean, var = posterior.marginal(x)
            chosen = select(mean, var, problem, num_draws, generator, config.caution)
    slots[rows] = chosen.counts.cpu()
    return Votes(slots, int(chosen.num_infeasible), int(chosen.num_undefined), int(chosen.num_tied))


def _proposals(
    known: ModelState, config: TunerConfig, round: int, seed: int, free: int
) -> Proposals | None:
    """Algorithm 3, with probability p; no more than there are ``free`` places for."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    coin = random(seed, round, "coin", torch.device("cpu"))
    if float(torch.rand((), generator=coin, dtype=torch.float64)) >= config.proposal_probability:
        return None
    return propose(
        posterior,
        known.problem.to(posterior.device),
        config.num_samples,
        min(config.num_proposals, free),
        random(seed, round, "propose", posterior.device),
        config.draws,
        config.num_starts,
    )


def _last_shares(history: History) -> dict[int, float]:
    """Share by candidate in the last plan; empty before the first."""
    last = history.last_plan
    return {} if last is None else dict(zip(last.candidates, last.shares))
