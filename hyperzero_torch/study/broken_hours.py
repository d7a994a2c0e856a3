"""Hours whose users do not fit their shares are excluded from the evidence.

Such an hour counts the users of some arms and not those of others, and those who are left may
differ. Its users are kept, for the comparison over all hours. Where more hours are amiss than fit,
the counts are no users, or the split is broken for good: none is excluded then, and the remarks on
the split say so. An hour that a person has let count again stays.
"""

from __future__ import annotations

from . import interventions
from .history import History
from .journal import Decision
from .split import compare, counts_of
from .study import Study


def exclude(study: Study) -> None:
    """Exclude them before a plan or a recommendation rests on them; journaled."""
    alpha = study.config.srm_alpha
    if alpha is not None and study.sync().plans:
        study.append(lambda history: (_decisions(history, alpha), None))


def _decisions(history: History, alpha: float) -> list[Decision]:
    comparison = compare(history, alpha)
    new = [hour for hour in comparison.hours if not interventions.was_reviewed(history, hour.round)]
    if not new or 2 * len(comparison.hours) > comparison.num_hours:
        return []
    counts = counts_of(history)
    decisions = []
    for hour in new:
        reason = (
            f"sample ratio mismatch: p = {hour.p_value:.2g}; candidate {hour.candidate} deviates "
            f"most, {hour.expected:,.0f} users expected, {hour.counted:,.0f} counted"
        )
        candidates, users, _ = counts[hour.round]
        counted = {c: int(n) for c, n in zip(candidates.tolist(), users.tolist())}
        decisions += interventions.set_aside(history, [hour.round], reason)
        decisions += interventions.keep_users(history, hour.round, counted)
    return decisions
