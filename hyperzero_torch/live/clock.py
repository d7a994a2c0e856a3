"""The clock of a loop, and which round it is by that clock."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from ..errors import ConfigError, RoundError
from ..study.journal.trace import Remark
from ..tuner.tuner import Tuner

#: Kind of the decision that records when round 0 began, and of remarks on the clock.
CLOCK = "clock"
#: Under this key such a record says that rounds are counted anew from it on.
RESYNCED = "resynced"


class Clock(Protocol):
    """Tells the time and waits, in seconds since the epoch."""

    def now(self) -> float:
        """The time."""
        ...

    def sleep(self, seconds: float) -> bool:
        """Wait; True where the wait ended early because the loop is to stop."""
        ...


class SystemClock:
    """The machine's clock.

    Args:
        stop: ends every wait when it is set.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()

    def now(self) -> float:
        """The time."""
        return time.time()

    def sleep(self, seconds: float) -> bool:
        """Wait until the time is over or ``stop`` is set."""
        return self.stop.wait(max(0.0, seconds))


class SimulatedClock:
    """A clock on which a wait takes no real time.

    Args:
        start: seconds since the epoch.
        stop: ends a loop at its next wait when it is set.
    """

    def __init__(self, start: float = 0.0, stop: threading.Event | None = None) -> None:
        self.time = start
        self.stop = stop or threading.Event()

    def now(self) -> float:
        """The time."""
        return self.time

    def sleep(self, seconds: float) -> bool:
        """Move the time forward."""
        self.time += max(0.0, seconds)
        return self.stop.is_set()


class Schedule:
    """Numbers the rounds of a study by a clock. The journal records when round 0 began.

    Args:
        tuner: the study.
        clock: the loop's.
        round_seconds: length of a round.
    Raises:
        ConfigError: a length that is not above 0.
    """

    def __init__(self, tuner: Tuner, clock: Clock, round_seconds: float) -> None:
        if not round_seconds > 0:
            raise ConfigError(f"round_seconds must be above 0, got {round_seconds}")
        self.tuner, self.clock, self.round_seconds = tuner, clock, round_seconds
        self._origin = 0.0

    def start(self) -> None:
        """Read when round 0 began. A study without a record continues with its next round now.

        Raises:
            ConfigError: the study's rounds have another length.
            JournalError: the journal could not be reached.
        """
        if self.refresh():
            return
        history = self.tuner.history
        now = self.clock.now()
        begin = now - now % self.round_seconds
        next_round = history.next_round
        self._origin = begin - next_round * self.round_seconds
        facts = {"origin": self._origin, "round_seconds": self.round_seconds}
        self.tuner.study.note(CLOCK, f"round {next_round} begins at {begin:.0f} s", facts)

    def refresh(self) -> bool:
        """Read again when round 0 began; False where the journal has no record.

        The first record holds, unless a later one was made to count on from another round.

        Raises:
            ConfigError: the study's rounds have another length.
        """
        remarks = [d.trace for d in self.tuner.history.decisions if d.kind == CLOCK]
        records = [r.facts for r in remarks if isinstance(r, Remark) and "origin" in r.facts]
        if not records:
            return False
        facts = [records[0], *(r for r in records if r.get(RESYNCED))][-1]
        length = facts.get("round_seconds")
        if length != self.round_seconds:
            raise ConfigError(
                f"the study's rounds last {length} s, got round_seconds="
                f"{self.round_seconds}; keep the length, or start another study"
            )
        self._origin = float(facts["origin"])
        return True

    def resync(self, reason: str) -> int:
        """Count on from the last planned round, from now on; journaled. Returns the next round.

        The clock keeps its phase: the next round is the first one after the last planned that has
        the same hour of the day as the present round has.

        Args:
            reason: why, in a sentence.
        Raises:
            RoundError: no round was planned yet, the clock is not behind the last planned round,
                or no reason is given.
        """
        last = self.tuner.study.sync().last_round
        if last is None:
            raise RoundError("no round was planned yet, so there is nothing to continue")
        if not reason.strip():
            raise RoundError("give a reason, in a sentence; the journal stores it")
        self.start()
        period, now = self.tuner.config.rounds_per_day, self.current_round()
        if now >= last:
            raise RoundError(
                f"by the clock it is round {now}, and the last planned is {last}: the loop goes on "
                "by itself"
            )
        next_round = last + 1 + (now - last - 1) % period
        self._origin += (now - next_round) * self.round_seconds
        facts = {"origin": self._origin, "round_seconds": self.round_seconds, RESYNCED: True}
        self.tuner.study.note(CLOCK, f"round {next_round} is the present one: {reason}", facts)
        return next_round

    def current_round(self) -> int:
        """The round that the present time belongs to."""
        elapsed = self.clock.now() - self._origin
        return int((elapsed + 1e-6 * self.round_seconds) // self.round_seconds)

    def begin_of(self, round: int) -> float:
        """When a round begins, in seconds since the epoch."""
        return self._origin + round * self.round_seconds

    def wait_for_next_round(self) -> bool:
        """Wait until the next round begins; True where the loop is to stop."""
        begin = self.begin_of(self.current_round() + 1)
        return self.clock.sleep(begin - self.clock.now())
