"""Remarks of a loop on its rounds, and calls of its components whose failures become remarks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import FencedError, GivenUpError, HyperZeroError, JournalError
from ..study.journal.trace import Remark
from ..tuner.tuner import Tuner
from .clock import Clock
from .retry import Component, RetryPolicy

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: Kind of remarks on the journal itself, which cannot be written at that moment.
JOURNAL = "journal"
# A remark is not repeated where one of so many last decisions says the same.
_RECENT = 64
# Remarks that wait for the journal; the oldest are dropped first. The log has them all.
_MAX_WAITING = 200
# Attempts at work of the tuner that fails for a reason other than the journal. A repetition mostly
# gives the same, but the user's objective may depend on something that was busy.
_WORK_ATTEMPTS = 2


class Remarks:
    """Remarks on the rounds of one loop: logged at once, journaled once the journal can be written.

    Args:
        tuner: whose journal they are written to.
    """

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner
        self.reasons: list[str] = []
        self._round = 0
        self._waiting: deque[tuple[str, str, Mapping[str, Any]]] = deque(maxlen=_MAX_WAITING)

    def begin(self, round: int) -> None:
        """Start a round: remarks from now on are about it."""
        self._round, self.reasons = round, []

    def add(
        self,
        kind: str,
        reason: str,
        once: Mapping[str, Any] | None = None,
        error: Exception | None = None,
    ) -> None:
        """Log a remark and write it to the journal.

        Args:
            kind: one word.
            reason: a sentence.
            once: what the remark is about. Where a recent entry of the journal is about the same,
                it is not written again.
            error: its traceback is logged.
        """
        self.show(kind, reason, error)
        recent = self.tuner.history.decisions[-_RECENT:]
        if once and any(d.kind == kind and d.trace == Remark(facts=once) for d in recent):
            return
        # File names can hold characters that databases refuse in text.
        plain = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        self._waiting.append((kind, plain, once or {"in_round": self._round}))
        if kind != JOURNAL:
            self.write_waiting()

    def show(self, kind: str, reason: str, error: Exception | None = None) -> None:
        """Log a remark of the round without writing it to the journal."""
        self.reasons.append(reason)
        log.warning("%s: %s", kind, reason, extra={"part": kind}, exc_info=error)

    def write_waiting(self) -> None:
        """Write the remarks that wait for the journal, the oldest first, until it fails."""
        while self._waiting:
            try:
                self.tuner.study.note(*self._waiting[0])
            except JournalError as error:
                log.warning("the journal cannot be written to: %s", error, extra={"part": JOURNAL})
                return
            self._waiting.popleft()


class Calls:
    """The components that a loop calls.

    Args:
        tuner: the study. It belongs to one thread: its journal is retried, but has no timeout.
        clock: the loop's.
        policy: retries of each component.
    """

    def __init__(self, tuner: Tuner, clock: Clock, policy: RetryPolicy) -> None:
        self.remarks = Remarks(tuner)
        self.successes: dict[str, float] = {}  # when each part last answered, by its name
        self.warehouse = Component(policy, clock, reads=True)
        self.domains = Component(policy, clock, reads=True)
        self._platform = Component(policy, clock)
        self._journal = Component(policy, clock, threaded=False, retry_on=JournalError)

    def read(self, component: Component, kind: str, what: str, work: Callable[[], _T]) -> list[_T]:
        """Late answers of earlier calls, and the answer of this one unless it fails."""
        answers: list[_T] = component.late_answers()
        try:
            answers.append(component.call(what, work))
            self._answered(kind)
        except GivenUpError as error:
            self.remarks.add(kind, str(error))
        return answers

    def serve(self, what: str, work: Callable[[], None]) -> bool:
        """Whether the platform did what it was asked to."""
        try:
            self._platform.call(what, work)
        except (GivenUpError, FencedError) as error:
            self.remarks.add("platform", str(error))
            return False
        self._answered("platform")
        return True

    def journal(
        self, what: str, work: Callable[[], _T], raises: tuple[type[HyperZeroError], ...] = ()
    ) -> _T | None:
        """The tuner's answer; None and a remark where the journal cannot be reached or the work
        itself fails. Errors in ``raises`` are left to the caller."""
        for attempt in range(1, _WORK_ATTEMPTS + 1):
            try:
                answer = self._journal.call(what, work)
            except GivenUpError as error:
                self.remarks.add(JOURNAL, str(error))
                return None
            except raises:
                raise
            except Exception as error:
                failure = error
            else:
                self._answered(JOURNAL)
                return answer
            is_last = isinstance(failure, HyperZeroError) or attempt == _WORK_ATTEMPTS
            if is_last or self._journal.clock.sleep(self._journal.policy.first_wait):
                break
        # Type and message only; the log has the traceback.
        reason = f"{what} failed: {type(failure).__name__}: {failure}"
        self.remarks.add("error", f"{reason:.400}", error=failure)
        return None

    def _answered(self, part: str) -> None:
        self.successes[part] = self._journal.clock.now()
