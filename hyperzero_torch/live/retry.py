"""Calls of parts that may be slow, fail or never come back, and the clock that times them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..errors import ConfigError, GivenUpError

_T = TypeVar("_T")

# Calls of a reading part that hang side by side; each may hold a connection.
_MOST_HANGING = 8


class Clock(Protocol):
    """What time it is, and waiting; seconds since the epoch."""

    def now(self) -> float:
        """The time."""
        ...

    def sleep(self, seconds: float) -> bool:
        """Wait; True where the waiting was cut short because the loop is to stop."""
        ...


class SystemClock:
    """The machine's clock.

    Args:
        stop: ends every waiting when it is set.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()

    def now(self) -> float:
        """The time."""
        return time.time()

    def sleep(self, seconds: float) -> bool:
        """Wait, unless told to stop."""
        return self.stop.wait(max(0.0, seconds))


class SimulatedClock:
    """A clock that is at once where somebody waits for it to be.

    Args:
        start: seconds since the epoch.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.time = start
        self.stop = threading.Event()

    def now(self) -> float:
        """The time."""
        return self.time

    def sleep(self, seconds: float) -> bool:
        """Let the time pass."""
        self.time += max(0.0, seconds)
        return self.stop.is_set()


@dataclass(frozen=True)
class Patience:
    """How often and how long another part is tried.

    Args:
        attempts: tries in all.
        first_wait: seconds before the second try; each further wait is four times as long, and
            all are stretched by up to a quarter at random, so that many loops do not knock at once.
        timeout: seconds after which a try counts as failed. It is not killed, only not waited for.
    Raises:
        ConfigError: numbers that are no patience.
    """

    attempts: int = 4
    first_wait: float = 2.0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or not self.timeout > 0:
            raise ConfigError(
                "patience needs attempts >= 1, first_wait >= 0 and timeout > 0, got "
                f"{self.attempts}, {self.first_wait} and {self.timeout}"
            )


class Part:
    """Another part of the system, tried patiently, one call at a time.

    A try that did not answer in time may still be at work. Until it is done no other is begun, so
    that nothing old is written over something new. Where the part only reads, nothing can be
    spoilt: a later ``call`` is made beside one that hangs (up to eight), and an answer that came
    too late can be had from ``late``.

    Args:
        patience: with it.
        clock: for the waits between tries.
        threaded: whether tries are cut off after ``patience.timeout``; False for what belongs to
            the caller's thread.
        reads: whether calls change nothing.
    """

    def __init__(
        self, patience: Patience, clock: Clock, threaded: bool = True, reads: bool = False
    ) -> None:
        self.patience = patience
        self.clock = clock
        self.threaded = threaded
        self.reads = reads
        self._left: list[_Try] = []

    def call(self, what: str, work: Callable[[], _T]) -> _T:
        """The answer of the first try that has one.

        Raises:
            GivenUpError: there was none; says how often, how long and the last reason.
        """
        wait, begun = self.patience.first_wait, self.clock.now()
        most = min(self._at_work() + 1, _MOST_HANGING) if self.reads else 1
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._within(work, most) if self.threaded else work()
            except Exception as error:  # whatever another part may raise
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            last = attempt == self.patience.attempts
            if last or self.clock.sleep(wait * random.uniform(1.0, 1.25)):
                break
            wait *= 4
        spent = self.clock.now() - begun
        tried = "once" if attempt == 1 else f"{attempt} times in {spent:.0f} s"
        raise GivenUpError(f"{what} failed {tried}, at last with {reason:.300}")

    def late(self) -> list[Any]:
        """Answers of earlier calls that came after their time, each handed out once."""
        done = [one for one in self._left if not one.at_work]
        self._left = [one for one in self._left if one.at_work]
        return [answer for one in done for answer in one.answers]

    def _at_work(self) -> int:
        return sum(one.at_work for one in self._left)

    def _within(self, work: Callable[[], _T], most: int) -> _T:
        """The answer, if there is one in time."""
        if self._at_work() >= most:
            raise TimeoutError("an earlier call is still at work")
        if not self.reads:  # what a writer has to say too late is of no use
            self._left.clear()
        one = _Try(work)
        if not one.done_within(self.patience.timeout):
            self._left.append(one)
            raise TimeoutError(f"no answer in {self.patience.timeout:g} s")
        if one.error is not None:
            raise one.error
        answer: _T = one.answers[0]
        return answer


class _Try:
    """One call, at work in a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.answers: list[Any] = []
        self.error: Exception | None = None
        # A daemon: a call that hangs must not hold the process when it is to end.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def at_work(self) -> bool:
        return self._thread.is_alive()

    def done_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self.at_work

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.answers.append(work())
        except Exception as error:
            self.error = error
