"""What `status` says of switches."""

from __future__ import annotations

from typing import Any

from ..study.history import History
from .output import show


def show_switches(history: History) -> None:
    """What holds the study up, and its pins; nothing where there is neither."""
    switches = history.status.switches
    sentence = switches.in_words()
    if sentence is not None:
        show(sentence, "bold yellow")
    for candidate, pin in switches.pins.items():
        show(f"candidate {candidate} is pinned at {pin.share:.4g} by {pin.by}", "yellow")


def switch_facts(history: History) -> dict[str, Any]:
    """The same for scripts."""
    switches = history.status.switches
    waiting = switches.waiting
    return {
        "mode": switches.mode,
        "mode_by": switches.by or None,
        "mode_reason": switches.why or None,
        "pinned": {str(c): pin.share for c, pin in switches.pins.items()},
        "waiting_for_approval": None if waiting is None else waiting.plain(),
    }
