"""What is to be served at this moment, by all that the journal has: switches act at once.

A round keeps its plan. Where one of its candidates may not be served any more, the control alone is
served until the next round, and nobody is counted: had the others gone on, the users of the stopped
candidate would move between the arms of one round, and no reading of it could be compared.
"""

from __future__ import annotations

from .history import CONTROL, History
from .journal.trace import RolledBack
from .launch import is_over


def why_control_alone(history: History, round: int | None = None) -> str | None:
    """Why the control alone is to be served now; None where the plan of a round is.

    Args:
        history: the study's facts.
        round: a planned round; by default the last.
    """
    last = history.last_plan if round is None else history.plans[round]
    if last is None:
        return "no round was planned yet"
    status = history.status
    if last.candidates == (CONTROL,):
        return None
    if status.switches.mode == "withdrawn":
        return f"the study is {status.switches.in_words()}"
    if is_over(history, last.round):
        return f"round {last.round} serves a launch that has ended"
    stopped = sorted(status.stopped & set(last.candidates))
    if stopped:
        return f"round {last.round} contains stopped candidates {stopped[:8]}"
    is_undone = any(
        isinstance(d.trace, RolledBack) and d.round == last.round for d in history.decisions
    )
    return f"the study was rolled back in round {last.round}" if is_undone else None
