"""The records of a journal about itself: its epoch, and where its hash chain begins.

An epoch tells this journal of a study from every other one of its name.
"""

from __future__ import annotations

from pydantic import Field, StrictInt

from .record import DecisionTrace

EPOCH, CHAIN, CHAIN_SIGNED = "epoch", "chain", "chain signed"


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


class ChainBegun(DecisionTrace):
    """The journal was brought to the format with a hash chain when it had ``entries`` entries.

    The chain covers them as they were at that time.
    """

    kind = CHAIN
    entries: StrictInt = Field(ge=0)
    at: str = ""


class ChainSigned(DecisionTrace):
    """From this entry on the chain is signed; ``entries`` were there without a signature.

    A person has asked for it, who is ``by``; ``key`` is the id of the key.
    """

    kind = CHAIN_SIGNED
    entries: StrictInt = Field(ge=0)
    key: str
    by: str = ""
