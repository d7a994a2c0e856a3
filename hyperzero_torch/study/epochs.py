"""The epoch of a study: an id that a journal begun anew, or another study, does not have."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ..errors import JournalCorruptError, JournalError, RoundError
from ..runtime.login import login_name
from .history import History, history_of
from .journal import Decision, Journal
from .journal.epoch_trace import EpochBegun

_BYTES = 8


class _Decides(Protocol):
    history: History
    journal: Journal

    def _decide(self, decide: Callable[[History], Sequence[Decision]]) -> None: ...


class Epochs:
    """The epoch of a study, as methods of ``Study``."""

    def epoch(self: _Decides) -> EpochBegun:
        """The id of this journal of the study, which flags carry; given and journaled once."""
        self._decide(lambda history: first(history, self.journal))
        return _of(self.history)

    def begin_epoch(self: _Decides, reason: str, by: str | None = None) -> EpochBegun:
        """Declare that this journal is the one whose plans are to be served; journaled.

        Flags that serve another journal of the study, or another study, are taken over with the
        new epoch: ``updater.on_behalf_of(terms).take_over()``, or ``hyperzero take-over``.

        Raises:
            RoundError: no reason is given.
        """
        self._decide(lambda history: anew(history, reason, by))
        return _of(self.history)


def _of(history: History) -> EpochBegun:
    epoch = current(history)
    if epoch is None:
        raise JournalCorruptError("the journal has lost the study's epoch; restore a backup")
    return epoch


def current(history: History) -> EpochBegun | None:
    """The epoch in force; None where the study has served nothing yet."""
    for decision in reversed(history.decisions):
        if isinstance(decision.trace, EpochBegun):
            return decision.trace
    return None


def served_as(
    study: str, history: History, rounds: Iterable[int]
) -> dict[int, tuple[str, frozenset[str]]]:
    """By round, the study and the epochs under which its plan was served.

    Several where another was declared while the round was served; rounds of a study that has no
    epoch yet are left out.
    """
    begun = [(d.round, d.trace.epoch) for d in history.decisions if isinstance(d.trace, EpochBegun)]
    served = {}
    for round_ in rounds:
        before = [epoch for at, epoch in begun if at < round_]
        within = [epoch for at, epoch in begun if at == round_]
        epochs = frozenset([*before[-1:], *within]) or frozenset(epoch for _, epoch in begun[:1])
        if epochs:
            served[round_] = (study, epochs)
    return served


def first(history: History, journal: Journal) -> list[Decision]:
    """The decision that gives a study its epoch; none where it has one."""
    if current(history) is not None:
        return []
    trace = EpochBegun(epoch=secrets.token_hex(_BYTES), follows=_follows(history, journal))
    reason = f"The study serves plans for the first time, as epoch {trace.epoch}"
    return [Decision.of(history.last_round or 0, reason, trace)]


def anew(history: History, reason: str, by: str | None) -> list[Decision]:
    """The decision of a person that this journal is the one whose plans are to be served.

    Raises:
        RoundError: no reason is given.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise RoundError("give a reason, in a sentence; the journal stores it")
    before = current(history)
    trace = EpochBegun(
        epoch=secrets.token_hex(_BYTES),
        follows=() if before is None else before.follows,
        by=by or login_name(),
    )
    text = f"The flags were taken over by {trace.by}, as epoch {trace.epoch}: {reason}"
    return [Decision.of(history.last_round or 0, text, trace)]


def _follows(history: History, journal: Journal) -> Sequence[tuple[str, str]]:
    """The studies before the promotions that led to this one, with their epochs."""
    follows: list[tuple[str, str]] = []
    while history.carried is not None:
        name = history.carried.predecessor
        try:
            history = history_of(header := journal.header(name))
            history.extend(journal.read(header.study))
        except JournalError:
            break  # an earlier study that is gone has no flags to hand on
        trace = current(history)
        if trace is not None:
            return (*follows, (name, trace.epoch), *trace.follows)
    return follows
