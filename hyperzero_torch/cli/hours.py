"""What `step` and `status` say of rounds: a number that is a typo, rows left out, hours missing."""

from __future__ import annotations

from ..errors import RoundError
from ..study import lacking
from ..study.history import History
from ..study.readings import Readings
from ..tuner.status import remarks_of
from ..tuner.tuner import Tuner
from .output import show, warn

#: A round further beyond the last planned one than a week of hours is taken for a typo.
MAX_GAP = 168


def check_round(history: History, round_: int | None, allow_gap: bool) -> None:
    """Refuse a round far from the last planned one, before anything is recorded.

    Raises:
        RoundError: it is far beyond the last without ``allow_gap``, or far before it.
    """
    last = history.last_round
    if round_ is None or last is None or round_ in history.plans:
        return
    if round_ - last > MAX_GAP and not allow_gap:
        raise RoundError(
            f"--round {round_} is {round_ - last} rounds beyond the last planned round {last}, "
            f"more than {MAX_GAP}, which looks like a typo: once it is planned, no earlier round "
            f"can be. The next one is {last + 1}; give --allow-gap if {round_} is meant"
        )
    if last - round_ > MAX_GAP:
        raise RoundError(
            f"round {round_} was never planned and lies {last - round_} rounds before the last "
            f"planned round {last}; if that one was planned by mistake, count on from it: the next "
            f"is {last + 1}, and a job that computes --round has to add {last + 1 - round_}"
        )


def warn_of_left_out(tuner: Tuner, message: Readings) -> None:
    """Name the rows of a message that are not taken."""
    left_out = tuner.study.left_out(message)
    if left_out is not None:
        warn(str(left_out))


def warn_of_missing(tuner: Tuner, planned: int) -> None:
    """Say which hours have no rows, and which controls are missing; the journal has it once."""
    history = tuner.history
    lost = lacking.without_rows(history, planned)
    if lost:
        reason = lacking.rows_sentence(lost)
        warn(reason)
        if lacking.is_news(history, lacking.NO_ROWS, lost):
            tuner.study.note(lacking.NO_ROWS, reason, {"rounds": lost})
    has_remark = any(d.kind == lacking.NO_CONTROL and d.round == planned for d in history.decisions)
    without = lacking.without_control(history, planned)
    if without and not has_remark:  # otherwise the plan itself has just warned of it
        warn(lacking.control_sentence(without))


def show_missing(history: History) -> None:
    """The same for people."""
    before = 0 if history.last_round is None else history.last_round
    lost, without = lacking.without_rows(history, before), lacking.without_control(history, before)
    if lost:
        show(f"{len(lost)} without rows: {lacking.rows_sentence(lost)}", "yellow")
    if without:
        show(lacking.control_sentence(without), "yellow")
    for decision in remarks_of(history):
        show(f"remark in round {decision.round}, {decision.kind}: {decision.reason}", "yellow")
