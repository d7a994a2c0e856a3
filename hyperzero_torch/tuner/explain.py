"""Why each arm got its traffic in a round: the model when it was planned, and its readings.

Nothing is stored for this: the study is restored from the journal up to the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ProblemError, RoundError
from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study import goals
from ..study.config import TunerConfig
from ..study.history import CONTROL, History
from ..study.journal import Compacted, Decision, Entry, Planned
from ..study.journal.goals_trace import GOALS, GoalsChanged
from ..study.journal.source_trace import OVERRULED
from ..study.journal.trace import (
    DRIFT,
    RETIRED,
    STOPPED,
    TRANSFER,
    DriftFound,
    RolledBack,
    RoundsExcluded,
    RoundsReinstated,
)
from ..thompson import select_paths
from ..transfer import decision
from .beliefs import Belief, believe, no_belief
from .candidates import readmitted
from .explanation import ArmReason, Explanation, ReadingsBehind
from .fit_cache import FitCache
from .model import Fitted, ModelState, update_model
from .transfer_candidates import TRANSFERRED

_NUM_DRAWS = 2048
_SUGGESTED = "suggested by other domains"
# Kinds of remarks that are written together with a plan.
_WITH_A_PLAN = ("fallback", "fit", "infeasible", "undefined", "tied", DRIFT, RETIRED, TRANSFER)


def explain(
    problem: Problem,
    entries: Sequence[Entry],
    round: int,
    seed: int,
    device: torch.device,
    *model: Any,
) -> Explanation:
    """Restore the study from its journal up to a plan, and explain the plan.

    Args:
        problem: of the study today; the goals that held then are taken from the journal.
        entries: the whole journal of the study.
        round: a planned round.
        seed: of the study.
        device: where to fit; ``model`` are the last arguments of ``update_model``.
    Raises:
        RoundError: the round was never planned, or under goals with a callable that is not in force
            any more.
    """
    position, plan = _find(entries, round)
    history = History(problem.space.num_params, problem.metrics)
    history.extend(entries[:position])
    problem = _problem_then(problem, history, entries[position:], round)
    history.extend(_compacted_since(entries, position, TunerConfig(**history.config), history))
    config = TunerConfig(**history.config)
    state = update_model(problem, config, history, device, FitCache.empty(), *model)
    belief = no_belief(state.problem, state.bucket)
    prob_best: dict[int, float] = {}
    if isinstance(state, Fitted):
        generator = random(seed, round, "explain", device)
        candidates = torch.tensor(sorted({*state.fit_set.tolist(), *plan.candidates}))
        belief = believe(
            state.problem.to(device), config, state.bucket, state.posterior, generator, candidates
        )
        prob_best = _prob_best(state, plan, generator)
    before = [e for e in entries[:position] if isinstance(e, Decision)]
    decisions = [e for e in before if e.kind == STOPPED and e.round == round]
    decisions += _written_with(entries, position)
    changed = _changed_before(entries, position)
    arms = tuple(
        _arm(state, history, plan, belief, prob_best, row, candidate)
        for row, candidate in enumerate(plan.candidates)
    )
    remarks = [*changed, *(e.reason for e in decisions)]
    transfer = plan.trace.transfer
    if transfer is not None:
        remarks += decision.sentences(transfer, problem.metrics)
        remarks += [e.reason for e in before if e.kind == OVERRULED][-1:]  # the latest holds
    facts = None if transfer is None else transfer.plain()
    return Explanation(round, arms, tuple(remarks), facts)


def _problem_then(today: Problem, history: History, later: Sequence[Entry], round: int) -> Problem:
    """The problem with the goals that held when a round was planned."""
    traces = (e.trace for e in later if isinstance(e, Decision) and e.kind == GOALS)
    changes = [trace for trace in traces if isinstance(trace, GoalsChanged)]
    try:
        return goals.at(history.goals, changes, today)
    except ProblemError as error:
        raise RoundError(
            f"round {round} was planned under goals that were changed since, and cannot be "
            f"explained without them: {error}"
        ) from None


def _find(entries: Sequence[Entry], round: int) -> tuple[int, Planned]:
    """A round's plan, and its position among the entries."""
    plans = [(i, e) for i, e in enumerate(entries) if isinstance(e, Planned)]
    for position, plan in plans:
        if plan.round == round:
            return position, plan
    rounds = [plan.round for _, plan in plans]
    planned = f"rounds {rounds[0]} to {max(rounds)} were" if rounds else "no round was"
    raise RoundError(f"round {round} was never planned; {planned}")


def _compacted_since(
    entries: Sequence[Entry], position: int, config: TunerConfig, history: History
) -> list[Compacted]:
    """Blocks that were settled when a plan was made, and compacted later.

    Raises:
        RoundError: a block was not settled yet, so the evidence of that time is lost.
    """
    blocks: list[Compacted] = []
    planned = list(history.plans)
    for entry in (e for e in entries[position:] if isinstance(e, Compacted)):
        if entry.rounds[0] not in history.plans:
            continue  # planned later
        last = planned.index(entry.rounds[-1]) if entry.rounds[-1] in history.plans else None
        size = config.block_rounds or 0
        was_live = last is None or len(planned) < last + 1 + size
        has_later_readings = any(message > position for message in entry.messages)
        between = entries[position : entries.index(entry)]
        if was_live or has_later_readings or _decided_since(between, entry):
            raise RoundError(
                f"readings of rounds {entry.rounds[0]} to {entry.rounds[-1]} were compacted into "
                "evidence since, which differs from the evidence when this round was planned; "
                "later rounds can be explained"
            )
        blocks.append(entry)
    return blocks


