"""``hyperzero`` and ``hyperzero_paper``: the tuner itself.

``hyperzero`` is the default configuration. ``hyperzero_paper`` serves what
``TunerConfig.paper()`` plans and is recommended for by the same rule as everyone;
``hyperzero_paper_own`` also recommends as the paper does, from each candidate's own average.
"""

from __future__ import annotations

import time

import hyperzero_torch as hz
from hyperzero_torch.history import History
from hyperzero_torch.journal import Entry
from hyperzero_torch.plan import Plan
from hyperzero_torch.simulate import Environment

from .contender import Contender


class HyperZero(Contender):
    """Its own tuner plans and recommends."""

    config = hz.TunerConfig()

    def __init__(self, world: Environment, seed: int) -> None:
        super().__init__(world, seed)
        self.tuner = hz.Tuner(world.problem, self.config, seed=seed)

    def plan(self, round: int) -> Plan:
        start = time.process_time()
        plan = self.tuner.ask(round)
        self.seconds = time.process_time() - start
        return plan


class HyperZeroPaperOwn(HyperZero):
    config = hz.TunerConfig.paper()


class HyperZeroPaper(HyperZeroPaperOwn):
    """A second tuner plans; its births and plans are copied into the one that recommends."""

    def __init__(self, world: Environment, seed: int) -> None:
        super().__init__(world, seed)
        self.planner = self.tuner
        self.tuner = hz.Tuner(world.problem, seed=seed)

    def tell(self, readings: list[hz.Readings]) -> None:
        self.planner.tell(readings)
        self.tuner.tell(readings)

    def plan(self, round: int) -> Plan:
        start = time.process_time()
        plan = self.planner.ask(round)
        self.seconds = time.process_time() - start
        theirs = self.planner.history

        def copy(mine: History) -> tuple[list[Entry], None]:
            return [*theirs.births[mine.num_candidates :], theirs.plans[round]], None

        self.tuner._study.append(copy)
        return plan
