"""What `status` says of switches."""

from __future__ import annotations

from ..study.history import History
from .output import show


def show_switches(history: History, verdict: str = "") -> None:
    """What holds the study up, unless the verdict says so, and its pins."""
    switches = history.status.switches
    sentence = switches.in_words()
    if sentence is not None and sentence not in verdict:
        show(sentence, "bold yellow")
    for candidate, pin in switches.pins.items():
        show(f"candidate {candidate} is pinned at {pin.share:.4g} by {pin.by}", "yellow")
