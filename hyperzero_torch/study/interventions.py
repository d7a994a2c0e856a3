"""What people (or the loop on their behalf) decide about a study: rounds set aside, a way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from ..errors import ConfigError, RoundError
from .decisions import ASIDE, CHANGES, REINSTATED, ROLLED_BACK
from .history import History
from .journal import Decision


def set_aside(history: History, rounds: Sequence[int], reason: str) -> list[Decision]:
    """Keep rounds out of the evidence, whatever has arrived or will arrive of them.

    Raises:
        RoundError: a round was never planned, or no reason is given.
    """
    news = sorted(set(_known(history, rounds, reason)) - history.status.excluded_rounds.keys())
    return [_said(history, ASIDE, reason, rounds=news)] if news else []


def reinstate(history: History, rounds: Sequence[int], reason: str) -> list[Decision]:
    """Let rounds that were set aside count again.

    Raises:
        RoundError: a round was never planned, or no reason is given.
    """
    news = sorted(set(_known(history, rounds, reason)) & history.status.excluded_rounds.keys())
    return [_said(history, REINSTATED, reason, rounds=news)] if news else []


def roll_back(history: History, to_round: int, reason: str) -> list[Decision]:
    """Go on as the study was when it planned ``to_round``: nothing is deleted, later facts are set
    aside.

    Readings of rounds from ``to_round`` on count no longer (they had not been served yet),
    candidates born since compete no longer, those retired compete again, discounts made since are
    lifted, and fits start from that plan's. Candidates stopped for harm stay stopped.

    Raises:
        RoundError: the round was never planned, or no reason is given.
    """
    (to_round,) = _known(history, [to_round], reason)
    _check_lifted(history, to_round)
    rounds = sorted(r for r in history.plans if r >= to_round)
    born = [b.candidate for b in history.candidates if b.candidate and b.round > to_round]
    fits = (p.details.get("hyperparameters") for r, p in history.plans.items() if r <= to_round)
    *_, fitted = (None, *(fit for fit in fits if fit is not None))
    return [
        _said(
            history,
            ROLLED_BACK,
            reason,
            to_round=to_round,
            rounds=[r for r in rounds if r not in history.status.excluded_rounds],
            candidates=[c for c in born if c not in history.status.stopped],
            hyperparameters=fitted,
        )
    ]


def remark(
    history: History, kind: str, reason: str, details: Mapping[str, Any] | None = None
) -> Decision:
    """A note that changes nothing.

    Raises:
        ConfigError: the kind is one that changes something.
    """
    if kind in CHANGES or not kind.strip():
        raise ConfigError(f"a remark's kind is none of {sorted(CHANGES)} nor empty, got {kind!r}")
    return Decision(history.last_round or 0, kind, reason, dict(details or {}))


def _check_lifted(history: History, to_round: int) -> None:
    """Refuse where a discount would be lifted that a compacted block was pooled with."""
    for discount in history.status.discounts:
        split = [c for c in history.compacted if c.rounds[0] < discount.before <= c.rounds[-1]]
        if split and discount.noticed > to_round:
            raise RoundError(
                f"rounds {split[0].rounds[0]} to {split[0].rounds[-1]} were compacted with what "
                f"was found to drift in round {discount.noticed}; the study can go back to that "
                f"round at the earliest, not to {to_round}"
            )


def _said(history: History, kind: str, reason: str, **details: object) -> Decision:
    assert history.last_round is not None  # a planned round was named
    return Decision(history.last_round, kind, reason, details)


def _known(history: History, rounds: Sequence[int], reason: str) -> list[int]:
    """Whole numbers of planned rounds, as the journal takes them."""
    whole = [isinstance(r, Integral) and not isinstance(r, bool) for r in rounds]
    if not all(whole):
        raise RoundError(f"rounds are whole numbers, got {list(rounds)[:8]!r}")
    found = [int(r) for r in rounds]
    unknown = sorted(set(found) - history.plans.keys())
    if unknown:
        last = history.last_round
        planned = "no round was planned yet" if last is None else f"the last planned is {last}"
        raise RoundError(f"rounds {unknown[:8]} were never planned; {planned}")
    compacted = [r for r in found if r not in history.tables]
    if compacted:
        raise RoundError(
            f"readings of rounds {compacted[:8]} were compacted into evidence, which cannot be "
            f"taken apart; the first round with its readings is {next(iter(history.tables), None)}"
        )
    if not isinstance(reason, str) or not reason.strip():
        raise RoundError("say why, in a sentence: it is what the journal will show later")
    return found
