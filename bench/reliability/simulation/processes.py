"""Processes that take turns on a simulated clock, one I/O call at a time, and that can be killed.

Each process is a thread, and only the one that holds the baton runs. It hands the baton back at
every I/O call; the scheduler checks the invariants and picks the next process. So one seed gives
one order of events, whatever the machine does.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable


class Death(BaseException):
    """A process was killed here; nothing of it runs any more."""


class Process(threading.Thread):
    """A process, or a thread of one.

    Args:
        scheduler: hands it the baton.
        name: for messages.
        work: what it does.
        machine: number of the machine, which has a clock.
        parent: the process that it is a thread of; they die together.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        work: Callable[[], object],
        machine: int = 0,
        parent: Process | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.scheduler, self.work, self.machine, self.parent = scheduler, work, machine, parent
        self.wakes = scheduler.time
        self.is_killed = self.is_over = False
        self.error: BaseException | None = None
        self._go = threading.Lock()  # held until it is its turn
        self._go.acquire()

    @property
    def root(self) -> Process:
        """The process that a thread belongs to."""
        return self if self.parent is None else self.parent.root

    def run(self) -> None:
        """Work until it is done or killed."""
        self._go.acquire()
        try:
            if not self.is_killed:
                self.work()
        except Death:
            self.is_killed = True
        except BaseException as error:
            self.error = error
        self.is_over = True
        self.scheduler.turn.release()

    def rest(self, until: float | None = None) -> None:
        """Hand the baton back; go on when the scheduler says so, not before this time."""
        if self.is_killed:
            raise Death
        self.wakes = self.scheduler.time if until is None else until
        self.scheduler.turn.release()
        self._go.acquire()
        if self.is_killed:
            raise Death

    def kill(self) -> None:
        """Kill the process with all its threads; each ends when it is next given the baton."""
        for process in self.scheduler.processes:
            if process.root is self.root:
                process.is_killed = True

    def go_on(self) -> None:
        """Give it the baton, and wait until it hands it back."""
        self._go.release()
        self.scheduler.turn.acquire()


class Scheduler:
    """Picks the process that goes on, and keeps the time.

    Args:
        seed: of all choices.
        start: seconds since 1970.
        check: is called after every step.
    """

    def __init__(self, seed: int, start: float, check: Callable[[], None]) -> None:
        self.dice = random.Random(f"turns {seed}")
        self.time = start
        self.processes: list[Process] = []
        self.ended: list[Process] = []
        self.turn = threading.Lock()  # held while a process works
        self.turn.acquire()
        self.check = check

    def start(self, process: Process, after: float = 0.0) -> None:
        """Add a process, which begins after so many seconds."""
        process.wakes = self.time + after
        self.processes.append(process)
        process.start()

    def current(self) -> Process | None:
        """The process that this code runs in; None outside of all."""
        process = threading.current_thread()
        return process if isinstance(process, Process) else None

    def step(self, until: float) -> bool:
        """Let one process do one step; False where none has anything to do before this time."""
        for process in self.processes:
            if process.is_killed and not process.is_over:
                process.go_on()  # it ends, without any I/O
        self._sort_out()
        ready = [p for p in self.processes if p.wakes <= self.time]
        if not ready:
            wakes = min((p.wakes for p in self.processes), default=until)
            self.time = min(max(self.time, wakes), until)
            return self.time < until
        process = self.dice.choice(ready)
        process.go_on()
        self._sort_out()
        self.check()
        return True

    def _sort_out(self) -> None:
        self.ended += [p for p in self.processes if p.is_over]
        self.processes = [p for p in self.processes if not p.is_over]

    def end(self) -> None:
        """Kill all processes, and wait until each has ended."""
        for process in self.processes:
            process.is_killed = True
            if not process.is_over:
                process.go_on()
            process.join(60)
        self.processes = []
