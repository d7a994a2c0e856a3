"""One seed, from its start to its end."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperzero_torch.errors import HyperZeroError
from hyperzero_torch.study.journal import Journal, MemoryJournal
from hyperzero_torch.study.journal.sql import SqlJournal

from .actors import Operator, Source, run_loop
from .faults import Fault, schedule, setting
from .invariants import Checks, ViolationError
from .processes import Process, Scheduler
from .seams import Clock, FaultyJournal, Seams, patched
from .study import HOUR, NAME, START, Warehouse

_SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
_MOST_STEPS = 20_000
# A restart takes up to so long.
_RESTART_SECONDS = 1200.0
_MACHINES = 4


@dataclass
class Outcome:
    """What became of a seed.

    Args:
        seed: the seed.
        violation: the invariant that does not hold, and why; None where all do.
        faults: how many of each kind happened.
        operations: the same for what the operator did, or was refused.
        deaths: numbers of the I/O calls at which processes died.
        facts: rounds, steps, I/O calls and plans that were made anew.
    """

    seed: int
    violation: tuple[str, str] | None
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    deaths: set[int] = field(default_factory=set)
    facts: dict[str, int] = field(default_factory=dict)


def simulate(seed: int, faults: Sequence[Fault] | None = None) -> Outcome:
    """Run one seed, with its own faults or with some of them."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = schedule(seed) if faults is None else faults
        logging.disable(logging.CRITICAL)  # of thousands of faults
        try:
            return _Simulation(seed, drawn, Path(scratch)).run()
        finally:
            logging.disable(logging.NOTSET)


