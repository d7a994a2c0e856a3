"""What a loop remarks on: logged at once, and in the journal as soon as that can be written to."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..errors import JournalError
from ..tuner.tuner import Tuner

log = logging.getLogger(__name__)

#: Kind of what is said of the journal itself: it cannot be written there and then.
JOURNAL = "journal"
# A remark on what was remarked on within so many decisions is not written again.
_RECENT = 64
# Remarks that wait for the journal; the oldest are dropped first, the log has them.
_MOST_OWED = 200


class Remarks:
    """Remarks on the rounds of one loop.

    Args:
        tuner: whose journal they go into.
    """

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner
        self.said: list[str] = []
        self._round = 0
        self._owed: deque[tuple[str, str, Mapping[str, Any]]] = deque(maxlen=_MOST_OWED)

    def begin(self, round: int) -> None:
        """What is said from now on is about this round."""
        self._round, self.said = round, []

    def add(
        self,
        kind: str,
        reason: str,
        once: Mapping[str, int] | None = None,
        error: Exception | None = None,
    ) -> None:
        """Say it.

        Args:
            kind: one word.
            reason: a sentence.
            once: what it is about; where a recent entry of the journal is about the same, it is not
                written again.
            error: whose traceback goes into the log.
        """
        self.said.append(reason)
        log.warning("%s: %s", kind, reason, extra={"part": kind}, exc_info=error)
        recent = self.tuner.history.decisions[-_RECENT:]
        if once and any((d.kind, d.details) == (kind, once) for d in recent):
            return
        # Names of files may hold what no database takes for text.
        plain = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        self._owed.append((kind, plain, once or {"in_round": self._round}))
        if kind != JOURNAL:
            self.settle()

    def settle(self) -> None:
        """Write what is owed, the oldest first; what cannot be written stays owed."""
        while self._owed:
            try:
                self.tuner.study.note(*self._owed[0])
            except JournalError as error:
                log.warning("the journal cannot be written to: %s", error, extra={"part": JOURNAL})
                return
            self._owed.popleft()
