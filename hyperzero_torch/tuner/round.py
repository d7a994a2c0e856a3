"""One round of Algorithm 2: from the model to the plan, and the candidates added for it.

Everything here is a function of (problem, configuration, history, round, seed): the same journal
gives the same plan. There are two planners: with a posterior candidates are selected, verified and
proposed; without one all candidates are served in turn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..study.config import TunerConfig
from ..study.evidence.active_set import competing
from ..study.history import CONTROL, History
from ..study.journal import CandidateAdded, Decision, Entry, Planned
from ..study.journal.trace import HyperparametersTrace, PlanTrace
from ..study.switch_state import waiting_in_words
from ..surrogate import Posterior
from ..thompson import propose, select, select_paths
from ..thompson.propose import Proposals
from .allocation import allocate
from .beliefs import own_evidence
from .candidates import add_proposals, initial_design, readmitted, retirements, returning
from .context import RoundContext
from .drift import monitor
from .guardrails import harm_stops
from .launch import plan_launch, review_launch
from .model import Fitted, ModelState, Unfitted
from .near_start import scope
from .oversight import Oversight, review
from .switches import (
    WAITING,
    approval_needed,
    approval_remarks,
    held_plan,
    note_on,
    places_beside,
    without_pinned,
)
from .traffic import (
    choose_arms,
    places_for_newcomers,
    round_robin,
    verification_slots,
)
from .transfer_candidates import (
    TRANSFERRED,
    screen_proposals,
    seed_candidates,
    transfer_decisions,
    transfer_proposals,
    transfer_trace,
)
from .verification import leaders


class Draft(NamedTuple):
    """What a planner decides: slots per candidate, candidates to add, the trace, and remarks."""

    slots: Tensor
    added: list[CandidateAdded]
    trace: PlanTrace
    remarks: list[Decision]


class Votes(NamedTuple):
    """Slots per candidate ``(candidates,)``, and the numbers of unusual draws."""

    slots: Tensor
    num_infeasible: int
    num_undefined: int
    num_tied: int


def plan_round(
    state: ModelState,
    config: TunerConfig,
    history: History,
    round: int,
    seed: int,
    trigger: str | None = None,
    by: str = "",
) -> list[Entry]:
    """The entries that plan a round: stops, new candidates, the plan, then remarks.

    ``by`` is who asks for the plan, and cannot approve it where it needs approval.
    """
    context = RoundContext(config, history.branch(), round, seed)
    history = context.history
    stopped = harm_stops(state, context)
    history.extend(stopped)
    oversight = review(state, context)
    history.extend(oversight.withdrawn)
    before = [*stopped, *oversight.withdrawn]
    switches, is_first = history.status.switches, history.num_candidates == 0
    launch = review_launch(state, context, oversight)
    # A launch that goes back does so while a study is paused, too.
    if launch is not None and (switches.mode == "running" or launch.verdict == "go back"):
        plan = plan_launch(state, context, oversight, launch, trigger)
        return [*before, *launch.decisions, plan, *oversight.remarks]
    state, radius = scope(state, context)
    num_tested = int(state.bucket.tested.sum())
    notes = (*note_on(switches), *oversight.notes)
    if switches.mode != "running":
        added = initial_design(state.problem, config, seed) if is_first else []
        held = held_plan(context, switches.mode, num_tested, notes, trigger)
        return [*before, *added, held, *oversight.remarks]
    if isinstance(state, Fitted):
        draft = _plan_fitted(state, context, oversight)
    else:
        draft = _plan_unfitted(state, context)
    pins = switches.pins
    arms, slots = choose_arms(
        history.times_served,
        without_pinned(draft.slots, pins),
        places_beside(config, pins),
        {*history.status.stopped, *pins},
    )
    planned = allocate(state, context, oversight, arms, slots, draft.slots)
    needed = approval_needed(history, config, planned.arms, planned.shares, by)
    if needed is not None:
        asks, added = approval_remarks(context, needed), draft.added if is_first else []
        notes = (waiting_in_words(needed), *notes)
        held = held_plan(context, WAITING, num_tested, notes, trigger, needed)
        return [*before, *added, *asks, held, *oversight.remarks]
    crowded_out: list[int] = []
    trace = draft.trace
    if isinstance(state, Fitted):
        winners = draft.slots.nonzero().flatten().tolist()
        crowded_out = sorted(set(winners) - set(planned.arms))
        trace = trace.model_copy(update={"crowded_out": tuple(crowded_out)})
    facts = {"exposure": planned.exposure, "radius": radius, "notes": notes}
    trace = trace.model_copy(update=facts | {"experiment_share": config.experiment_share})
    plan = Planned(
        round=round,
        candidates=(CONTROL, *planned.arms),
        slots=(0, *planned.slots),
        shares=planned.shares,
        trigger=trigger,
        details=trace.stored(),
    )
    retired: list[Decision] = []
    if isinstance(state, Fitted):
        retired = retirements(history, config, round, plan.candidates, crowded_out)
    return [*before, *draft.added, plan, *oversight.remarks, *draft.remarks, *retired]


def _plan_unfitted(state: Unfitted, context: RoundContext) -> Draft:
    """Without a posterior: the initial design in the first round, and all arms served in turn."""
    history, config = context.history, context.config
    added: list[CandidateAdded] = []
    transfer = None
    if history.num_candidates == 0:
        added = initial_design(state.problem, config, context.seed)
        history.extend(added)
        seeds, transfer = seed_candidates(state, context)
        history.extend(seeds)
        added += seeds
    suggested = [c.candidate for c in history.candidates if c.origin == TRANSFERRED]
    slots = round_robin(history.times_served, config, history.status.stopped, suggested)
    num_tested = int(state.bucket.tested.sum())
    trace = PlanTrace(num_tested=num_tested, why_not=state.why_not, transfer=transfer)
    remarks = []
    if num_tested:  # there is evidence, and it was not used
        reason = f"{state.why_not}; traffic is split evenly"
        remarks.append(Decision(context.round, "fallback", reason))
    return Draft(slots, added, trace, remarks)


def _plan_fitted(state: Fitted, context: RoundContext, oversight: Oversight) -> Draft:
    """With a posterior: verify leaders, propose, and give slots to the winners of draws.

    While no readings arrive nothing is proposed or verified.
    """
    history, config, problem = context.history, context.config, state.problem
    drift = monitor(state, context)
    verification = verification_slots(config, context.age)
    if oversight.is_blind:
        verification = 0
    leading, added = leaders(state, context) if verification else ([], [])
    history.extend(added)
    proposals = None if oversight.is_blind else _proposals(state, context)
    screenings = []
    if proposals is not None:
        proposals, screening = screen_proposals(state, context, proposals)
        screenings.append(screening)
    proposed = add_proposals(problem, history, proposals, context.round)
    history.extend(proposed)
    suggested: list[CandidateAdded] = []
    if not oversight.is_blind:
        suggested, screening = transfer_proposals(state, context)
        screenings.append(screening)
        history.extend(suggested)
    added = [*added, *proposed, *suggested]

    verification = verification if leading else 0
    num_draws = config.num_draws - verification
    votes = _vote(state, context, num_draws)
    slots = votes.slots
    revived = returning(history, proposals)
    back = [*revived, *readmitted(history)]
    slots[back] = slots[back].clamp_min(config.newcomer_slots)
    for leader in leading:
        slots[leader] += verification // len(leading)

    remarks = [*drift.alarms, *_remarks(state, votes, num_draws, context.round)]
    transfer = transfer_trace(state, screenings, added)
    if transfer is not None:
        remarks += transfer_decisions(state, context, transfer)
    trace = PlanTrace(
        num_tested=int(state.bucket.tested.sum()),
        fit_succeeded=state.posterior.fit_succeeded,
        num_infeasible_draws=votes.num_infeasible,
        proposed=tuple(c.candidate for c in proposed),
        leaders=tuple(leading),
        revived=tuple(revived),
        hyperparameters=_hyperparameters(state),
        drift=drift.detector,
        transfer=transfer,
    )
    return Draft(slots, added, trace, remarks)


def _hyperparameters(state: Fitted) -> HyperparametersTrace | None:
    """What the next fit starts from; a surrogate of another kind always starts anew.

    With or without sources, that is the study's own evidence.
    """
    if not isinstance(state.cold, Posterior):
        return None
    lengthscale, *others = state.cold.hyperparameters
    rows = torch.cat([lengthscale.T, torch.stack(others)])  # one copy to the host, not three
    *by_dim, outputscale, constant = rows.tolist()
    by_metric = tuple(zip(*by_dim))
    return HyperparametersTrace(
        lengthscale=by_metric, outputscale=tuple(outputscale), constant=tuple(constant)
    )


def _proposals(state: Fitted, context: RoundContext) -> Proposals | None:
    """Algorithm 3, with probability p, for as many newcomers as there are places."""
    config, posterior = context.config, state.posterior
    num_waiting = sum(served == 0 for served in context.history.times_served[1:])
    num_places = places_for_newcomers(config) - num_waiting
    if num_places <= 0:
        return None
    coin = context.generator("coin")
    if float(torch.rand((), generator=coin, dtype=torch.float64)) >= config.proposal_probability:
        return None
    return propose(
        posterior,
        state.fitted_problem,
        config.num_samples,
        min(config.num_proposals, num_places),
        context.generator("propose", posterior.device),
        config.draws,
        config.num_starts,
    )


def _vote(state: Fitted, context: RoundContext, num_draws: int) -> Votes:
    """Algorithm 1 over the bucket, newcomers included where the posterior covers them."""
    config, history, posterior = context.config, context.history, state.posterior
    problem, bucket = state.fitted_problem, state.bucket
    generator = context.generator("select", posterior.device)
    slots = torch.zeros(history.num_candidates, dtype=torch.long)
    rows = torch.tensor(competing(history, config)).long()
    if config.evidence == "own":
        tested = torch.zeros_like(slots, dtype=torch.bool)
        tested[: len(bucket.theta)] = bucket.has_evidence(problem.used_metrics)
        if not bool(tested[rows].any()):  # only newcomers compete: choose among all others too
            stopped = history.status.stopped
            rows = torch.tensor([c for c in range(1, len(slots)) if c not in stopped]).long()
        rows = rows[tested[rows]]
    if not len(rows):  # all are stopped
        return Votes(slots, 0, 0, 0)
    if config.evidence == "own":
        mean, var = own_evidence(problem, bucket, rows, posterior.x)
        selection = select(mean, var, problem, num_draws, generator, config.caution)
    else:
        x = state.to_unit(history.theta[rows])
        if config.draws == "joint":
            paths = posterior.paths(num_draws, generator)
            selection = select_paths(paths, x, problem, config.caution)
        else:
            mean, var = posterior.marginal(x)
            selection = select(mean, var, problem, num_draws, generator, config.caution)
    numbers = torch.cat([selection.counts, torch.stack(selection[3:])])  # one copy to the host
    *counts, infeasible, undefined, tied = numbers.tolist()
    slots[rows] = torch.tensor(counts)
    return Votes(slots, infeasible, undefined, tied)


def _remarks(state: Fitted, votes: Votes, num_draws: int, round: int) -> list[Decision]:
    """Remarks on unusual fits and draws."""
    problem: Problem = state.problem
    reasons: dict[str, str] = {}
    if state.remark is not None:
        reasons["fallback"] = state.remark
    if not state.posterior.fit_succeeded:
        is_own = isinstance(state.posterior, Posterior)
        start = "priors' medians" if is_own else "initial values"
        sure = "" if is_own else "left a metric next to no variance, "
        remedy = "" if is_own else "; priors on the kernel's parameters prevent that"
        reasons["fit"] = (
            f"the fit of the kernel failed, {sure}or predicted left-out candidates much worse than "
            f"the {start}; it was not used{remedy}"
        )
    if votes.num_infeasible == num_draws:
        reasons["infeasible"] = (
            f"in none of {num_draws} draws did any candidate meet all constraints "
            f"{list(problem.constraint_names)}; traffic goes to those that violate least"
        )
    if votes.num_undefined:
        reasons["undefined"] = (
            f"the objective {problem.objective_name!r} was NaN for a candidate in "
            f"{votes.num_undefined} of {num_draws} draws; such a candidate does not win a draw"
        )
    if votes.num_tied == num_draws:
        reasons["tied"] = (
            f"the objective {problem.objective_name!r} was the same for all feasible candidates in "
            "every draw; they are served in turn"
        )
    return [Decision(round, kind, reason) for kind, reason in reasons.items()]
