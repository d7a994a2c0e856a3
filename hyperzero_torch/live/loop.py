"""Hourly rounds on a clock: collect readings, plan the round, have the plan served.

    every round     collect -> tell -> ask -> apply         (each may fail; the next round comes)

The journal holds the whole state of the loop. A loop that was killed is started again and
continues; two loops on one study make one plan per round and count no reading twice. Where the
platform or the warehouse fails, the journal gets a remark, and the platform keeps serving its last
plan until its lease has run out, and then the control.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from math import inf, nan

from ..errors import ConfigError, HyperZeroError, ReadingsError, RoundError
from ..study.epochs import served_as
from ..study.exposure import exposure_facts
from ..study.history import History
from ..study.interventions import was_reviewed
from ..study.launch import goes_on
from ..study.plan import Plan
from ..study.readings import Readings
from ..study.serving import why_control_alone
from ..transfer.refresh import Named
from ..tuner.oversight import notes_on_arms
from ..tuner.tuner import Tuner
from .aggregate.source import Collected, KnowsEpochs, Source, check_collected
from .clock import CLOCK, Clock, Schedule, SystemClock
from .domains import learn_from_domains
from .lease import LEASE_ROUNDS, as_of_now, terms_of
from .notices import Notices
from .remarks import Calls
from .retry import RetryPolicy
from .round import Round
from .series import Moments, moments_of
from .serve.checks import Updater
from .serve.fence import on_behalf_of

log = logging.getLogger(__name__)

# Rounds without readings are asked for until they are this old: a week of hours.
_CATCH_UP_ROUNDS = 168
#: So many rounds in a row without readings give a warning.
ROUNDS_BEFORE_WARNING = 6


class Loop:
    """Drives a tuner on a clock.

    Args:
        tuner: the study.
        updater: the platform.
        source: the warehouse.
        clock: the machine's, or a simulated one.
        round_seconds: length of a round.
        retry: of calls to platform, warehouse and journal; all of them have to fit into a round.
            By default four attempts of at most two minutes, or of an eighth of a round.
        keep: rounds whose readings stay in the journal, see ``Study.compact``; None for all.
        domains: reads the other domains that are due (``transfer.refresh.read``), before each
            plan; None where there are none.
        lease_rounds: rounds for which a plan is served where no later one comes; None for no end,
            for a simulation whose platform has another clock.
    Raises:
        ConfigError: a round's length is not above 0, or a lease shorter than a round.
    """

    def __init__(
        self,
        tuner: Tuner,
        updater: Updater,
        source: Source,
        clock: Clock | None = None,
        round_seconds: float = 3600.0,
        retry: RetryPolicy | None = None,
        keep: int | None = None,
        domains: Callable[[History], Named] | None = None,
        lease_rounds: float | None = LEASE_ROUNDS,
    ) -> None:
        if lease_rounds is not None and not 1 <= lease_rounds < inf:
            raise ConfigError(f"lease_rounds must be at least 1, got {lease_rounds!r}")
        self.updater, self.source = updater, source
        self.clock = clock or SystemClock()
        self.keep, self.domains, self.lease_rounds = keep, domains, lease_rounds
        self.round_seconds, self._retry = round_seconds, retry
        self._warned_of_clock = False
        self._lease_end = nan
        self._take_up(tuner)

    def _take_up(self, tuner: Tuner) -> None:
        self.tuner = tuner
        self._schedule = Schedule(tuner, self.clock, self.round_seconds)
        retry = self._retry or RetryPolicy(timeout=min(120.0, self.round_seconds / 8))
        self._calls = Calls(tuner, self.clock, retry)
        self._notices = Notices(self._calls.remarks)

    def run(self, rounds: int | None = None) -> Iterator[Round]:
        """Run rounds as they begin and yield each when it is done, until the clock says stop.

        Args:
            rounds: how many; None for no end.
        Raises:
            ConfigError: the study's rounds have another length.
            JournalError: the journal could not be reached at the start.
        """
        self._schedule.start()
        done = 0
        while rounds is None or done < rounds:
            now, last = self._schedule.current_round(), self.tuner.history.next_round - 1
            if now < last:
                self._warn_of_clock(now, last)
                if self._was_resynced():
                    continue
            elif now > last or (not done and now in self.tuner.history.plans):
                # After a start the last round is repeated: its plan may not have been applied.
                self._warned_of_clock = False
                yield self.step(now)
                done += 1
            if (rounds is None or done < rounds) and self._schedule.wait_for_next_round():
                return

    def moments(self) -> Moments:
        """When evidence, lease and parts were last fresh, for metrics."""
        return moments_of(self._schedule, self._lease_end, self._calls.successes)

    def step(self, round: int) -> Round:
        """Run one round: collect, tell, ask, apply. Failures of components become remarks."""
        begin, remarks = self.clock.now(), self._calls.remarks
        remarks.begin(round)
        history = self._calls.journal("reading the journal", self.tuner.study.sync)
        if history is not None and history.status.promoted is not None:
            history = self._go_on_as_next(history)
        # A round that is planned, by another loop or before a restart, keeps its plan, which rests
        # on the readings that had arrived then.
        is_new = history is not None and round not in history.plans
        rows = self._collect(round) if is_new else 0
        empty = self._rounds_without_readings(round)
        if is_new:
            if not rows and len(empty) >= ROUNDS_BEFORE_WARNING:
                self._warn_without_readings(empty)
            self._notices.of_rows(round)
            if self.domains is not None:
                learn_from_domains(self.tuner, self._calls, self.domains)
        plan = self._plan(round)
        applied = plan is not None and self._apply(plan)
        if plan is not None:
            remarks.write_waiting()
            self._compact()
        seconds = self.clock.now() - begin
        arms = 0 if plan is None else len(plan) - 1
        log.info(
            "round %d: %d new rows, %d arms, %s",
            *(round, rows, arms, "applied" if applied else "NOT applied"),
            extra={"round": round, "rows": rows, "arms": arms, "applied": applied},
        )
        exposure = {} if plan is None else exposure_facts(self.tuner.history, self.tuner.config)
        notes = tuple(remarks.reasons)
        return Round(round, plan, applied, rows, notes, seconds, len(empty), exposure)

    def _go_on_as_next(self, history: History) -> History:
        """Take up the study that goes on with a promoted candidate."""
        successor = self._calls.journal("starting the next study", self.tuner.successor)
        if successor is None:
            return history
        log.info("%s", goes_on(history))
        self._take_up(successor)
        self._schedule.start()
        return successor.history

    def _collect(self, round: int) -> int:
        """Record what the warehouse has, in time or late; returns the number of new readings."""
        plans, tables = self.tuner.history.plans, self.tuner.history.tables
        recent = [r for r in tables if round - _CATCH_UP_ROUNDS <= r < round]
        if not recent:
            return 0
        planned = {r: dict(zip(plans[r].candidates, plans[r].shares)) for r in recent}
        missing = [r for r in recent if self._is_empty(r)]
        if isinstance(self.source, KnowsEpochs):
            self.source.expect(served_as(self.tuner.study.name, self.tuner.history, recent))

        def collect() -> Collected:
            return check_collected(self.source.collect(round, planned, missing))

        answers = self._calls.read(
            self._calls.warehouse, "warehouse", "collecting readings", collect
        )
        return sum(self._record(round, collected) for collected in answers)

    def _is_empty(self, round: int) -> bool:
        table = self.tuner.history.tables[round]
        return table.num_waiting == len(table.candidates)

    def _rounds_without_readings(self, round: int) -> list[int]:
        """The latest rounds before ``round``, in a row, of which no reading has arrived."""
        earlier = sorted((r for r in self.tuner.history.tables if r < round), reverse=True)
        return list(takewhile(self._is_empty, earlier))

    def _warn_without_readings(self, empty: list[int]) -> None:
        """Log it every round; the journal has it once for every such stretch of rounds."""
        reason = (
            f"no readings of the last {len(empty)} rounds have arrived (rounds {empty[-1]} to "
            f"{empty[0]}), so nothing is learned; check that the platform serves the plans and "
            "logs exposures, and that the source reads where it logs them"
        )
        self._calls.remarks.add("readings", reason, once={"since_round": empty[-1]})

    def _record(self, round: int, collected: Collected) -> int:
        """Journal one answer of the warehouse; returns the number of new readings."""
        self._notices.add(round, collected)
        for round_, users in sorted(collected.excluded_users.items()):
            if any(users.values()):
                facts = {"round": round_, "excluded": dict(users)}
                log.info("round %d: users not counted: %s", round_, dict(users), extra=facts)
        for round_, reason in sorted(collected.excluded_rounds.items()):
            if round_ in self.tuner.history.plans and not was_reviewed(self.tuner.history, round_):
                exclude = partial(self.tuner.study.set_aside, [round_], reason)
                self._calls.journal(f"excluding round {round_}", exclude)
                self._keep_users(round_, collected.counted.get(round_, {}))
                log.warning("round %d is excluded: %s", round_, reason, extra={"round": round_})
        return 0 if collected.readings is None else self._tell(collected.readings)

    def _keep_users(self, round: int, users: Mapping[int, int]) -> None:
        """Journal the users of a round whose readings are left out because of its split."""
        arms = self.tuner.history.plans[round].candidates
        if users and set(users) <= set(arms):
            keep = partial(self.tuner.study.keep_users, round, users)
            self._calls.journal(f"recording the users of round {round}", keep)

    def _tell(self, readings: Readings) -> int:
        """Record a message as a whole; where it is refused, round by round, so that one refused
        round does not hold up the others. Rounds that were never planned are left out."""
        num_decisions = len(self.tuner.history.decisions)
        try:
            tell = partial(self.tuner.tell, readings, unknown="skip")
            rows = self._calls.journal("recording readings", tell, (ReadingsError,)) or 0
        except ReadingsError as error:
            rounds = readings.by_round()
            if len(rounds) > 1:
                return sum(self._tell(part) for part in rounds.values())
            for round_ in rounds:
                reason = f"readings of round {round_} were refused: {error}"
                self._calls.remarks.add("refused", reason, once={"round": round_})
            return 0
        self._notices.repeat(self.tuner.history.decisions[num_decisions:])
        return rows

    def _plan(self, round: int) -> Plan | None:
        """The round's plan; None where there is none, or another loop has planned a later round."""
        num_decisions = len(self.tuner.history.decisions)
        try:
            ask = partial(self.tuner.ask, round)
            plan = self._calls.journal(f"planning round {round}", ask, (HyperZeroError,))
        except HyperZeroError as error:
            is_late = isinstance(error, RoundError)  # a later round was planned meanwhile
            reason = str(error) if is_late else f"round {round} could not be planned: {error}"
            self._calls.remarks.add("planning", reason)
            return None
        self._notices.repeat(self.tuner.history.decisions[num_decisions:])
        if plan is not None:
            self._calls.remarks.reasons.extend(notes_on_arms(plan.notes))
        last = self.tuner.history.last_round
        return None if last is not None and last > round else plan

    def _apply(self, plan: Plan) -> bool:
        what = f"serving round {plan.round}"
        lease = partial(terms_of, self._schedule, plan.round, self.lease_rounds)
        terms = self._calls.journal("reading the study's epoch", lease)
        if terms is None:
            return False
        updater = on_behalf_of(self.updater, terms)
        # A plan made before a restart may contain candidates that have been stopped since.
        why_not = why_control_alone(self.tuner.history)
        if why_not is None:
            if not self._calls.serve(what, partial(updater.apply, plan)):
                return False
            # A switch that was thrown since the plan was read is not undone by it.
            self._calls.journal("reading the journal", self.tuner.study.sync)
            why_not = why_control_alone(self.tuner.history)
        if why_not is None:
            self._lease_end = inf if terms.valid_until is None else terms.valid_until
            return True
        self._calls.remarks.add("platform", f"{why_not}; only the control is served")
        updater = on_behalf_of(self.updater, as_of_now(terms, self.tuner.history))
        if self._calls.serve(what, updater.withdraw):
            self._lease_end = nan
        return False

    def _compact(self) -> None:
        """Compact readings that no longer have to be kept."""
        if self.keep is None:
            return
        compact = partial(self.tuner.study.compact, self.keep)
        summary = self._calls.journal("compacting readings", compact)
        if summary is not None and summary.rounds:
            first, last, rows = summary.rounds[0], summary.rounds[-1], summary.rows
            facts = {"rounds": (first, last), "rows": rows}
            log.info("compacted %d readings of rounds %d to %d", rows, first, last, extra=facts)

    def _was_resynced(self) -> bool:
        """Whether the rounds are counted from another time now; see ``Schedule.resync``."""
        before = self._schedule.current_round()
        self._calls.journal("reading the journal", self.tuner.study.sync)
        self._schedule.refresh()
        return self._schedule.current_round() != before

    def _warn_of_clock(self, now: int, last: int) -> None:
        """Remark once that the clock is behind the last planned round."""
        if self._warned_of_clock:
            return
        reason = (
            f"by the clock it is round {now}, but round {last} was planned; waiting for it. If "
            "that round was planned by mistake, or by a clock that was ahead, count on from it "
            "with 'hyperzero resync'"
        )
        self._calls.remarks.begin(now)
        self._calls.remarks.add(CLOCK, reason)
        self._warned_of_clock = True
