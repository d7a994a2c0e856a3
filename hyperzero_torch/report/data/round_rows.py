"""The study by round as tables; long studies in blocks of rounds."""

from __future__ import annotations

import math

import torch

from ...study.history import CONTROL
from .candidate_rows import slack_kind, slack_label
from .facts import Facts
from .retrospect import Retrospect
from .tables import MOST_ROUNDS, SIGMAS, Table, Values, blocks, interval, name_of, table

MOST_SERVED = 12


def truth(facts: Facts) -> Table:
    """True outcomes of every round's recommendation in a simulation; of a block, its last round."""
    oracle = math.nan if facts.oracle is None else facts.oracle.gain
    by_round = {r.round: r for r in facts.records}
    records = [by_round[block[-1]] for block in blocks(sorted(by_round))]
    names = [name_of(r.recommendation.candidate_id) for r in records]
    gain = [r.gain for r in records]
    share = [g / oracle if oracle else None for g in gain]
    exposed = [r.exposed_violation for r in records]
    return table(
        ("round", "round", "whole", [r.round for r in records]),
        ("candidate", "recommended", "text", names),
        ("gain", "true gain", "signed", gain),
        ("of_oracle", "share of the oracle's", "percent", share),
        ("violation", "violation", "percent", [r.violation for r in records]),
        ("exposed", "violation over all traffic", "percent", exposed),
    )


def estimates(facts: Facts, past: Retrospect) -> Table:
    """Gain and slack of the tracked candidate before each round, and the recommendation then."""
    tracked = [m.tracked for m in past.moments]
    best = [m.best for m in past.moments]
    columns: list[Values] = [
        ("round", "before round", "whole", [m.round for m in past.moments]),
        *interval("gain", "signed", torch.cat([t.gain for t in tracked], dim=1)),
        ("prob", "P(feasible)", "prob", torch.cat([t.prob_feasible for t in tracked])),
    ]
    slack = torch.cat([t.slack for t in tracked], dim=1)
    for i, name in enumerate(facts.problem.constraint_names):
        label = f"{name}: {slack_label(facts, i)}"
        columns += interval(label, slack_kind(facts, i), slack[..., i], f"s{i}_")
    return table(
        *columns,
        ("best", "recommended then", "text", [name_of(m.recommended) for m in past.moments]),
        ("best_gain", "its gain", "signed", [t.gain[0, 0] for t in best]),
        ("best_prob", "its P(feasible)", "prob", [t.prob_feasible[0] for t in best]),
    )


def traffic(facts: Facts) -> Table:
    """Shares by round: the control, the most served candidates, and all others together."""
    plans = facts.history.plans
    rounds = blocks(sorted(plans))
    total: dict[int, float] = {}
    by_block: list[dict[int, float]] = []
    for block in rounds:
        shares: dict[int, float] = {}
        for plan in (plans[r] for r in block):
            for candidate, share in zip(plan.candidates, plan.shares):
                total[candidate] = total.get(candidate, 0.0) + share
                shares[candidate] = shares.get(candidate, 0.0) + share / len(block)
        by_block.append(shares)
    total.pop(CONTROL, None)
    served = sorted(total, key=lambda c: (-total[c], c))
    best = facts.best.candidate_id
    if best in total:  # next to the control, where its height can be read
        served = [best, *[c for c in served if c != best]]
    shown, others = [CONTROL, *served[:MOST_SERVED]], served[MOST_SERVED:]
    columns: list[Values] = [("round", "round", "whole", [block[0] for block in rounds])]
    columns += [(str(c), name_of(c), "percent", [s.get(c, 0.0) for s in by_block]) for c in shown]
    if others:
        rest = [sum(share for c, share in s.items() if c not in shown) for s in by_block]
        columns.append(("others", f"{len(others)} others", "percent", rest))
    return table(*columns)


def funnel(facts: Facts, candidate: int, metric: int) -> Table:
    """One candidate's latest deltas, and the pooled evidence up to each of them."""
    bucket = facts.bucket
    deltas = bucket.deltas
    rows = (deltas.candidate == candidate) & deltas.delta.mean[:, metric].isfinite()
    mean, var = (field[rows, metric] for field in deltas.delta)
    weight = deltas.weight[rows, metric]
    # Evidence that is not among these rows came before them and was pooled for good.
    whole = bucket.weight[candidate, metric]
    all_mean, all_var = (f[candidate, metric].nan_to_num(0.0) for f in (bucket.mean, bucket.var))
    before = whole - weight.sum()
    before = torch.where(before > 1e-9 * whole, before, 0.0)
    is_more = (before > 0).to(mean)
    sums = is_more * (whole * all_mean - (weight * mean).sum())
    squares = is_more * (whole.square() * all_var - (weight.square() * var).sum()).clamp_min(0)
    total = before + weight.cumsum(0)
    pooled = (sums + (weight * mean).cumsum(0)) / total
    pooled_var = (squares + (weight.square() * var).cumsum(0)) / total.square()
    last = slice(-MOST_ROUNDS, None)
    return table(
        ("round", "round", "whole", deltas.round[rows][last]),
        ("delta", "delta of the round", "signed", mean[last]),
        ("half", "±", "percent", SIGMAS * var.sqrt()[last]),
        ("pooled", "pooled so far", "signed", pooled[last]),
        ("pooled_half", "±", "percent", SIGMAS * pooled_var.sqrt()[last]),
    )
