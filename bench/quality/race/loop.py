"""One contender in one world: deliver readings that are due, plan, serve."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import hyperzero_torch as hz
from hyperzero_torch.simulate import Environment

from .contender import Contender
from .judge import Judge, short


def race(contender: Contender, world: Environment, num_rounds: int) -> dict[str, list[Any]]:
    """Columns with one value per round: the judge's, and the CPU ``seconds`` of the plan."""
    columns: dict[str, list[Any]] = defaultdict(list)
    mail: dict[int, list[hz.Readings]] = defaultdict(list)
    judge = Judge(world)
    for round_ in range(num_rounds):
        if mail[round_]:
            contender.tell(mail.pop(round_))
        plan = contender.plan(round_)
        for delivery in world.serve(plan):
            mail[max(delivery.due, round_ + 1)].append(delivery.readings)
        for name, value in judge(contender.tuner, plan).items():
            columns[name].append(value)
        columns["seconds"].append(short(contender.seconds))
    return dict(columns)
