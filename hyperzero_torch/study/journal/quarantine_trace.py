"""Records about single readings that are not believed, and about stopped candidates let back in."""

from __future__ import annotations

from pydantic import StrictInt

from .record import Candidates, DecisionTrace

QUARANTINED, ACCEPTED, READMITTED = "quarantined", "readings accepted", "readmitted"
#: Kinds that version 3 brought. Before, people could write remarks of these kinds.
KINDS_OF_3 = frozenset({QUARANTINED, ACCEPTED, READMITTED})


class Quarantined(DecisionTrace):
    """Readings of one metric that are not believed until a person accepts them.

    ``code`` is the kind of the reason; ``is_unit`` where it is about the unit of the metric. The
    others have a value for each reading.
    """

    kind = QUARANTINED
    version = 3
    metric: StrictInt
    code: str
    is_unit: bool = False
    rounds: Candidates
    candidates: Candidates
    revisions: Candidates


class ReadingsAccepted(DecisionTrace):
    """Readings that were set aside and count from now on, a value for each.

    ``units`` are metrics whose unit is right for all their readings, with the code that doubted it;
    ``by``, since version 8, is who says so.
    """

    kind = ACCEPTED
    version = 8
    rounds: Candidates = ()
    candidates: Candidates = ()
    metrics: Candidates = ()
    units: tuple[tuple[StrictInt, str], ...] = ()
    by: str = ""


class Readmitted(DecisionTrace):
    """Stopped candidates that may be served again, judged by evidence of later rounds alone."""

    kind = READMITTED
    version = 3
    candidates: Candidates
    by: str = ""
