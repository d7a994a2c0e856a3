"""What a report says, in order: tiles, plots with their tables, and sentences. No HTML here."""

from __future__ import annotations

import math

import torch

from ..history import CONTROL
from ..recommend import Recommendation
from . import plots, tables
from .blocks import Block, Plot, Section, Sheet, Tile, nothing_known
from .canvas import BLUE, GREEN, INK, MUTED, SKY, VERMILLION, Key
from .facts import Facts
from .space_section import surface
from .tables import name_of, show


def sections(facts: Facts) -> list[Section]:
    """The whole report."""
    second = progress(facts) if facts.records else candidates(facts)
    return [where(facts), second, traffic(facts), surface(facts), deltas(facts), late(facts)]


def _outlook(best: Recommendation) -> tuple[str, str]:
    """When the leader is decided, and who it is."""
    if best.leader is None:
        return "–", "no candidate promises a gain yet"
    who = f"{name_of(best.leader)}, the most promising, at the present traffic"
    rounds = best.rounds_to_decide
    return ("> 1000 rounds" if rounds is None else f"{rounds} rounds" if rounds else "now"), who


def where(facts: Facts) -> Section:
    """Where are we?"""
    best, history = facts.best, facts.history
    mean, low, high = (
        float(facts.gain(torch.tensor(v, dtype=torch.float64)))
        for v in (best.objective_mean, best.objective_lcb, best.objective_ucb)
    )
    kind: tables.Kind = "number" if facts.is_relative else "percent"
    level = f"{facts.config.confidence:.0%} interval"
    tiles = [
        Tile("Recommended", name_of(best.candidate_id), best.reason),
        Tile(
            "Gain over base",
            _value(mean, "signed"),
            f"{level} {_value(low, 'signed')} … {_value(high, 'signed')}",
        ),
        Tile(
            "Objective",
            _value(best.objective_mean, kind),
            f"{_value(best.objective_lcb, kind)} … {_value(best.objective_ucb, kind)}; "
            f"base {_value(best.objective_base, kind)}",
        ),
        Tile(
            "P(feasible)",
            _value(best.prob_feasible, "prob"),
            f"at least {_value(facts.config.min_prob_feasible, 'prob')} is asked for",
        ),
        Tile("Decided in", *_outlook(best)),
        Tile("Round", str(facts.last_round), f"{len(history.plans)} planned"),
        Tile(
            "Arms",
            str(len(history.plans[facts.last_round].candidates) - 1),
            "served in the last round, beside the control",
        ),
        Tile(
            "Candidates",
            str(history.num_candidates - 1),
            f"{int(facts.bucket.tested.sum())} with evidence on every metric",
        ),
        Tile("In flight", str(history.num_in_flight), "arms whose readings have not arrived"),
    ]
    tiles += _truth(facts)
    blocks: list[Block] = [tiles, Sheet("Parameters", tables.parameters(facts))]
    guardrails = tables.guardrails(facts)
    if guardrails.rows:
        blocks.append(Sheet("Guardrails at the recommended candidate", guardrails))
    elif not facts.problem.num_constraints:
        blocks.append("No guardrails: every candidate is feasible.")
    return Section("where", "Where are we?", blocks)


def _truth(facts: Facts) -> list[Tile]:
    """What only a simulation can add."""
    tiles = []
    if facts.world is not None:
        theta = facts.bucket.theta[facts.best.candidate_id].unsqueeze(0)
        truth = facts.world.truth(theta)
        violation = f"violation {_value(float(truth.violation), 'percent')}"
        note = f"{violation}, in the world {facts.world.name!r}"
        tiles.append(Tile("True gain", _value(float(truth.gain), "signed"), note))
    if facts.oracle is not None:
        note = "true gain of the best feasible theta"
        tiles.append(Tile("Oracle", _value(facts.oracle.gain, "signed"), note))
    return tiles


def _value(value: float, kind: tables.Kind) -> str:
    return show(value if math.isfinite(value) else None, kind)


