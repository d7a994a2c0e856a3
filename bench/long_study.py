"""A long study, written in bulk: weeks of plans and readings without a model.

``fill`` of bench.reliability.year writes a round at a time as a loop would. Most of its time goes
into the checks of ``tell``, which a benchmark of a page does not need. Here a week is one append:
the same plans and candidates, and the world's readings. The package reads back what was written.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import hyperzero_torch as hz
from bench.reliability.year import BIRTHS, SERVED_FOR, WEEK
from hyperzero_torch.simulate import Environment
from hyperzero_torch.study.evidence.active_set import competing
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Decision,
    Entry,
    Planned,
    ReadingsReceived,
)

CONTROL_SHARE = 0.3


def write_rounds(tuner: hz.Tuner, world: Environment, rounds: int, keep: int) -> None:
    """Write the next ``rounds`` rounds, a week at a time; compact readings older than ``keep``."""
    first = tuner.study.sync().next_round
    for start in range(first, first + rounds, WEEK):
        week = range(start, min(start + WEEK, first + rounds))

        def entries(history: History, week: range = week) -> tuple[list[Entry], None]:
            return list(_week(history, tuner, world, week)), None

        tuner.study.append(entries)
        tuner.study.compact(keep)


def _week(history: History, tuner: hz.Tuner, world: Environment, week: range) -> Iterator[Entry]:
    space = tuner.problem.space
    theta = [row.tolist() for row in history.theta]
    values = [dict(candidate.parameters) for candidate in history.candidates]
    old = set(competing(history, tuner.config))  # that compete until they are retired
    for round_ in week:
        new = space.from_unit(space.sobol(BIRTHS, seed=round_))
        for row, parameters in zip(new.tolist(), space.to_parameters(new)):
            yield CandidateAdded(len(theta), round_, "proposal", tuple(row), parameters)
            old.add(len(theta))
            theta.append(row)
            values.append(parameters)
        served = range(max(1, len(theta) - BIRTHS * SERVED_FOR), len(theta))
        arms = (0, *served)
        share = (1 - CONTROL_SHARE) / len(served)
        shares = (CONTROL_SHARE, *[share] * len(served))
        slots = (0, *[1] * len(served))
        yield Planned(round_, arms, slots, shares, None, {"crowded_out": []})
        at = torch.tensor([theta[c] for c in arms], dtype=torch.float64)
        plan = hz.Plan(round_, arms, tuple(values[c] for c in arms), at, slots, shares)
        yield _readings(tuner, world, plan)
        gone = sorted(c for c in old if c < served.start)
        old.difference_update(gone)
        if gone:
            yield Decision(round_, "retired", "served for long", {"candidates": gone})


def _readings(tuner: hz.Tuner, world: Environment, plan: hz.Plan) -> ReadingsReceived:
    """All that the world answers to a plan, in one message."""
    message = hz.Readings.concat([delivery.readings for delivery in world.serve(plan)])
    metric = message.metric_index(tuner.problem.metrics).tolist()
    fields = [message.round.tolist(), message.candidate.tolist(), metric]
    rest = (message.revision, message.count, message.mean, message.var)
    rows = sorted(zip(*fields, *(values.tolist() for values in rest), strict=True))
    return ReadingsReceived(*zip(*rows, strict=True))
