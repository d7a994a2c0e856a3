"""What a report says, in order: tiles, plots with their tables, and sentences. No HTML here."""

from __future__ import annotations

import math

import torch

from ...study.history import CONTROL
from ..data import round_rows, tables
from ..data.facts import Facts
from ..data.retrospect import look_back
from ..data.tables import name_of, show
from ..figures import candidate_plots, marks, round_plots
from ..figures.canvas import BLUE, GREEN, INK, MUTED, SKY, VERMILLION, Key
from .audit import ended, late, turns
from .blocks import Block, Plot, Section, Sheet, Tile, nothing_known
from .parameters import parameters
from .rounds import by_hour, calibration
from .space import surface
from .transfer import transfer

_MOST_METRICS = 8  # that are drawn one by one


def sections(facts: Facts) -> list[Section]:
    """The whole report."""
    past = look_back(facts)
    return [
        where(facts),
        by_hour(facts, past),
        traffic(facts),
        candidates(facts),
        surface(facts),
        parameters(facts),
        deltas(facts),
        calibration(facts, past),
        *transfer(facts),
        late(facts),
        ended(facts),
        turns(facts),
    ]


def _outlook(facts: Facts) -> list[Tile]:
    """Who is ahead, and when it will be clear whether rightly."""
    leader, rounds = facts.best.leader, facts.best.rounds_to_decide
    if leader is None:
        none = "no candidate promises a gain yet"
        return [Tile("Leader", "–", none), Tile("Hours to decision", "–", none)]
    gain = facts.gain(torch.stack([facts.belief.lcb[leader], facts.belief.ucb[leader]])).tolist()
    believed = f"{_value(gain[0], 'signed')} … {_value(gain[1], 'signed')}"
    prob = _value(float(facts.belief.prob_feasible[leader]), "prob")
    note = f"the most promising: gain {believed}, P(feasible) {prob}"
    when = "> 1000" if rounds is None else "0" if rounds == 0 else f"about {rounds}"
    what = "it is clear" if rounds == 0 else "rounds at the present traffic until it is clear"
    told = f"{what} whether the leader is safe and better"
    return [Tile("Leader", name_of(leader), note), Tile("Hours to decision", when, told)]


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
        *_outlook(facts),
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


def candidates(facts: Facts) -> Section:
    """What is believed of the most promising candidates; in life there is no truth to plot."""
    title = "What is believed of the candidates"
    rows = tables.beliefs(facts)
    if not rows.rows:
        return Section("candidates", title, [nothing_known(facts)])
    keys = (
        Key("recommended", VERMILLION, "star"),
        Key(f"P(feasible) ≥ {facts.config.min_prob_feasible:g}", BLUE, "circle"),
        Key("below", MUTED, "ring"),
    )
    drawn = candidate_plots.believed_gains(
        rows, name_of(facts.best.candidate_id), facts.config.min_prob_feasible
    )
    lead = (
        f"The {len(rows.rows)} candidates with the best lower bounds, of "
        f"{facts.history.num_candidates - 1}, with {facts.config.confidence:.0%} intervals."
    )
    return Section("candidates", title, [lead, Plot("Believed gain over base", drawn, rows, keys)])


def traffic(facts: Facts) -> Section:
    """Where the traffic went."""
    rows = round_rows.traffic(facts)
    drawn, keys = round_plots.traffic_by_round(rows, name_of(facts.best.candidate_id))
    drawn = marks.put(facts, drawn, rows.column("round"))
    lead = "Share of the traffic by candidate, as it was planned; the control at the bottom."
    lead += round_rows.in_words(sorted(facts.history.plans), "averages, named by their first round")
    plot = Plot("Share by round", drawn, rows, (*keys, *marks.keys(facts)))
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
        *marks.keys(facts),
    )
    lead = (
        "Mean ± 1.96 standard deviations: what each candidate's own arms say, and what the "
        "posterior makes of it and of its neighbours."
    )
    num = facts.problem.num_metrics
    if num > _MOST_METRICS:
        lead += f" Drawn are the first {_MOST_METRICS} of {num} metrics."
    forests: list[Block] = []
    hourly: list[Block] = []
    for m, metric in list(enumerate(facts.problem.metrics))[:_MOST_METRICS]:
        rows = tables.evidence_of(facts, m)
        drawn = candidate_plots.evidence_forest(rows, name_of(best))
        forests.append(Plot(f"{metric}: by candidate", drawn, rows, forest_keys, is_wide=False))
        hourly_rows = round_rows.funnel(facts, watched, m)
        true = None if truth is None else float(truth[0, m])
        drawn = round_plots.hourly_funnel(hourly_rows, believed[m], true)
        drawn = marks.put(facts, drawn, hourly_rows.column("round"))
        name = f"{metric}: {name_of(watched)} by round"
        hourly.append(Plot(name, drawn, hourly_rows, hour_keys, is_wide=False))
    lead_of_hours = (
        f"Hour by hour: {name_of(watched)}, "
        f"{'which is recommended' if best != CONTROL else 'the one to watch'}; at most its last "
        f"{round_rows.MOST_ROUNDS} rounds, pooled with all before them."
    )
    return Section("deltas", title, [lead, *forests, lead_of_hours, *hourly])
