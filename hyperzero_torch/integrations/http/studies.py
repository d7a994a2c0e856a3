"""The studies of a server: writers of one study take turns, and the model works in a thread.

Each study has two tuners on the same journal, each in a thread of its own. One writes, so that all
changes made here follow each other. One reads: estimates for the page never hold up a message.
Messages that arrive while another is being written are written together, in one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from ...errors import HyperZeroError, ReadingsError
from ...live.lease import card_of
from ...live.serving import platform_of, serve_now
from ...study import broken_hours
from ...study import launch as launches
from ...study.health import Card
from ...study.journal.sql import SqlJournal
from ...study.journal.times import Times, decided_at, planned_at
from ...study.messages import Ledger, Message, Receipt, record
from ...study.study import Study
from ...tuner import announcements
from ...tuner.tuner import Tuner
from .answers import shown
from .files import Place
from .snapshot import Snapshot, take

_T = TypeVar("_T")
_MOST_TOGETHER = 100  # messages in one transaction
_MOST_WAITING = 1000
_STAMP_SECONDS = 5.0  # between two looks at what the platform serves
_CHECK_SECONDS = 1.0  # between two looks at the split while messages pour in
#: Seconds that a view of a study may be old, and how many times as long as it took to make.
_FRESH_SECONDS, _FRESH_TIMES = 1.0, 5.0


class Access:
    """One study.

    Args:
        place: where it is.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.key = place, place.key
        self._writer, self._reader = _Worker(place), _Worker(place)
        self._ledger, self._ledger_of = Ledger(), ""
        self._is_unchecked, self._checked = False, 0.0
        self._waiting: list[tuple[Message, asyncio.Future[tuple[Receipt, Sequence[str]]]]] = []
        self._draining: asyncio.Task[None] | None = None
        self._snapshot: Snapshot | None = None
        self._made, self._is_stale = 0.0, True
        self._making = asyncio.Lock()
        self._planned: dict[int, str] = {}
        self._decided: list[str] = []
        self._times_of = ""
        self._stamp: tuple[dict[str, Any] | None, str | None] = None, None
        self._stamped, self._stamping = -_STAMP_SECONDS, asyncio.Lock()

    async def read(self, work: Callable[[Tuner], _T]) -> tuple[_T, Sequence[str]]:
        """Work that changes nothing."""
        return await self._reader.do(work)

    async def write(
        self, work: Callable[[Tuner], _T], create: bool = False
    ) -> tuple[_T, Sequence[str]]:
        """Work that may change the study; the next view of it is a new one."""
        try:
            return await self._writer.do(work, create)
        finally:
            self._is_stale = self._reader.is_behind = True
            self._stamped = -_STAMP_SECONDS

    async def tell(self, message: Message) -> tuple[Receipt, Sequence[str]]:
        """Record a message.

        Raises:
            ReadingsError: it is refused.
            HTTPException: too many wait.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise HTTPException(429, "too many messages wait; send this one again later")
        future: asyncio.Future[tuple[Receipt, Sequence[str]]]
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((message, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
            results: list[Receipt | Exception] = []
            warnings: Sequence[str] = ()
            try:
                work = partial(self._record, messages=[message for message, _ in batch])
                recorded, warnings = await self._writer.do(work)
                results += recorded
            except Exception as error:  # each sender gets it
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results):
                if future.done():  # its sender has gone
                    continue
                if isinstance(result, Receipt):
                    future.set_result((result, warnings))
                else:
                    future.set_exception(result)

    def _record(self, tuner: Tuner, messages: list[Message]) -> list[Receipt | ReadingsError]:
        study = tuner.study
        if self._ledger_of != study.name:  # a promoted candidate: the study goes on as another
            self._ledger, self._ledger_of = Ledger(), study.name
        num_decisions = len(study.history.decisions)
        results = record(study, self._ledger, messages)
        self._is_unchecked |= any(isinstance(r, Receipt) and r.new for r in results)
        # A plan checks the split itself; while messages pour in, it is enough to do so at times.
        is_due = not self._waiting or time.monotonic() > self._checked + _CHECK_SECONDS
        if self._is_unchecked and is_due:
            broken_hours.exclude(study)
            self._is_unchecked, self._checked = False, time.monotonic()
        announcements.of_readings(study.history.decisions[num_decisions:])
        return results

    async def switch(self, throw: Callable[[Study], None]) -> tuple[str, Sequence[str]]:
        """Throw a switch, then bring up to date what is served; says what that is."""

        def work(tuner: Tuner) -> str:
            throw(tuner.study)
            return self.serve(tuner)

        return await self.write(work)

    def serve(self, tuner: Tuner) -> str:
        """Bring up to date what is served, where the study file names the platform."""
        if tuner.study.sync().last_round is None:
            return "no round was planned yet, so nothing is served"
        try:
            live = self.place.live()
            file = self.place.file
            if live is None or file is None:
                served = serve_now(tuner.study)
                return f"{served}, once the platform has taken it: no study file names one"
            folder = file.resolve().parent
            return serve_now(tuner.study, lambda: platform_of(tuner, live, folder))
        except HyperZeroError as error:
            return (
                "the journal has it, and the next plan follows it, but what is served now could "
                f"not be changed: {shown(error)}"
            )

    async def snapshot(self) -> Snapshot:
        """How the study stands: made anew where it has changed, for all viewers once."""
        snapshot, now = await self._latest(), datetime.now(UTC)
        return snapshot.at(now, await self._lease(snapshot, now))

    async def _lease(self, snapshot: Snapshot, now: datetime) -> Card | None:
        """What the platform serves, asked again every few seconds; None where none is known."""
        if self.place.file is None:
            return None
        async with self._stamping:
            if time.monotonic() >= self._stamped + _STAMP_SECONDS:
                try:
                    self._stamp = await asyncio.to_thread(self.place.stamp), None
                except HyperZeroError as error:
                    self._stamp = None, shown(error)
                self._stamped = time.monotonic()
            stamp, fault = self._stamp
        if fault is not None:
            return Card("Lease", "WATCH", f"what is served cannot be read: {fault}")
        if stamp is None:
            return None
        return card_of(stamp or None, snapshot.name, snapshot.last_round, now)

    async def _latest(self) -> Snapshot:
        async with self._making:
            age = time.monotonic() - self._made
            last = self._snapshot
            if last is not None and not self._is_stale:
                if age < max(_FRESH_SECONDS, _FRESH_TIMES * last.seconds):
                    return last
                version, _ = await self.read(lambda tuner: tuner.study.sync().num_entries)
                if version == last.version:
                    self._made = time.monotonic()
                    return last
            self._is_stale = False
            try:
                snapshot, _ = await self.read(self._take)
            except BaseException:
                self._is_stale = True
                raise
            self._snapshot, self._made = snapshot, time.monotonic()
            return snapshot

    def _take(self, tuner: Tuner) -> Snapshot:
        tuner.study.sync()
        while launches.goes_on(tuner.history):  # it was promoted since this tuner looked
            tuner = tuner.successor()
        return take(tuner, self.key, self.times(tuner))

    def times(self, tuner: Tuner) -> Times:
        """When rounds were planned and decisions written; only called in ``read``."""
        journal, history, study = tuner.journal, tuner.history, tuner.study.name
        if self._times_of != study:
            self._planned, self._decided, self._times_of = {}, [], study
        if isinstance(journal, SqlJournal):
            if len(self._planned) < len(history.plans):
                newest = max(self._planned, default=-1)
                self._planned |= planned_at(journal, study, newest)
            if len(self._decided) < len(history.decisions):
                self._decided += decided_at(journal, study, len(self._decided))
        return Times(self._planned, self._decided)

    def close(self) -> None:
        """End the threads and close the journals."""
        self._writer.close()
        self._reader.close()


class _Worker:
    """One tuner of a study, in a thread of its own; it is opened when it is first needed."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.is_behind = False  # another one has written since this one looked
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"study-{place.key}")
        self._tuner: Tuner | None = None

    async def do(
        self, work: Callable[[Tuner], _T], create: bool = False
    ) -> tuple[_T, Sequence[str]]:
        """Work with the tuner; also the sentences that it would have warned of."""

        def in_thread() -> tuple[_T, Sequence[str]]:
            with announcements.collecting() as sentences:
                result = work(self._current(create))
            return result, sentences

        return await asyncio.get_running_loop().run_in_executor(self._pool, in_thread)

    def _current(self, create: bool) -> Tuner:
        """The tuner, of the study that goes on where a candidate was promoted."""
        if self._tuner is None:
            self._tuner = self._place.open(create)
        if self.is_behind:  # a candidate may have been promoted
            self.is_behind = False
            self._tuner.study.sync()
        while launches.goes_on(self._tuner.history):
            self._tuner = self._tuner.successor()
        return self._tuner

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._tuner is not None:
            self._tuner.journal.close()
