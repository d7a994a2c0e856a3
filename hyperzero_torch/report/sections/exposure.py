"""The section on exposure: what users saw of violations, and what exploring has cost."""

from __future__ import annotations

import math

from ...study.exposure import exposure_facts
from ..data import exposure_rows
from ..data.facts import Facts
from ..data.tables import Cell, Table, show
from ..figures import round_plots
from ..figures.canvas import BLUE, MUTED, VERMILLION, Key
from .blocks import Block, Section, Tile, no_estimates, plot_by_round


def exposure(facts: Facts) -> Section:
    """Users times violation by round, the price of exploring, and what the limits have saved."""
    rows = exposure_rows.exposure(facts)
    if rows is None:
        return Section("exposure", "Exposure", [no_estimates(facts)])
    lead = (
        "Violation and lost objective, averaged over the users who took part, by today's "
        "estimates. The dashed line is what was expected when each round was planned, the dotted "
        "one what draws alone, without limits, would have been expected to do."
    )
    keys = (
        Key("by today's estimates", VERMILLION, "solid"),
        Key("expected then", BLUE, "dashed"),
        Key("expected without limits", MUTED, "dotted"),
    )
    drawn = round_plots.exposure_by_round(rows)
    blocks: list[Block] = [lead, _tiles(facts, rows)]
    blocks.append(plot_by_round(facts, "Violation over all who took part", drawn, rows, keys))
    return Section("exposure", "Exposure", blocks)


def _tiles(facts: Facts, rows: Table) -> list[Tile]:
    now = exposure_facts(facts.history, facts.config)
    harm, price = _sum(rows.column("harm")), _mean(rows.column("price"))
    saved = [
        number - kept
        for number, kept in zip(rows.column("without"), rows.column("expected"))
        if isinstance(number, float) and isinstance(kept, float)
    ]
    tiles = [
        Tile("Harm so far", show(harm, "number"), "points of violation times users, estimated"),
        Tile("Price of exploring", show(price, "signed"), "objective lost, mean over all rounds"),
        Tile(
            "Saved by limits",
            show(sum(saved) / len(saved) if saved else None, "percent"),
            "of violation, expected, mean over rounds with estimates",
        ),
        Tile(
            "Untested now",
            show(now.get("untested_share"), "prob"),
            "of the last plan, to candidates without own evidence on every guardrail",
        ),
    ]
    if facts.config.harm_budget is not None:
        spent = show(now.get("harm_spent_day"), "number")
        left = show(now.get("harm_left"), "number")
        tiles.append(Tile("Harm budget left", left, f"for the next round; {spent} spent in a day"))
    return tiles


def _sum(cells: list[Cell]) -> float:
    return math.fsum(cell for cell in cells if isinstance(cell, float))


def _mean(cells: list[Cell]) -> float | None:
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return math.fsum(numbers) / len(numbers) if numbers else None
