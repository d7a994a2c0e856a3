"""What is stored of a study: saved as a whole, and verified by its hash chain on request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import JournalError
from . import saved
from .history import History
from .journal import Decision, Entry, Journal
from .journal.chain import Beginning
from .journal.epoch_trace import ChainBegun
from .journal.verified import ChainedJournal, Head, Verification

_LOG = logging.getLogger(__name__)


class _Stored(Protocol):
    name: str
    journal: Journal


class Integrity:
    """What concerns all that is stored, as methods of ``Study``."""

    def save(self: _Stored) -> dict[str, Any]:
        """The whole study as plain tensors, numbers and strings."""
        return saved.pack(self.journal.header(self.name), self.journal.read(self.name))

    def verify(self: _Stored, head: str | Head | None = None) -> Verification:
        """Compare all that the journal holds of the study with its hash chain.

        It reads the whole study, so resuming one does not do it. Entries that are missing at the
        end are noticed only with a head that was noted elsewhere.

        Args:
            head: ``str(study.verify().head)`` of an earlier time, or as ``hyperzero verify`` prints
                it.
        Returns:
            What is wrong, if anything is, and the present head; ``check()`` raises where it is.
        Raises:
            InputError: ``head`` is none.
            JournalError: the journal keeps no chain, or it is signed, and there is no key here.
        """
        if not isinstance(self.journal, ChainedJournal):
            raise JournalError(
                f"{type(self.journal).__name__} keeps no hash chain: it has no method 'verify'; "
                "use a SQL journal, or see hyperzero_torch.study.journal.verified"
            )
        return self.journal.verify(self.name, Head.of(head) if isinstance(head, str) else head)


def begun_late(journal: Journal, study: str) -> Beginning | None:
    """Where the chain of a study begins, if that is not its first entry."""
    begins = journal.chain_begins(study) if isinstance(journal, ChainedJournal) else None
    return begins if begins is not None and begins.entries_before else None


def remarks(history: History, begins: Beginning | None) -> Sequence[Entry]:
    """The remark that a chain begins late; none where it does not, or was journaled before."""
    if begins is None or any(isinstance(d.trace, ChainBegun) for d in history.decisions):
        return []
    trace = ChainBegun(entries=begins.entries_before, at=begins.at)
    reason = (
        f"The hash chain of the journal begins after entry {begins.entries_before} ({begins.at}): "
        "it covers the entries before as they were then"
    )
    _LOG.warning("%s", reason)
    return [Decision.of(history.last_round or 0, reason, trace)]
