"""On whose behalf, and for how long, the plan of a round is served."""

from __future__ import annotations

from .clock import Schedule
from .serve.fence import Terms

#: Rounds for which a plan is served where no later one comes.
LEASE_ROUNDS = 2.0


def terms_of(schedule: Schedule, round: int, lease_rounds: float | None) -> Terms:
    """The terms of a round's plan: the study, its epoch, and a lease from the round's beginning.

    The study's epoch is journaled where it has none yet.

    Args:
        schedule: of the study's rounds.
        round: a planned round.
        lease_rounds: length of the lease in rounds; None for none.
    Raises:
        JournalError: the journal could not be reached.
    """
    study = schedule.tuner.study
    epoch = study.epoch()
    begin = end = None
    if lease_rounds is not None:
        begin = schedule.begin_of(round) if schedule.refresh() else schedule.clock.now()
        end = begin + lease_rounds * schedule.round_seconds
    return Terms(study.name, epoch.epoch, begin, end, epoch.follows)
