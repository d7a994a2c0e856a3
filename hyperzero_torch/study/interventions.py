"""Decisions of people, or of the live loop on their behalf, about a study.

Rounds are excluded from the evidence and reinstated, and a study is rolled back. Each function
returns the entries to append. ``Study`` has a method for each, with its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from ..errors import ConfigError, RoundError
from ..runtime.login import login_name
from .cube import in_todays_cube
from .history import History
from .journal import Decision
from .journal.epoch_trace import CHAIN, CHAIN_SIGNED, EPOCH
from .journal.missing_trace import MISSING, SAMPLE_RATIO, USERS, UsersCounted
from .journal.record import VERSION_KEY
from .journal.source_trace import RELEASED, SOURCE_REFUSED
from .journal.trace import CHANGES, TRANSFER, RolledBack, RoundsExcluded, RoundsReinstated

_DECISIONS = CHANGES | {
    TRANSFER,
    MISSING,
    SAMPLE_RATIO,
    USERS,
    EPOCH,
    CHAIN,
    CHAIN_SIGNED,
    SOURCE_REFUSED,
    RELEASED,
}


def set_aside(history: History, rounds: Sequence[int], reason: str) -> list[Decision]:
    """Exclude rounds from the evidence, including readings of them that arrive later."""
    excluded = history.status.excluded_rounds.keys()
    new = sorted(set(_planned(history, rounds, reason)) - excluded)
    return [Decision.of(_last(history), reason, RoundsExcluded(rounds=new))] if new else []


def reinstate(history: History, rounds: Sequence[int], reason: str) -> list[Decision]:
    """Use the readings of excluded rounds again."""
    excluded = history.status.excluded_rounds.keys()
    new = sorted(set(_planned(history, rounds, reason)) & excluded)
    return [Decision.of(_last(history), reason, RoundsReinstated(rounds=new))] if new else []


def roll_back(
    history: History, to_round: int, reason: str, by: str | None = None
) -> list[Decision]:
    """Restore the study to its state when it planned ``to_round``; nothing is deleted.

    Rounds from ``to_round`` on are excluded, as they had not been served. Candidates added since
    are stopped, retired ones compete again, and discounts made since are lifted. The next fit
    starts from the hyperparameters of that plan. Candidates stopped for harm stay stopped. Goals
    that were changed since stay as they are.
    """
    (to_round,) = _planned(history, [to_round], reason)
    _check_not_compacted(history, to_round)
    status = history.status
    rounds = sorted(r for r in history.plans if r >= to_round)
    added = [c.candidate for c in history.candidates if c.candidate and c.round > to_round]
    fits = ((r, p.trace.hyperparameters) for r, p in history.plans.items() if r <= to_round)
    *_, (at, latest_fit) = ((0, None), *((r, fit) for r, fit in fits if fit is not None))
    trace = RolledBack(
        to_round=to_round,
        rounds=[r for r in rounds if r not in status.excluded_rounds],
        candidates=[c for c in added if c not in status.stopped or c in status.outside],
        hyperparameters=in_todays_cube(latest_fit, at, history.goals),
        by=by or login_name(),
    )
    return [Decision.of(_last(history), reason, trace)]


def remark(
    history: History, kind: str, reason: str, facts: Mapping[str, Any] | None = None
) -> Decision:
    """A remark, which changes nothing.

    Raises:
        ConfigError: the kind of a decision, or facts that a journal cannot keep.
    """
    if kind in _DECISIONS or not kind.strip():
        raise ConfigError(
            f"a remark's kind must not be empty or one of {sorted(_DECISIONS)}, got {kind!r}"
        )
    facts = dict(facts or {})
    if not _is_json(facts) or VERSION_KEY in facts:
        raise ConfigError(
            f"a remark's facts are JSON values under text keys other than {VERSION_KEY!r}, got "
            f"{facts!r:.80}"
        )
    return Decision(_last(history), kind, reason, facts)


def keep_users(history: History, round: int, users: Mapping[int, int]) -> list[Decision]:
    """The users of a round whose readings are left out, by candidate."""
    reason = f"the users of round {round}, whose readings are left out"
    _planned(history, [round], reason)
    arms = history.plans[round].candidates
    unknown = sorted(set(users) - set(arms))
    if unknown:
        raise RoundError(f"candidates {unknown[:8]} were not arms of round {round}: {arms[:12]}")
    counted = {c: float(users.get(c, 0)) for c in arms}
    trace = UsersCounted(round=round, candidates=tuple(counted), users=tuple(counted.values()))
    return [Decision.of(_last(history), reason, trace)]


def was_reviewed(history: History, round: int) -> bool:
    """Whether a round is excluded already, or somebody decided that it counts."""
    return round in history.status.excluded_rounds or any(
        isinstance(d.trace, RoundsReinstated) and round in d.trace.rounds for d in history.decisions
    )


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float)


def _last(history: History) -> int:
    return history.last_round or 0


def _check_not_compacted(history: History, to_round: int) -> None:
    """Refuse to lift a discount that is part of the evidence of a compacted block."""
    for discount in history.status.discounts:
        split = [c for c in history.compacted if c.rounds[0] < discount.before <= c.rounds[-1]]
        if split and discount.noticed > to_round:
            raise RoundError(
                f"rounds {split[0].rounds[0]} to {split[0].rounds[-1]} were compacted with the "
                f"drift found in round {discount.noticed}; the study can be rolled back to that "
                f"round at the earliest, not to {to_round}"
            )


def _planned(history: History, rounds: Sequence[int], reason: str) -> list[int]:
    """The rounds as integers; ``RoundError`` unless all can be decided on, with a reason."""
    if not all(isinstance(r, Integral) and not isinstance(r, bool) for r in rounds):
        raise RoundError(f"rounds are whole numbers, got {list(rounds)[:8]!r}")
    numbers = [int(r) for r in rounds]
    unknown = sorted(set(numbers) - history.plans.keys())
    if unknown:
        last = history.last_round
        planned = "no round was planned yet" if last is None else f"the last planned is {last}"
        raise RoundError(f"rounds {unknown[:8]} were never planned; {planned}")
    compacted = [r for r in numbers if r not in history.tables]
    if compacted:
        raise RoundError(
            f"readings of rounds {compacted[:8]} were compacted into evidence, which cannot be "
            f"taken apart; the first round with its readings is {next(iter(history.tables), None)}"
        )
    if not isinstance(reason, str) or not reason.strip():
        raise RoundError("give a reason, in a sentence; the journal stores it")
    return numbers
