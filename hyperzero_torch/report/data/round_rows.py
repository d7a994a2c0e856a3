"""The study by round as plain rows; long studies in blocks of rounds, so that rows stay few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...study.history import CONTROL
from .facts import Facts
from .lateness import Lateness
from .retrospect import Past
from .tables import SIGMAS, Kind, Table, name_of, slack_kind, table

MOST_SERVED = 12
MOST_LATE = 48  # rounds late; what is later is counted together
#: Most rows of a table by round, and so most marks of a plot over rounds.
MOST_ROUNDS = 240


def blocks(rounds: Sequence[int], most: int = MOST_ROUNDS) -> list[list[int]]:
    """Ascending rounds in at most so many blocks of neighbours, all but the last equally large."""
    size = max(1, -(-len(rounds) // most))
    return [list(rounds[i : i + size]) for i in range(0, len(rounds), size)]


def in_words(rounds: Sequence[int], what: str) -> str:
    """A sentence on the blocks, empty where each is one round."""
    size = len(blocks(rounds)[0]) if rounds else 1
    return "" if size == 1 else f" {len(rounds)} rounds are drawn in blocks of {size}: {what}."


def progress(facts: Facts) -> Table:
    """What a simulation knows of every round's recommendation; of a block, its last round's."""
    best = math.nan if facts.oracle is None else facts.oracle.gain
    of = {r.round: r for r in facts.records}
    return table(
        [
            ("round", "round", "whole"),
            ("candidate", "recommended", "text"),
            ("gain", "true gain", "signed"),
            ("of_oracle", "of the oracle's", "percent"),
            ("violation", "violation", "percent"),
            ("exposed", "violation over all traffic", "percent"),
        ],
        [
            (
                r.round,
                name_of(r.recommendation.candidate_id),
                r.gain,
                r.gain / best if best else math.nan,
                r.violation,
                r.exposed_violation,
            )
            for r in (of[block[-1]] for block in blocks(sorted(of)))
        ],
    )


def believed(facts: Facts, past: Past) -> Table:
    """Gain and guardrails of the watched candidate, and what would have been recommended."""
    columns: list[tuple[str, str, Kind]] = [
        ("round", "before round", "whole"),
        ("mean", "gain", "signed"),
        ("low", "low", "signed"),
        ("high", "high", "signed"),
        ("prob", "P(feasible)", "prob"),
    ]
    for i, name in enumerate(facts.problem.constraint_names):
        kind = slack_kind(facts, i)
        columns += [
            (f"s{i}", f"slack of {name}", kind),
            (f"s{i}_low", "low", kind),
            (f"s{i}_high", "high", kind),
        ]
    columns += [
        ("chosen", "recommended then", "text"),
        ("chosen_gain", "its gain", "signed"),
        ("chosen_prob", "its P(feasible)", "prob"),
    ]
    rows = []
    for moment in past.moments:
        slack = moment.watched.slack[:, 0].T.flatten().tolist()
        rows.append(
            (
                moment.round,
                *moment.watched.gain[:, 0].tolist(),
                float(moment.watched.prob_feasible[0]),
                *slack,
                name_of(moment.recommended),
                float(moment.chosen.gain[0, 0]),
                float(moment.chosen.prob_feasible[0]),
            )
        )
    return table(columns, rows)


def traffic(facts: Facts) -> Table:
    """Shares by round: the control, the most served candidates, and all others together."""
    plans = facts.history.plans
    total: dict[int, float] = {}
    for plan in plans.values():
        for candidate, share in zip(plan.candidates, plan.shares):
            total[candidate] = total.get(candidate, 0.0) + share
    total.pop(CONTROL, None)
    served = sorted(total, key=lambda c: (-total[c], c))
    shown = served[:MOST_SERVED]
    best = facts.best.candidate_id
    if best in total:  # next to the control, where its height can be read
        shown = [best, *[c for c in shown if c != best][: MOST_SERVED - 1]]
    columns: list[tuple[str, str, Kind]] = [("round", "round", "whole")]
    columns += [(str(c), name_of(c), "percent") for c in (CONTROL, *shown)]
    if len(served) > len(shown):
        columns.append(("others", f"{len(served) - len(shown)} others", "percent"))
    rows = []
    for block in blocks(sorted(plans)):
        share_of: dict[int, float] = {}
        for plan in (plans[r] for r in block):
            for candidate, share in zip(plan.candidates, plan.shares):
                share_of[candidate] = share_of.get(candidate, 0.0) + share / len(block)
        row = [share_of.pop(c, 0.0) for c in (CONTROL, *shown)]
        rest = [sum(share_of.values())] if len(served) > len(shown) else []
        rows.append((block[0], *row, *rest))
    return table(columns, rows)


def funnel(facts: Facts, candidate: int, metric: int) -> Table:
    """One candidate's latest deltas, and what had been pooled by then of all its evidence."""
    bucket = facts.bucket
    deltas = bucket.deltas
    rows = (deltas.candidate == candidate) & deltas.delta.mean[:, metric].isfinite()
    mean, var = (field[rows, metric] for field in deltas.delta)
    weight = deltas.weight[rows, metric]
    # What is in the evidence and not among these rows came before them, pooled.
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
    return table(
        [
            ("round", "round", "whole"),
            ("delta", "delta of the hour", "signed"),
            ("half", "±", "percent"),
            ("pooled", "pooled so far", "signed"),
            ("pooled_half", "±", "percent"),
        ],
        list(
            zip(
                deltas.round[rows].tolist(),
                mean.tolist(),
                (SIGMAS * var.sqrt()).tolist(),
                pooled.tolist(),
                (SIGMAS * pooled_var.sqrt()).tolist(),
            )
        )[-MOST_ROUNDS:],
    )


def late(facts: Facts) -> Table:
    """Per round, the arms that were planned, those that are silent, those that were revised."""
    tables = facts.history.tables
    aside = facts.history.status.excluded_rounds
    rows = []
    for block in blocks(sorted(tables)):
        of = [tables[r] for r in block]
        rows.append(
            (
                block[0],
                sum(len(t.candidates) for t in of),
                sum(t.num_waiting for t in of),
                sum(int((t.revision > 0).any(axis=1).sum()) for t in of),
                sum(t.has_control for t in of),
                sum(r in aside for r in block),
            )
        )
    return table(
        [
            ("round", "round", "whole"),
            ("arms", "arms", "whole"),
            ("waiting", "waiting", "whole"),
            ("revised", "revised later", "whole"),
            ("control", "controls that reported", "whole"),
            ("aside", "rounds set aside", "whole"),
        ],
        rows,
    )


def arrivals(found: Lateness) -> Table:
    """Rounds late, rows that came first, rows that were revisions, and how many had come by then.

    What is later than the last row stands in it.
    """
    largest = max([*found.first, *found.revised], default=0)
    last = min(largest, MOST_LATE - 1)
    first, revised = (
        [
            counts[k] + (k == last) * sum(n for r, n in counts.items() if r > last)
            for k in range(last + 1)
        ]
        for counts in found
    )
    total = sum(first)
    by_then = [sum(first[: k + 1]) / total if total else None for k in range(last + 1)]
    return table(
        [
            ("late", "rounds late", "whole"),
            ("first", "readings", "whole"),
            ("by_then", "arrived by then", "prob"),
            ("revised", "revisions", "whole"),
        ],
        zip(range(last + 1), first, by_then, revised),
    )
