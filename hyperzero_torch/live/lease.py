"""On whose behalf, and for how long, the plan of a round is served; and whether it still is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..study.health import Card
from ..study.history import History
from .clock import Schedule
from .serve.fence import Terms, in_words, is_withdrawn, why_not_in_force

#: Rounds for which a plan is served where no later one comes.
LEASE_ROUNDS = 2.0


def terms_of(
    schedule: Schedule,
    round: int,
    lease_rounds: float | None,
    served: Mapping[str, Any] | None = None,
) -> Terms:
    """The terms of a round's plan: the study, its epoch, and a lease from the round's beginning.

    The study's epoch is journaled where it has none yet.

    Args:
        schedule: of the study's rounds.
        round: a planned round.
        lease_rounds: length of the lease in rounds; None for none.
        served: the stamp of what is served. Where the journal does not know when rounds begin, a
            plan that is served already keeps its lease, and another one gets one from now on.
    Raises:
        JournalError: the journal could not be reached.
    """
    study = schedule.tuner.study
    # Before anything is read anew: what is decided now rests on these entries.
    seen, last = study.history.num_entries, study.history.last_round
    epoch = study.epoch()
    begin = end = None
    if lease_rounds is not None:
        begin = _begin(schedule, round, epoch.epoch, served or {})
        end = begin + lease_rounds * schedule.round_seconds
    last = -1 if last is None else last
    whose = (study.name, epoch.epoch)
    return Terms(*whose, begin, end, epoch.follows, seen, last, study.problem.base)


def as_of_now(terms: Terms, history: History) -> Terms:
    """The same terms for a decision that rests on all entries that were read by now."""
    last = history.last_round
    return replace(terms, seen=history.num_entries, last_round=-1 if last is None else last)


def _begin(schedule: Schedule, round: int, epoch: str, served: Mapping[str, Any]) -> float:
    if schedule.refresh():
        return schedule.begin_of(round)
    begin = served.get("valid_from")
    if isinstance(begin, int | float) and (served["epoch"], served["round"]) == (epoch, round):
        return float(begin)
    return schedule.clock.now()


def card_of(
    stamp: Mapping[str, Any] | None, study: str, last_round: int | None, now: datetime
) -> Card:
    """What the platform serves, and until when.

    Args:
        stamp: of what is served; None where there is none.
        study: the study's name.
        last_round: that was planned; None where none was.
        now: with a zone.
    """
    name = "Lease"
    if stamp is None or (stamp["study"] == study and stamp["round"] < 0):
        return Card(name, "PASS", "the platform that the study file names serves no plan")
    if stamp["study"] != study:
        advice = "give each study flags of its own, or see 'hyperzero take-over --help'"
        return Card(name, "ACT", f"the platform serves {in_words(stamp)}", advice)
    round_ = stamp["round"]
    if is_withdrawn(stamp):
        return Card(name, "PASS", f"round {round_} was withdrawn: the control alone is served")
    end = stamp.get("valid_until")
    until = "" if end is None else f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
    why_not = why_not_in_force(stamp, now.timestamp())
    if why_not is not None:
        advice = "check the clock, and that the loop runs and reaches the platform"
        sentence = f"{why_not} (round {round_}, until {until}): the control alone is served"
        return Card(name, "ACT", sentence, advice)
    sentence = f"round {round_} is served" + (f" until {until}" if until else ", without an end")
    if last_round is not None and round_ < last_round:
        return Card(name, "WATCH", f"{sentence}, and the last plan is that of round {last_round}")
    return Card(name, "PASS", sentence)
