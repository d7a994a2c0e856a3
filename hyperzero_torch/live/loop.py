"""Hourly rounds on a clock: collect what has arrived, plan, have it served; never wait for anyone.

    at every hour      collect -> tell -> ask -> apply          (each may fail; the next hour comes)

The loop holds nothing that the journal does not. Killed anywhere, it is started again and goes on;
two loops on one study make one plan per round and count no reading twice. Where the platform or
the warehouse fails, the round is skipped with an entry in the journal, and the platform goes on
serving what it has, the control among it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..errors import (
    ConfigError,
    GivenUpError,
    HyperZeroError,
    JournalError,
    ReadingsError,
    RoundError,
)
from ..study.decisions import REINSTATED
from ..study.history import History
from ..study.journal import Decision
from ..study.plan import Plan
from ..study.readings import Readings
from ..transfer.refresh import Named
from ..tuner.tuner import Tuner
from .aggregate.source import Collected, Source, checked
from .remarks import JOURNAL, Remarks
from .retry import Clock, Part, Patience, SystemClock
from .serve.updater import Updater

_T = TypeVar("_T")

log = logging.getLogger(__name__)

_ANCHOR = "clock"  # kind of the decision that says when round 0 was
# Rounds back to which readings are asked for where none has arrived: a week of hours.
_CATCH_UP = 168
# Tries of planning, or of folding, where it fails by itself and not by the journal: the same again
# mostly gives the same, but an objective may reach out to something that was busy.
_FAULT_TRIES = 2


@dataclass(frozen=True)
class Round:
    """What one round came to.

    Args:
        round: its number.
        plan: what is to be served; None where the journal could not be reached.
        applied: whether the platform took the plan.
        rows: readings that were news.
        notes: what was not as usual.
        seconds: that it took, by the loop's clock.
    """

    round: int
    plan: Plan | None
    applied: bool
    rows: int
    notes: tuple[str, ...]
    seconds: float


class Loop:
    """Drives a tuner on a clock.

    Args:
        tuner: the study.
        updater: the platform.
        source: where readings come from.
        clock: the machine's, or a simulated one.
        round_seconds: length of a round.
        patience: with platform, source and journal. All of it has to fit into a round.
        keep: rounds whose readings stay in the journal, see ``Tuner.compact``; None for all.
        domains: other domains that are to be read now (``transfer.named.read``), asked before each
            plan; None where there are none.
    Raises:
        ConfigError: a round without a length, or one too short for the patience.
    """

    def __init__(
        self,
        tuner: Tuner,
        updater: Updater,
        source: Source,
        clock: Clock | None = None,
        round_seconds: float = 3600.0,
        patience: Patience | None = None,
        keep: int | None = None,
        domains: Callable[[History], Named] | None = None,
    ) -> None:
        if not round_seconds > 0:
            raise ConfigError(f"round_seconds must be above 0, got {round_seconds}")
        self.tuner = tuner
        self.updater = updater
        self.source = source
        self.clock = clock or SystemClock()
        self.round_seconds = round_seconds
        self.keep, self.domains = keep, domains
        patience = patience or Patience(timeout=min(120.0, round_seconds / 8))
        self._platform = Part(patience, self.clock)
        self._warehouse = Part(patience, self.clock, reads=True)
        self._others = Part(patience, self.clock, reads=True)
        # A tuner belongs to one thread: its journal is tried again, but not cut off.
        self._journal = Part(patience, self.clock, threaded=False)
        self._remarks = Remarks(tuner)
        self._warned_of_the_clock = False

    def run(self, rounds: int | None = None) -> Iterator[Round]:
        """Rounds as they come, each yielded when it is done; ends when the clock is told to stop.

        Args:
            rounds: how many; None for no end.
        Raises:
            JournalError: the journal could not be reached at the very start.
        """
        origin = self._origin()
        done = 0
        while rounds is None or done < rounds:
            now = self._round_at(self.clock.now(), origin)
            last = self.tuner.history.last_round
            if last is not None and now < last:
                self._clock_stepped_back(now, last)
            elif last is None or now > last or not done:
                # The last round once more after a start: a plan may have been made, not applied.
                self._warned_of_the_clock = False
                yield self.step(now)
                done += 1
            next_ = origin + (self._round_at(self.clock.now(), origin) + 1) * self.round_seconds
            if (rounds is None or done < rounds) and self.clock.sleep(next_ - self.clock.now()):
                return

    def step(self, round: int) -> Round:
        """One round: collect, tell, ask, apply. Failures of other parts are noted, not raised."""
        begun, remarks = self.clock.now(), self._remarks
        remarks.begin(round)
        history = self._journaled("reading the journal", self.tuner.study.sync)
        # Planned already, by another loop or before a restart: it rests on what had arrived then.
        known = history is None or round in history.plans
        rows = 0 if known else self._take_in(round)
        if not known:
            self._learn_from_others()
        plan = self._plan(round)
        applied = plan is not None and self._apply(plan)
        if plan is not None:
            remarks.settle()  # what could not be written while the journal was away
            self._clear_up()
        took = self.clock.now() - begun
        done = Round(round, plan, applied, rows, tuple(remarks.said), took)
        arms = 0 if plan is None else len(plan) - 1
        log.info(
            "round %d: %d new rows, %d arms, %s",
            *(round, rows, arms, "applied" if applied else "NOT applied"),
            extra={"round": round, "rows": rows, "arms": arms, "applied": applied},
        )
        return done

    def _plan(self, round: int) -> Plan | None:
        """The round's plan; None where there is none, or another loop is ahead."""
        try:
            ask = partial(self.tuner.ask, round)
            plan = self._journaled(f"planning round {round}", ask, HyperZeroError)
        except RoundError as error:  # a later round was planned meanwhile
            self._remarks.add("planning", str(error))
            return None
        except HyperZeroError as error:
            self._remarks.add("planning", f"round {round} could not be planned: {error}")
            return None
        last = self.tuner.history.last_round
        return None if last is not None and last > round else plan

    def _take_in(self, round: int) -> int:
        """Record what the warehouse has, in time or late; how many rows were news."""
        plans, tables = self.tuner.history.plans, self.tuner.history.tables
        recent = [r for r in tables if round - _CATCH_UP <= r < round]
        if not recent:
            return 0
        planned = {r: dict(zip(plans[r].candidates, plans[r].shares)) for r in recent}
        missing = [r for r in recent if tables[r].num_waiting == len(tables[r].candidates)]

        def collect() -> Collected:
            return checked(self.source.collect(round, planned, missing))

        found: list[Collected] = self._warehouse.late()
        try:
            found.append(self._warehouse.call("collecting readings", collect))
        except GivenUpError as error:
            self._remarks.add("warehouse", str(error))
        return sum(self._record(one) for one in found)

    def _learn_from_others(self) -> None:
        """Read other domains anew where they are due; what cannot be read stays as it was."""
        if self.domains is None:
            return
        read = partial(self.domains, self.tuner.history.branch())
        found: list[Named] = self._others.late()
        try:
            found.append(self._others.call("reading other domains", read))
        except GivenUpError as error:
            self._remarks.add("transfer source", str(error))
        for named in found:
            for remark in named.remarks:
                self._remarks.add("transfer source", remark)
            try:
                learn = partial(self.tuner.learn_from, named.sources)
                self._journaled("learning from other domains", learn, ConfigError)
            except ConfigError as error:
                self._remarks.add("transfer source", str(error))

    def _record(self, found: Collected) -> int:
        for left_out, users in sorted(found.excluded.items()):
            if any(users.values()):
                facts = {"round": left_out, "excluded": dict(users)}
                log.info("round %d: users not counted: %s", left_out, dict(users), extra=facts)
        for suspect, reason in sorted(found.suspect.items()):
            if suspect in self.tuner.history.plans and not self._judged(suspect):
                put_aside = partial(self.tuner.study.set_aside, [suspect], reason)
                self._journaled(f"setting round {suspect} aside", put_aside)
                log.warning("round %d is suspect: %s", suspect, reason, extra={"round": suspect})
        return 0 if found.readings is None else self._tell(found.readings)

    def _judged(self, round: int) -> bool:
        """Whether a round is set aside, or somebody has decided that it counts after all."""
        history = self.tuner.history
        return round in history.status.excluded_rounds or any(
            d.kind == REINSTATED and round in d.details["rounds"] for d in history.decisions
        )

    def _clear_up(self) -> None:
        """Let go of readings that are older than they have to be kept."""
        if self.keep is None:
            return
        done = self._journaled("compacting readings", partial(self.tuner.study.compact, self.keep))
        if done is not None and done.rounds:
            ends = (done.rounds[0], done.rounds[-1])
            facts = {"rounds": ends, "rows": done.rows}
            log.info("compacted %d readings of rounds %d to %d", done.rows, *ends, extra=facts)

    def _tell(self, readings: Readings) -> int:
        """Whole; where it is refused, round by round, so that one bad hour does not hold others."""
        try:
            tell = partial(self.tuner.tell, readings)
            return self._journaled("recording readings", tell, ReadingsError) or 0
        except ReadingsError:
            pass
        rows = 0
        for round_, part in readings.by_round().items():
            what = f"recording readings of round {round_}"
            try:
                tell = partial(self.tuner.tell, part)
                rows += self._journaled(what, tell, ReadingsError) or 0
            except ReadingsError as error:
                reason = f"readings of round {round_} were refused: {error}"
                self._remarks.add("refused", reason, once={"round": round_})
        return rows

    def _apply(self, plan: Plan) -> bool:
        # A plan of before a restart may name candidates that have been stopped since.
        stopped = self.tuner.history.status.stopped & set(plan.candidate_ids)
        serve = self.updater.withdraw if stopped else partial(self.updater.apply, plan)
        if stopped:
            reason = f"round {plan.round} names stopped candidates; control only"
            self._remarks.add("platform", reason)
        try:
            self._platform.call(f"serving round {plan.round}", serve)
        except GivenUpError as error:
            self._remarks.add("platform", str(error))
            return False
        return not stopped

    def _journaled(
        self, what: str, work: Callable[[], _T], raises: type[HyperZeroError] | None = None
    ) -> _T | None:
        """The tuner's answer; None and a remark where the journal cannot be reached, or where the
        work itself fails: the user's objective, or a fault of ours.

        Args:
            what: it is, for the remark.
            work: of the tuner.
            raises: errors that the caller answers.
        """
        for attempt in range(1, _FAULT_TRIES + 1):
            try:
                answer, error = self._journal.call(what, partial(_outcome, work))
            except GivenUpError as given_up:
                self._remarks.add(JOURNAL, str(given_up))
                return None
            if error is None:
                return answer
            if raises is not None and isinstance(error, raises):
                raise error
            wait = self._journal.patience.first_wait
            last = isinstance(error, HyperZeroError) or attempt == _FAULT_TRIES
            if last or self.clock.sleep(wait):
                break
        # By type and message, the platform keeps what it has; the log holds the traceback.
        reason = f"{what} failed by itself: {type(error).__name__}: {error}"
        self._remarks.add("error", f"{reason:.400}", error=error)
        return None

    def _origin(self) -> float:
        """When round 0 began: from the journal, or from now on."""
        for note in self.tuner.history.decisions:
            if note.kind == _ANCHOR and "origin" in note.details:
                return self._known_origin(note)
        now = self.clock.now()
        begun = now - now % self.round_seconds
        next_round = (
            0 if self.tuner.history.last_round is None else self.tuner.history.last_round + 1
        )
        origin = begun - next_round * self.round_seconds
        details = {"origin": origin, "round_seconds": self.round_seconds}
        self.tuner.study.note(_ANCHOR, f"round {next_round} begins at {begun:.0f} s", details)
        return origin

    def _known_origin(self, note: Decision) -> float:
        if note.details.get("round_seconds") != self.round_seconds:
            raise ConfigError(
                f"the study's rounds last {note.details.get('round_seconds')} s, got "
                f"round_seconds={self.round_seconds}; keep the length, or start another study"
            )
        return float(note.details["origin"])

    def _round_at(self, time: float, origin: float) -> int:
        return int((time - origin + 1e-6 * self.round_seconds) // self.round_seconds)

    def _clock_stepped_back(self, now: int, last: int) -> None:
        if not self._warned_of_the_clock:
            reason = f"by the clock it is round {now}, but round {last} was planned; waiting for it"
            log.warning(reason, extra={"round": now})
            self._remarks.begin(now)
            self._remarks.add(_ANCHOR, reason)
            self._warned_of_the_clock = True


def _outcome(work: Callable[[], _T]) -> tuple[_T | None, Exception | None]:
    """Answer or error, but for the errors of a journal, which may be gone at the next try."""
    try:
        return work(), None
    except JournalError:
        raise
    except Exception as error:
        return None, error
