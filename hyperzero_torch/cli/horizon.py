"""What `status` says of the horizon: when it is, and what can be resolved until then."""

from __future__ import annotations

from ..tuner.status import Standing
from .output import show


def show_horizon(standing: Standing) -> None:
    """The horizon and a line for each share; nothing where its card is shown, or there is none."""
    if not any(card.name == "Horizon" and card.state == "PASS" for card in standing.health):
        return
    when, *resolved = standing.resolution.in_words()
    show(when)
    for line in resolved:
        show(f"  {line}")
