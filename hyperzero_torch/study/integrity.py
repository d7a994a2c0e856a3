"""What is stored of a study: saved as a whole, and verified by its hash chain on request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from ..errors import ConfigError, JournalError
from ..runtime.login import login_name
from . import saved
from .history import History
from .journal import Decision, Entry, Journal, Planned
from .journal.chain import Beginning
from .journal.epoch_trace import ChainBegun, ChainSigned
from .journal.keys import KEY_FILE_VARIABLE, KEY_VARIABLE, KeyRing, key_id
from .journal.verified import UNSIGNED, ChainedJournal, Head, Verification

_LOG = logging.getLogger(__name__)


class _Stored(Protocol):
    name: str
    journal: Journal


@runtime_checkable
class _Signed(Journal, Protocol):
    """A journal with keys: ``SqlJournal`` has the methods."""

    @property
    def keys(self) -> KeyRing: ...

    def sign(self, study: str, new: Entry, after: int) -> int: ...


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

    def sign(self: _Stored, head: str | Head | None = None) -> bool:
        """Sign the chain from here on, where a key is new; journaled with the name of the login.

        Without this, a process with a key refuses to append to a chain that is not signed: somebody
        without the key may have computed it anew.

        Args:
            head: as for ``verify``.
        Returns:
            Whether it was not signed before.
        Raises:
            ConfigError: there is no key.
            JournalCorruptError: the study is not what was written; nothing was written.
            JournalError: the journal is no SQL journal, or is signed with another key.
        """
        return sign(self.journal, self.name, Head.of(head) if isinstance(head, str) else head)


def sign(journal: Journal, study: str, against: Head | None = None) -> bool:
    """Sign the chain of a study from here on; see ``Integrity.sign``."""
    if not isinstance(journal, _Signed) or not isinstance(journal, ChainedJournal):
        raise JournalError(f"{type(journal).__name__} signs nothing; use a SQL journal")
    if not journal.keys.keys:
        raise ConfigError(
            f"there is no key to sign with: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
        )
    entries = journal.read(study)  # what changes between this and the signature is noticed
    result = journal.verify(study, against)
    replace(result, faults=tuple(f for f in result.faults if f.what != UNSIGNED)).check()
    if result.key is not None:
        return False
    round_ = max((entry.round for entry in entries if isinstance(entry, Planned)), default=0)
    key, by = key_id(journal.keys.keys[0]), login_name()
    trace = ChainSigned(entries=len(entries), key=key, by=by)
    reason = (
        f"{by} signs the hash chain of the journal with key {key} from here on; the "
        f"{len(entries)} entries before are not signed"
    )
    journal.sign(study, Decision.of(round_, reason, trace), after=len(entries))
    return True


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
