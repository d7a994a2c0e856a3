"""What a study lacks: rounds whose arms report and whose control does not, and hours without rows.

Without its control a treatment has no delta, so its readings count for nothing. An hour without any
row between hours that have some was lost on its way. Both are silent in the estimates, which is why
they are said here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .history import History
from .journal import Decision
from .journal.trace import Remark
from .lateness import age, lateness, recent
from .round_table import RoundTable

#: Kinds of the remarks on them.
NO_CONTROL, NO_ROWS = "control", "hours"
# An hour that is later than usual counts as lost once so many later ones have rows.
_LATER_ROUNDS = 2
# In a stretch of rounds with the same trouble the journal gets a remark every so many rounds.
_REPEAT_ROUNDS = 24
_MAX_NAMED = 8


def without_control(history: History, before: int) -> dict[int, tuple[str, ...]]:
    """Rounds before ``before`` with readings of arms and none of the control, and their metrics.

    A control that is not later than usual in this study is not missed.
    """
    lacking = {}
    normal = lateness(history)
    for round_, table in _counted(history, before):
        if not history.plans[round_].shares[0]:
            continue  # the end of a launch: nobody gets the base
        has_values = table.count > 1  # NaN where nothing has arrived
        missing = has_values[1:].any(axis=0) & ~has_values[0]
        missing &= normal.arms_are_overdue(table, age(history, table))
        if missing.any():
            lacking[round_] = tuple(history.metrics[m] for m in np.flatnonzero(missing).tolist())
    return lacking


def without_rows(history: History, before: int) -> list[int]:
    """Rounds before ``before`` without a single row, though later ones have some; ascending."""
    lost: list[int] = []
    later = 0
    normal = lateness(history)
    for round_, table in reversed(_counted(history, before)):
        if table.num_waiting < len(table.candidates):
            later += 1
        elif later >= _LATER_ROUNDS and age(history, table) >= normal.any:
            lost.append(round_)
    return lost[::-1]


def control_sentence(lacking: Mapping[int, Sequence[str]]) -> str:
    """What is missing of the control, and what to do."""
    metrics = sorted({m for names in lacking.values() for m in names})
    return (
        f"arms have readings of {named_rounds(lacking)} and the control has none of "
        f"{', '.join(map(repr, metrics))}; without them these readings count for nothing. Check "
        "that the control's users are logged, and send its rows"
    )


def rows_sentence(lost: Collection[int]) -> str:
    """Which hours have no rows."""
    have = "has" if len(lost) == 1 else "have"
    return (
        f"{named_rounds(lost)} {have} no readings at all, though later rounds have; send them, "
        "they still count"
    )


def remarks(history: History, planned: int) -> list[Decision]:
    """The journal's remark on missing controls as a round is planned; none where it is known."""
    # The control of the latest round may still be on its way: messages may come in parts.
    lacking = without_control(history, planned - 1)
    if not is_news(history, NO_CONTROL, lacking):
        return []
    facts = {"rounds": list(lacking)}
    return [Decision(planned, NO_CONTROL, control_sentence(lacking), facts)]


def is_news(history: History, kind: str, rounds: Collection[int]) -> bool:
    """Whether the journal has no remark of this kind on these rounds, or on the stretch of them."""
    noted: set[int] = set()
    for decision in history.decisions:
        if decision.kind == kind and isinstance(decision.trace, Remark):
            noted.update(rounds_of(decision.trace.facts))
    new = sorted(set(rounds) - noted)
    if not new:
        return False
    before = {b: a for a, b in pairwise(sorted(history.plans))}
    is_start = before.get(new[0]) not in rounds
    return is_start or len(new) >= _REPEAT_ROUNDS


def named_rounds(rounds: Collection[int]) -> str:
    """Rounds in words, the first few by number."""
    shown = ", ".join(map(str, sorted(rounds)[:_MAX_NAMED]))
    more = len(rounds) - _MAX_NAMED
    return f"round{'s' * (len(rounds) > 1)} {shown}{f' and {more} more' if more > 0 else ''}"


def _counted(history: History, before: int) -> list[tuple[int, RoundTable]]:
    """The latest rounds before ``before`` that are not excluded, ascending."""
    excluded = history.status.excluded_rounds
    return [(r, table) for r, table in recent(history) if r < before and r not in excluded]


def rounds_of(facts: Mapping[str, Any]) -> list[int]:
    """The rounds that a remark names."""
    rounds = facts.get("rounds", ())
    return [r for r in rounds if isinstance(r, int)] if isinstance(rounds, list | tuple) else []
