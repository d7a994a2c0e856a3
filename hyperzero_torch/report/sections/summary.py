"""The section at the top: the recommendation, its guardrails, and the state of the study."""

from __future__ import annotations

import torch

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
    values = (best.objective_mean, best.objective_lcb, best.objective_ucb)
    mean, low, high = facts.gain(torch.tensor(values, dtype=torch.float64)).tolist()
    gain = f"{config.confidence:.0%} interval {show_interval(low, high, 'signed')}"
    # Over a base of 0 the objective is the gain itself.
    base = show(best.objective_base, "number")
    level = f"interval {show_interval(*values[1:], 'number')}; base {base}"
    success = f"and better than the base: {show(best.prob_success, 'prob')}; "
    required = f"required: at least {show(config.min_prob_feasible, 'prob')}"
    required = success + required if best.candidate_id else required
    served = len(history.plans[facts.last_round].candidates) - 1
    tested = int(facts.bucket.tested.sum())
    return [
        Tile("Recommended", name_of(best.candidate_id), best.reason),
        Tile("Gain over base", show(mean, "signed"), gain),
        *([Tile("Objective", show(values[0], "number"), level)] if facts.is_relative else []),
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


def _outlook(facts: Facts) -> list[Tile]:
    """The most promising candidate, and how long a decision about it will take."""
    leader, rounds = facts.best.leader, facts.best.rounds_to_decide
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
    is_recommended = leader == facts.best.candidate_id
    return [
        *([] if is_recommended else [Tile("Leader", name_of(leader), note)]),
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