def _decided_since(entries: Sequence[Entry], compacted: Compacted) -> bool:
    """Whether one of these decisions changed the evidence of a block that was compacted later."""
    first, last = compacted.rounds[0], compacted.rounds[-1]
    for entry in entries:
        match entry.trace if isinstance(entry, Decision) else None:
            case DriftFound(before=before) if first < before <= last:
                return True
            case RoundsExcluded(rounds=r) | RoundsReinstated(rounds=r) | RolledBack(rounds=r):
                if not set(compacted.rounds).isdisjoint(r):
                    return True
    return False


def _changed_before(entries: Sequence[Entry], position: int) -> list[str]:
    """Changes of goals since the plan before, oldest first."""
    remarks: list[str] = []
    for entry in reversed(entries[:position]):
        if isinstance(entry, Planned):
            break
        if isinstance(entry, Decision) and isinstance(entry.trace, GoalsChanged):
            by, what = entry.trace.by, "; ".join(entry.trace.differences)
            remarks.insert(0, f"goals were changed by {by} ({entry.reason}): {what}")
    return remarks


def _written_with(entries: Sequence[Entry], position: int) -> list[Decision]:
    """Decisions that were written together with a plan."""
    decisions: list[Decision] = []
    for entry in entries[position + 1 :]:
        if not isinstance(entry, Decision) or entry.kind not in _WITH_A_PLAN:
            break
        decisions.append(entry)
    return decisions


def _prob_best(state: Fitted, plan: Planned, generator: torch.Generator) -> dict[int, float]:
    """Share of joint draws in which each arm, the control included, is the best feasible one."""
    x = state.to_unit(state.bucket.theta[list(plan.candidates)])
    paths = state.posterior.paths(_NUM_DRAWS, generator)
    counts: Tensor = select_paths(paths, x, state.fitted_problem, 0.0).counts
    return dict(zip(plan.candidates, (counts.double() / _NUM_DRAWS).tolist()))


def _arm(
    state: ModelState,
    history: History,
    plan: Planned,
    belief: Belief,
    prob_best: Mapping[int, float],
    row: int,
    candidate: int,
) -> ArmReason:
    added = history.candidates[candidate]
    spread = belief.delta_var[candidate].sqrt().tolist()
    delta = zip(belief.delta_mean[candidate].tolist(), spread)
    return ArmReason(
        candidate=candidate,
        share=plan.shares[row],
        slots=plan.slots[row],
        why=tuple(_why(history, plan, candidate)),
        origin=f"{added.origin}, round {added.round}",
        parameters=dict(added.parameters),
        prob_best=prob_best.get(candidate),
        prob_feasible=float(belief.prob_feasible[candidate]),
        objective=(
            float(belief.mean[candidate]),
            float(belief.lcb[candidate]),
            float(belief.ucb[candidate]),
        ),
        delta=dict(zip(state.problem.metrics, delta)),
        readings=tuple(_readings(history, candidate)),
    )


def _why(history: History, plan: Planned, candidate: int) -> list[str]:
    trace = plan.trace
    if candidate == CONTROL:
        return ["the control: every delta is measured against it"]
    if trace.launch is not None:
        return [f"it is being launched, in stage {trace.launch.stage + 1}; exploration rests"]
    reasons = []
    added = history.candidates[candidate]
    if added.origin == TRANSFERRED:
        reasons.append(_SUGGESTED)
    risk = None if trace.transfer is None else trace.transfer.screened.get(candidate)
    if added.round == plan.round and risk is not None:
        reasons.append(
            f"P(gain > 0 and feasible) was {risk.prob:.2f} when it was new; its risk required "
            f"at least {risk.needed:.2f}"
        )
    if trace.why_not:
        return [*reasons, f"traffic is split evenly: {trace.why_not}"]
    if candidate in trace.leaders:
        reasons.append("among the points most worth verifying, so it got verification slots")
    if candidate in trace.proposed:
        reasons.append("the best point of a draw over the whole space, proposed in this round")
    if candidate in readmitted(history):
        reasons.append("stopped before, and let back in by a person")
    if candidate in trace.revived:
        reasons.append("retired before, and proposed again by a draw")
    if not history.times_served[candidate]:
        reasons.append("never served before, so it got at least a newcomer's slots")
    elif set(reasons) <= {_SUGGESTED}:
        reasons.append("won its slots in Thompson draws")
    return reasons


def _readings(history: History, candidate: int) -> list[ReadingsBehind]:
    readings = []
    for round_, table in sorted(history.tables.items()):
        row = table.row.get(candidate)
        if row is None or not (table.revision[row] >= 0).any():
            continue
        users = float(table.count[row][table.revision[row] >= 0].max())
        is_believed = not table.set_aside[row][table.revision[row] >= 0].all()
        counts = is_believed and round_ not in history.status.excluded_rounds
        readings.append(ReadingsBehind(round_, users, int(table.revision[row].max()), counts))
    return readings
