"""The record of an epoch: what tells this journal of a study from every other one of its name."""

from __future__ import annotations

from pydantic import Field

from .record import DecisionTrace

EPOCH = "epoch"


class EpochBegun(DecisionTrace):
    """From here on what the study serves carries this ``epoch``, a random id.

    It is given when the study serves flags for the first time, and anew when a person takes flags
    over, who is ``by``. Journals of before have none until then. ``follows`` are the studies, with
    their epochs, that this study succeeds by promotions.
    """

    kind = EPOCH
    epoch: str = Field(min_length=1)
    follows: tuple[tuple[str, str], ...] = ()
    by: str = ""
