"""Records about readings that are missing, and users that do not fit the planned shares."""

from __future__ import annotations

from pydantic import FiniteFloat, StrictInt

from .record import Candidates, DecisionTrace

#: Remarks on readings that are missing, users that do not fit the planned shares, and the users of
#: a round without readings; and arms that are not served again because they lose users.
MISSING, SAMPLE_RATIO, USERS = "missing", "sample ratio", "users counted"
WITHDRAWN = "withdrawn"


class Withdrawn(DecisionTrace):
    """Arms that lose users, hour after hour, and are not served again.

    ``log_e_value`` in nats, and the ``needed`` one; users that the shares of ``num_rounds`` rounds
    predict, and those that were counted.
    """

    kind = WITHDRAWN
    version = 3
    candidates: Candidates
    log_e_value: float
    needed: float
    expected: float
    counted: float
    num_rounds: StrictInt


class ReadingsMissing(DecisionTrace):
    """Readings that are missing longer than usual: of a metric, or of all where it is None.

    ``candidates`` are the arms that do not report while others do; empty where none does.
    """

    kind = MISSING
    metric: StrictInt | None
    candidates: Candidates = ()
    since: StrictInt
    last: StrictInt
    never: bool = False


class SampleRatioMismatch(DecisionTrace):
    """Users that do not fit the planned shares: of one round, or over all where it is None."""

    kind = SAMPLE_RATIO
    in_round: StrictInt | None
    p_value: float | None = None
    log_e_value: float | None = None
    candidates: Candidates = ()


class UsersCounted(DecisionTrace):
    """The users of a round whose readings were left out because of its split."""

    kind = USERS
    round: StrictInt
    candidates: Candidates
    users: tuple[FiniteFloat, ...]
