"""The seams of a process, in which faults happen: its journal, the file it serves, its calls."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import sqlalchemy as sa

from hyperzero_torch.errors import ConfigError, JournalError
from hyperzero_torch.study.journal import Entry, Journal, StudyHeader
from hyperzero_torch.study.journal.sql import SqlJournal

from .faults import CALL, FILE, KINDS, LASTING, LOCK, READ, SOURCE, STATEMENT, WAIT, WRITE, Fault
from .processes import Death, Process, Scheduler

_T = TypeVar("_T")
# An I/O call takes up to so long.
_CALL_SECONDS = 2.0
_LOCK_SECONDS = 10.0
_MINUTE, _HOUR = 60.0, 3600.0


class Seams:
    """Where I/O calls happen: counts them, lets other processes go first, and lets them fail.

    Args:
        scheduler: of the processes.
        faults: in order.
        crash: what a machine crash does; it gets whether fsyncs are lost.
    """

    def __init__(
        self, scheduler: Scheduler, faults: Sequence[Fault], crash: Callable[[bool, float], None]
    ) -> None:
        self.scheduler, self.crash = scheduler, crash
        self.waiting = list(faults)
        self.num_calls = 0
        self.happened: Counter[str] = Counter()
        self.deaths: set[int] = set()  # numbers of the I/O calls that a process died at
        self.lasting: dict[str, tuple[int, float]] = {}  # calls that still fail, and until when
        self.offsets = [0.0] * 8  # of the clocks, by machine
        self.is_quiet = False
        self.holder: Process | None = None  # of the lock of the served file

    def call(self, kind: str, effect: Callable[[], _T], rests: bool = True) -> _T:
        """One I/O call of the current process.

        Args:
            kind: of the call.
            effect: what it does.
            rests: whether other processes may go first.
        """
        process = self.scheduler.current()
        if process is None:  # a check of the simulation itself
            return effect()
        if rests:
            self.num_calls += 1
            self.scheduler.time += self.scheduler.dice.uniform(0.0, _CALL_SECONDS)
            process.rest()
        if process.is_killed:
            raise Death
        self._lasting(kind)
        fault = self.due(kind)
        if fault is not None:
            self._before(kind, fault, process)
        result = effect()
        if fault is not None:
            self._after(fault, process)
        return result

    def due(
        self, kind: str, among: Sequence[str] | None = None, counts: bool = True
    ) -> Fault | None:
        """The fault that happens at this call, if any.

        Args:
            kind: of the call.
            among: names of faults; None for all.
            counts: whether it certainly happens.
        """
        if self.is_quiet:
            return None
        for fault in self.waiting:
            if fault.at > self.num_calls:
                return None
            names = KINDS.get(fault.kind, ())
            if kind in names and (among is None or fault.kind in among):
                self.waiting.remove(fault)
                if counts and fault.kind not in LASTING:
                    self.happened[fault.kind] += 1
                return fault
        return None

    def _lasting(self, kind: str) -> None:
        for name, (left, until) in list(self.lasting.items()):
            is_on = left > 0 and self.scheduler.time <= until and not self.is_quiet
            if is_on and kind in KINDS[name]:
                self.lasting[name] = (left - 1, until)
                self._fail(name, kind)

    def _before(self, kind: str, fault: Fault, process: Process) -> None:
        match fault.kind:
            case "death before an I/O call":
                self._die(process)
            case "machine crash" | "machine crash with a lost fsync":
                self.deaths.add(self.num_calls)
                self.crash("fsync" in fault.kind, fault.size)
                raise Death
            case "paused process":
                process.rest(self.scheduler.time + 10 + fault.size**2 * 5 * _HOUR)
            case "clock jump":
                far = fault.size * 6 - 3
                self.offsets[process.machine] = far * _HOUR
            case name if name in LASTING:
                until = self.scheduler.time + 2 * fault.size * _HOUR
                self.lasting[name] = (1 + int(140 * fault.size), until)
                self._lasting(kind)

    def _after(self, fault: Fault, process: Process) -> None:
        match fault.kind:
            case "death after a write took effect":
                self._die(process)
            case "answer of a commit lost":
                raise JournalError("the journal has lost its connection; call again to reconnect")

    def _die(self, process: Process) -> None:
        self.deaths.add(self.num_calls)
        process.kill()
        raise Death

    def _fail(self, name: str, kind: str) -> None:
        self.happened[name] += 1
        if kind == FILE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == STATEMENT:
            why = "database is locked" if name == "locked database" else "database or disk is full"
            raise sa.exc.OperationalError("", {}, sqlite3.OperationalError(why))
        if kind == SOURCE:
            raise ConnectionError("the warehouse does not answer")
        raise JournalError(f"the journal cannot be used: {name}")


class FaultyJournal:
    """A journal whose calls fail; ``Journal`` documents the methods.

    Args:
        seams: of the process.
        inner: the journal that stores the entries.
        wrote: is given each append that took effect.
    """

    def __init__(
        self, seams: Seams, inner: Journal, wrote: Callable[[str, Sequence[Entry]], None]
    ) -> None:
        self.seams, self.inner, self.wrote = seams, inner, wrote
        if isinstance(inner, SqlJournal):
            sa.event.listen(inner.database.engine, "before_cursor_execute", self._statement)

    def _statement(self, *_: object) -> None:
        self.seams.call(STATEMENT, lambda: None, rests=False)

    def studies(self) -> list[str]:
        return self.seams.call(READ, self.inner.studies)

    def header(self, study: str) -> StudyHeader:
        return self.seams.call(READ, lambda: self.inner.header(study))

    def read(self, study: str, after: int = 0) -> list[Entry]:
        return self.seams.call(READ, lambda: self.inner.read(study, after))

    def create(self, header: StudyHeader, entries: Sequence[Entry]) -> None:
        def effect() -> None:
            self.inner.create(header, entries)
            self.wrote(header.study, entries)

        self.seams.call(WRITE, effect)

    def append(self, study: str, entries: Sequence[Entry], after: int) -> int:
        def effect() -> int:
            number = self.inner.append(study, entries, after)
            self.wrote(study, entries)
            return number

        return self.seams.call(WRITE, effect)

    def close(self) -> None:
        if isinstance(self.inner, SqlJournal):
            self.inner.close()


class FaultyFiles:
    """Stands in for ``os`` where files are written."""

    def __init__(self, seams: Seams, tear: Callable[[int], None]) -> None:
        self._seams, self._tear = seams, tear

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if self._seams.due(FILE, ("torn write",)) is not None:
            self._tear(descriptor)
            process = self._seams.scheduler.current()
            assert process is not None
            self._seams._die(process)
        # Memory stands in for the disk, which would only take its time.
        self._seams.call(FILE, lambda: None)

    def replace(self, old: Path, new: Path) -> None:
        self._seams.call(FILE, lambda: os.replace(old, new))


class Clock:
    """The clock of a machine, which may be wrong."""

    def __init__(self, seams: Seams, machine: int, until: float) -> None:
        self.seams, self.machine, self.until = seams, machine, until

    def now(self) -> float:
        """The time, as far as the machine knows."""
        return self.seams.scheduler.time + self.seams.offsets[self.machine]

    def sleep(self, seconds: float) -> bool:
        """Wait; True where the simulation is over."""
        scheduler = self.seams.scheduler
        process = scheduler.current()
        assert process is not None
        process.rest(min(scheduler.time + max(0.0, seconds), self.until))
        self.seams.call(WAIT, lambda: None)
        return scheduler.time >= self.until


@contextmanager
def patched(seams: Seams, tear: Callable[[int], None]) -> Iterator[None]:
    """Put the seams into the package's files, locks and calls."""
    scheduler = seams.scheduler

    @contextmanager
    def locked(path: Path) -> Iterator[None]:
        process = scheduler.current()
        if process is None:
            yield
            return
        seams.call(LOCK, lambda: None)
        deadline = scheduler.time + _LOCK_SECONDS
        while seams.holder is not None and not seams.holder.is_over:
            if scheduler.time > deadline:
                raise ConfigError(f"{path} has been locked by another process for 10 s")
            process.rest(scheduler.time + 1.0)
        seams.holder = process
        try:
            yield
        finally:
            if seams.holder is process:
                seams.holder = None

    def start(work: Callable[[], _T]) -> Future[_T]:
        call: Future[_T] = Future()
        process = scheduler.current()
        assert process is not None

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                call.set_exception(error)
            else:
                call.set_result(result)

        fault = seams.due(CALL)
        if fault is None:
            run()
        else:
            beside = Process(scheduler, f"{process.name}, a call", run, process.machine, process)
            scheduler.start(beside, after=_MINUTE + fault.size**2 * 4 * _HOUR)
        return call

    def wait(calls: Sequence[Future[Any]], timeout: float) -> None:
        process = scheduler.current()
        if process is not None and not all(call.done() for call in calls):
            process.rest(scheduler.time + timeout)

    at = "hyperzero_torch"
    with ExitStack() as stack:
        for name, value in (
            (f"{at}.runtime.files.os", FaultyFiles(seams, tear)),
            (f"{at}.live.serve.updater.locked", locked),
            (f"{at}.live.retry._start", start),
            (f"{at}.live.retry.wait", wait),
            (f"{at}.live.retry.random", random.Random(f"waits {scheduler.dice.random()}")),
        ):
            stack.enter_context(mock.patch(name, value))
        yield
