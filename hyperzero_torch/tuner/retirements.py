"""Who competes no longer, and who comes back."""

from __future__ import annotations

from ..study.config import TunerConfig
from ..study.decisions import RETIRED
from ..study.evidence.active_set import competing, most_competing
from ..study.history import History
from ..study.journal import Decision, Entry, Planned
from ..thompson.propose import Proposals


def retirements(history: History, plan: Planned, config: TunerConfig) -> list[Entry]:
    """Candidates that from now on compete no longer, for the journal."""
    last = config.retire_after
    crowded_out = plan.details.get("crowded_out")
    if last is None or crowded_out is None:
        return []
    winners = {*plan.candidates, *crowded_out}
    retired = history.status.retired
    able = [
        c
        for c in range(1, history.num_candidates)
        if history.times_served[c] and c not in winners and c not in retired
    ]
    gone = [c for c in able if history.idle[c] + 1 >= last]
    found: list[Entry] = []
    if gone:
        reason = (
            f"no draw won in {last} rounds: they compete no longer, unless they are served again; "
            "their evidence stays in the fit"
        )
        found.append(Decision(plan.round, RETIRED, reason, {"candidates": gone}))
    most = most_competing(config)
    left = [c for c in competing(history, config) if c not in gone]
    if most is not None and len(left) > most:
        # Of the others those that won last stay; who came first, where they are alike, has
        # more evidence.
        idle = sorted(set(able) & set(left), key=lambda c: (-history.idle[c], -c))
        crowd = sorted(idle[: len(left) - most])
        if crowd:
            reason = (
                f"{len(left)} candidates compete, more than {most}: those that won a draw longest "
                "ago compete no longer, unless they are served again"
            )
            found.append(Decision(plan.round, RETIRED, reason, {"candidates": crowd}))
    return found


def revived(history: History, proposals: Proposals | None) -> list[int]:
    """Retired candidates that a draw proposes anew: they are served, and compete again."""
    able = history.status.retired - history.status.stopped
    if proposals is None or not able:
        return []
    found = {history.find(row) for row in proposals.theta.tolist()}
    return sorted(c for c in found if c in able)
