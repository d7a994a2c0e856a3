"""Private releases in the journal, so that a ledger that is begun anew is noticed.

The ledger knows what was spent; the journal knows which ledger that is, and how many releases it
had.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import BudgetError
from ...study.history import History
from ...study.journal import Decision
from ...study.journal.source_trace import PrivateRelease
from ...study.study import Study
from .budget import Budget


def last(history: History, population: str) -> PrivateRelease | None:
    """The last private release about these users; None where there was none."""
    for decision in reversed(history.decisions):
        trace = decision.trace
        if isinstance(trace, PrivateRelease) and trace.population == population:
            return trace
    return None


def check(history: History, population: str, path: Path | None, budget: Budget) -> None:
    """Refuse a ledger that is not the one of the earlier releases.

    Args:
        history: of the study.
        population: the users that the ledger is about.
        path: of the ledger; None where it does not exist.
        budget: the ledger.
    Raises:
        BudgetError: it is missing, another one, or an older copy.
    """
    before = last(history, population)
    if before is None:
        return
    if path is None:
        problem = "there is no ledger here"
    elif budget.id != before.ledger:
        problem = f"this ledger is another one ({budget.id})"
    elif len(budget.releases) < before.releases:
        problem = f"this ledger has {len(budget.releases)} releases, an older copy"
    else:
        return
    raise BudgetError(
        f"the journal knows {before.releases} private releases about {population!r} in ledger "
        f"{before.ledger}, and {problem}: what was spent is spent. Restore the ledger from a "
        "backup; for other users name another --population"
    )


def record(study: Study, population: str, budget: Budget) -> None:
    """Journal that the ledger was charged."""
    trace = PrivateRelease(
        ledger=budget.id,
        population=population,
        releases=len(budget.releases),
        epsilon=budget.spent(),
    )
    reason = (
        f"Evidence about {population!r} was released with noise: {trace.releases} releases, "
        f"epsilon {trace.epsilon:.4g} of {budget.epsilon:g} spent in ledger {budget.id}"
    )
    study.append(lambda h: ([Decision.of(h.last_round or 0, reason, trace)], None))
