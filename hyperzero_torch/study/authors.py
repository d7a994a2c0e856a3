"""Who made a decision or sent what a remark is about."""

from __future__ import annotations

from .journal import Decision
from .messages import MESSAGES, senders_of


def author_of(decision: Decision) -> str | None:
    """The person or program that the journal names; None where it names nobody."""
    trace = decision.trace
    if decision.kind == MESSAGES:
        return ", ".join(senders_of(trace)) or None
    return getattr(trace, "by", None) or getattr(trace, "who", None) or None
