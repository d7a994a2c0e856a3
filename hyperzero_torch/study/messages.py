"""Messages of readings with an id and a sender: each is recorded once, however often it is sent.

Several messages are written together, in one transaction. A refused one does not hold up the
others. The journal has a remark beside the readings, in the same transaction, with the id of each
message, its sender and a digest. So a message that is sent again after a crash gets the answer that
it would have got before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ReadingsError
from . import launch as launches
from .history import History
from .interventions import remark
from .journal import Decision, Entry, ReadingsReceived
from .journal.base import values_of
from .journal.trace import Remark
from .judgement import judge
from .lacking import named_rounds
from .readings import Readings
from .reception import new_rows
from .recording import joined
from .study import Study
from .unplanned import Unknown, remarks_on, taken_rows

#: Kind of the remark on messages.
MESSAGES = "messages"
_FACTS = "messages"  # its key


@dataclass(frozen=True)
class Message:
    """Readings that somebody sends.

    Args:
        readings: the rows.
        by: who sends them.
        id: identifies the message among those of its sender; None where it has none.
        digest: of its content, to tell another message under the same id.
        unknown: what to do with rows of rounds that were never planned.
    """

    readings: Readings
    by: str
    id: str | None = None
    digest: str = ""
    unknown: Unknown = "refuse"


@dataclass(frozen=True)
class Receipt:
    """What became of a message.

    Args:
        rows: in the message.
        new: rows that were new.
        left_out: which rows were left out, in a sentence; empty where none.
        repeated: whether the same message was recorded before.
    """

    rows: int
    new: int
    left_out: str = ""
    repeated: bool = False


class Ledger:
    """The ids of the messages that a study has recorded."""

    def __init__(self) -> None:
        self._num_read = 0
        self._receipts: dict[tuple[str, str], tuple[str, Receipt]] = {}

    def read(self, history: History) -> None:
        """Take note of the remarks that were written since."""
        for decision in history.decisions[self._num_read :]:
            if decision.kind == MESSAGES and isinstance(decision.trace, Remark):
                for by, id_, digest, rows, new, left_out in decision.trace.facts[_FACTS]:
                    if id_ is not None:
                        self._receipts[by, id_] = digest, Receipt(rows, new, left_out)
        self._num_read = len(history.decisions)

    def earlier(self, message: Message) -> Receipt | None:
        """The receipt of the same message; None where there is none.

        Raises:
            ReadingsError: another message was recorded under its id.
        """
        if message.id is None or (message.by, message.id) not in self._receipts:
            return None
        digest, receipt = self._receipts[message.by, message.id]
        if digest != message.digest:
            raise ReadingsError(
                f"message {message.id!r} of {message.by} was recorded before with other content; "
                "send other readings under another id. None of these was recorded"
            )
        return replace(receipt, repeated=True)


def record(
    study: Study, ledger: Ledger, messages: Sequence[Message]
) -> list[Receipt | ReadingsError]:
    """Record messages, each whole or not at all; the receipt or the error of each.

    Raises:
        LaunchError: a candidate was promoted, and the study goes on as another one.
        JournalError: the journal cannot be written; then nothing was.
    """
    results: dict[int, Receipt | ReadingsError] = {}
    while len(results) < len(messages):
        waiting = {i: m for i, m in enumerate(messages) if i not in results}
        results |= study.append(lambda history, w=waiting: _entries(study, history, ledger, w))  # type: ignore[misc]
    ledger.read(study.history)
    return [results[i] for i in range(len(messages))]


def _entries(
    study: Study, history: History, ledger: Ledger, messages: dict[int, Message]
) -> tuple[list[Entry], dict[int, Receipt | ReadingsError]]:
    """What records messages up to the first that has a row or an id of an earlier one again."""
    launches.check_is_open(history)
    ledger.read(history)
    parts: list[ReadingsReceived] = []
    remarks: list[Decision] = []
    facts: list[list[Any]] = []
    results: dict[int, Receipt | ReadingsError] = {}
    latest: dict[tuple[int, int, int], int] = {}
    ids: set[Any] = set()
    for number, message in messages.items():
        try:
            receipt, part = ledger.earlier(message), None
            if receipt is None:
                taken, left_out = taken_rows(history, message.readings, message.unknown)
                part = None if taken is None else new_rows(history, taken)
                new = 0 if part is None else len(part.round)
                receipt = Receipt(len(message.readings), new, str(left_out or ""))
                if left_out is not None and not remarks:
                    remarks += remarks_on(history, left_out)
        except ReadingsError as error:
            results[number] = error
            continue
        if part is not None:
            key = (message.by, message.id)
            part = None if message.id is not None and key in ids else _later(part, latest)
            if part is None:
                break
            ids.add(key)
            receipt = replace(receipt, new=len(part.round))
            if part.round:
                parts.append(part)
                given = (message.by, message.id, message.digest)
                facts.append([*given, receipt.rows, receipt.new, receipt.left_out])
        results[number] = receipt
    if not parts:
        return [*remarks], results
    received = joined(parts)
    note = remark(history, MESSAGES, _sentence(received, facts), {_FACTS: facts})
    return [*remarks, received, *judge(history, study.problem, received), note], results


def _later(
    part: ReadingsReceived, latest: dict[tuple[int, int, int], int]
) -> ReadingsReceived | None:
    """The rows of a message that are later revisions than those of the messages before it.

    None where one is the same revision: then the values have to be compared, once the others are
    recorded. ``latest`` takes note of the rest.
    """
    keys = list(zip(part.round, part.candidate, part.metric))
    before = [latest.get(key, -1) for key in keys]
    if any(b == revision for b, revision in zip(before, part.revision)):
        return None
    latest |= {key: max(b, r) for key, b, r in zip(keys, before, part.revision)}
    kept = [i for i, (b, r) in enumerate(zip(before, part.revision)) if r > b]
    if len(kept) == len(keys):
        return part
    return ReadingsReceived(
        **{name: tuple(v[i] for i in kept) for name, v in values_of(part).items()}
    )


def senders_of(trace: object) -> list[str]:
    """Who sent the messages of a remark."""
    facts = trace.facts.get(_FACTS, ()) if isinstance(trace, Remark) else ()
    return list(dict.fromkeys(str(fact[0]) for fact in facts))


def _sentence(received: ReadingsReceived, facts: Sequence[Sequence[Any]]) -> str:
    rounds = named_rounds(dict.fromkeys(received.round, 1))
    senders = " and ".join(dict.fromkeys(str(fact[0]) for fact in facts))
    count = f"{len(facts)} message{'s' * (len(facts) > 1)}"
    rows = f"{len(received.round)} new row{'s' * (len(received.round) != 1)}"
    return f"{rows} of {rounds} in {count} of {senders}"
