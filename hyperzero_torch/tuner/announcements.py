"""Which of the decisions that a call has journaled its caller is warned of.

A ``TunerWarning`` says what the journal says, once. What concerns readings that are missing, or
users that do not fit the shares, is in the log as well, for programs that run unattended.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import TunerWarning
from ..study.journal import Decision
from ..study.journal.epoch_trace import EPOCH
from ..study.journal.launch_trace import LaunchDecided
from ..study.journal.missing_trace import ReadingsMissing, SampleRatioMismatch, Withdrawn
from ..study.journal.quarantine_trace import QUARANTINED
from ..study.journal.surrogate_trace import SURROGATE
from ..study.journal.trace import RETIRED, STOPPED, TRANSFER, RoundsExcluded
from ..study.quarantine import UNITS

log = logging.getLogger(__name__)

# What is usual in any study.
_USUAL = (RETIRED, STOPPED, TRANSFER, EPOCH, SURROGATE)
# The caller of the tuner's method, whose caller announces.
_CALLER = 3
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Collect what would be warned of within the block, in this thread, instead of warning.

    A server answers several callers at once: each gets the sentences of its own call.
    """
    sentences: list[str] = []
    token = _collected.set(sentences)
    try:
        yield sentences
    finally:
        _collected.reset(token)


def of_plan(decisions: Iterable[Decision], planned: int) -> None:
    """Announce what was not as usual when a round was planned."""
    for decision in decisions:
        if isinstance(decision.trace, RoundsExcluded):
            _warn(_excluded(decision))
        elif decision.round == planned and decision.kind not in _USUAL:
            message = f"round {decision.round}: {decision.reason}"
            if isinstance(decision.trace, LaunchDecided) and decision.trace.verdict != "go back":
                log.info("%s", message, extra={"round": planned, "part": decision.kind})
                continue
            if isinstance(decision.trace, ReadingsMissing | SampleRatioMismatch | Withdrawn):
                log.warning("%s", message, extra={"round": planned, "part": decision.kind})
            _warn(message)


def of_readings(decisions: Iterable[Decision]) -> None:
    """Announce which readings just received are set aside or doubted, and which rounds excluded."""
    for decision in decisions:
        if isinstance(decision.trace, RoundsExcluded):
            _warn(_excluded(decision))
        elif decision.kind in (QUARANTINED, UNITS):
            _warn(decision.reason)


def of_nothing(message: str) -> None:
    """Announce that a call has changed nothing."""
    _warn(message)


def _excluded(decision: Decision) -> str:
    rounds = decision.trace.rounds if isinstance(decision.trace, RoundsExcluded) else ()
    message = f"round {', '.join(map(str, rounds))} is excluded: {decision.reason}"
    log.warning("%s", message, extra={"round": decision.round, "part": decision.kind})
    return f"{message}; 'hyperzero set-aside --undo' or study.reinstate lets it count again"


def _warn(message: str) -> None:
    sentences = _collected.get()
    if sentences is not None:
        sentences.append(message)
        return
    warnings.warn(message, TunerWarning, stacklevel=_CALLER + 1)
