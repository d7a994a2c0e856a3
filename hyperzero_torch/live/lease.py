"""On whose behalf, and for how long, the plan of a round is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..study.history import History
from .clock import Schedule
from .serve.fence import Terms

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