def progress(facts: Facts) -> Section:
    """Gain and violation by hour, which only a simulation knows."""
    rows = tables.progress(facts)
    oracle = None if facts.oracle is None else facts.oracle.gain
    recommended = Key("recommended", VERMILLION, "solid")
    gain_keys = (recommended,) if oracle is None else (recommended, Key("oracle", GREEN, "dashed"))
    violation_keys = (recommended, Key("average over all traffic", BLUE, "dotted"))
    return Section(
        "progress",
        "Gain and violation by hour",
        [
            "The truth about the candidate that was recommended in each round.",
            Plot("True gain", plots.gain_by_round(rows, oracle), rows, gain_keys),
            Plot("True violation", plots.violation_by_round(rows), rows, violation_keys),
        ],
    )


def candidates(facts: Facts) -> Section:
    """What is believed of the most promising candidates; in life there is no truth to plot."""
    title = "What is believed of the candidates"
    rows = tables.beliefs(facts)
    if not rows.rows:
        return Section("progress", title, [nothing_known(facts)])
    keys = (
        Key("recommended", VERMILLION, "star"),
        Key(f"P(feasible) ≥ {facts.config.min_prob_feasible:g}", BLUE, "circle"),
        Key("below", MUTED, "ring"),
    )
    drawn = plots.believed_gains(
        rows, name_of(facts.best.candidate_id), facts.config.min_prob_feasible
    )
    lead = (
        f"The {len(rows.rows)} candidates with the best lower bounds, of "
        f"{facts.history.num_candidates - 1}, with {facts.config.confidence:.0%} intervals."
    )
    return Section("progress", title, [lead, Plot("Believed gain over base", drawn, rows, keys)])


def traffic(facts: Facts) -> Section:
    """Where the traffic went."""
    rows = tables.traffic(facts)
    drawn, keys = plots.traffic_by_round(rows, name_of(facts.best.candidate_id))
    lead = "Share of the traffic by candidate, as it was planned; the control at the bottom."
    plot = Plot("Share by round", drawn, rows, tuple(keys))
    return Section("traffic", "Where the traffic went", [lead, plot])


def deltas(facts: Facts) -> Section:
    """Deltas of every metric: evidence, posterior, and hour by hour."""
    title = "Deltas and their intervals"
    watched = facts.watched
    if facts.posterior is None or watched is None:
        return Section("deltas", title, [nothing_known(facts)])
    best = facts.best.candidate_id
    x = facts.problem.space.to_unit(facts.bucket.theta[watched]).to(facts.posterior.x)
    believed = facts.posterior.marginal(x)[0].tolist()
    truth = facts.true_delta(facts.bucket.theta[watched : watched + 1])
    forest_keys = (
        Key("own evidence", SKY, "circle"),
        Key("posterior", BLUE, "diamond"),
        *(() if best == CONTROL else (Key("recommended", VERMILLION, "diamond"),)),
        *(() if truth is None else (Key("truth", GREEN, "bar"),)),
    )
    hour_keys = (
        Key("delta of the hour", SKY, "circle"),
        Key("pooled so far", VERMILLION, "solid"),
        Key("posterior", INK, "dashed"),
        *(() if truth is None else (Key("truth", GREEN, "dotted"),)),
    )
    lead = (
        "Mean ± 1.96 standard deviations: what each candidate's own arms say, and what the "
        "posterior makes of it and of its neighbours."
    )
    forests: list[Block] = []
    hourly: list[Block] = []
    for m, metric in enumerate(facts.problem.metrics):
        rows = tables.evidence_of(facts, m)
        drawn = plots.evidence_forest(rows, name_of(best))
        forests.append(Plot(f"{metric}: by candidate", drawn, rows, forest_keys, is_wide=False))
        hours = tables.funnel(facts, watched, m)
        true = None if truth is None else float(truth[0, m])
        drawn = plots.hourly_funnel(hours, believed[m], true)
        name = f"{metric}: {name_of(watched)} by round"
        hourly.append(Plot(name, drawn, hours, hour_keys, is_wide=False))
    by_hour = (
        f"Hour by hour: {name_of(watched)}, "
        f"{'which is recommended' if best != CONTROL else 'the candidate with the most evidence'}."
    )
    return Section("deltas", title, [lead, *forests, by_hour, *hourly])


def late(facts: Facts) -> Section:
    """What has not arrived."""
    rows = tables.late(facts)
    keys = (Key("arrived", SKY, "square"), Key("waiting", VERMILLION, "square"))
    lead = f"{facts.history.num_in_flight} arms were served and have not reported any metric yet."
    plot = Plot("Arms by round", plots.waiting_by_round(rows), rows, keys)
    return Section("late", "Late readings", [lead, plot])
