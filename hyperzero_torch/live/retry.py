"""Calls of components that may be slow, fail or never return."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ConfigError, FencedError, GivenUpError
from .clock import Clock

_T = TypeVar("_T")

# Calls of a component that only reads which may hang at the same time; each can hold a connection.
_MAX_HANGING = 8


@dataclass(frozen=True)
class RetryPolicy:
    """How often a component is called, and how long each call may take.

    Args:
        attempts: calls in all.
        first_wait: seconds before the second attempt. Each further wait is four times as long. All
            waits are stretched by up to a quarter at random, so that loops do not call all at once.
        timeout: seconds after which an attempt counts as failed. It is not ended, only not waited
            for.
    Raises:
        ConfigError: a number out of its range.
    """

    attempts: int = 4
    first_wait: float = 2.0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or not self.timeout > 0:
            raise ConfigError(
                "a retry policy needs attempts >= 1, first_wait >= 0 and timeout > 0, got "
                f"{self.attempts}, {self.first_wait} and {self.timeout}"
            )


class Component:
    """Another component of the system, called with retries, one call at a time.

    An attempt that timed out may still be running. Until it ends no other is started, so that an
    old write cannot follow a newer one. A component that only reads is exempt: a later ``call`` may
    run beside up to eight that hang, and ``late_answers`` returns what they found in the end.

    Args:
        policy: attempts, waits and timeout.
        clock: for the waits between attempts.
        threaded: whether attempts are abandoned after ``policy.timeout``; False for work that
            belongs to the caller's thread.
        reads: whether calls change nothing.
        retry_on: errors after which the call is tried again; others are raised at once.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Clock,
        threaded: bool = True,
        reads: bool = False,
        retry_on: type[Exception] = Exception,
    ) -> None:
        self.policy, self.clock = policy, clock
        self.threaded, self.reads, self.retry_on = threaded, reads, retry_on
        self._abandoned: list[Future[Any]] = []

    def call(self, what: str, work: Callable[[], _T]) -> _T:
        """The answer of the first attempt that succeeds.

        Raises:
            GivenUpError: none did; it says how many, in what time, and the last reason.
            FencedError: the platform serves what this call may not replace.
        """
        pause, begin = self.policy.first_wait, self.clock.now()
        limit = min(self._num_running() + 1, _MAX_HANGING) if self.reads else 1
        for attempt in range(1, self.policy.attempts + 1):
            try:
                return self._call_with_timeout(work, limit) if self.threaded else work()
            except FencedError:
                raise  # another attempt would find the same
            except self.retry_on as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            is_last = attempt == self.policy.attempts
            if is_last or self.clock.sleep(pause * random.uniform(1.0, 1.25)):
                break
            pause *= 4
        seconds = self.clock.now() - begin
        attempts = "once" if attempt == 1 else f"{attempt} times in {seconds:.0f} s"
        raise GivenUpError(f"{what} failed {attempts}; last error: {reason:.300}")

    def late_answers(self) -> list[Any]:
        """Answers of earlier calls that came after their timeout, each returned once."""
        finished = [call for call in self._abandoned if call.done()]
        self._abandoned = [call for call in self._abandoned if call not in finished]
        return [call.result() for call in finished if call.exception() is None]

    def _num_running(self) -> int:
        return sum(not call.done() for call in self._abandoned)

    def _call_with_timeout(self, work: Callable[[], _T], limit: int) -> _T:
        if self._num_running() >= limit:
            raise TimeoutError("an earlier call is still at work")
        if not self.reads:  # a late answer of a writer is of no use
            self._abandoned.clear()
        call = _start(work)
        wait([call], self.policy.timeout)
        if not call.done():
            self._abandoned.append(call)
            raise TimeoutError(f"no answer in {self.policy.timeout:g} s")
        return call.result()


def _start(work: Callable[[], _T]) -> Future[_T]:
    """Run a call in a daemon thread, so that a call that hangs does not keep the process alive."""
    call: Future[_T] = Future()

    def run() -> None:
        try:
            call.set_result(work())
        except Exception as error:
            call.set_exception(error)
        except BaseException as error:  # an exit asked for in this thread ends this thread only
            call.set_exception(RuntimeError(repr(error)))

    threading.Thread(target=run, daemon=True).start()
    return call
