"""The section at the top: the recommendation, its guardrails, and the state of the study."""

from __future__ import annotations

import torch

from ...study.history import CONTROL
from ..data import candidate_rows, decisions
from ..data.facts import Facts
from ..data.tables import name_of, show, show_interval
from .blocks import Answer, Block, Section, Sheet, Tile


def summary(facts: Facts) -> Section:
    """Tiles, the recommended parameters, and the guardrails."""
    parameters = Sheet("Parameters", candidate_rows.parameters(facts))
    answer = Answer(facts.verdict, facts.health)
    blocks: list[Block] = [answer, _tiles(facts), parameters]
    guardrails = candidate_rows.guardrails(facts)
    if guardrails.rows:
        blocks.append(Sheet("Guardrails at the recommended candidate", guardrails))
        blocks.append(candidate_rows.slacks_in_words(facts))
    elif not facts.problem.num_constraints:
        blocks.append("There are no guardrails: every candidate is feasible.")
    amiss = decisions.open_findings(facts)
    if amiss.rows:
        blocks.append(Sheet("Findings, and what to do", amiss, is_wide=True))
    return Section("where", "Summary", blocks)


def _tiles(facts: Facts) -> list[Tile]:
    best, history, config = facts.best, facts.history, facts.config
    interval = show_interval(best.objective_lcb, best.objective_ucb, "number")
    base = show(best.objective_base, "number")
    level = f"{config.confidence:.0%} interval {interval}; base {base}"
    success = f"and better than the base: {show(best.prob_success, 'prob')}; "
    required = f"required: at least {show(config.min_prob_feasible, 'prob')}"
    required = success + required if best.candidate_id else required
    served = len(history.plans[facts.last_round].candidates) - 1
    tested = int(facts.bucket.tested.sum())
    return [
        Tile("Recommended", name_of(best.candidate_id), _evidence(facts)),
        Tile("Objective", show(best.objective_mean, "number"), level),
        Tile("P(feasible)", show(best.prob_feasible, "prob"), required),
        *_outlook(facts),
        Tile("Round", str(facts.last_round), f"{len(history.plans)} rounds planned"),
        Tile("Arms", str(served), "served in the last round, besides the control"),
        *_experiment(facts),
        Tile("Candidates", str(history.num_candidates - 1), f"{tested} with all metrics measured"),
        Tile("In flight", str(history.num_in_flight), "arms without readings yet"),
        *_truth(facts),
    ]


def _experiment(facts: Facts) -> list[Tile]:
    """The part of all users that takes part, where it is not everybody."""
    share = facts.history.plans[facts.last_round].trace.experiment_share
    if share == 1:
        return []
    return [Tile("Experiment", show(share, "percent"), "of all users; others are served the base")]


def _evidence(facts: Facts) -> str:
    """Why it is recommended, where the verdict speaks of something else; else on what it rests."""
    best = facts.best
    if best.reason != facts.verdict.why:
        return best.reason
    if not best.candidate_id:
        return "today's setting"
    return f"with evidence of {best.num_rounds} round{'s' * (best.num_rounds != 1)} of its own"


def _outlook(facts: Facts) -> list[Tile]:
    """Whether a recommended candidate is proven; else the most promising one, and how long yet."""
    best = facts.best
    if best.candidate_id != CONTROL:
        if best.proven is None or not facts.problem.num_constraints:
            return []
        note = "by its own readings, at whatever time one looks"
        return [Tile("Proven safe", "yes" if best.proven else "not yet", note)]
    leader, rounds = best.leader, best.rounds_to_decide
    if leader is None:
        none = "no candidate is expected to improve on the base yet"
        return [Tile("Decision", "–", none)]
    belief = facts.belief
    low, high = facts.gain(torch.stack([belief.lcb[leader], belief.ucb[leader]])).tolist()
    prob = show(float(belief.prob_feasible[leader]), "prob")
    note = f"most promising: gain {show_interval(low, high, 'signed')}, P(feasible) {prob}"
    question = "whether the leader is feasible and better than the base"
    value = "ready" if rounds == 0 else f"in {'> 1000' if rounds is None else rounds} rounds"
    enough = "enough evidence" if rounds == 0 else "at the present traffic: enough evidence"
    return [
        Tile("Leader", name_of(leader), note),
        Tile("Decision", value, f"{enough} to decide {question}"),
    ]


def _truth(facts: Facts) -> list[Tile]:
    """True values, in a simulation only."""
    tiles = []
    if facts.world is not None:
        theta = facts.bucket.theta[facts.best.candidate_id].unsqueeze(0)
        truth = facts.world.truth(theta)
        violation = f"violation {show(float(truth.violation), 'percent')}"
        note = f"{violation}, in the world {facts.world.name!r}"
        tiles.append(Tile("True gain", show(float(truth.gain), "signed"), note))
    if facts.oracle is not None:
        note = "true gain of the best feasible theta"
        tiles.append(Tile("Oracle", show(facts.oracle.gain, "signed"), note))
    return tiles