class _Simulation:
    def __init__(self, seed: int, faults: Sequence[Fault], folder: Path) -> None:
        self.seed, self.folder, self.setting = seed, folder, setting(seed)
        self.dice = random.Random(f"simulation {seed}")
        table = folder / "table.json"
        self.warehouse, self.operator = Warehouse(seed), Operator(table)
        begin = START + self.dice.uniform(0, HOUR)
        self.scheduler = Scheduler(seed, begin, self._check)
        self.checks = Checks(self.scheduler, self.warehouse, self.operator, table)
        own = [f for f in faults if not f.kind.startswith("operator: ")]
        self.operations = [f for f in faults if f.kind.startswith("operator: ")]
        self.seams = Seams(self.scheduler, own, self._crash)
        self.source = Source(self.seams, self.warehouse, self.dice)
        self.until = begin + self.setting.rounds * HOUR
        self.memory = MemoryJournal()
        self.database = folder / "study-0.db"
        self.copies: list[tuple[int, bytes]] = []  # of the database, by number of appends
        self.torn: list[int] = []
        self.journals: list[FaultyJournal] = []
        self.violation: tuple[str, str] | None = None
        self.applied = False

    def run(self) -> Outcome:
        with patched(self.seams, self._tear):
            try:
                for number in range(self.setting.loops):
                    self._start_loop(number, after=number * self.dice.uniform(0, HOUR))
                self._go_on(self.until)
                self._be_quiet()
                made_anew = self._end()
            except ViolationError as error:
                self.violation, made_anew = (error.name, str(error)), 0
            finally:
                self.scheduler.end()
                for journal in self.journals:
                    journal.close()
        operations = Counter(f"operator: {name}" for name in self.operator.done)
        operations["operator: refused"] = len(self.operator.refused)
        facts = {
            "rounds": len({r for _, r in self.checks.plans}),
            "steps": self.checks.num_steps,
            "calls": self.seams.num_calls,
            "plans made anew": made_anew,
        }
        return Outcome(
            self.seed, self.violation, self.seams.happened, operations, self.seams.deaths, facts
        )

    # --- processes

    def _stored(self) -> Journal:
        """The journal as it is stored, without faults."""
        return SqlJournal(f"sqlite:///{self.database}") if self.setting.is_sql else self.memory

    def _journal(self) -> Journal:
        inner = self._stored()
        journal = FaultyJournal(self.seams, inner, self._wrote)
        self.journals.append(journal)
        return journal

    def _start_loop(self, number: int, after: float, rounds: int | None = None) -> None:
        machine = number % _MACHINES
        until = self.until if rounds is None else float("inf")
        clock = Clock(self.seams, machine, until)
        table = self.checks.path

        def seen(done: Any) -> None:
            self.applied = done.applied

        def work() -> None:
            run_loop(self._journal(), table, self.source, clock, self.seed, rounds, seen)

        self.scheduler.start(Process(self.scheduler, f"loop {number}", work, machine), after)

    def _start_operation(self, fault: Fault) -> None:
        name = fault.kind.removeprefix("operator: ")
        clock = Clock(self.seams, _MACHINES, self.until)

        def work() -> None:
            self.operator.act(name, fault.size, self._journal(), clock)
            if name == "take over":
                self.checks.forget_served()

        self.scheduler.start(Process(self.scheduler, fault.kind, work, _MACHINES))

    def _go_on(self, until: float) -> None:
        """Let the processes work; one that died is started again."""
        steps = 0
        while self.scheduler.step(until):
            steps += 1
            if steps > _MOST_STEPS:
                raise ViolationError("the study goes on", "the processes never come to an end")
            while self.operations and self.operations[0].at <= self.seams.num_calls:
                self._start_operation(self.operations.pop(0))
            self._restart_the_dead()
            if self.scheduler.time >= until and not self.scheduler.processes:
                return

    def _restart_the_dead(self) -> None:
        ended, self.scheduler.ended = self.scheduler.ended, []
        for process in ended:
            error = process.error
            if error is not None and not isinstance(error, HyperZeroError):
                raise ViolationError("the study goes on", f"{process.name}: {error!r}") from error
            is_loop = process.name.startswith("loop") and process.parent is None
            if is_loop and (process.is_killed or error is not None) and not self.seams.is_quiet:
                after = self.dice.uniform(0, _RESTART_SECONDS)
                self._start_loop(int(process.name.split()[1]), after)

    # --- what faults do to the machine

    def _wrote(self, study: str, entries: Sequence[Any]) -> None:
        self.checks.wrote(study, entries)
        if self.checks.header is None:
            inner = self.journals[-1].inner if self.setting.is_sql else self.memory
            self.checks.header = inner.header(NAME)
        if self.setting.is_sql:
            self.copies = [
                *self.copies[-3:],
                (len(self.checks.batches), self.database.read_bytes()),
            ]

    def _crash(self, loses: bool, size: float) -> None:
        """The machine of everybody stops at once; what was not on the disk is lost."""
        for process in self.scheduler.processes:
            process.is_killed = True
        self.seams.holder = None
        if not loses:
            return
        lost = 1 + int(2 * size)
        if self.setting.is_sql:
            kept = [c for c in self.copies if c[0] <= len(self.checks.batches) - lost]
            if kept:
                number, content = kept[-1]
                self.checks.lose(len(self.checks.batches) - number)
                self.operator.forget()
                self.copies = kept
                self.database = self.folder / f"study-{self.seams.num_calls}.db"
                self.database.write_bytes(content)
        else:
            self.checks.lose(lost)
            self.operator.forget()
            self.memory = self.checks.copied()
        path, versions = self.checks.path, self.checks.served
        if size > 0.8 and path.exists():
            path.write_bytes(path.read_bytes()[: int(len(versions[-1]) * (size - 0.8) * 5)])
            self.seams.happened["served file torn by a lost fsync"] += 1
        elif size > 0.4 and len(versions) > 1 and versions[-2]:
            path.write_bytes(versions[-2])
            self.checks.forget_served()  # it was not on the disk, so nobody may rely on it
            self.seams.happened["served file of before after a lost fsync"] += 1

    def _tear(self, descriptor: int) -> None:
        """A process dies half-way through a file; what it would clear away stays."""
        size = os.fstat(descriptor).st_size
        os.truncate(descriptor, size // 2)
        (self.folder / f".table.json.torn-{self.seams.num_calls}").write_bytes(b'{"kind": "hyp')

    # --- checks

    def _check(self) -> None:
        self.checks()

    def _be_quiet(self) -> None:
        """Nothing fails any more: after some rounds the study serves again."""
        self.seams.is_quiet = True
        self.operations = []
        self.scheduler.end()
        self.scheduler.ended = []
        if self.checks.entries:
            with closing(self._stored()) as stored:
                self.checks.check_chain(stored)
        self.seams.offsets = [0.0] * len(self.seams.offsets)
        if self.checks.path.exists() and self.checks._take(b"") is None:
            self.checks.path.unlink()  # what the message advises: it cannot be read
            self.checks.forget_served()
        for attempt in range(2):
            self._start_loop(10 + attempt, after=0.0, rounds=2)
            self._go_on(self.scheduler.time + 24 * HOUR)
            if self.applied or self._is_withdrawn():
                return
            # The message advises it where the journal lost what it had served.
            self._start_operation(Fault("operator: take over", 0, 0.0))
            self._go_on(self.scheduler.time + HOUR)

    def _is_withdrawn(self) -> bool:
        history = self.checks._history
        return history is not None and history.status.switches.mode != "running"

    def _end(self) -> int:
        with closing(self._stored()) as stored:
            self.checks.at_the_end(self.applied or self._is_withdrawn(), stored)
        return self.checks.check_resumed()
