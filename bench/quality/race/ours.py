"""The tuner itself: its default, with single features off, and the paper's variants.

``hyperzero`` is the default configuration; an option is a field of ``TunerConfig``
(``hyperzero@caution=0@num_starts=0``). ``hyperzero_paper`` serves the plans of
``TunerConfig.paper()`` and recommends by the same rule as all contenders; ``hyperzero_paper_own``
also recommends as the paper does, from each candidate's own average. ``hyperzero_sync`` and
``hyperzero_raw`` are the ablations of the paper's Figure 5; both also exist for
``TunerConfig.paper()``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

import hyperzero_torch as hz
from hyperzero_torch.simulate import Environment
from hyperzero_torch.study.history import CONTROL, History
from hyperzero_torch.study.journal import Entry, Planned
from hyperzero_torch.study.plan import Plan

from .contender import Contender


class HyperZero(Contender):
    """One tuner plans and recommends."""

    base: ClassVar[dict[str, Any]] = {}

    def __init__(self, world: Environment, seed: int, **changes: Any) -> None:
        super().__init__(world, seed)
        self.changes = changes
        config = hz.TunerConfig(**(self.base | changes))
        self.tuner = hz.Tuner(world.problem, config, seed=seed)

    def settings(self) -> dict[str, Any]:
        return self.changes

    def plan(self, round: int) -> Plan:
        start = time.process_time()
        plan = self.tuner.ask(round)
        self.seconds = time.process_time() - start
        return plan


class HyperZeroPaperOwn(HyperZero):
    base = hz.TunerConfig.paper().model_dump()

    def __init__(self, world: Environment, seed: int, **changes: Any) -> None:
        if 2**world.problem.space.num_params > self.base["initial_candidates"]:
            # The coarsest grid, two steps a parameter, does not fit into the paper's 100 points.
            changes = {"initial_design": "sobol", **changes}
        super().__init__(world, seed, **changes)


class HyperZeroPaper(HyperZeroPaperOwn):
    """A second tuner plans; its candidates and plans are copied to the one that recommends."""

    def __init__(self, world: Environment, seed: int, **changes: Any) -> None:
        super().__init__(world, seed, **changes)
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
            return [*theirs.candidates[mine.num_candidates :], theirs.plans[round]], None

        self.tuner.study.append(copy)
        return plan


class Synchronous(HyperZero):
    """Serves a batch again until its first round has reported completely."""

    def __init__(self, world: Environment, seed: int, **changes: Any) -> None:
        super().__init__(world, seed, **changes)
        self.batch: int | None = None

    def plan(self, round: int) -> Plan:
        history = self.tuner.history
        if self.batch is None or not history.tables[self.batch].num_waiting:
            self.batch = round
            return super().plan(round)
        self.seconds = 0.0
        again: Planned = replace(history.plans[self.batch], round=round)
        self.tuner.study.append(lambda _: ([again], None))
        return self.tuner.ask(round)


class SynchronousPaper(Synchronous):
    base = HyperZeroPaperOwn.base


class Raw(HyperZero):
    """Uses hourly metrics without deltas: every hour's control is replaced by the first hour's.

    Differences between hours then remain in the "deltas".
    """

    def __init__(self, world: Environment, seed: int, **changes: Any) -> None:
        super().__init__(world, seed, **changes)
        self.level: dict[str | int, float] = {}

    def tell(self, readings: list[hz.Readings]) -> None:
        self.tuner.tell([self._without_control(message) for message in readings])

    def _without_control(self, message: hz.Readings) -> hz.Readings:
        names = ("round", "candidate", "metric", "count", "mean", "var", "revision")
        columns = {name: getattr(message, name).tolist() for name in names}
        for i, (candidate, metric) in enumerate(zip(columns["candidate"], columns["metric"])):
            if candidate == CONTROL:
                columns["mean"][i] = self.level.setdefault(metric, columns["mean"][i])
                columns["var"][i] = 0.0
        return hz.Readings.from_frame(columns)


class RawPaper(Raw):
    base = HyperZeroPaperOwn.base
