"""Why each arm got its traffic in a round: what was believed when it was planned, and from what.

Nothing is stored for this. The journal up to the plan is folded again, and says what was known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import RoundError
from ..problem.problem import Problem
from ..problem.space import Value
from ..runtime.randomness import random
from ..study.config import TunerConfig
from ..study.decisions import (
    ASIDE,
    DRIFT,
    OVERRULED,
    REINSTATED,
    RETIRED,
    ROLLED_BACK,
    STOPPED,
    TRANSFER,
)
from ..study.history import CONTROL, History
from ..study.journal import Compacted, Decision, Entry, Planned
from ..thompson import select_paths
from ..transfer import decision
from .model import FitCache, ModelState, learn
from .recommend import Belief, believe, no_belief
from .transfer_candidates import TRANSFERRED

_NUM_DRAWS = 2048
_SUGGESTED = "suggested by other domains"
# Kinds of remarks that are written together with a plan.
_WITH_A_PLAN = ("fallback", "fit", "infeasible", "undefined", "tied", DRIFT, RETIRED, TRANSFER)


@dataclass(frozen=True)
class ReadingsBehind:
    """What had arrived of a candidate from one round: users, and the highest revision."""

    round: int
    users: float
    revision: int
    counts: bool
    """False where the round was set aside."""


@dataclass(frozen=True)
class ArmReason:
    """One arm of a plan, and what was known of it.

    Args:
        candidate: its id; 0 is the control.
        share: of the traffic.
        slots: won or granted.
        why: sentences.
        origin: how it was born, and in which round.
        parameters: its theta.
        prob_best: probability that it was the best feasible of the plan's arms; None where nothing
            was fitted.
        prob_feasible: probability that it held all constraints.
        objective: mean, lower and upper bound.
        delta: by metric, believed mean and standard deviation.
        readings: what had arrived of it.
    """

    candidate: int
    share: float
    slots: int
    why: tuple[str, ...]
    origin: str
    parameters: dict[str, Value]
    prob_best: float | None
    prob_feasible: float
    objective: tuple[float, float, float]
    delta: dict[str, tuple[float, float]]
    readings: tuple[ReadingsBehind, ...]


@dataclass(frozen=True)
class Explanation:
    """A round's plan explained.

    ``remarks`` are the decisions that came with it, and what was made of other domains;
    ``transfer`` are the facts behind that, as they were recorded: None where there was nothing to
    decide about.
    """

    round: int
    arms: tuple[ArmReason, ...]
    remarks: tuple[str, ...]
    transfer: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def explain(
    problem: Problem, entries: Sequence[Entry], round: int, seed: int, device: torch.device
) -> Explanation:
    """Fold the journal up to a plan, and tell what it was made from.

    Args:
        problem: of the study.
        entries: the whole journal of the study.
        round: a planned round.
        seed: of the study.
        device: where to fit.
    Raises:
        RoundError: the round was never planned.
    """
    at = next(
        (i for i, e in enumerate(entries) if isinstance(e, Planned) and e.round == round), None
    )
    if at is None:
        planned = [e.round for e in entries if isinstance(e, Planned)]
        known_rounds = f"planned are {planned[0]} to {max(planned)}" if planned else "none was yet"
        raise RoundError(f"round {round} was never planned; {known_rounds}")
    history = History(problem.space.num_params, problem.metrics)
    history.extend(entries[:at])
    history.extend(_known_then(entries, at, TunerConfig(**history.config), history))
    config = TunerConfig(**history.config)
    known = learn(problem, config, history, device, FitCache.nothing())
    plan = entries[at]
    assert isinstance(plan, Planned)  # found above
    belief = no_belief(known.problem, known.bucket)
    best: dict[int, float] = {}
    if known.posterior is not None:
        generator = random(seed, round, "explain", device)
        view = torch.tensor(sorted({*known.view.tolist(), *plan.candidates}))
        belief = believe(
            known.problem.to(device), config, known.bucket, known.posterior, generator, view
        )
        best = _prob_best(known, plan, config, generator)
    before = [e for e in entries[:at] if isinstance(e, Decision)]
    said = [e for e in before if e.kind == STOPPED and e.round == round]
    said += _remarks_after(entries, at)
    arms = tuple(
        _arm(known, history, plan, belief, best, row, candidate)
        for row, candidate in enumerate(plan.candidates)
    )
    facts = plan.details.get("transfer")
    remarks = [e.reason for e in said]
    if facts is not None:
        remarks += decision.sentences(facts, problem.metrics)
        remarks += [e.reason for e in before if e.kind == OVERRULED][-1:]  # the latest holds
    return Explanation(round, arms, tuple(remarks), facts)


def _known_then(
    entries: Sequence[Entry], at: int, config: TunerConfig, history: History
) -> list[Compacted]:
    """Blocks that were compacted later, and were settled already when a plan was made.

    Raises:
        RoundError: a block was not settled yet, so what it said then cannot be told any more.
    """
    found: list[Compacted] = []
    planned = list(history.plans)
    for entry in (e for e in entries[at:] if isinstance(e, Compacted)):
        if entry.rounds[0] not in history.plans:
            continue  # planned later
        then_last = planned.index(entry.rounds[-1]) if entry.rounds[-1] in history.plans else None
        size = config.block_rounds or 0
        early = then_last is None or len(planned) < then_last + 1 + size
        late = any(message > at for message in entry.messages)
        if early or late or _decided_since(entries[at : entries.index(entry)], entry):
            raise RoundError(
                f"readings of rounds {entry.rounds[0]} to {entry.rounds[-1]} were compacted into "
                "evidence since, which differs from what was known when this round was planned; "
                "later rounds can be explained"
            )
        found.append(entry)
    return found


def _decided_since(entries: Sequence[Entry], compacted: Compacted) -> bool:
    """Whether a decision after a plan changed what a block that was compacted later holds."""
    first, last = compacted.rounds[0], compacted.rounds[-1]
    return any(
        (d.kind == DRIFT and first < d.details["before"] <= last)
        or (
            d.kind in (ASIDE, REINSTATED, ROLLED_BACK)
            and not set(compacted.rounds).isdisjoint(d.details["rounds"])
        )
        for d in entries
        if isinstance(d, Decision)
    )


def _remarks_after(entries: Sequence[Entry], at: int) -> list[Decision]:
    """Decisions that were written together with the plan."""
    found: list[Decision] = []
    for entry in entries[at + 1 :]:
        if not isinstance(entry, Decision) or entry.kind not in _WITH_A_PLAN:
            break
        found.append(entry)
    return found


def _prob_best(
    known: ModelState, plan: Planned, config: TunerConfig, generator: torch.Generator
) -> dict[int, float]:
    """Share of joint draws in which each arm, the control included, is the best feasible one."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    problem = known.problem.to(posterior.device)
    x = problem.space.to_unit(known.bucket.theta[list(plan.candidates)]).to(posterior.x)
    paths = posterior.paths(_NUM_DRAWS, generator)
    counts: Tensor = select_paths(paths, x, problem, 0.0).counts
    return dict(zip(plan.candidates, (counts.double() / _NUM_DRAWS).tolist()))


