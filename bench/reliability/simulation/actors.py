"""Who works on the simulated study: live loops, and an operator."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from hyperzero_torch.errors import HyperZeroError
from hyperzero_torch.live.clock import Schedule
from hyperzero_torch.live.lease import LEASE_ROUNDS, terms_of
from hyperzero_torch.live.loop import Loop
from hyperzero_torch.live.retry import RetryPolicy
from hyperzero_torch.live.serve.updater import TableUpdater
from hyperzero_torch.live.serving import serve_now
from hyperzero_torch.study.epochs import current
from hyperzero_torch.study.journal import Journal
from hyperzero_torch.study.serving import why_control_alone

from .faults import SOURCE
from .seams import Clock, Seams
from .study import CONFIG, HOUR, NAME, SmallTuner, Warehouse, problem

_SOURCE_FAULTS = (
    "nonsense from the warehouse", "duplicated readings", "late readings", "reordered readings",
    "revised readings", "absurd readings", "readings of an unknown round",
)  # fmt: skip
# An operator whose command failed for want of journal or disk gives it again after this time.
_PATIENCE_SECONDS, _MOST_TRIES = 1200.0, 12
POLICY = RetryPolicy(attempts=3, first_wait=2.0, timeout=60.0)


class Source:
    """The warehouse as a loop asks it."""

    def __init__(self, seams: Seams, warehouse: Warehouse, dice: random.Random) -> None:
        self.seams, self.warehouse, self.dice = seams, warehouse, dice

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Any:
        faults: dict[str, float] = {}
        while (fault := self.seams.due(SOURCE, _SOURCE_FAULTS, counts=False)) is not None:
            faults[fault.kind] = fault.size
        self.seams.call(SOURCE, lambda: None)
        return self.warehouse.collect(as_of, faults, self.dice, self.seams.happened)


def run_loop(
    journal: Journal,
    table: Path,
    source: Source,
    clock: Clock,
    seed: int,
    rounds: int | None = None,
    seen: Callable[[Any], None] = lambda _: None,
) -> None:
    """A live loop, from its start to its end."""
    tuner = SmallTuner(problem(), CONFIG, journal, NAME, seed)
    loop = Loop(tuner, TableUpdater(table), source, clock, HOUR, POLICY)
    for done in loop.run(rounds):
        seen(done)


class Operator:
    """A person with the commands of the package.

    ``confirmed`` has what the commands that came back without an error promise: candidates that
    must not be served (``"stopped"``), and whether the control alone is (``"withdrawn"``).
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.stopped: set[int] = set()
        self.withdrawn = False
        self.launched: set[int] = set()
        self.pinned: set[int] = set()
        self.undoing: list[str] = []  # commands that are under way
        self.done: list[str] = []
        self.refused: list[str] = []

    def act(self, name: str, size: float, journal: Journal, clock: Clock) -> None:
        """One command, as ``hyperzero`` does it; given again where journal or disk fail."""
        # Between its start and its end nobody knows whether what it undoes still holds.
        self.undoing.append(name)
        try:
            for _ in range(_MOST_TRIES):
                refusal = self._try(name, size, journal, clock)
                if refusal is None or not _is_passing(refusal):
                    break
                clock.sleep(_PATIENCE_SECONDS)
            if refusal is not None:
                self.refused.append(f"{name}: {refusal}")
        finally:
            self.undoing.remove(name)
            if name == "resume":
                self.withdrawn = False
            if name == "let back":
                self.stopped.clear()

    def forget(self) -> None:
        """The journal has lost entries: nobody knows of what they promised."""
        self.stopped.clear()
        self.withdrawn = False

    def _try(self, name: str, size: float, journal: Journal, clock: Clock) -> str | None:
        """The command once; returns why it was refused."""
        try:
            tuner = SmallTuner.resume(journal, NAME, problem=problem())
            study, history = tuner.study, tuner.history
            arms = list(range(1, history.num_candidates))
            # What is undone is, where there is any, what was done.
            if name == "let back":
                arms = sorted(history.status.stopped) or arms
            if name == "unpin":
                arms = sorted(history.status.switches.pins) or arms
            candidate = arms[int(size * len(arms))] if arms else 0
            rounds = sorted(history.plans)
            if name == "reinstate":
                rounds = sorted(history.status.excluded_rounds) or rounds
            round_ = rounds[int(size * len(rounds))] if rounds else 0
            if name == "resume":
                self.withdrawn = False
            if name == "let back":
                self.stopped.clear()
            if name == "pin":
                self.pinned.add(candidate)
            if name == "launch":
                self.launched.add(candidate)
            why = f"the simulation says: {name}"
            match name:
                case "pause" | "resume" | "withdraw":
                    getattr(study, name)(why, "operator")
                case "stop":
                    study.stop(candidate, why, "operator")
                case "let back":
                    study.readmit([candidate], why, "operator")
                case "pin":
                    study.pin(candidate, 0.05 + 0.2 * size, why, "operator")
                case "unpin":
                    study.unpin(candidate, why, "operator")
                case "set aside":
                    study.set_aside([round_], why)
                case "reinstate":
                    study.reinstate([round_], why)
                case "roll back":
                    study.roll_back(round_, why, "operator")
                case "launch":
                    tuner.launch(candidate, unproven=True, who="operator", reason=why)
                case "abort launch":
                    tuner.abort_launch(why, who="operator")
                case "resync":
                    Schedule(tuner, clock, HOUR).resync(why)
                case "take over":
                    study.begin_epoch(why, "operator")
                    self._platform(tuner, clock, takes_over=True).take_over()
            if history.plans:
                serve_now(study, lambda: self._platform(tuner, clock))
        except HyperZeroError as error:
            return str(error)
        self.done.append(name)
        # A command that undoes it may be under way, or have come between.
        if name == "stop" and "let back" not in self.undoing:
            self.stopped |= {candidate} & set(history.status.stopped)
        if name == "withdraw" and "resume" not in self.undoing:
            self.withdrawn = history.status.switches.mode == "withdrawn"
        return None

    def _platform(self, tuner: SmallTuner, clock: Clock, takes_over: bool = False) -> Any:
        updater = TableUpdater(self.table)
        stamp = updater.owner()
        is_served = stamp is not None or current(tuner.history) is not None
        if not takes_over and not is_served and why_control_alone(tuner.history) is not None:
            return updater
        schedule = Schedule(tuner, clock, HOUR)
        last = tuner.history.last_round or 0
        return updater.on_behalf_of(terms_of(schedule, last, LEASE_ROUNDS, stamp))


def _is_passing(refusal: str) -> bool:
    return any(
        words in refusal
        for words in ("the journal cannot be used", "has lost its connection", "No space left")
    )
