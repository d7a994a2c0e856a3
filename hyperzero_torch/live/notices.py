"""What a loop says of rows, users and files that were left out, and of what has no reading.

The log has every change. The journal gets a remark when something is left out for the first time,
when the number has doubled, and once a week while it lasts, so that a lasting fault does not fill
it. `status` and the report show the journal's remarks.
"""

from __future__ import annotations

import logging
import re

from ..study import lacking
from ..study.journal import Decision
from ..study.journal.quarantine_trace import QUARANTINED
from ..study.journal.trace import Remark
from ..study.quarantine import UNITS
from ..study.unplanned import REFUSED
from .aggregate.source import Collected
from .remarks import Remarks

log = logging.getLogger(__name__)

#: Kind of these remarks.
EVENTS = "events"
_REPEAT_ROUNDS = 168
# Where a source does not say which rounds are complete, one so old is taken to be.
_USUAL_AGE = 2
_LIST = re.compile(r"\[[^\]]*\]")


class Notices:
    """The remarks on collected readings of one loop.

    Args:
        remarks: of the loop.
    """

    def __init__(self, remarks: Remarks) -> None:
        self._remarks = remarks
        self._numbers: dict[str, int] = {}
        self._omitted: set[tuple[int, str]] = set()

    def add(self, round: int, collected: Collected) -> None:
        """Report what an answer of the source leaves out.

        Args:
            round: the round that begins.
            collected: the answer.
        """
        for reason, number in sorted(collected.faults.items()):
            if self._numbers.get(reason) != number:
                self._numbers[reason] = number
                self._report(round, reason, number, f"left out: {number:,} {reason}")
        for of_round, reasons in sorted(collected.omitted.items()):
            final = collected.final_rounds
            is_final = round - of_round >= _USUAL_AGE if final is None else of_round in final
            for reason in reasons if is_final else ():
                key = _LIST.sub("[]", reason)  # the arms that it names differ from hour to hour
                if (of_round, key) not in self._omitted:
                    self._omitted.add((of_round, key))
                    text = f"no reading in round {of_round}: {reason}"
                    self._report(round, key, 1, text, logging.INFO)

    def of_rows(self, round: int) -> None:
        """Report hours without any row, once for each stretch of them."""
        history = self._remarks.tuner.history
        lost = lacking.without_rows(history, round)
        if lost and lacking.is_news(history, lacking.NO_ROWS, lost):
            reason = lacking.rows_sentence(lost)
            self._remarks.add(lacking.NO_ROWS, reason, once={"rounds": lost})

    def repeat(self, decisions: list[Decision]) -> None:
        """Log remarks that the study has just written to its journal by itself."""
        for decision in decisions:
            if decision.kind in (REFUSED, lacking.NO_CONTROL, QUARANTINED, UNITS):
                self._remarks.show(decision.kind, decision.reason)

    def _report(
        self, round: int, key: str, number: int, text: str, level: int = logging.WARNING
    ) -> None:
        """Write a remark where it is due; otherwise log it, at ``level``."""
        last = self._last(key)
        if last is None or number >= 2 * last[0] or round - last[1] >= _REPEAT_ROUNDS:
            facts = {"notice": key, "number": number, "in_round": round}
            self._remarks.add(EVENTS, text, once=facts)
        else:
            log.log(level, "%s: %s", EVENTS, text, extra={"part": EVENTS})

    def _last(self, key: str) -> tuple[int, int] | None:
        """The number and the round of the journal's last remark on this; None without one."""
        for decision in reversed(self._remarks.tuner.history.decisions):
            if decision.kind == EVENTS and isinstance(decision.trace, Remark):
                facts = decision.trace.facts
                if facts.get("notice") == key:
                    return int(facts.get("number", 0)), int(facts.get("in_round", 0))
        return None
