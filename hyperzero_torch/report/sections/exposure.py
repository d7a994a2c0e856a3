"""The section on exposure: what users saw of violations, and what exploring has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...study.config.exposure import base_violation
from ...study.exposure import exposure_facts
from ..data import exposure_rows
from ..data.facts import Facts
from ..data.tables import show
from ..figures import round_plots
from ..figures.canvas import BLUE, MUTED, VERMILLION, Key
from .blocks import Block, Section, Tile, no_estimates, plot_by_round


def exposure(facts: Facts) -> Section:
    """Users times violation by round, the price of exploring, and what the limits have saved."""
    each = exposure_rows.by_round(facts)
    if not each:
        return Section("exposure", "Exposure", [no_estimates(facts)])
    rows = exposure_rows.exposure(each)
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
    blocks: list[Block] = [lead, _tiles(facts, each)]
    blocks.append(plot_by_round(facts, "Violation over all who took part", drawn, rows, keys))
    return Section("exposure", "Exposure", blocks)


def _tiles(facts: Facts, rounds: Sequence[exposure_rows.Round]) -> list[Tile]:
    now = exposure_facts(facts.history, facts.config)
    total = exposure_rows.totals(rounds)
    saved = [r.without - r.expected for r in rounds]
    saved = [points for points in saved if math.isfinite(points)]
    part = total.exposed / total.users if total.users else math.nan
    base = ", the base among them" if base_violation(facts.problem) > 0 else ""
    tiles = [
        Tile(
            "Users exposed",
            f"{total.exposed:,.0f}",
            f"to settings that break a guardrail{base}, estimated: {show(part, 'percent')} of "
            f"{total.users:,.0f} users of all rounds with readings",
        ),
        _price(total.price),
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
        harm = show(total.harm, "number")
        tiles.append(Tile("Harm so far", harm, "points of violation times users, estimated"))
    return tiles


def _price(price: float) -> Tile:
    """What exploring has cost, or what it has gained."""
    over = "mean over the users of all rounds, against serving the base to everybody"
    if price < 0:
        return Tile("Gained while exploring", show(-price, "percent"), f"of the objective, {over}")
    return Tile("Price of exploring", show(price, "percent"), f"of the objective lost, {over}")
