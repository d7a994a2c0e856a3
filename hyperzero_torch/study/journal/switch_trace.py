"""Records of the switches that people throw, with who threw them; the decision has the reason."""

from __future__ import annotations

from pydantic import Field, StrictInt

from .record import Candidates, DecisionTrace

PAUSED, RESUMED, ALL_WITHDRAWN = "paused", "resumed", "traffic withdrawn"
STOPPED_BY_HAND, PINNED, UNPINNED = "stopped by hand", "pinned", "unpinned"
APPROVAL_NEEDED, APPROVED = "approval needed", "approved"
#: Kinds of switches. Before, people could write remarks of these kinds.
SWITCHES = frozenset(
    {PAUSED, RESUMED, ALL_WITHDRAWN, STOPPED_BY_HAND, PINNED, UNPINNED, APPROVAL_NEEDED, APPROVED}
)


class Switch(DecisionTrace):
    """A switch; ``by`` is who threw it."""

    version = 3
    by: str


class Paused(Switch):
    """Candidates and shares stay as in the last plan until the study is resumed."""

    kind = PAUSED


class Resumed(Switch):
    """The study plans again as usual."""

    kind = RESUMED


class AllWithdrawn(Switch):
    """All traffic goes to the control until the study is resumed."""

    kind = ALL_WITHDRAWN


class StoppedByHand(Switch):
    """Candidates that a person stopped."""

    kind = STOPPED_BY_HAND
    candidates: Candidates


class Pinned(Switch):
    """A candidate that gets this share of the experiment in every plan."""

    kind = PINNED
    candidate: StrictInt
    share: float = Field(gt=0, lt=1)


class Unpinned(Switch):
    """A candidate whose share is planned as usual again."""

    kind = UNPINNED
    candidate: StrictInt


class ApprovalNeeded(DecisionTrace):
    """Candidates that a plan would raise over the share above which somebody has to approve.

    ``shares`` are those of the plan that was not made. None of the ``proposers`` can approve it.
    """

    kind = APPROVAL_NEEDED
    version = 3
    candidates: Candidates
    shares: tuple[float, ...]
    above: float
    proposers: tuple[str, ...]


class Approved(Switch):
    """Candidates that may have more than the share above which approval is needed."""

    kind = APPROVED
    candidates: Candidates