def _arm(
    known: ModelState,
    history: History,
    plan: Planned,
    belief: Belief,
    best: Mapping[int, float],
    row: int,
    candidate: int,
) -> ArmReason:
    born = history.candidates[candidate]
    spread = belief.delta_var[candidate].sqrt().tolist()
    delta = zip(belief.delta_mean[candidate].tolist(), spread)
    return ArmReason(
        candidate=candidate,
        share=plan.shares[row],
        slots=plan.slots[row],
        why=tuple(_why(history, plan, candidate)),
        origin=f"{born.origin}, round {born.round}",
        parameters=dict(born.parameters),
        prob_best=best.get(candidate),
        prob_feasible=float(belief.prob_feasible[candidate]),
        objective=(
            float(belief.mean[candidate]),
            float(belief.lcb[candidate]),
            float(belief.ucb[candidate]),
        ),
        delta=dict(zip(known.problem.metrics, delta)),
        readings=tuple(_readings(history, candidate)),
    )


def _why(history: History, plan: Planned, candidate: int) -> list[str]:
    details = plan.details
    if candidate == CONTROL:
        return ["the control: every delta is measured against it"]
    reasons = []
    born = history.candidates[candidate]
    if born.origin == TRANSFERRED:
        reasons.append(_SUGGESTED)
    if born.round == plan.round and (risk := decision.risk(details, candidate)) is not None:
        reasons.append(risk)
    if details.get("why"):
        return [*reasons, f"served in turn: {details['why']}"]
    if candidate in details.get("leaders", ()):
        reasons.append("among the points most worth verifying, so it got verification slots")
    if candidate in details.get("proposed", ()):
        reasons.append("the best point of a draw over the whole space, proposed in this round")
    if candidate in details.get("revived", ()):
        reasons.append("retired before, and proposed anew by a draw")
    if not history.times_served[candidate]:
        reasons.append("never served before, so it got at least a newcomer's slots")
    elif set(reasons) <= {_SUGGESTED}:
        reasons.append("won its slots in Thompson draws")
    return reasons


def _readings(history: History, candidate: int) -> list[ReadingsBehind]:
    found = []
    for round_, table in sorted(history.tables.items()):
        row = table.row.get(candidate)
        if row is None or not (table.revision[row] >= 0).any():
            continue
        users = float(table.count[row][table.revision[row] >= 0].max())
        counts = round_ not in history.status.excluded_rounds
        found.append(ReadingsBehind(round_, users, int(table.revision[row].max()), counts))
    return found
