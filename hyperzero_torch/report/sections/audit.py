"""The sections on what was late or suspect, who was retired or stopped, and what turned."""

from __future__ import annotations

from ..data import decisions, round_rows
from ..data.decisions import cut, head
from ..data.facts import Facts
from ..data.lateness import MOST_ENTRIES
from ..figures import marks, round_plots
from ..figures.canvas import SKY, VERMILLION, Key
from .blocks import Block, Plot, Section, Sheet


def late(facts: Facts) -> Section:
    """What has not arrived, what came again, what does not count."""
    rows = round_rows.late(facts)
    keys = (Key("arrived", SKY, "square"), Key("waiting", VERMILLION, "striped"))
    lead = f"{facts.history.num_in_flight} arms were served and have not reported any metric yet."
    lead += round_rows.in_words(sorted(facts.history.tables), "sums, named by their first round")
    drawn = marks.put(facts, round_plots.waiting_by_round(rows), rows.column("round"))
    blocks: list[Block] = [lead, Plot("Arms by round", drawn, rows, (*keys, *marks.keys(facts)))]
    came = round_rows.arrivals(facts.lateness)
    if facts.lateness.first:
        keys = (Key("first", SKY, "square"), Key("revisions", VERMILLION, "striped"))
        drawn = round_plots.arrivals(came)
        blocks.append(
            "How late readings came, by the order of the last "
            f"{MOST_ENTRIES} entries of the journal: rounds planned since they were served."
        )
        blocks.append(Plot("Readings by rounds late", drawn, came, keys))
    aside = facts.history.status.excluded_rounds
    suspects = decisions.suspects(facts)
    if suspects.rows:
        blocks.append(f"{len(aside)} rounds do not count today.{cut(suspects)}")
        blocks.append(Sheet("Suspect rounds", head(suspects), is_wide=True))
    else:
        blocks.append("No round is suspect: every reading counts.")
    return Section("late", "Late and suspect readings", blocks)


def ended(facts: Facts) -> Section:
    """Who competes no longer, and why."""
    rows = decisions.ended(facts)
    standing = facts.history.status
    if not rows.rows:
        return Section("ended", "Retired and stopped", ["All candidates compete."])
    retired = len(standing.retired - standing.stopped)
    lead = (
        f"{len(standing.stopped)} candidates are stopped or withdrawn and never served again; "
        f"{retired} are retired, and come back where a draw proposes them anew.{cut(rows)}"
    )
    sheet = Sheet("Candidates that compete no longer", head(rows), is_wide=True)
    return Section("ended", "Retired and stopped", [lead, sheet])


def turns(facts: Facts) -> Section:
    """Drift, roll-backs, and all other remarks of the audit trail."""
    blocks: list[Block] = []
    rows = decisions.turns(facts)
    if rows.rows:
        blocks.append(f"Marked in the plots by round as well.{cut(rows)}")
        blocks.append(Sheet("Drift and roll-backs", head(rows), is_wide=True))
    elif facts.config.drift_alpha is None:
        blocks.append("Nobody watches for drift (drift_alpha is None); nothing was rolled back.")
    else:
        blocks.append("No drift was noticed, nothing was rolled back.")
    rows = decisions.remarks(facts)
    if rows.rows:
        blocks.append(f"Whatever else was out of the ordinary.{cut(rows)}")
        blocks.append(Sheet("Remarks", head(rows), is_wide=True))
    return Section("turns", "Drift, roll-backs, remarks", blocks)
