"""Calls of parts that may be slow, fail or never come back, and the clock that times them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..errors import ConfigError, HyperZeroError

_T = TypeVar("_T")


class GivenUpError(HyperZeroError):
    """A platform or a warehouse failed as often as it may, or did not answer in time."""


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
    that nothing old is written over something new.

    Args:
        patience: with it.
        clock: for the waits between tries.
        threaded: whether tries are cut off after ``patience.timeout``; False for what belongs to
            the caller's thread.
    """

    def __init__(self, patience: Patience, clock: Clock, threaded: bool = True) -> None:
        self.patience = patience
        self.clock = clock
        self.threaded = threaded
        self._worker: threading.Thread | None = None

    def call(self, what: str, work: Callable[[], _T]) -> _T:
        """The answer of the first try that has one.

        Raises:
            GivenUpError: there was none; says how often, how long and the last reason.
        """
        wait, begun = self.patience.first_wait, self.clock.now()
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._within(work) if self.threaded else work()
            except Exception as error:  # whatever another part may raise
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            last = attempt == self.patience.attempts
            if last or self.clock.sleep(wait * random.uniform(1.0, 1.25)):
                break
            wait *= 4
        spent = self.clock.now() - begun
        tried = "once" if attempt == 1 else f"{attempt} times in {spent:.0f} s"
        raise GivenUpError(f"{what} failed {tried}, at last with {reason:.300}")

    def _within(self, work: Callable[[], _T]) -> _T:
        """The answer, if there is one in time."""
        if self._worker is not None and self._worker.is_alive():
            raise TimeoutError("an earlier call is still at work")
        answers: list[_T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(work())
            except Exception as error:
                errors.append(error)

        # A daemon: a call that hangs must not hold the process when it is to end.
        self._worker = threading.Thread(target=run, daemon=True)
        self._worker.start()
        self._worker.join(self.patience.timeout)
        if answers:
            return answers[0]
        if errors:
            raise errors[0]
        raise TimeoutError(f"no answer in {self.patience.timeout:g} s")
