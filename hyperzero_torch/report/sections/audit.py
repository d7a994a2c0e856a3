"""The sections on late and excluded readings, retired and stopped candidates, drift and notes."""

from __future__ import annotations

from ..data import decisions, late_readings
from ..data.decisions import omitted
from ..data.facts import Facts
from ..data.tables import in_words
from ..figures import round_plots
from ..figures.canvas import SKY, VERMILLION, Key
from .blocks import Block, Plot, Section, latest_first, plot_by_round


def late(facts: Facts) -> Section:
    """Readings that are missing, late, revised or excluded."""
    rows = late_readings.arms(facts.history)
    keys = (Key("arrived", SKY, "square"), Key("waiting", VERMILLION, "striped"))
    lead = f"{facts.history.num_in_flight} arms were served and have not reported any metric yet."
    lead += in_words(sorted(facts.history.tables), "sums, labelled by their first round")
    drawn = round_plots.arms_by_round(rows)
    blocks: list[Block] = [lead, plot_by_round(facts, "Arms by round", drawn, rows, keys)]
    if facts.delays.first:
        rows = late_readings.arrivals(facts.delays)
        keys = (Key("first report", SKY, "square"), Key("revision", VERMILLION, "striped"))
        blocks.append(
            "Delays of readings, in rounds planned since they were served, over the last "
            f"{late_readings.MOST_ENTRIES} entries of the journal."
        )
        blocks.append(Plot("Readings by delay", round_plots.arrivals(rows), rows, keys))
    excluded = decisions.excluded_rounds(facts)
    if excluded.rows:
        num = len(facts.history.status.excluded_rounds)
        blocks.append(f"{num} rounds are excluded today.{omitted(excluded)}")
        blocks.append(latest_first("Excluded and reinstated rounds", excluded))
    else:
        blocks.append("No round is excluded: every reading counts.")
    return Section("late", "Late and excluded readings", blocks)


def retired(facts: Facts) -> Section:
    """Candidates out of use, with the reasons."""
    title = "Retired and stopped candidates"
    rows, status = decisions.retired_and_stopped(facts), facts.history.status
    if not rows.rows:
        return Section("ended", title, ["No candidate is retired or stopped."])
    lead = (
        f"{len(status.stopped)} candidates are stopped or withdrawn and are never served again. "
        f"{len(status.retired - status.stopped)} are retired, and can return when a draw proposes "
        f"them again.{omitted(rows)}"
    )
    return Section("ended", title, [lead, latest_first("Candidates out of use", rows)])


def drift(facts: Facts) -> Section:
    """Drift, rollbacks, and all other entries of the audit trail."""
    blocks: list[Block] = []
    rows = decisions.drift_and_rollbacks(facts)
    if rows.rows:
        blocks.append(f"These events are also marked in the plots by round.{omitted(rows)}")
        blocks.append(latest_first("Drift and rollbacks", rows))
    elif facts.config.drift_alpha is None:
        blocks.append("Drift detection is off (drift_alpha is None); there was no rollback.")
    else:
        blocks.append("No drift was detected, and there was no rollback.")
    rows = decisions.switches(facts)
    if rows.rows:
        blocks.append(f"Switches that people threw.{omitted(rows)}")
        blocks.append(latest_first("Switches", rows))
    rows = decisions.notes(facts)
    if rows.rows:
        blocks.append(f"Other entries of the audit trail.{omitted(rows)}")
        blocks.append(latest_first("Notes", rows))
    return Section("turns", "Drift, rollbacks and notes", blocks)
